"""Where the baseline goes with the mail of a domain, and how much it may send there."""

from collections.abc import Mapping

import pytest
from dns.exception import DNSException

from bench.baseline_directions import Directions, Limits, Place
from mta.testing.toy_dns import ToyDns

OTHERS = Limits(connections=4)
BIG = Limits(connections=9, messages_per_connection=50, domains=("big.test", "*.big.test"), mx=("*.big-mail.test",))
ZONE = {
    "big.test": {"MX": ["10 mx1.big-mail.test.", "5 mx2.big-mail.test."]},
    "hosted.test": {"MX": ["10 mx1.big-mail.test."]},
    "small.test": {"MX": ["10 mx.small.test."]},
    "plain.test": {"A": ["127.0.0.9"]},
    "null.test": {"MX": ["0 ."]},
    "mx1.big-mail.test": {"A": ["127.0.0.2"]},
    "mx2.big-mail.test": {"A": ["127.0.0.3"]},
    "mx.small.test": {"A": ["127.0.0.4"]},
}


def directions(dns: ToyDns | None = None, routes: Mapping[str, tuple[str, int]] | None = None) -> Directions:
    place = ("127.0.0.1", int(dns.address.rpartition(":")[2])) if dns else None
    return Directions(routes or {}, [BIG, OTHERS], place, 2526)


@pytest.mark.parametrize(
    ("domain", "place"),
    [
        ("big.test", Place("127.0.0.3", 2526, BIG)),
        ("hosted.test", Place("127.0.0.2", 2526, BIG)),
        ("small.test", Place("127.0.0.4", 2526, OTHERS)),
        ("plain.test", Place("127.0.0.9", 2526, OTHERS)),
    ],
)
async def test_the_best_mail_host_is_taken(domain: str, place: Place):
    """Least preference first, the domain itself where it names none; the limits are those of domain or host."""
    async with ToyDns(ZONE) as dns:
        found = await directions(dns).find(domain)

    assert found == place


async def test_a_domain_is_asked_for_once():
    """Afterwards it is known."""
    async with ToyDns(ZONE) as dns:
        way = directions(dns)
        before = way.known("big.test")
        await way.find("big.test")

        assert before is None
        assert way.known("big.test") == Place("127.0.0.3", 2526, BIG)


@pytest.mark.parametrize("domain", ["nowhere.test", "null.test"])
async def test_a_domain_that_takes_no_mail_is_told(domain: str):
    """One that does not exist, and one that says so with a null MX."""
    async with ToyDns(ZONE) as dns:
        with pytest.raises(LookupError):
            await directions(dns).find(domain)


async def test_trouble_in_the_dns_is_not_the_end():
    """A server that fails may answer later."""
    async with ToyDns(ZONE) as dns:
        dns.behave("servfail")

        with pytest.raises(DNSException):
            await directions(dns).find("big.test")


def test_routes_come_before_the_dns():
    """A domain's own, with the limits of its destination, and one for all others."""
    way = directions(routes={"big.test": ("127.0.0.7", 25), "*": ("127.0.0.8", 26)})

    assert way.known("big.test") == Place("127.0.0.7", 25, BIG)
    assert way.known("whatever.test") == Place("127.0.0.8", 26, OTHERS)


def test_without_a_route_nothing_is_known():
    """Then the DNS is asked."""
    assert directions(routes={"big.test": ("127.0.0.7", 25)}).known("small.test") is None
