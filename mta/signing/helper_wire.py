"""The wire: a worker's connection to one signing helper, and what was sent over it and is not answered yet."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from mta.signing import signing_frames as frames
from mta.signing.signature import Prepared
from mta.signing.signing_frames import DONE, GREETING, SIGNED, UNKNOWN, Answer, FrameError, FrameReader

if TYPE_CHECKING:
    from mta.signing.signer import Signer

TOLD_KEYS_MAX = 2048  # remembered a helper, half of what it keeps; then they are told again
TRIES_MAX = 5  # of one signature whose key the helper does not know though it was told

Done = Callable[[list[bytes] | None], None]
Finished = tuple["Task", list[bytes] | None]
"""A message, and its signatures; None where a key cannot be used."""


class Task:
    """Digests of one message, one for each key that signs it."""

    __slots__ = ("done", "prepared", "priority", "tries")

    def __init__(self, prepared: Sequence[Prepared], done: Done, priority: int) -> None:
        self.prepared = prepared
        self.done = done
        self.priority = priority
        self.tries = 0


class _Batch:
    """What was sent to a helper in one frame."""

    __slots__ = ("ref", "sent_s", "tasks")

    def __init__(self, ref: int, tasks: list[Task], sent_s: float) -> None:
        self.ref = ref
        self.tasks = tasks
        self.sent_s = sent_s


class HelperWire(asyncio.Protocol):
    """One connection to a helper."""

    transport: asyncio.Transport

    def __init__(self, signer: "Signer", rank: int) -> None:
        self._signer = signer
        self.rank = rank
        """The lower, the sooner it is given work."""
        self._reader = FrameReader()
        self._told: set[bytes] = set()
        self._ref = 0
        self.batches: deque[_Batch] = deque()
        """What is outstanding, in the order in which it will be answered."""
        self.is_up = False
        """The helper has said that it reads."""
        self.lanes = 1
        """How many signatures it makes at once."""
        self.lost: asyncio.Future[None] = signer.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of asyncio's

    def send(self, tasks: list[Task]) -> None:
        """A batch, behind the keys that the helper was not told yet."""
        told = self._told
        keys: list[bytes] = []
        entries: list[bytes] = []
        for task in tasks:
            for prepared in task.prepared:
                key = prepared.key
                key_id = key.key_id
                if key_id not in told:
                    if len(told) >= TOLD_KEYS_MAX:
                        told.clear()
                    told.add(key_id)
                    keys.append(frames.key(key_id, key.pem))
                entries.append(key_id)
                entries.append(prepared.digest)
        self._ref = (self._ref + 1) & 0xFFFFFFFF
        self.batches.append(_Batch(self._ref, tasks, self._signer.loop.time()))
        frame = frames.sign(self._ref, entries)
        self.transport.write(b"".join((*keys, frame)) if keys else frame)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.receive(data):
                if kind == SIGNED and self.is_up:
                    self._on_signed(payload)
                elif kind == GREETING:
                    self.lanes = frames.read_greeting(payload)
                    self.is_up = True
                    self._signer.flush()
                else:
                    raise FrameError(f"a helper does not say {kind}")
        except FrameError as error:
            self._signer.last_error = f"a signing helper: {error}"
            self.leave()

    def _on_signed(self, payload: bytes) -> None:
        ref, cpu_us, answers = frames.read_signed(payload)
        batch = self.batches[0] if self.batches else None
        if batch is None or ref != batch.ref or len(answers) != sum(len(task.prepared) for task in batch.tasks):
            raise FrameError("an answer to nothing that was asked")
        self.batches.popleft()
        signer = self._signer
        signer.signature_cpu_s += cpu_us / 1e6
        finished: list[Finished] = []
        again: list[Task] = []
        at = 0
        for task in batch.tasks:
            count = len(task.prepared)
            mine = answers[at : at + count]
            at += count
            if count == 1 and mine[0][0] == DONE:
                finished.append((task, [mine[0][1]]))
            elif self._is_unknown(task, mine):
                again.append(task)
            else:
                finished.append((task, signer.signatures_of(task, mine)))
        signer.answered(again, finished)

    def _is_unknown(self, task: Task, answers: Sequence[Answer]) -> bool:
        """Keys that the helper forgot are told again, and all the task's digests signed again."""
        unknown = [
            prepared.key.key_id
            for prepared, (status, _) in zip(task.prepared, answers, strict=True)
            if status == UNKNOWN
        ]
        self._told.difference_update(unknown)
        task.tries += bool(unknown)
        return bool(unknown) and task.tries < TRIES_MAX

    def leave(self) -> None:
        """Nothing more with this one."""
        self.is_up = False
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_up = False
        batches, self.batches = self.batches, deque()
        self._signer.lost(self, [task for batch in batches for task in batch.tasks])
        if not self.lost.done():
            self.lost.set_result(None)
