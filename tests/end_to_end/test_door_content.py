"""Content goes through byte for byte behind the lines that the server puts on top."""

import asyncio
import random
import smtplib
import socket
from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {
    "swift.test": {"MX": ["10 mx.swift.test."]},
    "mx.swift.test": {"A": ["127.0.0.2"]},
    "other.test": {"MX": ["10 mx.other.test."]},
    "mx.other.test": {"A": ["127.0.0.3"]},
}
HEADER = b"From: a@shop.test\r\nTo: b@swift.test\r\nSubject: =?utf-8?B?44GC?=\r\n"
CONTENTS = {
    "plain": HEADER + b"\r\nHello\r\n",
    "dots": HEADER + b"\r\n.\r\n..\r\n...\r\n.dot\r\n\r\n.\r\n\r\n..\r\nend.\r\n",
    "first_line_a_dot": b".\r\n\r\ntext\r\n",
    "last_line_a_dot": HEADER + b"\r\ntext\r\n.\r\n",
    "eight_bit": HEADER + b"\r\n" + bytes(byte for byte in range(1, 256) if byte not in b"\r\n") * 3 + b"\r\n",
    "utf8": HEADER + "\r\n日本語、かな。\r\n".encode(),
    "iso_2022_jp": HEADER + b"\r\n" + "日本語".encode("iso2022_jp") + b"\r\n",
    "long_lines": HEADER + b"\r\n" + (b"y" * 998 + b"\r\n") * 20,
    "no_body": HEADER,
    "empty_body": HEADER + b"\r\n",
    "blank_lines_at_the_end": HEADER + b"\r\ntext\r\n\r\n\r\n\r\n",
    "folded_header": HEADER + b"X-Folded: a\r\n\tb\r\n c\r\n\r\ntext\r\n",
    "odd_header": HEADER + b"x-ODD : spaces \r\nX-Empty:\r\nX-Dot:\r\n .\r\n\r\ntext\r\n",
    "from_line": HEADER + b"\r\nFrom here on\r\n>From there on\r\n",
}
BIG_BYTES = (300_000, 5_000_000)


def big(size: int) -> bytes:
    """A body with dots in all the wrong places, the same in every run."""
    chance = random.Random(size)
    lines = [b"." * chance.choice((0, 0, 1, 2)) + chance.randbytes(30).hex().encode() for _ in range(size // 62)]
    return HEADER + b"\r\n" + b"\r\n".join(lines) + b"\r\n"


def behind_ours(arrived: bytes) -> bytes:
    """What stands behind the lines that the server added."""
    lines = arrived.split(b"\r\n")
    assert lines[0].startswith(b"Received: from ")
    at = 1
    while lines[at][:1] == b"\t" or lines[at].startswith((b"Message-ID: ", b"Date: ")):
        at += 1
    return b"\r\n".join(lines[at:])


async def test_every_byte_arrives(tmp_path: Path) -> None:
    """Dots, 8-bit text, long lines, odd headers, no body, five megabytes."""
    contents = CONTENTS | {f"big_{size}": big(size) for size in BIG_BYTES}
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        for name, content in contents.items():
            await server.send("a@shop.test", [f"{name}@swift.test"], content)
        await sink.until(lambda: sink.messages == len(contents))

    arrived = {delivery.recipients[0]: delivery.content for delivery in sink.profiles["swift"].deliveries}
    for name, content in contents.items():
        # A content whose first line is no header field is all body: an empty header block comes before it.
        expected = content if name != "first_line_a_dot" else b"\r\n" + content
        assert behind_ours(arrived[f"{name}@swift.test"]) == expected, name


async def test_no_content_at_all_arrives(tmp_path: Path) -> None:
    """A lone dot behind 354, and content that ends with the very dot's line in several packets."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):

        def hand_in() -> list[bytes]:
            with socket.create_connection(("127.0.0.1", server.smtp_port), 30) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream = client.makefile("rb")
                heard = [stream.readline()]
                client.sendall(b"HELO c.test\r\n")
                heard.append(stream.readline())
                for recipient, pieces in (
                    (b"nothing", [b".\r\n"]),
                    (b"pieces", [bytes([byte]) for byte in b"S: x\r\n\r\n..\r\n.\r\n"]),
                ):
                    client.sendall(b"MAIL FROM:<>\r\nRCPT TO:<" + recipient + b"@swift.test>\r\nDATA\r\n")
                    heard += [stream.readline() for _ in range(3)]
                    for piece in pieces:
                        client.sendall(piece)
                    heard.append(stream.readline())
                client.sendall(b"QUIT\r\n")
                heard.append(stream.readline())
                return heard

        heard = await asyncio.to_thread(hand_in)
        await sink.until(lambda: sink.messages == 2)

    assert [line[:3] for line in heard] == [b"220", b"250", *[b"250", b"250", b"354", b"250"] * 2, b"221"]
    arrived = {delivery.recipients[0]: delivery.content for delivery in sink.profiles["swift"].deliveries}
    assert behind_ours(arrived["nothing@swift.test"]) == b"\r\n"
    assert behind_ours(arrived["pieces@swift.test"]) == b"S: x\r\n\r\n.\r\n"


async def test_a_hundred_recipients_at_two_sites(tmp_path: Path) -> None:
    """Each gets the message once, the same bytes at both sites, and a bad address spoils nothing."""
    recipients = [f"r{number}@{site}.test" for number in range(50) for site in ("swift", "other")]
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents"), Profile(name="other", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):

        def hand_in() -> dict[str, tuple[int, bytes]]:
            with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="c.test", timeout=60) as client:
                return client.sendmail("a@shop.test", [*recipients, "no such form@x"], CONTENTS["dots"])

        refused = await asyncio.to_thread(hand_in)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 100)

    assert [(address, code) for address, (code, _) in refused.items()] == [("no such form@x", 501)]
    deliveries = [each for provider in sink.profiles.values() for each in provider.deliveries]
    assert sorted(address for each in deliveries for address in each.recipients) == sorted(recipients)
    assert {behind_ours(each.content) for each in deliveries} == {CONTENTS["dots"]}
    assert all(b"for <" not in each.content for each in deliveries)
    assert sum(each["event"] == "received" for each in events) == 1
