"""Limits over real sockets: the peer never sees more than is allowed, at any level, and everybody has a turn."""

import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.handoff.claims import LimitState
from mta.handoff.placement import Destination, Placement
from mta.testing.delivery_rig import PLAIN, DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

MICRO = """
match = {{ mx = ["*.micro.test"] }}
[limits]
connections = 3
{limits}
[source_limits]
connections = 5
{source_limits}
[provider_limits]
{provider_limits}
[retry]
schedule = ["5m"]
"""


def micro(limits: str = "", source_limits: str = "", provider_limits: str = "") -> str:
    """A provider with many sites, one MX each."""
    return MICRO.format(limits=limits, source_limits=source_limits, provider_limits=provider_limits)


def add_sites(rig: DeliveryRig, count: int, address: str) -> None:
    for number in range(count):
        rig.domain(f"d{number}.test", f"mx{number}.micro.test", address=address)


def assert_rate(times: Sequence[float], per_s: float, burst: float) -> None:
    """In no window more than the burst and the rate times its length."""
    for first in range(len(times)):
        for last in range(first, min(len(times), first + 200)):
            assert last - first + 1 <= burst + per_s * (times[last] - times[first]) + 0.01


@pytest.fixture
def sources() -> list[SourceAddress]:
    return [SourceAddress(f"s{number}", f"127.0.1.{number}", "", f"s{number}.test") for number in (1, 2, 3)]


@pytest.mark.parametrize(("in_all", "limit"), [(7, "connections = 7"), (15, "")])
@swiftly
async def test_connections_of_a_site_a_source_and_a_provider(
    loop: SwiftLoop, tmp_path: Path, sources: list[SourceAddress], in_all: int, limit: str
):
    """Three a source and site, five a source, seven in all or no limit: never more, and as many as may be."""
    async with Sink([Profile(name="m", latency_s=0.3)]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=sources, micro=micro(provider_limits=limit))
        add_sites(rig, 4, provider.address)

        for number in range(600):
            rig.send(f"r{number}@d{number % 4}.test")
        await rig.settled(1000.0)
        await rig.stop()

    assert provider.connections_max == in_all
    assert max(provider.connections_max_by_client.values()) <= 5
    assert set(provider.connections_max_by_client) == {"127.0.1.1", "127.0.1.2", "127.0.1.3"}


@swiftly
async def test_one_site_never_has_more_than_its_own(loop: SwiftLoop, tmp_path: Path):
    """Three, although the provider would take five."""
    async with Sink([Profile(name="m", latency_s=0.3)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro())
        add_sites(rig, 1, sink.profiles["m"].address)

        for number in range(100):
            rig.send(f"r{number}@d0.test")
        await rig.settled(1000.0)
        await rig.stop()

    assert sink.profiles["m"].connections_max == 3


@swiftly
async def test_hundreds_of_sites_share_five_connections(loop: SwiftLoop, tmp_path: Path):
    """Idle ones make room as many at a time as are needed: it takes little longer than the connections must."""
    async with Sink([Profile(name="m", latency_s=0.1)]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro())
        add_sites(rig, 300, provider.address)

        began_s = loop.time()
        for number in range(300):
            rig.send(f"r{number}@d{number}.test")
        await rig.settled(1000.0)
        took_s = loop.time() - began_s
        await rig.stop()

    assert provider.connections_max == 5
    assert provider.connections_total == 300
    # Greeting, EHLO, envelope, content, QUIT: 0.5 s a connection, five at a time.
    assert 30 <= took_s < 45


@swiftly
async def test_a_busy_site_lends_its_connections_to_the_others(loop: SwiftLoop, tmp_path: Path):
    """One with a backlog of minutes does not keep the provider's others from their turn."""
    async with Sink([Profile(name="m", latency_s=0.1)]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro(limits="messages_per_connection = 0"))
        add_sites(rig, 10, provider.address)
        for busy in ("d0", "d1"):
            for number in range(1000):
                rig.send(f"r{number}@{busy}.test")
        await rig.until(lambda: provider.messages > 100)

        for number in range(2, 10):
            rig.send(f"late@d{number}.test")
        late_s = loop.time()
        await rig.until(lambda: len({line["domain"] for line in rig.events("delivered")}) == 10, 60.0)
        waited_s = loop.time() - late_s
        await rig.settled(2000.0)
        await rig.stop()

    assert waited_s < 12
    assert provider.connections_max == 5
    assert provider.connections_total < 120  # a turn is seconds, not a message


@swiftly
async def test_urgent_mail_of_another_site_goes_first(loop: SwiftLoop, tmp_path: Path):
    """It gets the next connection whose transaction ends."""
    async with Sink([Profile(name="m", latency_s=0.1)]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro())
        add_sites(rig, 3, provider.address)
        for site in ("d0", "d1"):
            for number in range(500):
                rig.send(f"r{number}@{site}.test")
        await rig.until(lambda: provider.messages > 50)

        urgent = rig.send("urgent@d2.test", priority=9)
        sent_s = loop.wall_s()
        await rig.settled(1000.0)
        await rig.stop()

    [line] = [line for line in rig.events("delivered") if line["id"] == urgent]
    assert line["time"] - sent_s < 1.5


@swiftly
async def test_rates_hold_at_every_level(
    loop: SwiftLoop, tmp_path: Path, sources: list[SourceAddress], monkeypatch: pytest.MonkeyPatch
):
    """A transaction at a time: 4/s a source and site, 6/s a source, 9/s in all, and no less than that."""
    monkeypatch.setattr("bench.provider.monotonic", loop.time)
    policy = micro('rate = "4/s"', 'rate = "6/s"', 'rate = "9/s"')
    async with Sink([Profile(name="m")]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=sources, micro=policy)
        add_sites(rig, 5, provider.address)

        began_s = loop.time()
        for number in range(600):
            rig.send(f"r{number}@d{number % 5}.test")
        await rig.settled(1000.0)
        took_s = loop.time() - began_s
        await rig.stop()

    assert_rate(provider.mail_times, 9, 9)
    for source in ("s1", "s2", "s3"):
        by_source = [line for line in rig.events("delivered") if line["source"] == source]
        assert_rate([line["time"] for line in by_source], 6, 6)
        for site in {line["site"] for line in by_source}:
            assert_rate([line["time"] for line in by_source if line["site"] == site], 4, 4)
    assert took_s < 600 / 9 * 1.15


@swiftly
async def test_connections_are_begun_at_their_rate(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also those to the next host where the first is down."""
    monkeypatch.setattr("bench.provider.monotonic", loop.time)
    default = PLAIN.replace("[retry]", 'connection_rate = "2/s"\nmessages_per_connection = 1\n[retry]')
    async with Sink([Profile(name="down", down=True), Profile(name="a")]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        rig.resolver.addresses_of["mx1.a.test"] = [sink.profiles["down"].address]
        rig.resolver.addresses_of["mx2.a.test"] = [provider.address]
        rig.domain("a.test", "mx1.a.test", "mx2.a.test")

        for number in range(30):
            rig.send(f"r{number}@a.test")
        await rig.settled(60.0)
        await rig.stop()

    assert_rate(provider.connection_times, 2, 2)
    assert rig.events("deferred") == []


@swiftly
async def test_many_sites_and_a_slow_rate_all_get_through(loop: SwiftLoop, tmp_path: Path):
    """A connection that waits for its turn longer than the idle time-out is kept: no site begins anew for ever."""
    policy = micro(source_limits='rate = "1/s"').replace("connections = 5", "connections = 0")
    async with Sink([Profile(name="m")]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy)
        add_sites(rig, 150, provider.address)

        for number in range(300):
            rig.send(f"r{number}@d{number % 150}.test")
        await rig.settled(330.0)
        await rig.stop()

    assert provider.connections_total <= 300  # two a site, none of them twice


@swiftly
async def test_a_connection_counts_until_the_peer_has_closed_it(loop: SwiftLoop, tmp_path: Path):
    """A peer that is slow to close after QUIT is not given one more meanwhile."""
    default = PLAIN.replace("[retry]", "messages_per_connection = 1\n[retry]").replace("= 10", "= 2")
    async with Sink([Profile(name="a", latency_s=2.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        for number in range(12):
            rig.send(f"r{number}@a.test")
        await rig.settled(200.0)
        await rig.stop()

    assert sink.profiles["a"].connections_max == 2
    assert sink.profiles["a"].connections_total == 12


@swiftly
async def test_a_host_that_cannot_be_found_gives_its_place_back(loop: SwiftLoop, tmp_path: Path):
    """A site without an address does not keep the provider's only connection from the others."""
    policy = micro().replace("connections = 5", "connections = 1")
    async with Sink([Profile(name="m")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=policy)
        add_sites(rig, 2, sink.profiles["m"].address)
        rig.resolver.addresses_of["mx0.micro.test"] = []

        rig.send("a@d0.test")
        rig.send("b@d1.test")
        await rig.until(lambda: bool(rig.events("delivered")), 5.0)
        rig.resolver.addresses_of["mx0.micro.test"] = [sink.profiles["m"].address]
        await rig.settled(300.0)
        await rig.stop()

    assert sink.profiles["m"].connections_max == 1


# ---- reload


@swiftly
async def test_a_reload_lowers_limits_and_keeps_connections(loop: SwiftLoop, tmp_path: Path):
    """No connection is dropped while it is allowed; those too many leave after their transaction; counts still pair."""
    async with Sink([Profile(name="m", latency_s=0.2)]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro())
        add_sites(rig, 2, provider.address)
        for number in range(600):
            rig.send(f"r{number}@d{number % 2}.test")
        await rig.until(lambda: provider.connections_open == 5)

        rig.reload(micro=micro())
        await rig.until(lambda: provider.messages > 20)
        same = provider.connections_total
        rig.reload(micro=micro().replace("connections = 5", "connections = 2"))
        await rig.until(lambda: provider.connections_open <= 2, 3.0)
        provider.connections_max = 0
        rig.reload(micro=micro('rate = "30/s"', "", "connections = 4"))
        await rig.settled(200.0)
        await rig.stop()

    assert same == 5
    assert provider.connections_max == 4
    assert rig.events("deferred") == []
    destination = next(iter(rig.dispatcher.domains.destinations.values()))
    assert destination.provider_limit.meter.connections_open == 0
    assert all(pool.meter.connections_open == 0 for site in destination.sites.values() for pool in site.pools.values())


@swiftly
async def test_a_reload_to_a_faster_rate_wakes_who_waits(loop: SwiftLoop, tmp_path: Path):
    """Nobody sleeps on until the old rate would have let him go."""
    async with Sink([Profile(name="m")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro("", 'rate = "1/h"'))
        add_sites(rig, 5, sink.profiles["m"].address)
        for number in range(50):
            rig.send(f"r{number}@d{number % 5}.test")
        await rig.until(lambda: sink.messages == 1)

        rig.reload(micro=micro("", 'rate = "100/s"'))
        await rig.until(lambda: sink.messages > 20, 1.0)
        await rig.settled(20.0)
        await rig.stop()

    assert sink.messages == 50


@swiftly
async def test_a_reload_gives_a_domain_to_another_policy(loop: SwiftLoop, tmp_path: Path):
    """Its waiting mail goes along, the old site's connections leave, and both together never exceed the new limit."""
    async with Sink([Profile(name="a", latency_s=0.2)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=provider.address)
        for number in range(300):
            rig.send(f"r{number}@a.test")
        await rig.until(lambda: provider.connections_open == 10)

        own = 'match = { domains = ["a.test"] }\n' + PLAIN.replace("= 10", "= 2")
        rig.reload(own=own)
        await rig.until(lambda: provider.connections_open <= 2, 10.0)
        provider.connections_max = provider.connections_open
        await rig.settled(200.0)
        await rig.stop()

    assert provider.connections_max == 2
    assert set(provider.ids().values()) == {1}
    assert rig.events("delivered")[-1]["policy"] == "own"
    assert ("policy:own", "mx.a.test") in rig.claims.claimed


@swiftly
async def test_a_new_site_waits_for_its_claim(loop: SwiftLoop, tmp_path: Path):
    """After a reload nothing is sent to it before the others have let go, and what they used counts."""
    async with Sink([Profile(name="a")]) as sink:
        default = PLAIN.replace("[retry]", 'rate = "5/s"\n[retry]')
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        rig.reload(default=default)
        rig.claims.holds = True
        rig.claims.states = [{"site mx.a.test ": {"rate": [5.0], "connection_rate": []}}]
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for number in range(10):
            rig.send(f"r{number}@a.test")
        await rig.until(lambda: loop.time() > 1030)
        early = sink.profiles["a"].connections_total

        granted_s = loop.time()
        for grant in rig.claims.held:
            grant()
        await rig.settled(30.0)
        took_s = loop.time() - granted_s
        await rig.stop()

    assert early == 0
    assert took_s > 9 / 5


@swiftly
async def test_a_share_that_grows_is_used_when_the_others_have_let_go(loop: SwiftLoop, tmp_path: Path):
    """Of two owners one remains: it has all connections once the other says that it has none."""
    both = 'owners = 2\nmatch = { mx = ["*.micro.test"] }\n[limits]\nconnections = 4\n[retry]\nschedule = ["5m"]\n'
    async with Sink([Profile(name="m", latency_s=0.2)]) as sink:
        provider = sink.profiles["m"]
        workers = next(count for count in range(2, 100) if zlib.crc32(b"policy:own") % count == 0)
        rig = DeliveryRig(loop, tmp_path, port=sink.port, workers=workers, own=both)
        rig.domain("a.test", "mx0.micro.test", address=provider.address)
        for number in range(200):
            rig.send(f"r{number}@a.test")
        await rig.until(lambda: provider.messages > 10)
        shared = provider.connections_max

        rig.claims.holds = True
        rig.reload(own=both.replace("owners = 2", "owners = 1"))
        await rig.until(lambda: loop.time() > 1030)
        held = (provider.connections_max, provider.connections_total)
        for grant in rig.claims.held:
            grant()
        await rig.settled(200.0)
        await rig.stop()

    assert shared == 2
    assert held == (2, 2)
    assert provider.connections_max == 4
    assert rig.claims.claimed == [("policy:own", "mx0.micro.test")]


@swiftly
async def test_somebody_who_claims_waits_for_connections_over_our_share(loop: SwiftLoop, tmp_path: Path):
    """He is answered when they have left, with what was used of the limits; a stranger's claim is answered at once."""
    async with Sink([Profile(name="m", latency_s=0.2)]) as sink:
        provider = sink.profiles["m"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, micro=micro('rate = "50/s"'))
        add_sites(rig, 1, provider.address)
        for number in range(100):
            rig.send(f"r{number}@d0.test")
        await rig.until(lambda: provider.connections_open == 3)
        answers: list[tuple[str, int, LimitState]] = []

        rig.reload(micro=micro('rate = "50/s"').replace("connections = 3", "connections = 1"))
        for key in ("policy:micro", "policy:strange"):
            rig.dispatcher.yield_to(
                key, "", lambda state, key=key: answers.append((key, provider.connections_open, state))
            )
        at_once = [key for key, _, _ in answers]
        await rig.until(lambda: len(answers) == 2)
        await rig.settled(200.0)
        await rig.stop()

    assert at_once == ["policy:strange"]
    key, still_open, state = answers[1]
    assert (key, still_open) == ("policy:micro", 1)
    assert set(state) == {"provider", "source ", "site mx0.micro.test "}


@swiftly
async def test_a_source_that_is_gone_is_used_no_more(loop: SwiftLoop, tmp_path: Path, sources: list[SourceAddress]):
    """Its mail goes from another one, its connections leave."""
    async with Sink([Profile(name="a", latency_s=0.1)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=sources, default=PLAIN.replace("= 10", "= 1"))
        rig.domain("a.test", "mx.a.test", address=provider.address)
        for number in range(90):
            rig.send(f"r{number}@a.test")
        await rig.until(lambda: provider.messages > 10)

        rig.sources = sources[1:]
        rig.reload(default=PLAIN.replace("= 10", "= 1"))
        told = len(rig.lines)
        await rig.settled(100.0)
        await rig.stop()

    later = [line["source"] for line in rig.lines[told:]]
    assert set(later) >= {"s2", "s3"}
    assert later.count("s1") <= 1  # one was under way
    assert provider.connections_open_by_client["127.0.1.1"] == 0


@swiftly
async def test_mail_of_another_worker_moves_there(loop: SwiftLoop, tmp_path: Path):
    """What a reload, or the DNS, gives to another owner goes with its state; nothing of it is left here."""
    rig = DeliveryRig(loop, tmp_path, port=2525)
    rig.domain("a.test", "mx.a.test", address="127.0.0.1")
    rig.resolver.delay_s = 1.0
    for number in range(600):
        rig.send(f"r{number}@a.test")
    await rig.until(lambda: rig.dispatcher.jobs == 600)

    policies = rig.dispatcher.placement.policies
    site = Destination("site:mx.a.test", policies.default)
    workers = next(count for count in range(2, 20) if Placement(policies, (), count, 0).share(site) is None)
    rig.reload(workers=workers)
    await rig.until(lambda: len(rig.mover.moves) == 600)
    rig.is_clean()
    await rig.stop()

    assert {parts for _, parts, _, _ in rig.mover.moves} == {(0,)}
    assert len({seq for seq, _, _, _ in rig.mover.moves}) == 600
    assert {owner for _, _, _, owner in rig.mover.moves} != {0}


def test_the_rate_check_sees_a_burst():
    """The helper itself fails where it should."""
    with pytest.raises(AssertionError):
        assert_rate(array("d", [0.0, 0.1, 0.2]), 1, 2)
