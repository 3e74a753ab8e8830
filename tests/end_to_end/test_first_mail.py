"""A message's whole way: in by SMTP, to the domain's MX, out, and told."""

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


async def test_mail_arrives_whichever_worker_owns_its_destination(tmp_path: Path) -> None:
    """Recipients at several sites each get the message once, and every fate is told."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="swift", keep="contents"), Profile(name="other", keep="contents")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        for number in range(20):
            await server.send("a@shop.test", [f"b{number}@swift.test", f"c{number}@other.test"])
        await sink.until(lambda: sink.messages == 40)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 40)
        status = await server.stop()

    assert status == 0
    for name, letter in (("swift", "b"), ("other", "c")):
        recipients = [each for delivery in sink.profiles[name].deliveries for each in delivery.recipients]
        assert sorted(recipients) == sorted(f"{letter}{number}@{name}.test" for number in range(20))
    assert sum(each["event"] == "received" for each in events) == 20
