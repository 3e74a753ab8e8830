"""The cache of answers: clamped times, late entries, a bound that holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.resolve.cache import (
    NEGATIVE_TTL_MAX_S,
    NEGATIVE_TTL_MIN_S,
    TTL_MAX_S,
    TTL_MIN_S,
    Cache,
    negative_ttl_s,
    positive_ttl_s,
)


@pytest.mark.parametrize(
    ("ttl_s", "kept_s"),
    [
        (0, TTL_MIN_S),
        (59, TTL_MIN_S),
        (3_600, 3_600),
        (86_400, TTL_MAX_S),
        (2**31 - 1, TTL_MAX_S),
        (2**31, TTL_MIN_S),
        (2**32 - 1, TTL_MIN_S),
    ],
)
def test_ttl_is_clamped(ttl_s: int, kept_s: float) -> None:
    """A TTL of 0 counts as a minute, one of decades as a day, one with the top bit set as 0 (RFC 2181 8)."""
    assert positive_ttl_s(ttl_s) == kept_s


@pytest.mark.parametrize(
    ("ttl_s", "kept_s"),
    [(0, NEGATIVE_TTL_MIN_S), (300, 300), (86_400, NEGATIVE_TTL_MAX_S), (2**31, NEGATIVE_TTL_MIN_S)],
)
def test_negative_ttl_is_clamped_harder(ttl_s: int, kept_s: float) -> None:
    """That something does not exist is believed for ten minutes at most."""
    assert negative_ttl_s(ttl_s) == kept_s


def test_entry_expires() -> None:
    """An entry is found until its time is over, and then forgotten."""
    cache: Cache[str] = Cache()
    cache.put("a.test", "answer", 60, now_s=100)

    before = cache.get("a.test", 159.9)
    after = cache.get("a.test", 160)

    assert before is not None
    assert before.value == "answer"
    assert after is None
    assert len(cache) == 0


def test_entry_is_late_in_its_last_tenth() -> None:
    """An entry says from when on it should be asked for anew."""
    cache: Cache[str] = Cache()

    entry = cache.put("a.test", "answer", 60, now_s=100)

    assert entry.late_s == 154
    assert entry.expires_s == 160


def test_used_entries_outlive_unused_ones() -> None:
    """A full cache gives up what nobody asked for, even where it came later."""
    cache: Cache[int] = Cache(entries_max=3)
    for number, name in enumerate(("busy", "idle", "other")):
        cache.put(name, number, 60, now_s=0)
    cache.get("busy", 1)

    cache.put("new", 3, 60, now_s=2)

    assert sorted(cache.entries) == ["busy", "new", "other"]


def test_everything_used_still_makes_room() -> None:
    """Where all entries were used the oldest goes."""
    cache: Cache[int] = Cache(entries_max=2)
    cache.put("a", 1, 60, now_s=0).used = True
    cache.put("b", 2, 60, now_s=0).used = True

    cache.put("c", 3, 60, now_s=1).used = True

    assert len(cache) == 2
    assert "a" not in cache.entries


def test_new_value_replaces_the_old_one() -> None:
    """A name has one entry; a new answer counts from when it came."""
    cache: Cache[int] = Cache(entries_max=2)
    cache.put("a", 1, 60, now_s=0)

    cache.put("a", 2, 60, now_s=50)

    entry = cache.get("a", 100)
    assert entry is not None
    assert entry.value == 2
    assert len(cache) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.integers(0, 90)), max_size=60), st.integers(1, 5)
)
def test_bound_holds_and_nothing_expired_is_found(steps: list[tuple[str, bool, int]], entries_max: int) -> None:
    """Whatever is put and asked for: never more entries than allowed, never a value after its time."""
    cache: Cache[float] = Cache(entries_max)
    now_s = 0.0

    for name, is_put, passed_s in steps:
        now_s += passed_s
        if is_put:
            cache.put(name, now_s, 60, now_s)

            assert name in cache.entries
        else:
            entry = cache.get(name, now_s)

            assert entry is None or now_s - entry.value < 60
        assert len(cache) <= entries_max
