"""Which host is next: peers that are down, hang up, throttle or are slow to say so, over real loopback sockets."""

from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.handoff.placement import Route
from mta.resolve.sites import MailHosts, MxHost
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly


@swiftly
async def test_a_site_that_is_down_is_probed_and_mail_flows_when_it_is_back(loop: SwiftLoop, tmp_path: Path):
    """One knock at a time, ever rarer; only the head of the queue tells; afterwards all goes out at once."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=provider.address)
        for name in names(40, "a.test"):
            rig.send(name)
        await rig.until(lambda: loop.time() > 2000)
        told = rig.events("deferred")

        await provider.set_down(False)
        back_s = loop.time()
        await rig.settled(200.0)
        await rig.stop()

    assert 10 <= len(told) <= 22
    assert {line["stage"] for line in told} == {"connect"}
    assert {line["recipient"] for line in told} == {"r0@a.test"}
    assert {line["attempt"] for line in rig.events("delivered")} == {1}
    times = sorted(line["time"] for line in rig.events("delivered"))
    assert times[-1] - times[0] < 2
    assert loop.time() - back_s < 200


@swiftly
async def test_the_next_host_is_tried_when_the_best_is_down(loop: SwiftLoop, tmp_path: Path):
    """Without a deferral, and the dead one is not asked for every message."""
    async with Sink([Profile(name="dead", down=True), Profile(name="good")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace("= 10", "= 1"))
        rig.resolver.addresses_of["mx1.a.test"] = [sink.profiles["dead"].address]
        rig.resolver.addresses_of["mx2.a.test"] = [sink.profiles["good"].address]
        rig.domain("a.test", "mx1.a.test", "mx2.a.test")

        for name in names(10, "a.test"):
            rig.send(name)
        await rig.settled(10.0)
        await rig.stop()

    assert rig.events("deferred") == []
    assert {line["host"] for line in rig.events("delivered")} == {"mx2.a.test"}
    assert sink.profiles["good"].connections_max == 1


@swiftly
async def test_the_last_of_many_hosts_is_found(loop: SwiftLoop, tmp_path: Path):
    """However many dead addresses come before it."""
    async with Sink([Profile(name="dead", down=True), Profile(name="good")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        for number in range(8):
            rig.resolver.addresses_of[f"mx{number}.a.test"] = [sink.profiles["dead"].address]
        rig.resolver.addresses_of["mx9.a.test"] = [sink.profiles["good"].address]
        rig.domain("a.test", *[f"mx{number}.a.test" for number in (*range(8), 9)])

        rig.send("b@a.test")
        await rig.settled(60.0)
        await rig.stop()

    assert [line["host"] for line in rig.events("delivered")] == ["mx9.a.test"]


@swiftly
async def test_the_first_address_is_the_first_that_is_tried(loop: SwiftLoop, tmp_path: Path):
    """Two dead ones behind it, as where IPv6 leads nowhere, delay nothing; in the rounds to come neither."""
    async with Sink([Profile(name="good"), Profile(name="dead", down=True), Profile(name="gone", down=True)]) as sink:
        good, dead, gone = (sink.profiles[name].address for name in ("good", "dead", "gone"))
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        for host in ("mx1.a.test", "mx2.a.test"):
            rig.resolver.addresses_of[host] = [good, dead, gone]
        rig.domain("a.test", "mx1.a.test", "mx2.a.test")

        rig.send("b@a.test")
        await rig.settled(1.0)
        await rig.stop()

    assert rig.events("deferred") == []
    assert {line["host"] for line in rig.events("delivered")} == {"mx1.a.test"}


@swiftly
async def test_a_peer_that_hangs_up_on_every_mail_is_left_alone(loop: SwiftLoop, tmp_path: Path):
    """No attempts are counted, no loop turns hot, and another message gets its chance each time."""
    async with Sink([Profile(name="a")]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=provider.address)
        broken = True

        def mail(connection_number: int, address: str = "") -> str:
            if broken:
                for connection in list(provider.connections):
                    connection.transport.abort()
                return "451 never said"
            return ""

        provider.mail = mail
        for name in names(5, "a.test"):
            rig.send(name)
        await rig.until(lambda: loop.time() > 1600)
        knocks = provider.connections_total
        told = {line["recipient"] for line in rig.events("deferred")}
        broken = False
        await rig.settled(200.0)
        await rig.stop()

    assert knocks < 25
    assert told == set(names(5, "a.test"))
    assert {line["attempt"] for line in rig.events("delivered")} == {1}


@swiftly
async def test_a_source_whose_probe_found_no_mail_left_does_not_block_the_site(loop: SwiftLoop, tmp_path: Path):
    """The site was down; its only message expires while the probe connects; the next one goes out all the same."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=provider.address)
        rig.send("b@a.test", expire_s=4.0)
        await rig.until(lambda: len(rig.events("deferred")) == 2)
        await provider.set_down(False)
        provider.profile.latency_s = 3.0
        await rig.until(lambda: bool(rig.events("expired")))

        rig.send("c@a.test")
        await rig.settled(300.0)
        await rig.stop()

    assert [line["recipient"] for line in rig.events("delivered")] == ["c@a.test"]


@swiftly
async def test_a_provider_that_takes_fewer_connections_than_we_think(loop: SwiftLoop, tmp_path: Path):
    """Those it takes carry the mail; for one more it is asked ever more rarely, not with every message."""
    async with Sink([Profile(name="a", connections_max=3, latency_s=0.2)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=provider.address)

        for name in names(1500, "a.test"):
            rig.send(name)
        await rig.settled(1000.0)
        await rig.stop()

    assert {line["attempt"] for line in rig.events("delivered")} == {1}
    assert provider.connections_over < 30
    assert loop.time() < 2000


@swiftly
async def test_an_uncertain_message_asks_the_same_host_first(loop: SwiftLoop, tmp_path: Path):
    """Cut off at the final dot, it is put off and comes again to the host that perhaps has it."""
    async with Sink([Profile(name="one"), Profile(name="two")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace("= 10", "= 2"))
        for name in ("one", "two"):
            rig.resolver.addresses_of[f"{name}.a.test"] = [sink.profiles[name].address]
        rig.domain("a.test", "one.a.test", "two.a.test")
        sink.profiles["one"].profile.down = False
        rig.send("dropdot.1@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        await sink.profiles["one"].set_down(True)
        rig.send("keep@a.test")  # an idle connection to the other host stands when the retry is due
        await rig.until(lambda: bool(rig.events("delivered")))
        await sink.profiles["one"].set_down(False)

        await rig.settled()
        await rig.stop()

    assert rig.events("deferred")[0]["uncertain"] is True
    assert [line["host"] for line in rig.events("delivered")] == ["two.a.test", "one.a.test"]


@swiftly
async def test_many_uncertain_messages_each_ask_their_own_host_first(loop: SwiftLoop, tmp_path: Path):
    """Also where they come back all at once, and another host is as good."""
    async with Sink([Profile(name="one", latency_s=0.1), Profile(name="two", latency_s=0.1)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace('"5m"', '"1s"'))
        for name in ("one", "two"):
            rig.resolver.addresses_of[f"{name}.a.test"] = [sink.profiles[name].address]
        rig.domain("a.test", "one.a.test", "two.a.test")
        rig.resolver.found["a.test"] = MailHosts(
            "a.test", (MxHost(10, "one.a.test"), MxHost(10, "two.a.test")), False, 0.0
        )

        for number in range(8):
            rig.send(f"dropdot.1+{number}@a.test")
        await rig.settled(60.0)
        await rig.stop()

    hosts = {line["recipient"]: line["host"] for line in rig.events("deferred")}
    assert len(hosts) == 8
    assert set(hosts.values()) == {"one.a.test", "two.a.test"}
    assert {line["recipient"]: line["host"] for line in rig.events("delivered")} == hosts


@swiftly
async def test_retries_keep_their_source(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Greylisting knows a client by its address."""
    monkeypatch.setattr("bench.provider.monotonic", loop.time)
    sources = [SourceAddress(name, f"127.0.1.{name[1]}", "", f"{name}.test") for name in ("s1", "s2", "s3")]
    async with Sink([Profile(name="a", greylist_s=1.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=sources)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        for name in names(12, "a.test"):
            rig.send(name)
        await rig.settled()
        await rig.stop()

    by_recipient: dict[str, set[str]] = {}
    for line in rig.lines:
        by_recipient.setdefault(line["recipient"], set()).add(line["source"])
    assert all(len(used) == 1 for used in by_recipient.values())
    assert {line["attempt"] for line in rig.events("delivered")} == {2}
    assert len(set.union(*by_recipient.values())) == 3


@swiftly
async def test_a_broken_tls_goes_in_clear_on_a_new_connection(loop: SwiftLoop, tmp_path: Path):
    """STARTTLS that fails is not tried on every connection, where the policy lets mail go in clear."""
    async with Sink([Profile(name="a", extensions=["STARTTLS"])]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace("= 10", "= 1"))
        rig.domain("a.test", "mx.a.test", address=provider.address)

        rig.send("b@a.test")
        rig.send("c@a.test")
        await rig.settled(30.0)
        await rig.stop()

    assert [line.get("tls", "") for line in rig.events("delivered")] == ["", ""]
    assert provider.connections_total == 2
    assert rig.events("deferred") == []


@swiftly
async def test_a_route_goes_before_mx(loop: SwiftLoop, tmp_path: Path):
    """Its hosts are tried in order, by name or address, at their own ports."""
    async with Sink([Profile(name="dead", down=True), Profile(name="relay")]) as sink:
        hosts = (("dead.test", sink.port), ("127.0.0.3", sink.port))
        rig = DeliveryRig(loop, tmp_path, port=1, routes=[Route(("*.corp.test",), hosts, "")])
        rig.resolver.addresses_of["dead.test"] = [sink.profiles["dead"].address]
        rig.resolver.addresses_of["127.0.0.3"] = ["127.0.0.3"]

        rig.send("b@x.corp.test", "c@y.corp.test")
        await rig.settled(30.0)
        await rig.stop()

    assert sink.profiles["relay"].recipients == 2
    assert {line["host"] for line in rig.events("delivered")} == {"127.0.0.3"}
