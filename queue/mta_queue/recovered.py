"""Recovered: what was in a log when it was opened, for whoever opened it. Pure."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from mta_queue.catalog import Catalog
from mta_queue.record import Origin


class Untold(NamedTuple):
    """A record that the event log may not have heard of."""

    kind: Literal["item", "finished", "postponed"]
    seq: int
    parts: tuple[int, ...]
    """The parts that it is about; of an item all."""
    meta: bytes
    """The item's."""
    note: bytes
    due_s: float = 0.0


class Recovered(NamedTuple):
    """What was in the log when it was opened."""

    waiting: "Waiting"
    """What waits, in order of seq."""
    recent: list[tuple[int, str]]
    """(seq, id) of the living items, arriving ones too, of the segments that were written last: what somebody may
    still ask about by its id."""
    arriving: list[tuple[int, str, Origin]]
    """Items on disk that were not released yet: their origin's log decides."""
    untold: list[Untold]
    """In the order in which it happened."""
    set_aside: list[str]
    """What could not be read, for the admin: a line each."""


class Waiting:
    """(seq, ((part, due_s), ...)) of what waited when the log was opened, in order of seq, living parts only.

    It is made as it is walked and may be walked again: what died since is left out, and who was postponed since has
    the new time.
    """

    def __init__(self, catalog: Catalog, end: int, arriving: frozenset[int]) -> None:
        self._catalog = catalog
        self._end = end
        """Items from this number on came later."""
        self._arriving = arriving

    def __iter__(self) -> Iterator[tuple[int, tuple[tuple[int, float], ...]]]:
        catalog, arriving = self._catalog, self._arriving
        for seq in catalog.seqs():
            if seq >= self._end:
                return
            if seq not in arriving and (dues := catalog.dues(seq)):
                yield seq, tuple(dues)
