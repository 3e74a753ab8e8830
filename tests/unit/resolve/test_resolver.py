"""From a domain to its hosts: what the answers mean for mail, and how long they are kept."""

import asyncio
from collections.abc import Sequence

import pytest

from mta.resolve.answers import Answer, Kind
from mta.resolve.cache import FAILED_TTL_S, NEGATIVE_TTL_MAX_S, NEGATIVE_TTL_MIN_S, TTL_MAX_S, TTL_MIN_S
from mta.resolve.errors import ResolveError
from mta.resolve.resolver import MX_HOSTS_MAX, read_hosts
from mta.resolve.sites import MailHosts, MxHost
from mta.testing.scripted_dns import EMPTY, FAILED, NO_NAME, TTL_S, Fixture, error_of, renewals

# -- a domain's hosts --


async def test_mx_hosts_by_preference() -> None:
    """MX records become hosts, best first, in lower case and without a dot at the end."""
    fixture = Fixture({("shop.test", "MX"): ["20 B.shop.test.", "10 a.shop.test", "20 c.shop.test"]})

    hosts = await fixture.resolver.mail_hosts("shop.test")

    assert hosts.hosts == (MxHost(10, "a.shop.test"), MxHost(20, "b.shop.test"), MxHost(20, "c.shop.test"))
    assert not hosts.implicit
    assert hosts.expires_s == fixture.clock.monotonic_s() + TTL_S


async def test_domain_without_mx_is_its_own_host() -> None:
    """No MX, but an address: the domain itself takes the mail (RFC 5321 5.1)."""
    fixture = Fixture({("shop.test", "MX"): EMPTY, ("shop.test", "A"): ["192.0.2.1"]})

    hosts = await fixture.resolver.mail_hosts("shop.test")

    assert hosts.hosts == (MxHost(0, "shop.test"),)
    assert hosts.implicit
    assert hosts.expires_s == fixture.clock.monotonic_s() + EMPTY.ttl_s


async def test_domain_with_only_an_ipv6_address() -> None:
    """An AAAA record is an address too, also where we send from IPv4 only: the domain exists."""
    fixture = Fixture(
        {("shop.test", "MX"): EMPTY, ("shop.test", "A"): EMPTY, ("shop.test", "AAAA"): ["2001:db8::1"]}, use_ipv6=False
    )

    hosts = await fixture.resolver.mail_hosts("shop.test")

    assert hosts.names == ("shop.test",)


async def test_alias_without_mx_leads_to_its_target() -> None:
    """Domains that are aliases of one host are one site."""
    target = Answer("empty", ttl_s=300, name="host.test", aliases=1)
    fixture = Fixture(
        {("a.test", "MX"): target, ("b.test", "MX"): target, ("host.test", "A"): ["192.0.2.1"]},
    )

    one = await fixture.resolver.mail_hosts("a.test")
    other = await fixture.resolver.mail_hosts("b.test")

    assert one.names == other.names == ("host.test",)


@pytest.mark.parametrize("records", [["0 "], ["10 "], ["0 ", "10 "]])
async def test_null_mx(records: list[str]) -> None:
    """A domain that takes no mail says so with the root as its host: permanent, and its address does not count."""
    fixture = Fixture({("null.test", "MX"): records, ("null.test", "A"): ["192.0.2.1"]})

    error = await error_of(fixture, "null.test")

    assert (error.reply.code, error.reply.enhanced) == (556, "5.1.10")
    assert error.permanent
    assert fixture.script.asked["null.test", "A"] == 0


async def test_null_mx_beside_others_is_ignored() -> None:
    """A null MX counts only alone (RFC 7505 3)."""
    fixture = Fixture({("shop.test", "MX"): ["0 ", "10 mx.shop.test"]})

    hosts = await fixture.resolver.mail_hosts("shop.test")

    assert hosts.names == ("mx.shop.test",)


async def test_no_such_domain() -> None:
    """A domain that does not exist is refused for good, and only when two answers said so."""
    fixture = Fixture({})

    error = await error_of(fixture, "nobody.test")

    assert (error.reply.code, error.reply.enhanced) == (550, "5.1.2")
    assert fixture.script.confirmed["nobody.test", "MX"] == ("no-name",)


async def test_domain_without_mail() -> None:
    """A domain with neither MX nor address is refused for good; the missing addresses are confirmed too."""
    fixture = Fixture({("web.test", "MX"): EMPTY, ("web.test", "A"): EMPTY, ("web.test", "AAAA"): EMPTY})

    error = await error_of(fixture, "web.test")

    assert (error.reply.code, error.reply.enhanced) == (550, "5.1.2")
    assert "empty" in fixture.script.confirmed["web.test", "A"]
    assert "empty" in fixture.script.confirmed["web.test", "AAAA"]


@pytest.mark.parametrize("missing", ["MX", "A", "AAAA"])
async def test_failure_is_temporary_at_every_step(missing: Kind) -> None:
    """A question without an answer defers, whatever the others said; a failed MX never falls back to the address."""
    answers: dict[tuple[str, Kind], Sequence[str] | Answer] = {
        ("shop.test", "MX"): EMPTY,
        ("shop.test", "A"): EMPTY,
        ("shop.test", "AAAA"): EMPTY,
    }
    answers["shop.test", missing] = FAILED
    fixture = Fixture(answers)

    error = await error_of(fixture, "shop.test")

    assert (error.reply.code, error.reply.enhanced) == (451, "4.4.3")
    assert not error.permanent
    assert "SERVFAIL" in error.reply.text
    assert fixture.script.asked["shop.test", "A"] == (missing != "MX")


@pytest.mark.parametrize("domain", ["a b.test", "", "bücher.example", "a\r\nb.test", "x" * 64 + ".test", "1.2.3.4.5"])
async def test_odd_domains_cost_no_query(domain: str) -> None:
    """What cannot be a domain is refused without asking; the text shows it harmlessly."""
    fixture = Fixture({})

    error = await error_of(fixture, domain)

    assert error.reply.enhanced == "5.1.2"
    assert fixture.script.asked.total() == 0
    assert error.reply.text.isascii()
    assert error.reply.text.isprintable()


async def test_mx_that_is_an_address() -> None:
    """An address is no host name: such records are passed over, and where there is nothing else it is permanent."""
    fixture = Fixture(
        {("mixed.test", "MX"): ["10 192.0.2.1", "20 mx.test"], ("bad.test", "MX"): ["10 192.0.2.1", "20 a\\032b.test"]}
    )

    mixed = await fixture.resolver.mail_hosts("mixed.test")
    error = await error_of(fixture, "bad.test")

    assert mixed.names == ("mx.test",)
    assert (error.reply.code, error.reply.enhanced) == (550, "5.4.4")


def test_a_thousand_mx_records() -> None:
    """Only the best hundred count; a host that is named twice counts once, with its better preference."""
    records = [f"{1000 - number} mx{number}.test" for number in range(1000)]

    hosts = read_hosts([*records, "5 mx999.test", "9 mx999.test"])

    assert len(hosts) == MX_HOSTS_MAX
    assert hosts[0] == MxHost(1, "mx999.test")
    assert len({host.name for host in hosts}) == MX_HOSTS_MAX


@pytest.mark.parametrize("literal", ["[192.0.2.1]", "[IPv6:2001:db8::1]"])
async def test_address_literals_need_no_dns(literal: str) -> None:
    """A literal is a host of its own, and a site of its own (RFC 5321 4.1.3)."""
    fixture = Fixture({})

    hosts = await fixture.resolver.mail_hosts(literal)

    assert hosts.names == (literal,)
    assert fixture.script.asked.total() == 0
    assert isinstance(fixture.resolver.cached_hosts(literal), MailHosts)


async def test_single_label_domains_are_absolute() -> None:
    """A top-level domain with an MX takes mail like any other."""
    fixture = Fixture({("ai", "MX"): ["10 mail.offshore.ai"]})

    hosts = await fixture.resolver.mail_hosts("ai")

    assert hosts.names == ("mail.offshore.ai",)


# -- ourselves --


@pytest.mark.parametrize(
    ("own", "left"),
    [("a.test", []), ("b.test", ["a.test"]), ("c.test", ["a.test"]), ("d.test", ["a.test", "b.test", "c.test"])],
)
async def test_mail_goes_only_to_better_hosts(own: str, left: list[str]) -> None:
    """Where we are one of the hosts, those of our preference and worse are no way out (RFC 5321 5.1)."""
    records = ["10 a.test", "20 b.test", "20 c.test", "30 d.test"]
    fixture = Fixture({("shop.test", "MX"): records}, own_names=[own.upper() + "."])

    if left:
        hosts = await fixture.resolver.mail_hosts("shop.test")

        assert list(hosts.names) == left
    else:
        error = await error_of(fixture, "shop.test")

        assert (error.reply.code, error.reply.enhanced) == (550, "5.4.6")


@pytest.mark.parametrize(("kind", "address"), [("A", "192.0.2.7"), ("AAAA", "2001:db8::7")])
async def test_own_address_under_another_name(kind: Kind, address: str) -> None:
    """A host with an address of ours is us, whatever its name; hosts that cannot be resolved are not."""
    fixture = Fixture(
        {
            ("shop.test", "MX"): ["10 a.test", "20 b.test", "30 c.test"],
            ("a.test", "A"): FAILED,
            ("b.test", kind): ["192.0.2.99" if kind == "A" else "2001:db8::99", address],
        },
        own_addresses=[address],
    )

    hosts = await fixture.resolver.mail_hosts("shop.test")

    assert hosts.names == ("a.test",)


async def test_domain_that_is_ourselves() -> None:
    """A domain without MX whose own name or address is ours would come back to us."""
    answers: dict[tuple[str, Kind], Sequence[str] | Answer] = {
        ("us.test", "MX"): EMPTY,
        ("us.test", "A"): ["192.0.2.7"],
    }

    by_name = await error_of(Fixture(answers, own_names=["us.test"]), "us.test")
    by_address = await error_of(Fixture(answers, own_addresses=["192.0.2.7"]), "us.test")

    assert by_name.reply.enhanced == by_address.reply.enhanced == "5.4.6"


# -- the cache --


async def test_cached_hosts_do_not_wait() -> None:
    """Before the first answer nothing is known; after it the answer is there until it expires."""
    fixture = Fixture({("shop.test", "MX"): ["10 mx.test"]})

    before = fixture.resolver.cached_hosts("shop.test")
    hosts = await fixture.resolver.mail_hosts("shop.test")
    after = fixture.resolver.cached_hosts("shop.test")
    fixture.clock.advance(TTL_S)
    expired = fixture.resolver.cached_hosts("shop.test")

    assert before is None
    assert after is hosts
    assert expired is None


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(0, TTL_MIN_S), (2**31 - 1, TTL_MAX_S), (2**31, TTL_MIN_S)])
async def test_ttls_are_clamped(ttl_s: int, kept_s: float) -> None:
    """An MX with a TTL of 0 or of decades is asked for again after a minute or a day."""
    fixture = Fixture({("shop.test", "MX"): Answer("found", ("10 mx.test",), ttl_s)})

    hosts = await fixture.resolver.mail_hosts("shop.test")

    assert hosts.expires_s - fixture.clock.monotonic_s() == kept_s


@pytest.mark.parametrize(
    ("answer", "kept_s"),
    [
        (FAILED, FAILED_TTL_S),
        (NO_NAME, 300),
        (NO_NAME._replace(ttl_s=99_999), NEGATIVE_TTL_MAX_S),
        (NO_NAME._replace(ttl_s=2**31), NEGATIVE_TTL_MIN_S),
    ],
)
async def test_failures_are_remembered_briefly(answer: Answer, kept_s: float) -> None:
    """A failure spares the next messages the question, and is asked again soon."""
    fixture = Fixture({("bad.test", "MX"): answer})
    await error_of(fixture, "bad.test")

    fixture.clock.advance(kept_s - 0.1)
    known = fixture.resolver.cached_hosts("bad.test")
    await error_of(fixture, "bad.test")
    asked_before = fixture.script.asked["bad.test", "MX"]
    fixture.clock.advance(0.2)
    gone = fixture.resolver.cached_hosts("bad.test")
    await error_of(fixture, "bad.test")

    assert isinstance(known, ResolveError)
    assert asked_before == 1
    assert gone is None
    assert fixture.script.asked["bad.test", "MX"] == 2


async def test_many_wait_for_one_question() -> None:
    """However many ask for a domain at a time, it is asked for once, and the failure is everybody's own."""
    fixture = Fixture({("shop.test", "MX"): ["10 mx.test"], ("bad.test", "MX"): FAILED})
    fixture.script.gate.clear()
    good = [asyncio.ensure_future(fixture.resolver.mail_hosts("shop.test")) for _ in range(50)]
    bad = [asyncio.ensure_future(fixture.resolver.mail_hosts("bad.test")) for _ in range(50)]
    fixture.script.gate.set()

    hosts = await asyncio.gather(*good)
    failures = await asyncio.gather(*bad, return_exceptions=True)

    assert set(fixture.script.asked.values()) == {1}
    assert all(each is hosts[0] for each in hosts)
    assert len({id(failure) for failure in failures}) == 50


async def test_cancelled_waiter_does_not_cancel_the_others() -> None:
    """Who gives up waiting leaves the question to those who still wait."""
    fixture = Fixture({("shop.test", "MX"): ["10 mx.test"]})
    fixture.script.gate.clear()
    impatient = asyncio.ensure_future(fixture.resolver.mail_hosts("shop.test"))
    patient = asyncio.ensure_future(fixture.resolver.mail_hosts("shop.test"))
    await asyncio.sleep(0)

    impatient.cancel()
    await asyncio.sleep(0)
    fixture.script.gate.set()
    hosts = await patient

    assert hosts.names == ("mx.test",)
    assert impatient.cancelled()
    assert fixture.script.asked["shop.test", "MX"] == 1


async def test_late_answer_is_renewed_behind_the_scenes() -> None:
    """Shortly before it expires a busy domain is asked for once, while the old answer still serves."""
    fixture = Fixture({("shop.test", "MX"): ["10 old.test"]})
    old = await fixture.resolver.mail_hosts("shop.test")
    fixture.script.answers["shop.test", "MX"] = ["10 new.test"]
    fixture.clock.advance(TTL_S * 0.95)

    late = [fixture.resolver.cached_hosts("shop.test") for _ in range(5)]
    renewed = await fixture.resolver.mail_hosts("shop.test")
    await renewals()
    new = fixture.resolver.cached_hosts("shop.test")

    assert late == [old] * 5
    assert renewed is old
    assert isinstance(new, MailHosts)
    assert new.names == ("new.test",)
    assert fixture.script.asked["shop.test", "MX"] == 2


async def test_failed_renewal_keeps_the_old_answer() -> None:
    """A nameserver that is down for a moment takes nothing away that still counts."""
    fixture = Fixture({("shop.test", "MX"): ["10 mx.test"]})
    old = await fixture.resolver.mail_hosts("shop.test")
    fixture.script.answers["shop.test", "MX"] = FAILED
    fixture.clock.advance(TTL_S * 0.95)

    fixture.resolver.cached_hosts("shop.test")
    await renewals()
    still = fixture.resolver.cached_hosts("shop.test")
    fixture.clock.advance(TTL_S * 0.06)
    error = await error_of(fixture, "shop.test")

    assert still is old
    assert error.reply.code == 451


async def test_upper_case_is_the_same_domain() -> None:
    """Names are asked for and kept in lower case."""
    fixture = Fixture({("shop.test", "MX"): ["10 mx.test"]})

    await fixture.resolver.mail_hosts("SHOP.test.")

    assert isinstance(fixture.resolver.cached_hosts("shop.test"), MailHosts)


async def test_close_cancels_what_is_under_way() -> None:
    """Whoever waits when the resolver is closed is cancelled, not left waiting."""
    fixture = Fixture({})
    fixture.script.gate.clear()
    waiting = asyncio.ensure_future(fixture.resolver.mail_hosts("shop.test"))
    await asyncio.sleep(0)

    await fixture.resolver.close()
    await asyncio.wait([waiting])

    assert waiting.cancelled()
