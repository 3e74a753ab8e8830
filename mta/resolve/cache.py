"""The cache of answers: bounded in number and time. Pure: the caller passes now_s (monotonic).

Times to live are clamped at both ends: a TTL of 0 must not make us ask for every message, and one of 68
years must not outlive a provider's move. An entry is *late* shortly before it expires: whoever meets it then
may ask anew while the old answer still serves, so that a busy domain never makes anybody wait.

Which entry goes when the cache is full: the oldest that was not used since it was last looked at ("second
chance"), which keeps a look-up as cheap as a dict's.
"""

from typing import Generic, TypeVar

TTL_MIN_S = 60.0
"""A shorter TTL counts as this: mail tolerates a minute."""
TTL_MAX_S = 86_400.0
"""A longer TTL counts as a day."""
NEGATIVE_TTL_MIN_S = 30.0
NEGATIVE_TTL_MAX_S = 600.0
"""For "there is no such thing": a domain that has just been registered should not bounce for hours."""
FAILED_TTL_S = 30.0
"""For "could not be found out": long enough to spare a broken server, short enough to notice that it is back."""
TTL_USELESS_FROM = 2**31
"""A TTL with the top bit set counts as 0 (RFC 2181 8)."""
LATE_SHARE = 0.1
"""An answer is late in the last tenth of its time."""
ENTRIES_MAX = 200_000
"""At 0.4 to 0.9 KB each; the active domains of the largest senders fit."""

Value = TypeVar("Value")


def positive_ttl_s(ttl_s: float) -> float:
    """How long an answer counts, from the TTL in its records."""
    if ttl_s >= TTL_USELESS_FROM:
        ttl_s = 0
    return min(max(ttl_s, TTL_MIN_S), TTL_MAX_S)


def negative_ttl_s(ttl_s: float) -> float:
    """How long "there is none" counts, from the SOA's TTL and minimum (RFC 2308 5)."""
    if ttl_s >= TTL_USELESS_FROM:
        ttl_s = 0
    return min(max(ttl_s, NEGATIVE_TTL_MIN_S), NEGATIVE_TTL_MAX_S)


class Entry(Generic[Value]):
    """A value and its times, in monotonic seconds."""

    __slots__ = ("expires_s", "late_s", "used", "value")

    def __init__(self, value: Value, late_s: float, expires_s: float) -> None:
        self.value = value
        self.late_s = late_s
        self.expires_s = expires_s
        self.used = False


class Cache(Generic[Value]):
    """Entries by key; at most `entries_max` of them."""

    __slots__ = ("_entries_max", "entries")

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        assert entries_max > 0
        self._entries_max = entries_max
        self.entries: dict[str, Entry[Value]] = {}
        """For readers in a hurry: what is found here may have expired; they set `used` themselves."""

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, key: str, now_s: float) -> Entry[Value] | None:
        """The entry, if there is one that has not expired."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if now_s >= entry.expires_s:
            del self.entries[key]
            return None
        entry.used = True
        return entry

    def put(self, key: str, value: Value, ttl_s: float, now_s: float) -> Entry[Value]:
        """Keeps the value for `ttl_s`, which the caller has clamped."""
        entry = Entry(value, now_s + ttl_s * (1 - LATE_SHARE), now_s + ttl_s)
        self.entries.pop(key, None)  # a new answer goes to the end of the line
        if len(self.entries) >= self._entries_max:
            self._evict(now_s)
        self.entries[key] = entry
        return entry

    def _evict(self, now_s: float) -> None:
        """Removes one entry: the first that has expired or was not used since its last chance."""
        while True:  # a second round finds the first entry, which by then is not used any more
            key = next(iter(self.entries))
            entry = self.entries.pop(key)
            if not entry.used or now_s >= entry.expires_s:
                return
            entry.used = False
            self.entries[key] = entry
