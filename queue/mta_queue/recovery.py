"""Recovery: what found files, bytes and records mean, as tables. Pure.

Whoever reads a log describes what was met as a case and does what the one row says that holds for it. A condition that
a row does not name does not matter to it. Rows that `report` are told to the admin; a segment in which something was
reported is put into the quarantine instead of being deleted when it is not needed any more.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Literal, NamedTuple, get_args

from mta_queue import record

Condition = str | bool
Case = tuple[Condition, ...]


class Row(NamedTuple):
    """What to do with what is met, and what it is."""

    label: str
    action: str
    when: Mapping[str, tuple[Condition, ...]]
    """Condition -> the values for which this row holds."""
    report: bool


class Table:
    """Rows, of which exactly one holds for every case."""

    def __init__(self, conditions: Mapping[str, tuple[Condition, ...]], *rows: Row) -> None:
        """`conditions`: all that matters, with all values that it can have, in the order of a case."""
        self.conditions = conditions
        self.rows = rows
        self._by_case: dict[Case, Row] = {}
        for case in self.cases():
            for row in self.holding(case):
                self._by_case.setdefault(case, row)

    def cases(self) -> Iterator[Case]:
        """Every combination of the conditions' values."""
        return product(*self.conditions.values())

    def holding(self, case: Case) -> list[Row]:
        """All rows that hold for a case: one, if the table is right."""
        values = dict(zip(self.conditions, case, strict=True))
        return [row for row in self.rows if all(values[name] in allowed for name, allowed in row.when.items())]

    def decide(self, *case: Condition) -> Row:
        """The row that holds."""
        return self._by_case[case]


def _row(label: str, action: str, *, report: bool = False, **when: tuple[Condition, ...]) -> Row:
    return Row(label, action, when, report)


Name = Literal["segment", "aside", "own", "foreign"]
"""A segment's | a segment's as older versions set it aside | the lock's, the quarantine's, that of a segment of copies
that was not finished | any other."""
Beginning = Literal["good", "newer", "damaged", "blank", "unreadable", "absent"]
Known = Literal["all there", "missing", "not known"]
"""Of the segments of a log: none is missing | some are | there are numbers without a file of which nothing is known."""

FILES = Table(
    # `listed`: the inventory says that it must be there.
    {
        "name": get_args(Name),
        "beginning": get_args(Beginning),
        "own_number": (True, False),
        "sealed": (True, False),
        "listed": (True, False),
    },
    _row("not of the queue", "ignore", name=("foreign",)),
    _row("of the log itself", "ignore", name=("own",)),
    _row("set aside earlier", "ignore", name=("aside",)),
    _row("a segment", "read", name=("segment",), beginning=("good",), own_number=(True,)),
    # Copied or renamed by somebody. Its records say what they are: what is there a second time does not count.
    _row(
        "a segment under another's name",
        "read",
        report=True,
        name=("segment",),
        beginning=("good",),
        own_number=(False,),
    ),
    # Written by a later version of this program: reading half of it would be losing the other half.
    _row("of a newer format", "refuse", report=True, name=("segment",), beginning=("newer",)),
    # The marker is all that is needed: its first record shows it, or another segment of the same life has it.
    _row("its header is damaged", "read", report=True, name=("segment",), beginning=("damaged",), sealed=(True,)),
    _row(
        "torn header, never acknowledged or damaged",
        "read",
        report=True,
        name=("segment",),
        beginning=("damaged",),
        sealed=(False,),
    ),
    # Cut short before its header was synced: nothing in it was ever acknowledged.
    _row("never begun", "remove", name=("segment",), beginning=("blank",), listed=(False,)),
    _row("empty, and it was not", "quarantine", report=True, name=("segment",), beginning=("blank",), listed=(True,)),
    _row(
        "no segment or damaged from its start", "quarantine", report=True, name=("segment",), beginning=("unreadable",)
    ),
    _row("removed, or never begun", "ignore", name=("segment",), beginning=("absent",), listed=(False,)),
    # It is taken off the list before it is removed, so it was not the server that did.
    _row(
        "missing, and lost with all that waited in it",
        "tell",
        report=True,
        name=("segment",),
        beginning=("absent",),
        listed=(True,),
    ),
)

BYTES = Table(
    # Bytes that are no record, or a content that fails its checksum. In every case the rest of the segment counts, for
    # what has its checksums right was written by us: an item then was at worst never acknowledged, and a fate did
    # happen.
    {"what": ("record", "content"), "sealed": (True, False), "followed": (True, False)},
    _row("torn end, never acknowledged", "skip", what=("record",), sealed=(False,), followed=(False,)),
    _row("torn content at the end, never acknowledged", "skip", what=("content",), sealed=(False,), followed=(False,)),
    # A power loss leaves such holes where it hit a group half written, but so does a failing disk.
    _row(
        "hole, never acknowledged or damaged", "skip", report=True, what=("record",), sealed=(False,), followed=(True,)
    ),
    _row(
        "torn content, never acknowledged or damaged",
        "skip",
        report=True,
        what=("content",),
        sealed=(False,),
        followed=(True,),
    ),
    _row("damaged", "skip", report=True, what=("record",), sealed=(True,)),
    _row("content damaged", "skip", report=True, what=("content",), sealed=(True,)),
)

INDEXES = Table(
    # What a segment says of its own records; scanning the segment finds the same, and what is damaged besides.
    {"sealed": (True, False), "index": ("fits", "does not fit", "none")},
    _row("read in place of the records", "use", sealed=(True,), index=("fits",)),
    _row("its index is damaged", "scan", report=True, sealed=(True,), index=("does not fit",)),
    _row("no index", "scan", sealed=(True,), index=("none",)),
    _row("cut short before its seal", "scan", sealed=(False,)),
)

RECORDS = Table(
    # `item`: whether an item of that seq was met before and lives still. That another item has the same id does not
    # matter: ids are the caller's, and mail that was moved away and back has its own again.
    # `again`: how what was written again after a failed sync is there, of a fate that is among it ("no": of any other).
    {
        "kind": ("item", "copy", "fate", "other"),
        "item": ("unknown", "living", "ended"),
        "again": ("no", "whole", "torn"),
    },
    _row("a new item", "add", kind=("item",), item=("unknown",)),
    # A file that somebody copied: what is known of the item is at least as new.
    _row("an item for the second time", "skip", report=True, kind=("item",), item=("living", "ended")),
    _row("an item that was copied", "relocate", kind=("copy",), item=("living",)),
    # Its segment was deleted once the copy was on stable storage, or is missing, which then does no harm.
    _row("a copy without its original", "relocate", kind=("copy",), item=("unknown",)),
    # Only what lives is copied: the fate that ended it was written twice, or was not on stable storage as it was.
    _row("a copy of what has ended", "relocate", kind=("copy",), item=("ended",)),
    _row("a fate", "apply", kind=("fate",), item=("living",), again=("no", "whole")),
    # What follows it may be there from the first time, and is newer. Nothing of both was promised.
    _row("a fate written again with some that are torn", "skip", kind=("fate",), item=("living",), again=("torn",)),
    # Written again after a failed sync, while the first may still be lost: it holds the item's segment, too.
    _row("a fate of what has ended", "hold", kind=("fate",), item=("ended",)),
    # Deleted with its segment when all in it had ended, or missing: see GAPS.
    _row("a fate without its item", "note", kind=("fate",), item=("unknown",)),
    _row("told, a seal or an index", "apply", kind=("other",)),
)

GAPS = Table(
    # `lost`: fates speak of an item that should be there. That one lies in no file is no sign alone: what ended it may
    # have been deleted before what put it off. But no file is deleted before all that is said of its items is told, and
    # what ended an item stays as long as the file in which it lies. Which files must be there the inventory says.
    {"segments": get_args(Known), "lost": ("no", "untold", "damaged")},
    _row("all segments are there", "go on", segments=("all there",), lost=("no",)),
    # The power failed before it was on stable storage that all had been told.
    _row("told before their segment was deleted", "go on", segments=("all there",), lost=("untold",)),
    _row("segments were deleted when all in them had ended", "go on", segments=("not known",), lost=("no",)),
    _row(
        "a segment is missing, or the power failed as it was deleted",
        "go on",
        report=True,
        segments=("not known",),
        lost=("untold",),
    ),
    _row("a segment is missing, and reported", "go on", segments=("missing",), lost=("no",)),
    _row("they were in a segment that is missing", "go on", report=True, segments=("missing",), lost=("untold",)),
    _row("they waited, and their segment is damaged", "go on", report=True, lost=("damaged",)),
)

TABLES = {"files": FILES, "bytes": BYTES, "indexes": INDEXES, "records": RECORDS, "gaps": GAPS}


def beginning(header: record.FileHeader | None, marker: int | None, *, is_blank: bool) -> Beginning:
    """How a file begins, for FILES."""
    if header is not None:
        return "good" if header.version in record.VERSIONS_READ else "newer"
    if marker is not None:
        return "damaged"
    return "blank" if is_blank else "unreadable"
