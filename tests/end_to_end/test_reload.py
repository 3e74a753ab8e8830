"""SIGHUP: changed policies take effect on mail that waits, and the other side never sees old and new together."""

import asyncio
import zlib
from pathlib import Path

from bench.load import Domain, Plan, run
from bench.sink import Profile, Sink
from bench.temper import most_beyond_rate
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {"busy.test": {"MX": ["10 mx.busy.test."]}, "mx.busy.test": {"A": ["127.0.0.2"]}}


def policy(match: str, connections: int, rate: str, more: str = "") -> str:
    return f"""{match}
tls = "none"
{more}
[limits]
connections = {connections}
connection_rate = "none"
messages_per_connection = 0
rate = "{rate}"
"""


BY_DOMAIN = 'match = { domains = ["busy.test"] }'
BY_MX = 'match = { mx = ["*.busy.test"] }'


def load(server: RunningServer, messages: int) -> Plan:
    return Plan(port=server.smtp_port, messages=messages, sessions=24, sizes=[1_024], domains=[Domain("busy.test")])


def of_the_other_worker() -> str:
    """A policy's name whose destination is owned by the worker that does not own the site of busy.test."""
    site = zlib.crc32(b"site:mx.busy.test") % 2
    names = (f"policy{number}" for number in range(100))
    return next(name for name in names if zlib.crc32(f"policy:{name}".encode()) % 2 != site)


async def test_raised_and_lowered_limits_hold_for_mail_that_waits(tmp_path: Path) -> None:
    """Raised limits let a backlog flow faster over the connections that are open already; lowered ones slow it down,
    and connections that are too many leave."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="busy", latency_s=0.005)]) as sink,
        RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies={"busy": policy(BY_DOMAIN, 2, "40/s")}
        ) as server,
    ):
        busy = sink.profiles["busy"]
        await run(load(server, 1_500))
        await sink.until(lambda: busy.messages >= 60)
        first = busy.mails

        server.write_policy("busy", policy(BY_DOMAIN, 5, "400/s"))
        await server.reload()
        await sink.until(lambda: busy.connections_open == 5)
        raised_at = busy.mails
        await sink.until(lambda: busy.messages >= raised_at + 150)
        raised = list(busy.mail_times)[raised_at : raised_at + 150]
        connections_raised = busy.connections_total

        server.write_policy("busy", policy(BY_DOMAIN, 2, "40/s"))
        await server.reload()
        await sink.until(lambda: busy.connections_open == 2)
        lowered_at = busy.mails
        await sink.until(lambda: busy.messages >= lowered_at + 100)
        lowered = list(busy.mail_times)[lowered_at:]

    assert most_beyond_rate(list(busy.mail_times)[:first], 40) <= 40 + 2
    assert 150 / (raised[-1] - raised[0]) > 1.5 * 40
    assert connections_raised == 5
    assert most_beyond_rate(lowered, 40) <= 40 + 2
    assert busy.connections_max == 5
    assert busy.connections_total == 5


async def test_mail_that_waits_moves_to_a_new_owner_without_a_fresh_burst(tmp_path: Path) -> None:
    """A new policy that matches by MX gives the site to the other worker: the other side sees neither more
    connections nor more messages a second than one owner may send, and every message once."""
    new = of_the_other_worker()
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="busy", latency_s=0.02)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": policy("", 3, "50/s")}) as server,
    ):
        busy = sink.profiles["busy"]
        await run(load(server, 300))
        await sink.until(lambda: busy.messages >= 80)

        server.write_policy(new, policy(BY_MX, 3, "50/s"))
        await server.reload()
        await sink.until(lambda: busy.messages == 300, 60)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 300)

    delivered = [each for each in events if each["event"] == "delivered"]
    workers = {
        policy: {each["worker"] for each in delivered if each["policy"] == policy} for policy in ("default", new)
    }
    assert len(workers["default"]) == len(workers[new]) == 1
    assert workers["default"] != workers[new]
    assert set(busy.ids().values()) == {1}
    assert busy.connections_max <= 3
    assert most_beyond_rate(busy.mail_times, 50) <= 50 + 3


async def test_a_second_owner_gets_half_of_every_limit_and_gives_it_back(tmp_path: Path) -> None:
    """`owners = 2` while mail flows, and back to one: the limits hold for both together at any time, and whoever
    owns the mail sends it."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="busy", latency_s=0.02)]) as sink,
        RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies={"busy": policy(BY_DOMAIN, 4, "100/s")}
        ) as server,
    ):
        busy = sink.profiles["busy"]
        await run(load(server, 200))
        await sink.until(lambda: busy.messages >= 50)

        server.write_policy("busy", policy(BY_DOMAIN, 4, "100/s", "owners = 2"))
        await server.reload()
        await run(load(server, 250))
        await server.until_told(
            lambda told: len({each["worker"] for each in told if each["event"] == "delivered"}) == 2
        )
        server.write_policy("busy", policy(BY_DOMAIN, 4, "100/s"))
        await server.reload()
        await run(load(server, 50))
        await sink.until(lambda: busy.messages == 500, 60)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 500)

    delivered = [each for each in events if each["event"] == "delivered"]
    assert {each["worker"] for each in delivered} == {0, 1}
    assert len({each["worker"] for each in delivered[-50:]}) == 1
    assert set(busy.ids().values()) == {1}
    assert busy.connections_max <= 4
    assert most_beyond_rate(busy.mail_times, 100) <= 100 + 4


async def test_an_invalid_policy_changes_nothing_and_is_told(tmp_path: Path) -> None:
    """A reload with a mistake says file and line and leaves limits and connections as they were."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="busy")]) as sink,
        RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies={"busy": policy(BY_DOMAIN, 2, "40/s")}
        ) as server,
    ):
        busy = sink.profiles["busy"]
        await run(load(server, 100))
        await sink.until(lambda: busy.messages >= 50)

        server.write_policy("busy", policy(BY_DOMAIN, 5, "400/s").replace("connections", "conections"))
        await server.reload()
        await sink.until(lambda: busy.messages == 100)

    assert "not reloaded, nothing was changed" in server.log
    assert "policies/busy.toml:5: " in server.log
    assert "connections" in server.log.partition("busy.toml:5: ")[2].partition("\n")[0]
    assert busy.connections_total == 2
    assert most_beyond_rate(busy.mail_times, 40) <= 40 + 2


async def test_reloads_without_a_change_disturb_nothing(tmp_path: Path) -> None:
    """Ten SIGHUPs while mail flows: no connection is opened anew, no message is late or twice."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="busy", latency_s=0.01)]) as sink,
        RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies={"busy": policy(BY_DOMAIN, 3, "100/s")}
        ) as server,
    ):
        busy = sink.profiles["busy"]
        sending = asyncio.create_task(run(load(server, 300)))
        for _ in range(10):
            await server.reload()
        result = await sending
        await sink.until(lambda: busy.messages == 300, 60)

    assert len(result.accepted) == 300
    assert set(busy.ids().values()) == {1}
    assert busy.connections_total == 3
    assert most_beyond_rate(busy.mail_times, 100) <= 100 + 3
