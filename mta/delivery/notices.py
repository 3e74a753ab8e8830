"""The notifier: recipients that are given up end with a notification to their sender, where one is wanted.

The notification is safe at its own owner before the fate that it tells of is recorded (`mta.handoff.notices`), so that
no crash loses it, and goes out only after that, so that none doubles it. In between the job is ENDING: nobody else
touches its recipients. So many at once are in the making; a domain that vanishes with all that waits for it is told of
bit by bit, and what must be known of a cold job comes back from the disk for its turn.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from mta.delivery.job import ENDING, Job
from mta.handoff.notices import Notices
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope
from mta.model.outcome import Reply
from mta.reporting import dsn
from mta.reporting.dsn import Failure
from mta.reporting.events import Fate, decode_note, encode_notes
from mta_queue.store import Loaded, Origin, Store

AT_ONCE = 64  # in the making: what one turn of the loop writes in five milliseconds, and one group of the queue takes
CANCELLED = Reply(554, "5.0.0", "Cancelled by the operator of this mail server")
PUT_OFF_S = 60.0  # when recipients whose notification cannot be written anywhere now come again


class GivenUp(NamedTuple):
    """Recipients of a job with the same final fate."""

    parts: Sequence[int]
    fate: Fate


class Recorder(Protocol):
    """Writes final fates down and tells them."""

    def record(
        self,
        job: Job,
        envelope: Envelope,
        given_up: Sequence[GivenUp],
        notice: Envelope | None = None,
        on_durable: Callable[[], None] | None = None,
    ) -> None:
        """All in one record; `notice` is the notification that tells of them. The job ends."""
        ...

    def put_off(self, job: Job, wait_s: float) -> None:
        """As if nothing had happened, then again. The job ends."""
        ...

    def lost(self, job: Job) -> None:
        """It cannot be read, or is gone. The job ends."""
        ...

    def failed(self, job: Job, error: Exception) -> None:
        """An error of ours."""
        ...


class _Ending:
    """A job on its way to its end."""

    __slots__ = ("envelope", "given_up", "header", "job", "last", "on_end")

    def __init__(
        self, job: Job, given_up: Sequence[GivenUp], header: bytes | None, on_end: Callable[[bool], None]
    ) -> None:
        self.job = job
        self.given_up = given_up
        self.envelope = job.envelope
        """None: to be read back."""
        self.header = header
        """None: to be read back."""
        self.last: dict[int, Fate] = {}
        """Of those that expired: what became of the last attempt."""
        self.on_end = on_end
        """Whether their fate was recorded."""


class Notifier:
    """Ends jobs whose recipients are given up."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        recorder: Recorder,
        *,
        wants_dsn: Callable[[Envelope], bool],
        hostname: str,
    ) -> None:
        self.wants_dsn = wants_dsn
        self.notices: Notices | None = None
        """How notifications get to their owners; while there is nothing, nobody is told."""
        self._store = store
        self._clock = clock
        self._recorder = recorder
        self._hostname = hostname
        self._waiting: deque[_Ending] = deque()
        self._under_way = 0

    @property
    def ending(self) -> int:
        """Jobs that are."""
        return len(self._waiting) + self._under_way

    def wants(self, envelope: Envelope) -> bool:
        """Whether the sender is told of what cannot be delivered."""
        return self.notices is not None and dsn.can_be_told(envelope) and self.wants_dsn(envelope)

    def end(
        self, job: Job, given_up: Sequence[GivenUp], on_end: Callable[[bool], None] = lambda is_recorded: None
    ) -> None:
        """All recipients of a job are given up, now or in a moment: until then it is ENDING. `on_end` hears whether it
        ended so, or they wait as before."""
        job.state = ENDING
        if job.envelope is not None and not self.wants(job.envelope):
            self._recorder.record(job, job.envelope, given_up)
            on_end(True)
            return
        is_next = self._under_way < AT_ONCE and not self._waiting
        header = dsn.header_of(job.content) if is_next and job.content is not None else None
        job.content = None
        self._waiting.append(_Ending(job, given_up, header, on_end))
        self._begin()

    def _begin(self) -> None:
        """Make as many as may be in the making."""
        cold: list[_Ending] = []
        while self._waiting and self._under_way < AT_ONCE:
            ending = self._waiting.popleft()
            self._under_way += 1
            was_tried = ending.job.attempts and any(each.fate.event == "expired" for each in ending.given_up)
            if ending.envelope is None or was_tried:
                cold.append(ending)
            else:
                self._do(ending, self._add_header)
        if cold:
            self._store.load_soon(list({ending.job.seq for ending in cold}), partial(self._loaded, cold))

    def _do(self, ending: _Ending, step: Callable[[_Ending], None]) -> None:
        """A step; an error of ours in one must not stop the others."""
        try:
            step(ending)
        except Exception as error:  # noqa: BLE001 - see above
            self._under_way -= 1
            self._recorder.failed(ending.job, error)
            ending.on_end(False)

    def _loaded(self, cold: Sequence[_Ending], items: Sequence[Loaded]) -> None:
        found = {item.seq: item for item in items}
        for ending in cold:
            item = found.get(ending.job.seq)
            if item is None:
                self._under_way -= 1
                self._recorder.lost(ending.job)
                ending.on_end(False)
            else:
                self._do(ending, partial(self._add_envelope, item))
        self._begin()

    def _add_envelope(self, item: Loaded, ending: _Ending) -> None:
        envelope = ending.envelope = envelopes.decode(item.meta)
        for state in item.parts:
            if state.note:
                try:
                    ending.last[state.part] = decode_note(state.note)
                except msgspec.DecodeError:
                    pass  # of a version that is gone: nothing is said of it
        if self.wants(envelope):
            self._add_header(ending)
        else:
            self._under_way -= 1
            self._recorder.record(ending.job, envelope, ending.given_up)
            ending.on_end(True)

    def _add_header(self, ending: _Ending) -> None:
        if ending.header is None:
            self._store.content_soon(ending.job.seq, partial(self._read, ending))
        else:
            self._send(ending)

    def _read(self, ending: _Ending, content: bytes | None) -> None:
        ending.header = dsn.header_of(content) if content is not None else b""
        self._do(ending, self._send)
        self._begin()

    def _send(self, ending: _Ending) -> None:
        envelope, job = ending.envelope, ending.job
        assert envelope is not None, "read back, or never gone"
        assert self.notices is not None, "nobody is told without"
        time_s = ending.given_up[0].fate.time_s
        failures = [
            _failure(envelope, part, fate, ending.last.get(part)) for parts, fate in ending.given_up for part in parts
        ]
        notice, content = dsn.compose(envelope, failures, self._hostname, time_s, ending.header or b"")
        given_up = [
            GivenUp(parts, msgspec.structs.replace(fate, dsn=notice.id, dsn_bytes=notice.size))
            for parts, fate in ending.given_up
        ]

        def taken(release: Callable[[], None]) -> None:
            self._under_way -= 1
            self._recorder.record(job, envelope, given_up, notice, release)
            ending.on_end(True)
            self._begin()

        def failed() -> None:
            self._under_way -= 1
            self._recorder.put_off(job, PUT_OFF_S)
            ending.on_end(False)
            self._begin()

        encode_notes(given_up)  # what cannot be recorded must not be sent
        self.notices.send(notice, content, Origin(self._store.log, job.seq), taken, failed)


def _failure(envelope: Envelope, part: int, fate: Fate, last: Fate | None) -> Failure:
    recipient = envelope.recipients[part]
    if fate.event == "cancelled":  # by whom is nobody's business outside
        return Failure(recipient, False, CANCELLED, False, "", fate.time_s)
    if fate.event != "expired":
        return Failure(recipient, False, fate.reply, fate.from_peer and bool(fate.way.host), fate.way.host, fate.time_s)
    if last is None:
        return Failure(recipient, True, fate.reply, False, "", fate.time_s)
    from_peer = last.from_peer and bool(last.way.host)
    return Failure(recipient, True, fate.reply, from_peer, last.way.host, last.time_s, last.reply)
