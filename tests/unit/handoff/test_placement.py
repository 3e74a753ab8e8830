"""Placement: the same inputs give the same owner, on every worker."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.handoff import placement
from mta.handoff.placement import Destination, Placement, Route
from mta_policies.layers import PolicySet, load
from mta_policies.limits import Share

POLICIES = {
    "default": "[limits]\nconnections = 10\n",
    "alpha": 'match = { domains = ["alpha.example", "*.alpha.example"], mx = ["*.alpha-mx.example"] }\n',
    "wide": 'owners = 3\nmatch = { domains = ["wide.example"], mx = ["*.wide-mx.example"] }\n',
}
ROUTES = [
    Route(("*.corp.example", "net.example"), (("10.0.0.5", 25),), ""),
    Route(("smart.example",), (("10.0.0.6", 25),), "alpha"),
]
domains = st.from_regex(r"[a-z]{1,8}\.(com|example)", fullmatch=True)


@cache
def policies() -> PolicySet:
    """The policies above, in no folder but a passing one."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        for policy, text in POLICIES.items():
            (Path(name) / f"{policy}.toml").write_text(text)
        return load(None, shipped=Path(name))


def places(workers: int, routes: list[Route] | None = None) -> list[Placement]:
    """What every worker knows."""
    return [Placement(policies(), ROUTES if routes is None else routes, workers, me) for me in range(workers)]


@pytest.mark.parametrize(
    ("domain", "key"),
    [
        ("a.corp.example", "route:0:default"),
        ("x.y.corp.example", "route:0:default"),
        ("net.example", "route:0:default"),
        ("smart.example", "route:1:alpha"),
        ("alpha.example", "policy:alpha"),
        ("deep.in.alpha.example", "policy:alpha"),
    ],
)
def test_a_name_that_decides(domain: str, key: str) -> None:
    """Routes come first, then a policy's domains."""
    decided = places(4)[0].decided(domain)

    assert decided is not None
    assert decided.key == key


@pytest.mark.parametrize("domain", ["corp.example", "other.example", "notalpha.example", "[192.0.2.1]"])
def test_a_name_that_decides_nothing(domain: str) -> None:
    """`*.x` is not x itself; what matches nothing belongs to whoever looks it up."""
    place = places(4)[0]

    assert place.decided(domain) is None
    assert place.owner(domain, 0.0) == place.asker(domain)


def test_a_smart_host_takes_all() -> None:
    """A route for `*` decides every domain, policies' ones too, with their own limits."""
    place = places(4, [Route(("*",), (("10.0.0.5", 25),), "")])[0]

    keys = {domain: place.decided(domain) for domain in ("alpha.example", "other.example")}

    assert {domain: found.key for domain, found in keys.items() if found} == {
        "alpha.example": "route:0:alpha",
        "other.example": "route:0:default",
    }


def test_mx_hosts_decide_the_rest() -> None:
    """All hosts of a policy make it the policy's; one stranger among them makes it a site of its own."""
    place = places(4)[0]

    assert place.by_mx(["a.alpha-mx.example", "b.alpha-mx.example"], "s").key == "policy:alpha"
    assert place.by_mx(["a.alpha-mx.example", "mx.other.example"], "s").key == "site:s"


@given(domains, st.integers(1, 9), domains)
def test_all_workers_agree(domain: str, workers: int, site: str) -> None:
    """Owner, owners, shares and asker are the same whoever computes them."""
    everywhere = places(workers)
    found = [place.decided(domain) or place.by_mx([f"mx.{site}"], site) for place in everywhere]

    assert len({destination.key for destination in found}) == 1
    assert len({place.owners(destination) for place, destination in zip(everywhere, found, strict=True)}) == 1
    assert len({place.asker(domain) for place in everywhere}) == 1
    assert len({place.owner(domain, 0.0) for place in everywhere}) == 1
    shares = [place.share(destination) for place, destination in zip(everywhere, found, strict=True)]
    assert [share.index for share in shares if share is not None] == [0]


@given(st.integers(1, 9))
def test_several_owners_share_everything(workers: int) -> None:
    """`owners = 3` are three different workers, or all there are; their shares are numbered without a gap."""
    everywhere = places(workers)
    destination = everywhere[0].decided("wide.example")
    assert destination is not None
    owners = everywhere[0].owners(destination)

    shares = {place.me: place.share(destination) for place in everywhere}

    assert len(set(owners)) == len(owners) == min(3, workers)
    assert all(0 <= owner < workers for owner in owners)
    assert [shares[owner] for owner in owners] == [Share(index, len(owners)) for index in range(len(owners))]
    assert sum(share is not None for share in shares.values()) == len(owners)


def test_several_owners_in_turn() -> None:
    """A door that is among the owners keeps the mail; another one deals it out evenly."""
    everywhere = places(4)
    destination = everywhere[0].decided("wide.example")
    assert destination is not None
    owners = everywhere[0].owners(destination)
    (outsider,) = set(range(4)) - set(owners)

    assert [everywhere[owner].owner("wide.example", 0.0) for owner in owners] == list(owners)
    assert Counter(everywhere[outsider].owner("wide.example", 0.0) for _ in range(30)) == dict.fromkeys(owners, 10)


def test_a_told_domain_goes_to_its_owner_until_then() -> None:
    """What the asker told holds as long as it said, then the asker is asked again."""
    place = places(4)[0]
    owner = (place.asker("other.example") + 1) % 4

    place.tell("other.example", [owner], until_s=100.0)

    assert place.owner("other.example", 99.9) == owner
    assert place.owner("other.example", 100.0) == place.asker("other.example")
    assert place.owner("other.example", 99.9) == place.asker("other.example")


def test_a_name_that_decides_beats_what_was_told() -> None:
    """No other worker can tell where a route goes."""
    place = places(4)[0]
    before = place.owner("net.example", 0.0)

    place.tell("net.example", [(before + 1) % 4], until_s=100.0)

    assert place.owner("net.example", 0.0) == before


def test_the_longest_told_domain_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told domains are bounded; one that is told again counts as new."""
    monkeypatch.setattr(placement, "KNOWN_DOMAINS_MAX", 2)
    place = places(4)[0]
    elsewhere = {domain: (place.asker(domain) + 1) % 4 for domain in ("a.com", "b.com", "c.com")}

    for domain in ("a.com", "b.com", "a.com", "c.com"):
        place.tell(domain, [elsewhere[domain]], until_s=100.0)

    assert place.owner("b.com", 0.0) == place.asker("b.com")
    assert [place.owner(domain, 0.0) for domain in ("a.com", "c.com")] == [elsewhere["a.com"], elsewhere["c.com"]]


def test_one_worker_owns_everything() -> None:
    """Without others there is nothing to decide."""
    assert places(1)[0].owner("anything.example", 0.0) == 0


def test_destinations_are_spread() -> None:
    """Many sites fall to all workers, none to more than twice its part."""
    place = places(4)[0]

    counts = Counter(
        place.owners(Destination(f"site:mx{number}.example", policies().default))[0] for number in range(400)
    )

    assert set(counts) == {0, 1, 2, 3}
    assert max(counts.values()) < 200
