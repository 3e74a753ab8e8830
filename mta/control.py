"""Control: the line between the supervisor and a worker. One JSON object a line, over a socket pair.

It is also what a worker lives by: when the supervisor is gone the line ends, and the worker with it.
"""

import asyncio
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from mta.reporting.counting import Answered, Told
from mta.reporting.questions import Question
from mta_policies.firings import Change

LINE_BYTES_MAX = 64 * 1024 * 1024  # an answer may list a thousand messages of some hundred recipients each
ANSWER_BYTES_MAX = 60 * 1024 * 1024  # what is larger is not sent: JSON may not be cut
TEXT_CHARACTERS_MAX = 8 * 1024  # of a report; JSON may need six bytes for one


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the supervisor tells a worker."""

    do: Literal["open", "reload", "close_doors", "stop", "ask", "counted"]
    epoch: int = 0
    config: str = ""
    """For `reload`: the place of the configuration that holds from now on (`mta.accepted.Place`)."""
    number: int = 0
    """For `ask`: what the answer is to be known by."""
    question: Question | None = None
    counted: Answered | None = None
    """For `counted`."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker tells the supervisor."""

    worker: int
    now: Literal[
        "hearing", "linked", "open", "reloaded", "doors_closed", "stopped", "problem", "answer", "changed", "counting"
    ]
    """`hearing`: it starts, and knows what was kept; what holds besides is to be told from now on."""
    text: str = ""
    number: int = 0
    """For `answer`: of which question; for `reloaded`: the epoch."""
    answer: msgspec.Raw = msgspec.Raw(b"null")
    """For `answer`: one of `mta.reporting.questions.Answer`."""
    changes: list[Change] = []
    """For `changed`: what rules did here."""
    told: Told | None = None
    """For `counting`: what has to be on disk."""


class Line(asyncio.Protocol):
    """One end of the line: sends structs, hands on those that come."""

    def __init__(
        self, kind: type[Order] | type[Report], on_message: Callable[[Order | Report], None], on_end: Callable[[], None]
    ) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._on_message = on_message
        self._on_end = on_end
        self._chunks: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of asyncio's

    def send(self, message: Order | Report) -> None:
        """Write one line; nothing where the other side is gone. A long text is cut."""
        if isinstance(message, Report) and len(message.text) > TEXT_CHARACTERS_MAX:
            message = msgspec.structs.replace(message, text=message.text[:TEXT_CHARACTERS_MAX] + "...")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(msgspec.json.encode(message) + b"\n")

    def data_received(self, data: bytes) -> None:
        if b"\n" not in data:  # a long line is joined once, when it is whole
            self._chunks.append(data)
            assert sum(map(len, self._chunks)) <= LINE_BYTES_MAX, "the other side is of our own making"
            return
        *lines, rest = b"".join([*self._chunks, data]).split(b"\n")
        self._chunks = [rest] if rest else []
        for line in lines:
            self._on_message(self._decode(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_end()

    def close(self) -> None:
        """End the line."""
        if self._transport is not None:
            self._transport.close()
