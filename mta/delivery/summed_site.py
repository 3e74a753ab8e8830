"""A summed site: a row of a summary while it is put together, and what becomes of too many rows."""

from collections.abc import Sequence

from mta.delivery.standing import ItemStand, Stand
from mta.reporting.events import glance_note
from mta.reporting.waiting import OTHER_SITES, SiteRow

SITES_MAX = 10_000  # rows of a summary; the smallest of a policy share one
LATEST_KEPT = 8  # items of a site whose notes are read, of as many segments
NEVER_S = float("inf")


class SummedSite:
    """A row while it is put together."""

    __slots__ = (
        "domains",
        "held",
        "kept_back",
        "last_note",
        "last_s",
        "latest",
        "next_s",
        "note_offset",
        "note_segment",
        "note_seq",
        "oldest_s",
        "policy",
        "ready",
        "scheduled",
        "sending",
        "site",
        "suspended",
        "untried",
        "waiting",
    )

    def __init__(self, policy: str, site: str) -> None:
        self.policy = policy
        self.site = site
        self.domains: dict[str, None] = {}
        self.ready = self.scheduled = self.held = self.suspended = self.sending = 0
        self.oldest_s = self.next_s = NEVER_S
        self.last_note = b""
        """Of the latest attempt that was seen."""
        self.last_s = 0.0
        self.note_segment = self.note_offset = self.note_seq = 0
        """Of the notes that were not read the last in this segment, and whose it is."""
        self.latest: dict[int, tuple[int, int]] = {}
        """The same, offset and item, of other segments."""
        self.waiting = ""
        """Why the first of its recipients that is ready does not go."""
        self.kept_back = ""
        """The same of the first that an admin keeps back."""
        self.untried: SummedSite | None = None
        """Where mail without an attempt counts, if that is another row."""

    def add(self, item: ItemStand, stand: Stand) -> None:
        """One recipient more."""
        envelope = item.envelope
        match stand.state:
            case "scheduled":
                self.scheduled += 1
                self.next_s = min(self.next_s, stand.due_s)
            case "ready":
                self.ready += 1
            case "held":
                self.held += 1
            case "suspended":
                self.suspended += 1
            case "sending":
                self.sending += 1
        self.domains[envelope.recipients[stand.part].domain] = None
        self.oldest_s = min(self.oldest_s, envelope.received_s)
        self.note(stand.note)

    def note(self, note: bytes) -> None:
        """What was said of one recipient."""
        if note and (time_s := glance_note(note)) > self.last_s:
            self.last_s, self.last_note = time_s, note

    def turn_to(self, segment: int, offset: int, seq: int) -> None:
        """A note of this item lies in another segment than that of the one before. Of two that lie in segments that
        were written as things happened the one further behind was said later; copies have segments of their own."""
        latest = self.latest
        latest[self.note_segment] = self.note_offset, self.note_seq
        if len(latest) > LATEST_KEPT:
            del latest[min(latest)]
        known = latest.pop(segment, (0, 0))
        self.note_segment = segment
        self.note_offset, self.note_seq = max(known, (offset, seq))

    def latest_seqs(self) -> list[int]:
        """Whose notes are to be read to know the last one."""
        return [seq for seq in (self.note_seq, *(seq for _, seq in self.latest.values())) if seq]

    def join(self, other: "SummedSite") -> None:
        """What was counted apart is of this row."""
        self.domains |= other.domains
        self.ready += other.ready
        self.scheduled += other.scheduled
        self.held += other.held
        self.suspended += other.suspended
        self.sending += other.sending
        self.oldest_s = min(self.oldest_s, other.oldest_s)
        self.next_s = min(self.next_s, other.next_s)
        self.note(other.last_note)
        self.waiting = self.waiting or other.waiting
        self.kept_back = self.kept_back or other.kept_back

    def row(self) -> SiteRow:
        """As it is answered, but for what is known of the site alone."""
        return SiteRow(
            self.policy,
            self.site,
            len(self.domains),
            self.ready,
            self.scheduled,
            self.held,
            self.suspended,
            self.sending,
            self.oldest_s if self.oldest_s < NEVER_S else 0.0,
            self.next_s if self.next_s < NEVER_S else 0.0,
        )


def folded(rows: Sequence[SiteRow]) -> list[SiteRow]:
    """As many rows as an answer may have: the sites with the fewest recipients become one row a policy."""
    if len(rows) <= SITES_MAX:
        return list(rows)
    by_size = sorted(rows, key=lambda row: -(row.ready + row.scheduled + row.held + row.suspended + row.sending))
    others: dict[str, SiteRow] = {}
    for row in by_size[SITES_MAX:]:
        other = others.setdefault(row.policy, SiteRow(row.policy, OTHER_SITES))
        for name in ("domains", "ready", "scheduled", "held", "suspended", "sending", "connections"):
            setattr(other, name, getattr(other, name) + getattr(row, name))
        other.oldest_s = min(filter(None, (other.oldest_s, row.oldest_s)), default=0.0)
        other.next_s = min(filter(None, (other.next_s, row.next_s)), default=0.0)
    kept = sorted(by_size[:SITES_MAX], key=lambda row: (row.policy, row.site))
    return [*kept, *others.values()]
