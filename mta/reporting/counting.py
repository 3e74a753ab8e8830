"""Counting: what workers and supervisor say to each other about counters that outlive a restart.

A worker tells what has to be on disk before more may go; the supervisor answers when it is.
"""

import msgspec

from mta_policies.allotments import Draw

Raw = dict[str, dict[str, msgspec.Raw]]
"""Prefix (whose states they are) -> key -> state, as JSON."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker: save this."""

    number: int
    """What the answer is to be known by."""
    states: Raw = {}
    draws: list[Draw] = []


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """The supervisor: it is on disk."""

    number: int
    got: list[int] = []
    """Of each draw, in their order."""


class State(msgspec.Struct, frozen=True, array_like=True):
    """One state, as it is kept."""

    saved_s: float
    """Unix seconds."""
    state: msgspec.Raw


class Snapshot(msgspec.Struct, omit_defaults=True):
    """All that is kept."""

    states: dict[str, dict[str, State]] = {}
    drawn: dict[str, dict[int, tuple[int, int]]] = {}
    """See `mta_policies.allotments.Accounts`."""

    def states_of(self, prefix: str) -> dict[str, msgspec.Raw]:
        """Those of one prefix, by key."""
        return {key: kept.state for key, kept in self.states.get(prefix, {}).items()}
