"""Recorded: a provider that answers as it did.

What is asked for in a rehearsal did mostly not happen in the record: another time, another order. So what was said is
of two kinds:

- About the recipient or the message (no such mailbox, mailbox full, greylisted, a virus): it is said of that mail
  again, at the same distance from its first attempt.
- About the sender, or about the provider's own state (rates, reputation, "try again later", connections refused): it
  was so at that time. What was said to the mail itself is said again where it is tried within a minute of then; else
  the answer that the same site gave the same source nearest in time.

A record that ends with refusals does not say when they ended: they go on for as long as they had lasted, a minute at
least. What it cannot know either is what a provider would have said to more or less than it got: a model can.
"""

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from mta_policies import bounces
from mta_policies.answers import MESSAGE_STAGES, Answer
from mta_policies.rehearsal.traffic import NEVER_S, Mail, Said, Stream

NEAR_S: Final = 60.0
"""What was said to a mail is said to it again so long before and after."""

OUTAGE_S: Final = 10.0
"""Connections that fail, and for so long none that works: it was down meanwhile. Else one connection failed."""

PERSONAL: Final = frozenset(
    {
        bounces.BAD_MAILBOX,
        bounces.BAD_DOMAIN,
        bounces.INACTIVE_MAILBOX,
        bounces.QUOTA_ISSUES,
        bounces.CONTENT,
        bounces.VIRUS,
        bounces.INVALID_SENDER,
        bounces.RELAYING,
        bounces.EXPIRED,
    }
)
"""Categories that are about the recipient or the message."""


class Provider(Protocol):
    """Whoever answers."""

    def opened(self, stream: Stream, now_s: float) -> Answer | None:
        """A connection for this mail's site and source is being opened. -> why it is not, None: it is."""
        ...

    def closed(self, stream: Stream, now_s: float) -> None:
        """One that was opened is gone."""
        ...

    def answer(self, mail: Mail, first_s: float, now_s: float) -> Answer | None:
        """What is said about a mail that was first tried at `first_s`; None: it is taken."""
        ...

    def down_until_s(self, stream: Stream, now_s: float) -> float:
        """Until when no connection can be opened, as far as is known; `now_s`: it can, inf: never more."""
        ...


def is_personal(said: Said) -> bool:
    """Whether it is about the recipient or the message, not about the sender or the provider."""
    if said.category in PERSONAL or said.answer.stage not in MESSAGE_STAGES:
        return True
    return said.answer.is_greylisting


class Book:
    """What was said when, of one source at one site: answers, and as None that all was well.

    Of a row in which all was well the ends are kept.
    """

    __slots__ = ("_answers", "_holds_s", "_is_sorted", "_last_well_s", "_times")

    def __init__(self) -> None:
        self._times = array("d")
        self._answers: list[Answer | None] = []
        self._is_sorted = True
        self._last_well_s = 0.0
        self._holds_s = NEVER_S
        """Until when the last answer holds."""

    def __len__(self) -> int:
        return len(self._times)

    def well(self, at_s: float) -> None:
        """All was well then."""
        if self._answers and self._answers[-1] is None:
            self._last_well_s = at_s
        else:
            self._add(at_s, None)

    def say(self, at_s: float, answer: Answer) -> None:
        """That was said then."""
        if self._last_well_s:
            self._add(self._last_well_s, None)
        self._add(at_s, answer)

    def _add(self, at_s: float, answer: Answer | None) -> None:
        self._last_well_s = 0.0
        if self._times and at_s < self._times[-1]:
            self._is_sorted = False
        self._times.append(at_s)
        self._answers.append(answer)

    def close(self) -> None:
        """No more is told: from now on it is asked."""
        if self._last_well_s:
            self._add(self._last_well_s, None)
        if not self._is_sorted:
            order = sorted(range(len(self._times)), key=self._times.__getitem__)
            self._times = array("d", (self._times[at] for at in order))
            self._answers = [self._answers[at] for at in order]
            self._is_sorted = True
        self._holds_s = NEVER_S
        first = len(self._times)
        while first and self._answers[first - 1] is not None:
            first -= 1
        if first < len(self._times):
            last_s = self._times[-1]
            self._holds_s = last_s + max(NEAR_S, last_s - self._times[first])

    def merge(self, other: "Book") -> None:
        """Also what stands in another one. Both are closed."""
        self._times.extend(other._times)
        self._answers += other._answers
        self._is_sorted = False
        self.close()

    def nearest(self, at_s: float) -> Answer | None:
        """What was said nearest to that time; of two as near the earlier. Behind the last as long as that holds."""
        times = self._times
        after = bisect_left(times, at_s)
        if after == len(times):
            return self._answers[-1] if times and at_s <= self._holds_s else None
        if after and at_s - times[after - 1] <= times[after] - at_s:
            after -= 1
        return self._answers[after]

    def failures(self) -> list[tuple[float, Answer]]:
        """All answers with their times."""
        return [(at_s, answer) for at_s, answer in zip(self._times, self._answers, strict=True) if answer is not None]

    def outage(self, at_s: float) -> tuple[Answer, float] | None:
        """Where nothing but failures stand around that time: the latest of them, and when all was well again."""
        times, answers = self._times, self._answers
        after = bisect_left(times, at_s)
        before = answers[after - 1] if after else None
        if before is None or at_s >= self._holds_s:
            return None
        well = after
        while well < len(times) and answers[well] is not None:
            well += 1
        if well == len(times):
            return before, self._holds_s
        if times[well] - times[after - 1] < OUTAGE_S:
            return None
        return before, times[well]


class Books(NamedTuple):
    """A record, by site (or domain, where no site is known) and source."""

    messages: Mapping[tuple[str, str], Book]
    """What was said about messages, but for what is personal."""
    connections: Mapping[tuple[str, str], Book]
    """Connections that failed, and messages that were answered."""
    peaks: Mapping[tuple[str, str], float]
    """Messages a second in the best minute."""


def way_of(stream: Stream) -> tuple[str, str]:
    """The site, or the domain where it is not known, and the source."""
    return stream.site or stream.domain, stream.subject.source


class Recorded:
    """The providers of a record. One for every run: connections that failed fail once."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._by_site: dict[str, Book] = {}
        self._failures: dict[tuple[str, str], list[tuple[float, Answer]]] = {}

    def opened(self, stream: Stream, now_s: float) -> Answer | None:
        way = way_of(stream)
        book = self._books.connections.get(way)
        if book is None or not len(book):
            return None
        failures = self._failures.get(way)
        if failures is None:
            failures = self._failures[way] = book.failures()[::-1]
        answer = None
        while failures and failures[-1][0] <= now_s:
            at_s, failed = failures.pop()
            if now_s - at_s <= NEAR_S:
                answer = failed
                break
        if answer is not None:
            return answer
        outage = book.outage(now_s)
        return outage[0] if outage is not None else None

    def closed(self, stream: Stream, now_s: float) -> None:
        pass

    def down_until_s(self, stream: Stream, now_s: float) -> float:
        book = self._books.connections.get(way_of(stream))
        outage = book.outage(now_s) if book is not None else None
        return outage[1] if outage is not None else now_s

    def answer(self, mail: Mail, first_s: float, now_s: float) -> Answer | None:
        personal = self.personal(mail, first_s, now_s)
        if personal is not None:
            return personal
        is_own, own = _own(mail, now_s)
        return own if is_own else self._weather(mail.stream, now_s)

    @staticmethod
    def personal(mail: Mail, first_s: float, now_s: float) -> Answer | None:
        """What is said about the recipient or the message, whatever the provider thinks of the sender."""
        return _personal(mail, now_s - first_s) if mail.said else None

    def _weather(self, stream: Stream, now_s: float) -> Answer | None:
        way = way_of(stream)
        book = self._books.messages.get(way)
        if book is None or not len(book):
            book = self._of_site(way[0])
        return book.nearest(now_s)

    def _of_site(self, site: str) -> Book:
        """Of all sources together, for one that was never there."""
        book = self._by_site.get(site)
        if book is None:
            book = self._by_site[site] = Book()
            for (name, _), each in self._books.messages.items():
                if name == site:
                    book.merge(each)
        return book


def _personal(mail: Mail, elapsed_s: float) -> Answer | None:
    """What was said about this recipient or message nearest to that distance from its first attempt."""
    said = mail.said
    last = said[-1]
    if last.answer.code >= 500 and is_personal(last):
        return last.answer
    first_s = said[0].at_s
    nearest = min(said, key=lambda each: abs(each.at_s - first_s - elapsed_s))
    if not is_personal(nearest):
        return None
    distance_s = abs(nearest.at_s - first_s - elapsed_s)
    if mail.ended == "delivered" and abs(mail.ended_s - first_s - elapsed_s) < distance_s:
        return None
    return nearest.answer


def _own(mail: Mail, now_s: float) -> tuple[bool, Answer | None]:
    """What was said to this mail about then, if it was tried then."""
    nearest_s, answer = NEAR_S, None
    is_own = False
    if mail.ended == "delivered" and abs(mail.ended_s - now_s) <= nearest_s:
        nearest_s, is_own = abs(mail.ended_s - now_s), True
    for said in mail.said:
        if abs(said.at_s - now_s) <= nearest_s:
            nearest_s, answer, is_own = abs(said.at_s - now_s), said.answer, True
    return is_own, answer
