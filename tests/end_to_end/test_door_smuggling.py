"""SMTP smuggling: whatever stands where an end might be seen, one content is one message or none."""

import asyncio
import socket
from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.running_server import RunningServer
from mta.testing.server_dialogue import FAKE_ENDS
from mta.testing.toy_dns import ToyDns

ZONE = {"*.test": {"MX": ["10 mx.swift.test."]}, "mx.swift.test": {"A": ["127.0.0.2"]}}
SMUGGLED = b"MAIL FROM:<evil@shop.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"


def attack(port: int, content: bytes, pieces: list[int]) -> tuple[bytes, bytes]:
    """Hands in `content` cut at `pieces`; -> the reply to it, and what was said to NOOP behind it."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = client.makefile("rb")
        stream.readline()
        client.sendall(b"HELO c.test\r\n")
        stream.readline()
        client.sendall(b"MAIL FROM:<a@shop.test>\r\nRCPT TO:<b@d.test>\r\nDATA\r\n")
        assert [stream.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        at = 0
        for end in [*pieces, len(content)]:
            client.sendall(content[at:end])
            at = end
        answer = stream.readline()
        client.sendall(b"NOOP\r\n")
        return answer, stream.readline()


async def test_no_end_but_the_true_one_ends_a_message(tmp_path: Path) -> None:
    """Every form, at the beginning and inside, whole and cut within the end: refused, in step, nothing leaves."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        for fake in FAKE_ENDS:
            for before in (b"", b"Subject: x\r\n\r\ntext"):
                content = before + fake + SMUGGLED
                for cut in ([], [len(before) + 1], [len(before) + len(fake) - 1], [len(before) + len(fake)]):
                    answer, after = await asyncio.to_thread(attack, server.smtp_port, content, cut)
                    assert answer.startswith(b"550 5.6.0 "), (fake, before, cut, answer)
                    assert after.startswith(b"250 2.0.0 "), (fake, before, cut, after)
        honest = await asyncio.to_thread(attack, server.smtp_port, b"Subject: x\r\n\r\n..\r\n" + b"text\r\n.\r\n", [])
        await sink.until(lambda: sink.messages == 1)
        status = await server.stop()

    assert honest[0].startswith(b"250 2.0.0 ")
    assert status == 0
    assert [each.recipients for each in sink.profiles["swift"].deliveries] == [("b@d.test",)]
    refusals = [each for each in server.events() if each["event"] == "rejected"]
    assert len(refusals) == len(FAKE_ENDS) * 8
    assert sum(each["event"] == "received" for each in server.events()) == 1
