"""Sources: weights hold over any few dozen messages."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.connection import SourceAddress
from mta.delivery.sources import Rotation, Sources, families


def source(name: str) -> SourceAddress:
    return SourceAddress(name, "192.0.2.1", "", f"{name}.test")


def test_turns_are_interleaved():
    """3 to 1 is a a b a, and not a a a b."""
    rotation = Rotation([(source("a"), 3), (source("b"), 1)])

    assert "".join(rotation.next().name for _ in range(8)) == "aabaaaba"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 300))
def test_no_source_is_ever_a_whole_turn_off(weights: list[int], skipped: int):
    """In the first n turns each has had its share, give or take less than one for each of the others."""
    rotation = Rotation([(source(str(number)), weight) for number, weight in enumerate(weights)])

    counts = Counter(rotation.next().name for _ in range(skipped))

    for number, weight in enumerate(weights):
        share = skipped * weight / sum(weights)
        assert abs(counts[str(number)] - share) < len(weights)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_a_round_is_exact(weights: list[int]):
    """As many turns as the weights add up to give each exactly its weight, again and again."""
    rotation = Rotation([(source(str(number)), weight) for number, weight in enumerate(weights)])

    for _ in range(3):
        counts = Counter(rotation.next().name for _ in range(sum(weights)))
        assert [counts[str(number)] for number in range(len(weights))] == weights


def test_without_sources_the_system_chooses():
    """One source without a name, under the server's own."""
    sources = Sources([], {}, "me.test")

    chosen = sources.choose("anything", None)

    assert chosen == SourceAddress("", "", "", "me.test")
    assert sources.by_name == {"": chosen}


def test_a_pool_by_name():
    """An unknown or unnamed one is the pool default."""
    sources = Sources([source("a"), source("b")], {"default": {"a": 1}, "news": {"b": 1}}, "me.test")

    assert sources.choose("news", None).name == "b"
    assert sources.choose("", None).name == "a"
    assert sources.choose("nonesuch", None).name == "a"


def test_without_a_default_pool_all_sources_take_turns():
    """Each as often as the others; a source of weight 0 in a pool has no turn there."""
    sources = Sources([source("a"), source("b")], {"news": {"a": 0, "b": 2}, "empty": {"a": 0}}, "me.test")

    assert Counter(sources.choose("", None).name for _ in range(10)) == {"a": 5, "b": 5}
    assert {sources.choose("news", None).name for _ in range(5)} == {"b"}
    assert {sources.choose("empty", None).name for _ in range(4)} == {"a", "b"}


def test_a_source_is_kept_while_there_is_one_of_its_name():
    """Afterwards the pool chooses."""
    sources = Sources([source("a"), source("b")], {"default": {"a": 1}}, "me.test")

    assert sources.choose("", "b").name == "b"
    assert sources.choose("", "gone").name == "a"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [("192.0.2.1", "", (4,)), ("", "", (4,)), ("", "2001:db8::1", (6,)), ("192.0.2.1", "2001:db8::1", (4, 6))],
)
def test_ipv6_only_where_a_source_names_an_address(ipv4: str, ipv6: str, expected: tuple[int, ...]):
    """Receivers refuse IPv6 addresses without a name, so the system's choice is never used."""
    assert families(SourceAddress("a", ipv4, ipv6, "a.test")) == expected
