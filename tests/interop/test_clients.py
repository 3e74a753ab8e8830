"""Other people's clients get their mail through, each in its own manner of speaking SMTP."""

import asyncio
import email
import email.message
import email.policy
import smtplib
from pathlib import Path
from typing import Protocol

from bench.sink import Profile, Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {"*.test": {"MX": ["10 mx.swift.test."]}, "mx.swift.test": {"A": ["127.0.0.2"]}}


class Done(Protocol):
    returncode: int
    stdout: str
    stderr: str


class Tool(Protocol):
    """A program of another project; the fixtures make it."""

    def run(self, *arguments: str, timeout_s: float = ...) -> Done: ...


def body(arrived: bytes) -> bytes:
    """What stands behind the header."""
    return arrived.partition(b"\r\n\r\n")[2]


async def test_postfix_smtp_source(tmp_path: Path, smtp_source: Tool) -> None:
    """Many sessions at once, kept open and opened anew, several recipients a message: all of it arrives once."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        to = f"127.0.0.1:{server.smtp_port}"
        common = ("-f", "a@shop.test", "-l", "4096")
        kept = await asyncio.to_thread(smtp_source.run, "-d", "-s", "8", "-m", "200", *common, "-t", "kept@d.test", to)
        anew = await asyncio.to_thread(smtp_source.run, "-s", "4", "-m", "40", *common, "-t", "anew@d.test", to)
        many = await asyncio.to_thread(smtp_source.run, "-m", "5", "-r", "20", *common, "-t", "many@d.test", to)
        assert [(each.returncode, each.stderr) for each in (kept, anew, many)] == [(0, "")] * 3
        provider = sink.profiles["swift"]
        await sink.until(lambda: sum(provider.by_recipient().values()) == 200 + 40 + 5 * 20)

    counts = provider.by_recipient()
    assert counts["kept@d.test"] == 200
    assert counts["anew@d.test"] == 40
    assert sum(count for name, count in counts.items() if name.endswith("many@d.test")) == 100
    assert all(4000 < each.size < 5000 for each in provider.deliveries)


async def test_swaks(tmp_path: Path, swaks: Tool) -> None:
    """With EHLO and with HELO, with and without pipelining, with 8-bit text and dots at the beginning of lines."""
    text = ".dot\\n..\\nかな\\n"
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        where = ("--server", "127.0.0.1", "--port", str(server.smtp_port), "--from", "a@shop.test", "--ehlo", "c.test")
        manners = {
            "esmtp": ("--protocol", "ESMTP"),
            "smtp": ("--protocol", "SMTP"),
            "pipeline": ("--pipeline",),
        }
        for name, manner in manners.items():
            done = await asyncio.to_thread(swaks.run, *where, *manner, "--to", f"{name}@d.test", "--body", text)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "queued as " in done.stdout
        bad = await asyncio.to_thread(swaks.run, *where, "--to", "a..b@d.test")
        await sink.until(lambda: sink.messages == len(manners))

    assert bad.returncode == 24  # no recipient was accepted
    arrived = {each.recipients[0]: each.content for each in sink.profiles["swift"].deliveries}
    assert sorted(arrived) == sorted(f"{name}@d.test" for name in manners)
    for content in arrived.values():
        assert body(content).startswith(".dot\r\n..\r\nかな\r\n".encode())
    assert b" with SMTP id " in arrived["smtp@d.test"]
    assert b" with ESMTP id " in arrived["esmtp@d.test"]


async def test_smtplib(tmp_path: Path) -> None:
    """Python's own client: a message with an attachment, one with international addresses, many in one session."""
    message = email.message.EmailMessage(email.policy.SMTP)
    message["From"], message["To"], message["Subject"] = "a@shop.test", "b@d.test", "日本語の件名"
    message.set_content(".\n本文\n")
    message.add_attachment(bytes(range(256)) * 400, maintype="application", subtype="octet-stream", filename="x.bin")
    message.set_boundary("the-same-each-time")
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):

        def hand_in() -> None:
            with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="c.test", timeout=60) as client:
                for number in range(20):
                    client.send_message(message, to_addrs=[f"b{number}@d.test"])
                client.sendmail("あ@shop.test", ["い@d.test"], "Subject: 件名\r\n\r\nかな\r\n".encode(), ["SMTPUTF8"])
                assert client.verify("b@d.test")[0] == 252
                assert client.noop()[0] == 250

        await asyncio.to_thread(hand_in)
        await sink.until(lambda: sink.messages == 21)

    arrived = {each.recipients[0]: each.content for each in sink.profiles["swift"].deliveries}
    sent = message.as_bytes(policy=email.policy.SMTP)
    for number in range(20):
        assert body(arrived[f"b{number}@d.test"]) == body(sent)
    assert "Subject: 件名\r\n\r\nかな\r\n".encode() in arrived["い@d.test"]
    assert b" with UTF8SMTP id " in arrived["い@d.test"]
