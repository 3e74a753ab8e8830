"""Which policy a name belongs to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.match import Index, name_matches


@pytest.fixture
def index() -> Index:
    index = Index()
    index.add("consumer", ["*.olc.outlook.example"])
    index.add("exact", ["mx.outlook.example"])
    index.add("wide", ["*.outlook.example", "*.example"])
    return index


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("a.olc.outlook.example", "consumer"),
        ("a.b.olc.outlook.example", "consumer"),
        ("olc.outlook.example", "wide"),
        ("mx.outlook.example", "exact"),
        ("x.y.z.example", "wide"),
        ("example", None),
        ("outlook.test", None),
        ("", None),
    ],
)
def test_the_exact_name_wins_then_the_longest_pattern(index: Index, name: str, policy: str | None) -> None:
    """A star stands for any depth, but not for nothing."""
    assert index.find(name) == policy


def test_every_host_must_match(index: Index) -> None:
    """One host of another provider, and the domain is not this provider's."""
    assert index.find_all(["a.olc.outlook.example", "b.olc.outlook.example"]) == "consumer"
    assert index.find_all(["a.olc.outlook.example", "b.other.test"]) is None
    assert index.find_all([]) is None


def test_of_several_policies_the_one_that_is_nearer_at_its_farthest_host_wins(index: Index) -> None:
    """All hosts match the wide pattern, only one the narrow one."""
    assert index.find_all(["a.olc.outlook.example", "b.outlook.example"]) == "wide"


def test_hosts_are_compared_without_case_and_dot(index: Index) -> None:
    """As the DNS means them."""
    assert index.find_all(["A.OLC.Outlook.Example."]) == "consumer"


def test_of_equal_patterns_the_first_by_name_wins() -> None:
    """Policies are added in the order of their names."""
    index = Index()
    index.add("a", ["*.x.test"])
    index.add("b", ["*.x.test"])

    assert index.find("mx.x.test") == "a"
    assert index.find_all(["mx.x.test"]) == "a"


LABELS = st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(LABELS, LABELS.map(lambda name: f"*.{name}"))


@given(st.lists(PATTERNS, max_size=8), LABELS)
def test_the_index_finds_what_a_walk_over_all_patterns_finds(patterns: list[str], name: str) -> None:
    """The look-up by labels is the plain definition, only faster."""
    index = Index()
    for pattern in patterns:
        index.add(pattern, [pattern])
    matching = [one for one in patterns if one == name or (one.startswith("*.") and name.endswith(one[1:]))]

    expected = max(matching, key=lambda one: (one == name, len(one)), default=None)

    assert index.find(name) == expected
    assert index.find_all([name]) == expected


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("new-*", "new-1", True),
        ("new-*", "new-", True),
        ("new-*", "old-1", False),
        ("*", "anything", True),
        ("out-1", "out-1", True),
        ("out-1", "out-11", False),
        ("a*b*c", "aXbXc", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
    ],
)
def test_a_star_in_a_sources_name_stands_for_anything(pattern: str, name: str, matches: bool) -> None:
    """Also for nothing, also several times."""
    assert name_matches(pattern, name) is matches
