"""`mta send` hands a message to the running server that a configuration describes."""

import asyncio
import sys
from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {"swift.test": {"MX": ["10 mx.swift.test."]}, "mx.swift.test": {"A": ["127.0.0.2"]}}


async def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Runs the command; -> status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mta.cli",
        "send",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_text_and_a_message_are_sent(tmp_path: Path) -> None:
    """The reply with the id is printed; a text gets a header, a message goes as it is."""
    message = b"From: a@shop.test\r\nSubject: whole\r\nX-MTA-Priority: 9\r\n\r\n.dot\r\n"
    (tmp_path / "message.eml").write_bytes(message)
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        config = ("--config", str(server.config))
        text = await run(
            *config, "--from", "a@shop.test", "--to", "text@swift.test", "--subject", "かな", stdin="本文\n".encode()
        )
        whole = await run(
            *config, "--from", "", "--to", "one@swift.test", "--to", "two@swift.test", str(tmp_path / "message.eml")
        )
        bad = await run(*config, "--from", "a@shop.test", "--to", "a..b@swift.test", stdin=b"x\n")
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 3)
    nobody = await run(*config, "--from", "a@shop.test", "--to", "b@swift.test", stdin=b"x\n")

    assert (text[0], whole[0], bad[0], nobody[0]) == (0, 0, 1, 69)
    ids = {each["id"] for each in events if each["event"] == "received"}
    assert {out.split()[-1] for _, out, _ in (text, whole)} == ids
    assert "a..b@swift.test" in bad[2]
    deliveries = sink.profiles["swift"].deliveries
    by_recipient = {recipient: each.content for each in deliveries for recipient in each.recipients}
    assert by_recipient["one@swift.test"].endswith(message.replace(b"X-MTA-Priority: 9\r\n", b""))
    assert b"Subject: =?utf-8?" in by_recipient["text@swift.test"]
    assert sorted(by_recipient) == ["one@swift.test", "text@swift.test", "two@swift.test"]
