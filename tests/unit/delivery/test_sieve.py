"""The sieve: it lets through all that a selection means, and of the rest as little as it can."""

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.dispatcher import Dispatcher
from mta.delivery.sieve import Sieve
from mta.model import envelope as envelopes
from mta.model.envelope import Envelope, Recipient
from mta.model.selection import Criteria, Facts, Selection, matches
from mta.testing.fake_clock import FakeClock

POLICY = "google"


class Engine:
    """As much of a dispatcher as the sieve asks."""

    def __init__(self, sites: dict[str, str]) -> None:
        self.clock = FakeClock()
        self.domains = self
        self._sites = sites

    def place(self, domain: str) -> Any:
        name = self._sites.get(domain)
        destination = SimpleNamespace(policy=SimpleNamespace(name=POLICY))
        return SimpleNamespace(name=name, destination=destination) if name is not None else None


def sieve_of(engine: Engine, **selection: Any) -> Sieve:
    return Sieve(cast(Dispatcher, engine), Criteria(Selection(**selection)))


def meta(*recipients: str, received_s: float = 0.0, **fields: Any) -> bytes:
    listed = [Recipient(recipient, recipient.partition("@")[2]) for recipient in recipients]
    return envelopes.encode(Envelope("m1", "news@shop.test", listed, received_s, 10, **fields))


WORDS = st.sampled_from(["", "a", "*", "a*", "b", "<>"])
NAMES = st.sampled_from(["", "a", "ab", "b"])
DOMAINS = st.sampled_from(["a", "b", "ab"])
FIELDS = ("id", "domain", "site", "policy", "source", "tenant", "campaign", "sender", "recipient")


@given(
    asked_for=st.dictionaries(st.sampled_from(FIELDS), WORDS, min_size=1, max_size=3),
    older_than_s=st.sampled_from([0.0, 0.0, 5.0]),
    message_id=st.sampled_from(["a", "b"]),
    names=st.tuples(NAMES, NAMES, NAMES),
    recipients=st.lists(st.tuples(NAMES, DOMAINS), min_size=1, max_size=3),
    age_s=st.sampled_from([-1.0, 0.0, 9.0]),
    sites=st.dictionaries(DOMAINS, NAMES.filter(bool)),
    source=NAMES,
    is_told=st.booleans(),
)
def test_what_is_meant_falls_through(
    asked_for: dict[str, Any],
    older_than_s: float,
    message_id: str,
    names: tuple[str, str, str],
    recipients: list[tuple[str, str]],
    age_s: float,
    sites: dict[str, str],
    source: str,
    is_told: bool,
) -> None:
    """Whatever is selected, whatever the sieve was told of sites; what it holds back matches for no recipient."""
    selection = Selection(**asked_for, older_than_s=older_than_s)
    if selection.is_empty:
        return
    engine = Engine(sites)
    sender, tenant, campaign = names
    listed = [Recipient(address, domain) for address, domain in recipients]
    received_s = engine.clock.wall_s() - age_s
    envelope = Envelope(message_id, sender, listed, received_s, 1, tenant=tenant, campaign=campaign)
    sieve = Sieve(cast(Dispatcher, engine), Criteria(selection))

    wanted = sieve.wants(1, envelopes.encode(envelope))
    if is_told:
        sieve.tell()
        wanted = sieve.wants(1, envelopes.encode(envelope))

    def is_meant(recipient: Recipient, site: str) -> bool:
        return matches(selection, Facts(
            message_id, recipient.domain, site, POLICY, source, tenant, campaign, sender, recipient.address, age_s
        ))  # fmt: skip

    # Where a site is not known it is where the last attempt went, which only the note says.
    if any(
        is_meant(each, site)
        for each in listed
        for site in ([sites[each.domain]] if each.domain in sites else ["a", "b", ""])
    ):
        assert wanted


def test_what_it_holds_back() -> None:
    """Another message, tenant, recipient, age; another site as soon as that of the domain was told."""
    engine = Engine({"a.test": "mx.a.test", "b.test": "mx.b.test"})
    now_s = engine.clock.wall_s()
    both = meta("x@a.test", "y@b.test", received_s=now_s, tenant="shop")

    assert not sieve_of(engine, id="m2").wants(1, both)
    assert not sieve_of(engine, tenant="boss").wants(1, both)
    assert not sieve_of(engine, recipient="z@*").wants(1, both)
    assert not sieve_of(engine, older_than_s=1.0).wants(1, both)
    assert not sieve_of(engine, recipient="x@*", domain="b.test").wants(1, both)
    by_source = sieve_of(engine, source="out-1", site="mx.a.test")  # which source it was only the note says
    for _ in range(2):
        assert by_source.wants(1, meta("x@a.test", received_s=now_s))
        by_source.tell()
    for selection in ({"site": "mx.c.test"}, {"policy": "yahoo"}, {"site": "mx.b.test", "domain": "a.test"}):
        sieve = sieve_of(engine, **selection)
        asked = 0
        while sieve.wants(1, both):  # as long as it knows nothing of the site of a domain
            sieve.tell()
            asked += 1
        assert asked == (2 if len(selection) == 1 else 1)
        assert sieve.wants(2, meta("x@a.test", "z@c.test")) is (selection.get("domain") is None)


def test_what_cannot_be_understood_is_the_loops_to_say() -> None:
    """It falls through."""
    assert sieve_of(Engine({}), id="m1").wants(1, b"\xc1")
