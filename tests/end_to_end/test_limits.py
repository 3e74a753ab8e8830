"""A policy's limits hold exactly, for the whole machine, whichever doors the mail came in by.

What is late on its way (a busy loop here or there) is at most one MAIL a connection: that is what the bounds of
rates allow beyond the burst.
"""

from pathlib import Path

from bench.load import Domain, Plan, run
from bench.sink import Profile, Provider, Sink
from bench.temper import Delivery, most_beyond_rate
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

DOORS = 24
"""Sessions; with so many the kernel gives each of two workers some."""
OPEN = """
tls = "none"
[limits]
connections = 10
connection_rate = "none"
messages_per_connection = 0
rate = "none"
"""
TWO_SOURCES = """
[[source]]
name = "a"
ipv4 = "127.0.0.101"
ehlo = "a.sources.test"

[[source]]
name = "b"
ipv4 = "127.0.0.102"
ehlo = "b.sources.test"
"""


def load(server: RunningServer, messages: int, *domains: str, recipients: int = 1) -> Plan:
    return Plan(
        port=server.smtp_port,
        messages=messages,
        sessions=DOORS,
        sizes=[1_024],
        domains=[Domain(domain) for domain in domains],
        recipients_per_message=recipients,
    )


def rate_after_burst(provider: Provider, burst: int) -> float:
    """MAILs a second over the whole backlog, those that may come at once left out."""
    times_s = provider.mail_times
    return (len(times_s) - burst) / (times_s[-1] - times_s[0])


def domains_of(delivery: Delivery) -> set[str]:
    return {recipient.partition("@")[2] for recipient in delivery.recipients}


async def test_connections_and_rate_of_a_site_hold_over_all_doors(tmp_path: Path) -> None:
    """With `connections = 3` and `rate = "50/s"` the other side never sees a fourth connection, nor more than 50
    messages in any second beyond the burst, and gets at least 45 a second as long as there is mail."""
    policy = 'match = { domains = ["strict.test"] }\ntls = "none"\n[limits]\nconnections = 3\nrate = "50/s"\n'
    policy += 'connection_rate = "none"\nmessages_per_connection = 0\n'
    async with (
        ToyDns({"strict.test": {"MX": ["10 mx.strict.test."]}, "mx.strict.test": {"A": ["127.0.0.2"]}}) as dns,
        Sink([Profile(name="strict", latency_s=0.02)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"strict": policy}) as server,
    ):
        result = await run(load(server, 650, "strict.test"))
        await sink.until(lambda: sink.messages == 650, 120)
        strict = sink.profiles["strict"]

    assert len(result.accepted) == 650
    assert strict.connections_max == 3
    assert most_beyond_rate(strict.mail_times, 50) <= 50 + 3
    assert rate_after_burst(strict, 50) >= 45
    assert set(strict.ids().values()) == {1}
    assert len(strict.deliveries) == 650


async def test_a_source_has_one_limit_over_all_sites_of_a_provider(tmp_path: Path) -> None:
    """`source_limits` hold over two MX sets that one policy matches, beside the limits of each."""
    policy = 'match = { mx = ["*.provider.test"] }' + OPEN.replace("connections = 10", "connections = 3")
    policy += '[source_limits]\nconnections = 4\nrate = "100/s"\n'
    zone = {
        "one.test": {"MX": ["10 mx1.provider.test."]},
        "two.test": {"MX": ["10 mx2.provider.test."]},
        "mx1.provider.test": {"A": ["127.0.0.2"]},
        "mx2.provider.test": {"A": ["127.0.0.2"]},
    }
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="provider", latency_s=0.02)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"provider": policy}) as server,
    ):
        await run(load(server, 240, "one.test", "two.test"))
        await sink.until(lambda: sink.messages == 240, 60)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 240)
        provider = sink.profiles["provider"]

    delivered = [each for each in events if each["event"] == "delivered"]
    assert {each["policy"] for each in delivered} == {"provider"}
    assert {each["site"] for each in delivered} == {"mx1.provider.test", "mx2.provider.test"}
    assert len({each["worker"] for each in delivered}) == 1
    assert provider.connections_max == 4
    assert most_beyond_rate(provider.mail_times, 100) <= 100 + 4


async def test_a_provider_has_one_limit_over_all_sources(tmp_path: Path) -> None:
    """`provider_limits` hold over two sources, beside the limits of each."""
    policy = 'match = { domains = ["big.test"] }' + OPEN.replace("connections = 10", "connections = 3")
    policy += '[provider_limits]\nconnections = 4\nrate = "100/s"\n'
    async with (
        ToyDns({"big.test": {"MX": ["10 mx.big.test."]}, "mx.big.test": {"A": ["127.0.0.2"]}}) as dns,
        Sink([Profile(name="big", latency_s=0.02)]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"big": policy}, more=TWO_SOURCES) as server,
    ):
        await run(load(server, 240, "big.test"))
        await sink.until(lambda: sink.messages == 240, 60)
        events = await server.until_told(lambda told: sum(each["event"] == "delivered" for each in told) == 240)
        big = sink.profiles["big"]

    by_source = [each["source"] for each in events if each["event"] == "delivered"]
    assert by_source.count("a") == by_source.count("b") == 120
    assert big.connections_max == 4
    assert set(big.connections_max_by_client) == {"127.0.0.101", "127.0.0.102"}
    assert max(big.connections_max_by_client.values()) <= 3
    assert most_beyond_rate(big.mail_times, 100) <= 100 + 4


async def test_connections_and_transactions_carry_no_more_than_they_may(tmp_path: Path) -> None:
    """`messages_per_connection`, `recipients_per_connection`, `recipients_per_transaction` and `mix_domains` hold."""
    policies = {
        "few": 'match = { domains = ["few.test"] }' + OPEN.replace("connection = 0", "connection = 5"),
        "small": 'match = { domains = ["small.test"] }' + OPEN + "recipients_per_transaction = 10\n"
        "recipients_per_connection = 20\n",
        "apart": 'match = { domains = ["left.test", "right.test"] }' + OPEN + "mix_domains = false\n",
        "mixed": 'match = { domains = ["east.test", "west.test"] }' + OPEN + "mix_domains = true\n",
    }
    zone: dict[str, dict[str, object]] = {
        f"mx.{name}.test": {"A": [f"127.0.0.{number}"]} for number, name in enumerate(policies, start=2)
    }
    zone |= {f"{name}.test": {"MX": [f"10 mx.{name}.test."]} for name in ("few", "small")}
    zone |= {f"{name}.test": {"MX": ["10 mx.apart.test."]} for name in ("left", "right")}
    zone |= {f"{name}.test": {"MX": ["10 mx.mixed.test."]} for name in ("east", "west")}
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name=name) for name in policies]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=policies) as server,
    ):
        few, small, apart, mixed = sink.profiles.values()
        await run(load(server, 100, "few.test"))
        await run(load(server, 20, "small.test", recipients=25))
        await server.send("a@shop.test", ["first@east.test"])
        await server.send("a@shop.test", ["first@west.test"])
        await sink.until(lambda: mixed.messages == 2)  # only of domains that are known can it be said that they mix
        for number in range(5):
            await server.send("a@shop.test", [f"{number}@left.test", f"{number}@right.test"])
            await server.send("a@shop.test", [f"{number}@east.test", f"{number}@west.test"])
        await sink.until(lambda: few.messages == 100 and small.recipients == 500)
        await sink.until(lambda: apart.recipients == 10 and mixed.recipients == 12)

    assert max(few.messages_per_connection) == 5
    assert few.connections_total >= 20
    assert small.recipients_max == 10
    assert small.messages == 20 * 3
    assert all(count == 1 for count in small.by_recipient().values())
    recipients_by_connection = dict.fromkeys(range(1, small.connections_total + 1), 0)
    for delivery in small.deliveries:
        recipients_by_connection[delivery.connection] += len(delivery.recipients)
    assert max(recipients_by_connection.values()) <= 20
    assert all(len(domains_of(delivery)) == 1 for delivery in apart.deliveries)
    assert apart.messages == 10
    assert [len(domains_of(delivery)) for delivery in mixed.deliveries] == [1, 1, 2, 2, 2, 2, 2]


async def test_connections_are_opened_no_faster_than_the_policy_says(tmp_path: Path) -> None:
    """With `connection_rate = "4/s"` and one message a connection, the fifth message waits for its connection."""
    policy = 'match = { domains = ["slow.test"] }\ntls = "none"\n[limits]\nconnections = 10\n'
    policy += 'connection_rate = "4/s"\nmessages_per_connection = 1\nrate = "none"\n'
    async with (
        ToyDns({"slow.test": {"MX": ["10 mx.slow.test."]}, "mx.slow.test": {"A": ["127.0.0.2"]}}) as dns,
        Sink([Profile(name="slow")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"slow": policy}) as server,
    ):
        await run(load(server, 16, "slow.test"))
        await sink.until(lambda: sink.messages == 16)
        slow = sink.profiles["slow"]

    assert slow.connections_total == 16
    assert set(slow.messages_per_connection) == {1}
    assert most_beyond_rate(slow.connection_times, 4) <= 4 + 1
