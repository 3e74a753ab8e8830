"""Sites: all domains with the same MX hosts are one destination, with one set of limits and connections."""

import asyncio
from pathlib import Path

from bench.load import Domain, Plan, run
from bench.sink import Profile, Sink
from mta.testing.open_doors import OpenDoors
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

CUSTOMERS = [f"customer{number}.test" for number in range(12)]
"""Whose mail a hosting provider takes: with so many some are looked up by the one worker and some by the other."""
HOSTED = {domain: {"MX": ["1 aspmx.host.test.", "5 alt1.aspmx.host.test."]} for domain in CUSTOMERS}
HOSTS = {"aspmx.host.test": {"A": ["127.0.0.2"]}, "alt1.aspmx.host.test": {"A": ["127.0.0.2"]}}
DEFAULT = """
[limits]
connections = 2
connection_rate = "none"
messages_per_connection = 0
rate = "none"
"""


def load(server: RunningServer, messages: int, domains: list[str]) -> Plan:
    return Plan(
        port=server.smtp_port,
        messages=messages,
        sessions=24,
        sizes=[1_024],
        domains=[Domain(domain) for domain in domains],
    )


async def test_domains_with_the_same_mx_hosts_share_limits_and_connections(tmp_path: Path) -> None:
    """Twelve domains of one hosting provider get their mail over the two connections that the default policy allows
    for a site, whichever of them they are."""
    async with (
        ToyDns(HOSTED | HOSTS) as dns,
        Sink([Profile(name="host", latency_s=0.01)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": DEFAULT}) as server,
    ):
        await run(load(server, 240, CUSTOMERS))
        await sink.until(lambda: sink.messages == 240, 60)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 240)
        host = sink.profiles["host"]

    assert host.connections_max == 2
    assert host.connections_total == 2
    domains = [{recipient.partition("@")[2] for recipient in each.recipients} for each in host.deliveries]
    assert set.union(*domains) == set(CUSTOMERS)
    delivered = [each for each in events if each["event"] == "delivered"]
    assert {each["site"] for each in delivered} == {"(|alt1.)aspmx.host.test"}
    assert len({each["worker"] for each in delivered}) == 1


async def test_a_connection_serves_no_other_site(tmp_path: Path) -> None:
    """Two sites of one provider, at the very same address, share its limit but never a connection: an idle one makes
    room for the other site's mail."""
    policy = 'match = { mx = ["*.provider.test"] }\n' + DEFAULT + "[source_limits]\nconnections = 2\n"
    zone = {
        "one.test": {"MX": ["10 mx1.provider.test."]},
        "two.test": {"MX": ["10 mx2.provider.test."]},
        "mx1.provider.test": {"A": ["127.0.0.2"]},
        "mx2.provider.test": {"A": ["127.0.0.2"]},
    }
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="provider")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"provider": policy}) as server,
    ):
        provider = sink.profiles["provider"]
        for number in range(6):
            await run(load(server, 20, ["one.test", "two.test"][number % 2 :][:1]))
            await sink.until(lambda: sink.messages == 20 * (number + 1), 60)  # noqa: B023 - awaited within the round
        await run(load(server, 200, ["one.test", "two.test"]))
        await sink.until(lambda: sink.messages == 320, 60)

    domains: dict[int, set[str]] = {}
    for delivery in provider.deliveries:
        domains.setdefault(delivery.connection, set()).update(each.partition("@")[2] for each in delivery.recipients)
    assert all(len(each) == 1 for each in domains.values())
    assert set.union(*domains.values()) == {"one.test", "two.test"}
    assert provider.connections_max == 2


async def test_connections_are_kept_open_and_used_by_mail_of_all_doors(tmp_path: Path) -> None:
    """Messages that come one by one, by the one door and by the other, all leave over the connection that the first
    of them opened."""
    async with (
        ToyDns(HOSTED | HOSTS) as dns,
        Sink([Profile(name="host")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": DEFAULT}) as server,
    ):
        with OpenDoors(server) as doors:
            doors.open(3)
            sessions = [session for door in doors.sessions.values() for session in door[:3]]
            for number, session in enumerate(sessions):
                recipient = f"user@{CUSTOMERS[number]}"
                await asyncio.to_thread(session.sendmail, "a@shop.test", [recipient], "Subject: x\r\n\r\nHello.\r\n")
                await sink.until(lambda: sink.messages == number + 1)  # noqa: B023 - awaited within the round
        host = sink.profiles["host"]

    assert host.messages == 6
    assert host.connections_total == 1
