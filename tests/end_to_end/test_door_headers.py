"""What a submission server puts on top (RFC 6409 8), and what it takes off."""

import email
import email.policy
import email.utils
import time
from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {"swift.test": {"MX": ["10 mx.swift.test."]}, "mx.swift.test": {"A": ["127.0.0.2"]}}
WISHES = (
    b"X-MTA-Campaign: spring\r\nX-MTA-Priority: 9\r\nx-mta-expire: 1h\r\nX-MTA-Whatever: folded\r\n\tover lines\r\n"
)


async def test_headers_are_added_where_missing_and_taken_off_where_ours(tmp_path: Path) -> None:
    """Received always, Date and Message-ID where there is none, X-MTA fields never leave."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        began_s = int(time.time())
        bare_id = await server.send("a@shop.test", ["bare@swift.test"], b"From: a@from.test\r\n\r\nx\r\n")
        full = b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@x>\r\nFrom: a@from.test\r\n\r\nx\r\n"
        full_id = await server.send("a@shop.test", ["whole@swift.test"], WISHES + full)
        await sink.until(lambda: sink.messages == 2)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 2)

    arrived = {each.recipients[0]: each.content for each in sink.profiles["swift"].deliveries}
    bare = email.message_from_bytes(arrived["bare@swift.test"], policy=email.policy.default)
    assert bare.keys() == ["Received", "Message-ID", "Date", "From"]
    assert bare["Message-ID"] == f"<{bare_id}@from.test>"
    assert 0 <= email.utils.parsedate_to_datetime(bare["Date"]).timestamp() - began_s < 300
    trace = " ".join(bare["Received"].split())
    start = f"from application.test ([127.0.0.1]) by mail.server.test with ESMTP id {bare_id} for <bare@swift.test>; "
    assert trace.startswith(start)
    assert trace.removeprefix(start) == bare["Date"]
    top = arrived["whole@swift.test"].removesuffix(full)
    assert top.startswith(b"Received: from application.test ")
    assert f" id {full_id}".encode() in top
    assert b"x-mta-" not in top.lower()
    assert top.count(b"\r\n") == 3
    received = {each["id"]: each for each in events if each["event"] == "received"}
    assert received[full_id]["campaign"] == "spring"
