"""Events: one JSON line for every fate, with the field names that programs read.

A recipient's fate exists twice: as a `Fate`, which is small and goes into the queue's record (`encode_note`),
and as a line of the event log, built from envelope, recipient and fate. After a crash the queue gives back
the fates that the log may lack, and `Events.fate` tells them again in the same words under a new event id.

Nothing a stranger wrote can begin a new line or reach a terminal's controls: JSON escapes what is below a
blank, and the rest of the control characters is escaped here.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting.event_lines import (
    NO_TIME_S,
    FateLine,
    ReceivedLine,
    RejectedLine,
    ResumedLine,
    RuleLine,
    SuspendedLine,
    WarmupLine,
)
from mta_policies.answers import Answer
from mta_policies.firings import Change
from mta_policies.warmth import Turn

EVENT_VERSION = 1
"""`v` of every line; goes up when a field changes its meaning, not when one is added."""
TEXT_CHARS_MAX = 2_000
"""Of a reply's text; a peer may send 32 KB, and it would be told once a recipient."""

FateKind = Literal["delivered", "deferred", "bounced", "expired", "cancelled"]


class Way(msgspec.Struct, frozen=True, array_like=True):
    """How an attempt went out; the same for all messages of a connection, so it is built once for it."""

    site: str = ""
    policy: str = ""
    pool: str = ""
    source: str = ""
    """Name of the source; "" for the system's own address."""
    source_address: str = ""
    host: str = ""
    """The mail host's name, as in the MX record or the route."""
    address: str = ""
    tls: str = ""
    """Version and cipher, "" in clear."""


NO_WAY = Way()
"""For what was decided before any connection."""


class Fate(msgspec.Struct, frozen=True, array_like=True):
    """What became of an attempt, for one recipient or for several alike. New fields go to the end."""

    event: FateKind
    time_s: float
    """Unix seconds."""
    reply: Reply
    stage: str
    """One of `mta.model.outcome.STAGES`."""
    attempt: int = 0
    """How often the other side has answered about this message, this time included."""
    next_attempt_s: float = 0.0
    """Unix seconds; 0: there is none."""
    way: Way = NO_WAY
    uncertain: bool = False
    """The connection broke after the final dot."""
    category: str = ""
    dkim: str = ""
    """The domains that signed what was sent, with a comma between them."""
    signature: bytes = b""
    """Of a deferral: the DKIM-Signature fields, so that every further attempt carries the same."""
    dsn: str = ""
    """Id of the notification that went to the sender; "" where none did."""
    dsn_bytes: int = 0
    """Its size."""
    from_peer: bool = True
    """The reply is the words of `way.host`; False where it is ours for what happened."""
    is_repeated: bool = False
    """Written down again with another due time, by an admin's hand: the event log has it already."""
    after_crash: bool = False
    """The server died before, and the recipient was due then: an earlier attempt that nobody recorded may have been
    under way, so the other side may have the message twice."""
    rule: str = ""
    """Of the policy, that matched the reply."""
    hard: bool = False
    """The address or its domain will never take mail."""


_note_encoder = msgspec.msgpack.Encoder()
_note_decoder = msgspec.msgpack.Decoder(Fate)
_notes_decoder = msgspec.msgpack.Decoder(list[tuple[list[int], Fate]])
_line_encoder = msgspec.json.Encoder()
_encode = _line_encoder.encode

# DEL, the C1 controls (a terminal takes U+009B for the start of a command) and Unicode's own line ends, as UTF-8.
_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def encode_note(fate: Fate) -> bytes:
    """The bytes that the queue keeps with a fate, so that it can be told again."""
    return _note_encoder.encode(fate)


def decode_note(note: bytes) -> Fate:
    """The opposite of `encode_note`; raises msgspec.DecodeError where the bytes are not one fate."""
    return _note_decoder.decode(note)


class _Glance(msgspec.Struct, frozen=True, array_like=True):
    event: str
    time_s: float


_decode_glance = msgspec.msgpack.Decoder(_Glance).decode


def glance_note(note: bytes) -> float:
    """When the fate of a note was (Unix seconds), without decoding the rest; 0.0 where the bytes are no fate."""
    try:
        return _decode_glance(note).time_s
    except msgspec.DecodeError:
        return 0.0


def encode_notes(fates: Sequence[tuple[Sequence[int], Fate]]) -> bytes:
    """One note for recipients (their parts) that end together and not alike: their sender is told of all at once."""
    if len(fates) == 1:
        return encode_note(fates[0][1])
    return _note_encoder.encode([(list(parts), fate) for parts, fate in fates])


def fates_of(note: bytes, parts: Sequence[int]) -> list[tuple[int, Fate]]:
    """Each part's fate, from the note of a record about these parts: none where it is empty, because they were never
    tried. Raises msgspec.DecodeError."""
    if not note:
        return []
    try:
        fate = _note_decoder.decode(note)
    except msgspec.ValidationError:
        wanted = frozenset(parts)
        return [(part, fate) for listed, fate in _notes_decoder.decode(note) for part in listed if part in wanted]
    return [(part, fate) for part in parts]


class Events:
    """Builds lines and hands them to `write` (an `EventLog`'s).

    `prefix` makes event ids unique: it must never have been another process's, for example an id of
    `mta.model.identity.IdMaker`. `worker` is the number that every line carries.
    """

    def __init__(self, write: Callable[[bytes], object], *, worker: int, prefix: str) -> None:
        self._write = write
        self._worker = worker
        self._prefix = prefix + "-"
        self._count = 0

    def received(self, envelope: Envelope, recipients: list[str] | None = None) -> None:
        """A message was accepted; `recipients` are all of it, by default as the envelope says."""
        if recipients is None:
            recipients = envelope.told_recipients
            if not recipients:
                recipients = [recipient.address for recipient in envelope.recipients]
        self._count += 1
        self._tell(
            ReceivedLine(
                _milliseconds(envelope.received_s),
                f"{self._prefix}{self._count}",
                envelope.id,
                self._worker,
                EVENT_VERSION,
                envelope.sender,
                recipients,
                envelope.size,
                envelope.message_id,
                envelope.from_domain,
                "",
                envelope.tenant,
                envelope.campaign,
                envelope.pool,
                envelope.client,
                send_at=_milliseconds(envelope.send_at_s) if envelope.send_at_s else NO_TIME_S,
            )
        )

    def fate(self, envelope: Envelope, recipient: Recipient, fate: Fate) -> None:
        """One recipient's fate, told now or again after a crash."""
        self._count += 1
        way = fate.way
        reply = fate.reply
        text = reply.text
        if len(text) > TEXT_CHARS_MAX:
            text = text[:TEXT_CHARS_MAX]
        time_s = fate.time_s
        self._tell(
            FateLine(
                fate.event,
                _milliseconds(time_s),
                f"{self._prefix}{self._count}",
                envelope.id,
                self._worker,
                EVENT_VERSION,
                envelope.sender,
                recipient.address,
                recipient.domain,
                envelope.size,
                _milliseconds(time_s - envelope.received_s) if time_s > envelope.received_s else 0.0,
                fate.attempt,
                fate.stage,
                envelope.message_id,
                envelope.from_domain,
                fate.dkim,
                envelope.tenant,
                envelope.campaign,
                way.pool or envelope.pool,
                way.site,
                way.policy,
                way.source,
                way.source_address,
                way.host,
                way.address,
                way.tls,
                reply.code,
                reply.enhanced,
                text,
                _milliseconds(fate.next_attempt_s) if fate.next_attempt_s else NO_TIME_S,
                fate.uncertain,
                fate.category,
                fate.dsn,
                fate.after_crash,
                fate.rule,
                fate.hard,
                fate.from_peer,
            )
        )

    def rejected(
        self,
        time_s: float,
        stage: str,
        reply: Reply,
        *,
        sender: str = "",
        recipient: str = "",
        client: str = "",
        tenant: str = "",
        message: str = "",
    ) -> None:
        """Something was refused at the door: a sender, a recipient, or the whole message with the id `message`."""
        self._count += 1
        self._tell(
            RejectedLine(
                _milliseconds(time_s),
                f"{self._prefix}{self._count}",
                message,
                self._worker,
                EVENT_VERSION,
                stage,
                sender,
                recipient,
                tenant,
                client,
                reply.code,
                reply.enhanced,
                reply.text[:TEXT_CHARS_MAX],
            )
        )

    def suspended(
        self, time_s: float, suspension_id: str, selection: str, until_s: float, reason: str, by: str
    ) -> None:
        """Nothing that matches `selection` goes out from now on until then."""
        self._count += 1
        self._tell(
            SuspendedLine(
                _milliseconds(time_s),
                f"{self._prefix}{self._count}",
                suspension_id,
                self._worker,
                EVENT_VERSION,
                selection,
                _milliseconds(until_s),
                reason,
                by,
            )
        )

    def resumed(self, time_s: float, suspension_id: str, selection: str, by: str) -> None:
        """A suspension is over: its time is, where nobody (`by` is "") ended it."""
        self._count += 1
        self._tell(
            ResumedLine(
                _milliseconds(time_s),
                f"{self._prefix}{self._count}",
                suspension_id,
                self._worker,
                EVENT_VERSION,
                selection,
                by,
            )
        )

    def warmup(self, turn: Turn, provider: str, answer: Answer | None) -> None:
        """A new source is on another day of its plan at a provider; `answer`: what it complained with."""
        self._count += 1
        said = answer or Answer(0, "", "", "")
        self._tell(
            WarmupLine(
                _milliseconds(turn.at_s),
                f"{self._prefix}{self._count}",
                "",
                self._worker,
                EVENT_VERSION,
                turn.what,
                turn.source,
                provider,
                turn.day,
                turn.days,
                turn.allowed,
                turn.sent,
                turn.why,
                said.code,
                said.enhanced,
                said.text[:TEXT_CHARS_MAX],
                said.stage,
                said.host,
            )
        )

    def rule(self, change: Change) -> None:
        """A rule fired, or what it set off became another or is over, or somebody changed it."""
        self._count += 1
        head = (_milliseconds(change.at_s), f"{self._prefix}{self._count}")
        firing, mute = change.firing, change.mute
        if firing is not None:
            reply, effect = firing.reply, firing.effect
            self._tell(
                RuleLine(
                    *head,
                    firing.id,
                    self._worker,
                    EVENT_VERSION,
                    change.what,
                    firing.rule,
                    firing.policy,
                    firing.action,
                    firing.scope,
                    firing.key,
                    _milliseconds(firing.until_s),
                    firing.hits,
                    change.why,
                    change.by,
                    [str(rate) for rate in effect.rate],
                    effect.connections,
                    reply.code,
                    reply.enhanced,
                    reply.text,
                    reply.stage,
                    reply.host,
                )
            )
        elif mute is not None:
            about = (change.what, mute.rule, mute.policy, "", "", mute.key, _milliseconds(mute.until_s))
            self._tell(RuleLine(*head, "", self._worker, EVENT_VERSION, *about, reason=change.why, by=change.by))

    def _tell(self, event: msgspec.Struct) -> None:
        try:
            line = _encode(event)
        except UnicodeEncodeError:  # half of a surrogate pair, from bytes that somebody decoded leniently
            line = _encode(_without_surrogates(msgspec.to_builtins(event)))
        # ASCII without DEL is the usual line and costs two scans of 500 bytes.
        if not line.isascii() or b"\x7f" in line:
            line = _CONTROLS.sub(_escape, line)
        self._write(line + b"\n")


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1000 + 0.5) / 1000


def _escape(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found.group().decode())


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_surrogates(each) for key, each in value.items()}
    return value
