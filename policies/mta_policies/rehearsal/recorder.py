"""A recorder: hears the lines of an event log and makes of them the traffic and the providers of a rehearsal.

Lines of several workers come nearly in order, and after a crash a fate may be told twice. Mail that was accepted before
the log begins is known by its fates alone.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from mta_policies.answers import MESSAGE_STAGES, Answer, Subject, netblock
from mta_policies.bounces import classify
from mta_policies.rehearsal.recorded import Book, Books, is_personal
from mta_policies.rehearsal.tally import RuleCount
from mta_policies.rehearsal.traffic import NEVER_S, Mail, Said, Stream, Traffic

TEXT_CHARS_MAX: Final = 300  # of a reply: what rules look for stands at its beginning
PEAK_S: Final = 60
TIME_MAX_S: Final = 32_503_680_000.0  # the year 3000: a clock that says more is no clock
FINAL: Final = frozenset({"delivered", "bounced", "expired", "cancelled"})
FATES: Final = FINAL | {"deferred"}

_UNKNOWN_SITE: Final = ""

Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=TIME_MAX_S)]


class Line(msgspec.Struct, gc=False):
    """What of a line of the event log is wanted; the names are those of docs/guide/events.md."""

    event: str
    time: Seconds
    id: str = ""
    sender: str = ""
    recipient: str = ""
    recipients: list[str] = []
    domain: str = ""
    site: str = ""
    policy: str = ""
    source: str = ""
    source_address: str = ""
    host: str = ""
    tenant: str = ""
    campaign: str = ""
    dkim: str = ""
    size: int = 0
    stage: str = ""
    code: int = 0
    enhanced: str = ""
    text: str = ""
    attempt: int = 0
    queued_s: Seconds = 0.0
    send_at: Seconds = 0.0
    from_peer: bool = True
    rule: str = ""
    change: str = ""


class Recorder:
    """Give it all lines, then ask for `traffic` and `books`, once."""

    def __init__(self) -> None:
        self.lines = 0
        """Of those that say what became of mail."""
        self.start_s = NEVER_S
        self.end_s = 0.0
        self.rules: dict[tuple[str, str], RuleCount] = {}
        """By policy and rule."""
        self._mails: dict[str, Mail | dict[str, Mail]] = {}
        self._messages = 0
        self._streams: dict[tuple[str, ...], Stream] = {}
        self._answers: dict[Answer, tuple[Answer, str]] = {}
        self._known: dict[str, Stream] = {}
        self._said: dict[tuple[str, str], Book] = {}
        self._connected: dict[tuple[str, str], Book] = {}
        self._minutes: dict[tuple[str, str], dict[int, int]] = {}
        self._nobody = Stream(-1, "", "", "", Subject())
        """The stream of mail that nobody has tried yet."""

    def hear(self, line: Line) -> None:
        """The next line."""
        event = line.event
        if event in FATES:
            self._hear_fate(line)
        elif event == "received":
            self._hear_received(line)
        else:
            if event == "rule" and line.change == "fired":
                self._rule(line).firings += 1
            return
        self.lines += 1
        if line.time < self.start_s:
            self.start_s = line.time
        if line.time > self.end_s:
            self.end_s = line.time

    def _hear_received(self, line: Line) -> None:
        known = self._mails.get(line.id)
        due_s = max(line.time, line.send_at)
        if known is not None:  # another worker told its fate before
            for mail in known.values() if isinstance(known, dict) else (known,):
                mail.accepted_s = mail.due_s = due_s
        self._messages += 1
        for recipient in line.recipients:
            if known is None or self._find(line.id, recipient) is None:
                self._keep(line.id, Mail(recipient, self._messages, self._nobody, due_s, due_s, line.size))

    def _keep(self, message_id: str, mail: Mail) -> None:
        known = self._mails.get(message_id)
        if known is None:
            self._mails[message_id] = mail
            return
        if isinstance(known, Mail):
            known = self._mails[message_id] = {known.recipient: known}
        mail.message = next(iter(known.values())).message
        known[mail.recipient] = mail

    def _find(self, message_id: str, recipient: str) -> Mail | None:
        known = self._mails.get(message_id)
        if isinstance(known, dict):
            return known.get(recipient)
        return known if known is not None and known.recipient == recipient else None

    def _hear_fate(self, line: Line) -> None:
        is_attempt = line.stage in MESSAGE_STAGES
        mail = self._find(line.id, line.recipient)
        if mail is None:
            self._messages += 1
            accepted_s = line.time - line.queued_s
            before = max(0, line.attempt - is_attempt)
            # Where it was tried before, this was when it was due again; else it waited for its first turn.
            due_s = line.time if before else accepted_s
            mail = Mail(line.recipient, self._messages, self._nobody, due_s, accepted_s, line.size, before)
            self._keep(line.id, mail)
        elif mail.ended:
            return  # told twice
        stream = mail.stream
        if stream is self._nobody or (line.site and not stream.site):
            stream = mail.stream = self._stream(line)
        event = line.event
        if line.rule:
            self._rule(line).matches += 1
        way = (stream.site or stream.domain, stream.subject.source)
        if event == "delivered":
            self._book(self._said, way).well(line.time)
        elif event in ("deferred", "bounced"):
            if mail.said and mail.said[-1].at_s == line.time:
                return  # told twice
            answer, category = self._answer(line)
            if is_attempt or event == "bounced":
                said = Said(line.time, answer, category)
                mail.said = (*mail.said, said)
                if is_attempt:
                    book = self._book(self._said, way)
                    _ = book.well(line.time) if is_personal(said) else book.say(line.time, answer)
            elif line.stage != "local":
                self._book(self._connected, way).say(line.time, answer)
        if is_attempt:
            self._book(self._connected, way).well(line.time)
            minutes = self._minutes.get(way)
            if minutes is None:
                minutes = self._minutes[way] = {}
            minute = int(line.time // PEAK_S)
            minutes[minute] = minutes.get(minute, 0) + 1
        if event in FINAL:
            mail.ended, mail.ended_s = event, line.time

    def _rule(self, line: Line) -> RuleCount:
        """What is counted of the line's rule."""
        key = (line.policy, line.rule)
        count = self.rules.get(key)
        if count is None:
            count = self.rules[key] = RuleCount(policy=line.policy)
        count.first_s = min(count.first_s, line.time)
        return count

    def _answer(self, line: Line) -> tuple[Answer, str]:
        """The answer, and how it is classed; of alike ones the same object."""
        answer = Answer(
            line.code,
            line.enhanced,
            line.text[:TEXT_CHARS_MAX],
            line.stage,
            line.host,
            line.from_peer and line.stage not in ("dns", "connect"),
        )
        known = self._answers.get(answer)
        if known is None:
            known = self._answers[answer] = (answer, classify(answer).name)
        return known

    def _stream(self, line: Line) -> Stream:
        key = (
            line.domain,
            line.site,
            line.source,
            line.tenant,
            line.campaign,
            line.sender.rpartition("@")[2],
            line.dkim,
            line.source_address,
            line.policy,
        )
        stream = self._streams.get(key)
        if stream is None:
            subject = Subject(
                source=line.source,
                source_address=_address(line.source_address),
                site=line.site,
                tenant=line.tenant,
                campaign=line.campaign,
                dkim_domain=line.dkim.partition(",")[0],
                spf_domain=key[5].lower(),
            )
            stream = self._streams[key] = Stream(len(self._streams), line.domain, line.site, line.policy, subject)
            if line.site:
                self._known[line.domain] = stream
        return stream

    @staticmethod
    def _book(books: dict[tuple[str, str], Book], way: tuple[str, str]) -> Book:
        book = books.get(way)
        if book is None:
            book = books[way] = Book()
        return book

    # when all is heard

    def books(self) -> Books:
        """What the providers said. No more lines may come."""
        for book in (*self._said.values(), *self._connected.values()):
            book.close()
        peaks = {way: max(minutes.values()) / PEAK_S for way, minutes in self._minutes.items()}
        return Books(self._said, self._connected, peaks)

    def traffic(self) -> Traffic:
        """All mail, in the order in which it was due. Mail that waited for its first turn when the log began was due
        then."""
        mails = list(self._all())
        self._mails.clear()
        for mail in mails:
            if mail.stream is self._nobody:
                mail.stream = self._guess(mail)
            mail.due_s = max(mail.due_s, self.start_s)
            if len(mail.said) > 1:
                mail.said = tuple(sorted(mail.said))
        mails.sort(key=lambda mail: (mail.due_s, mail.message))
        return Traffic(mails, list(self._streams.values()), min(self.start_s, self.end_s), self.end_s)

    def _all(self) -> Iterator[Mail]:
        for known in self._mails.values():
            if isinstance(known, dict):
                yield from known.values()
            else:
                yield known

    def _guess(self, mail: Mail) -> Stream:
        """For mail that nobody has tried: the way that other mail to its domain took."""
        domain = mail.recipient.rpartition("@")[2].lower()
        known = self._known.get(domain)
        if known is None:
            key = (domain, _UNKNOWN_SITE, "")
            known = self._streams.get(key)
            if known is None:
                known = self._streams[key] = Stream(len(self._streams), domain, "", "", Subject())
        return known


def _address(text: str) -> str:
    """An address of ours; "" for what is none."""
    try:
        netblock(text)
    except ValueError:
        return ""
    return text
