"""From a host to its addresses, and all of it over sockets."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from mta.resolve.answers import Answer
from mta.resolve.errors import ResolveError
from mta.resolve.prohibited import SPECIAL_PURPOSE_NETWORKS
from mta.resolve.resolver import ADDRESSES_MAX, Resolver
from mta.resolve.sites import MailHosts, MxHost
from mta.testing.fake_clock import FakeClock
from mta.testing.scripted_dns import EMPTY, FAILED, NO_NAME, TTL_S, Fixture, renewals
from mta.testing.toy_dns import ToyDns

# -- a host's addresses --


async def test_families_in_turn() -> None:
    """At most five addresses, one family after the other, beginning with the one named first."""
    fixture = Fixture(
        {
            ("mx.test", "A"): [f"192.0.2.{number}" for number in range(4_000)],
            ("mx.test", "AAAA"): ["2001:db8::1", "2001:db8::2"],
        }
    )

    both = await fixture.resolver.addresses("mx.test", (4, 6))

    assert both == ["192.0.2.0", "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    assert len(both) == ADDRESSES_MAX


async def test_ipv6_first() -> None:
    """The order of the families is the caller's."""
    fixture = Fixture({("mx.test", "A"): ["192.0.2.1"], ("mx.test", "AAAA"): ["2001:db8::1"]})

    addresses = await fixture.resolver.addresses("mx.test", (6, 4))

    assert addresses == ["2001:db8::1", "192.0.2.1"]


@pytest.mark.parametrize(("families", "use_ipv6"), [((4,), True), ((4, 6), False)])
async def test_ipv6_only_when_asked_for(families: tuple[int, ...], use_ipv6: bool) -> None:
    """Without a source with an IPv6 address no AAAA record is asked for."""
    fixture = Fixture({("mx.test", "A"): ["192.0.2.1"], ("mx.test", "AAAA"): ["2001:db8::1"]}, use_ipv6=use_ipv6)

    addresses = await fixture.resolver.addresses("mx.test", families)

    assert addresses == ["192.0.2.1"]
    assert fixture.script.asked["mx.test", "AAAA"] == 0


async def test_addresses_take_turns() -> None:
    """A host with several addresses gets its connections at all of them."""
    fixture = Fixture({("mx.test", "A"): ["192.0.2.1", "192.0.2.2", "192.0.2.3"]})

    first = [(await fixture.resolver.addresses("mx.test"))[0] for _ in range(6)]

    assert first == ["192.0.2.1", "192.0.2.2", "192.0.2.3"] * 2
    assert fixture.script.asked["mx.test", "A"] == 1


async def test_prohibited_addresses_are_left_out() -> None:
    """Of a host's addresses only those remain that we may connect to."""
    fixture = Fixture(
        {("mx.test", "A"): ["127.0.0.1", "8.8.8.8"], ("mx.test", "AAAA"): ["::ffff:10.0.0.1", "2a00:1450::1"]},
        prohibited=SPECIAL_PURPOSE_NETWORKS,
    )

    addresses = await fixture.resolver.addresses("mx.test", (4, 6))

    assert addresses == ["8.8.8.8", "2a00:1450::1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "0.0.0.0", "224.0.0.1"])
async def test_only_prohibited_addresses(address: str) -> None:
    """A host at loopback, in a private network or nowhere is refused for good, and the network is named."""
    fixture = Fixture({("mx.test", "A"): [address]}, prohibited=SPECIAL_PURPOSE_NETWORKS)

    with pytest.raises(ResolveError, match="prohibited") as caught:
        await fixture.resolver.addresses("mx.test")

    assert (caught.value.reply.code, caught.value.reply.enhanced) == (550, "5.4.4")


async def test_prohibited_and_unknown_is_temporary() -> None:
    """While one family's addresses are not known, prohibited ones of the other decide nothing."""
    fixture = Fixture(
        {("mx.test", "A"): ["127.0.0.1"], ("mx.test", "AAAA"): FAILED}, prohibited=SPECIAL_PURPOSE_NETWORKS
    )

    with pytest.raises(ResolveError) as caught:
        await fixture.resolver.addresses("mx.test", (4, 6))

    assert (caught.value.reply.code, caught.value.reply.enhanced) == (451, "4.4.3")


async def test_one_family_is_enough() -> None:
    """Where one family's question fails the other's addresses are used."""
    fixture = Fixture({("mx.test", "A"): FAILED, ("mx.test", "AAAA"): ["2001:db8::1"]})

    addresses = await fixture.resolver.addresses("mx.test", (4, 6))

    assert addresses == ["2001:db8::1"]


@pytest.mark.parametrize("answer", [EMPTY, NO_NAME])
async def test_host_without_addresses_is_temporary(answer: Answer) -> None:
    """An MX that names a host without an address may be repaired, and the domain may have other hosts."""
    fixture = Fixture({("mx.test", "A"): answer})

    with pytest.raises(ResolveError) as caught:
        await fixture.resolver.addresses("mx.test")

    assert (caught.value.reply.code, caught.value.reply.enhanced) == (451, "4.4.4")


async def test_admin_may_write_anything() -> None:
    """Hosts of a route are not checked against the prohibited networks, and may be names or plain addresses."""
    fixture = Fixture({("relay.corp.test", "A"): ["10.0.0.5"]}, prohibited=SPECIAL_PURPOSE_NETWORKS)

    by_name = await fixture.resolver.addresses("relay.corp.test", check_prohibited=False)
    by_address = await fixture.resolver.addresses("127.0.0.1", check_prohibited=False)
    localhost = await fixture.resolver.addresses("localhost", (4, 6), check_prohibited=False)

    assert by_name == ["10.0.0.5"]
    assert by_address == ["127.0.0.1"]
    assert localhost == ["127.0.0.1", "::1"]
    assert fixture.script.asked.total() == 1


@pytest.mark.parametrize("domain", ["[127.0.0.1]", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.1]", "localhost", "a.localhost"])
async def test_mail_to_this_machine_is_prohibited(domain: str) -> None:
    """Literals and names that mean this machine are hosts whose addresses are prohibited."""
    fixture = Fixture({}, prohibited=SPECIAL_PURPOSE_NETWORKS)
    hosts = await fixture.resolver.mail_hosts(domain)

    with pytest.raises(ResolveError, match="prohibited") as caught:
        await fixture.resolver.addresses(hosts.names[0], (4, 6))

    assert caught.value.permanent
    assert fixture.script.asked.total() == 0


async def test_literals_are_addresses() -> None:
    """The address of a literal is used as it is."""
    fixture = Fixture({}, prohibited=SPECIAL_PURPOSE_NETWORKS)

    ipv4 = await fixture.resolver.addresses("[8.8.8.8]")
    ipv6 = await fixture.resolver.addresses("[IPv6:2A00:1450::1]", (4, 6))

    assert ipv4 == ["8.8.8.8"]
    assert ipv6 == ["2a00:1450::1"]


async def test_addresses_are_cached_and_shared() -> None:
    """Many connections to a host cost one question, failed or not, until the answer expires."""
    fixture = Fixture({("mx.test", "A"): ["192.0.2.1"], ("bad.test", "A"): FAILED})
    fixture.script.gate.clear()
    good = [asyncio.ensure_future(fixture.resolver.addresses("mx.test")) for _ in range(20)]
    bad = [asyncio.ensure_future(fixture.resolver.addresses("bad.test")) for _ in range(20)]
    fixture.script.gate.set()

    await asyncio.gather(*good, *bad, return_exceptions=True)
    asked = dict(fixture.script.asked)
    fixture.clock.advance(TTL_S + 1)
    await fixture.resolver.addresses("mx.test")

    assert asked == {("mx.test", "A"): 1, ("bad.test", "A"): 1}
    assert fixture.script.asked["mx.test", "A"] == 2


async def test_late_addresses_are_renewed() -> None:
    """A busy host's addresses are asked for before they expire, and survive a failed question."""
    fixture = Fixture({("mx.test", "A"): ["192.0.2.1"]})
    await fixture.resolver.addresses("mx.test")
    fixture.script.answers["mx.test", "A"] = FAILED
    fixture.clock.advance(TTL_S * 0.95)

    late = await fixture.resolver.addresses("mx.test")
    await renewals()
    still = await fixture.resolver.addresses("mx.test")

    assert late == still == ["192.0.2.1"]


# -- all of it over sockets --

Told = tuple[MailHosts, list[str], MailHosts | BaseException]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_through_a_real_nameserver(run: Callable[..., Told]) -> None:
    """Domain, hosts and addresses come through sockets and dnspython, under both event loops."""

    async def all_of_it() -> Told:
        zone = {
            "shop.test": {"MX": ["20 mx2.shop.test", "10 mx1.shop.test"]},
            "mx1.shop.test": {"A": ["127.0.0.2"], "AAAA": ["::1"]},
            "null.test": {"MX": ["0 ."]},
        }
        async with ToyDns(zone) as dns:
            resolver = Resolver(nameservers=[dns.address], clock=FakeClock(), prohibited=[])
            hosts = await resolver.mail_hosts("shop.test")
            addresses = await resolver.addresses(hosts.hosts[0].name, (4, 6))
            refused = (await asyncio.gather(resolver.mail_hosts("null.test"), return_exceptions=True))[0]
            await resolver.close()
        return hosts, addresses, refused

    hosts, addresses, refused = run(all_of_it())

    assert hosts.hosts == (MxHost(10, "mx1.shop.test"), MxHost(20, "mx2.shop.test"))
    assert addresses == ["127.0.0.2", "::1"]
    assert isinstance(refused, ResolveError)
    assert refused.reply.enhanced == "5.1.10"


async def test_silent_nameserver_defers() -> None:
    """A nameserver that never answers costs the look-up's time and defers."""
    async with ToyDns({"shop.test": {"MX": ["10 mx.test"]}}) as dns:
        dns.behave("timeout")
        resolver = Resolver(nameservers=[dns.address], clock=FakeClock(), prohibited=[], timeout_s=0.05)

        with pytest.raises(ResolveError) as caught:
            await resolver.mail_hosts("shop.test")

    assert (caught.value.reply.code, caught.value.reply.enhanced) == (451, "4.4.3")
    assert caught.value.reply.text == "cannot resolve shop.test: no answer within 0.05 seconds"
