"""A quota is the machine's, not a process's: no crash begins it afresh."""

from pathlib import Path
from typing import Any

from bench.load import Domain, Plan, run
from bench.sink import Profile, Sink
from mta.handoff.placement import Placement
from mta.testing.commands import until_shown
from mta.testing.noon import noon_zone
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns
from mta_policies.layers import load

QUOTA = 30
MESSAGES = 40
AT_ONCE = 1
POLICY = f"""
match = {{ domains = ["one.test"] }}
tls = "none"
[limits]
connections = {AT_ONCE}
connection_rate = "none"
quota = {{ count = {QUOTA}, per = "month", zone = "{noon_zone()}" }}
"""


def is_used_up(page: dict[str, Any]) -> bool:
    return any(row["waits_for"].startswith("the next month of the quota") for row in page["rows"])


async def test_a_quota_survives_the_death_of_a_worker_and_of_the_server(tmp_path: Path) -> None:
    """Killed in the middle of it, both begin no more than was left; what each death loses is a hundredth, here one
    message, and what was on its way. The rest waits and is no failed attempt."""
    zone = {"one.test": {"MX": ["10 mx.one.test."]}, "mx.one.test": {"A": ["127.0.0.2"]}}
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="one")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"one": POLICY}) as server,
    ):
        placement = Placement(load(tmp_path / "policies"), [], server.workers, 0)
        placed = placement.decided("one.test")
        assert placed is not None
        await run(Plan(port=server.smtp_port, messages=MESSAGES, sizes=[1_024], domains=[Domain("one.test")]))
        provider = sink.profiles["one"]
        await sink.until(lambda: sink.messages >= 8, 60)
        server.kill_worker(placement.owners(placed)[0])
        begun = len(provider.mail_times)
        await sink.until(lambda: len(provider.mail_times) >= begun + 5, 60)
        await server.kill_and_wait()
        await server.start()
        await sink.until(lambda: len(provider.mail_times) >= QUOTA - 2 * (1 + AT_ONCE), 60)
        await until_shown(server, is_used_up, "queue", "summary")
        deferred = [each for each in server.events() if each["event"] == "deferred" and each.get("from_peer")]

    assert QUOTA - 2 * (1 + AT_ONCE) <= len(provider.mail_times) <= QUOTA
    assert deferred == []
