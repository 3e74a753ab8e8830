"""The signer: a worker's way to the helper processes that sign.

What is to be signed gathers in one queue, the most urgent first. At the end of a turn of the loop it is dealt out to
helpers that have little to do, and each answer fetches the next batch: one signature alone goes at once, and where
there is much to do batches grow by themselves. So one worker's mail is signed on all cores. A helper that dies loses
nothing: what it had goes back to the head of the queue, for another one or for its successor; with no helper at all
everything waits.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from mta.model.envelope import PRIORITY_DEFAULT
from mta.signing import signing_frames as frames
from mta.signing.signature import Prepared
from mta.signing.signing_frames import DONE, GREETING, SIGNED, UNKNOWN, Answer, FrameError, FrameReader
from mta_queue.timetable import Lane

BATCH_MAX = 16  # digests in one batch: the first of them waits for the last, 5 ms with RSA-2048
BATCHES_MAX = 2  # a helper has outstanding: while it signs one the next is there already
RECONNECT_S = 0.05  # a restarted helper is back well within a second
ANSWER_S = 10.0  # a helper that does not answer in this time hangs; its work is given to others
WATCH_S = 1.0  # how often that is looked at, while something is outstanding
TOLD_KEYS_MAX = 2048  # remembered a helper, half of what it keeps; then they are told again
TRIES_MAX = 5  # of one signature whose key the helper does not know though it was told

Done = Callable[[list[bytes] | None], None]


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

    def __init__(self, signer: "Signer") -> None:
        self._signer = signer
        self._reader = FrameReader()
        self._told: set[bytes] = set()
        self._ref = 0
        self.batches: deque[_Batch] = deque()
        """What is outstanding, in the order in which it will be answered."""
        self.is_up = False
        """The helper has said that it reads."""
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
                    self.is_up = True
                    self._signer.flush()
                else:
                    raise FrameError(f"a helper does not say {kind}")
        except FrameError as error:
            self._signer.last_error = f"a signing helper: {error}"
            self.leave()

    def _on_signed(self, payload: bytes) -> None:
        ref, answers = frames.read_signed(payload)
        batch = self.batches[0] if self.batches else None
        if batch is None or ref != batch.ref or len(answers) != sum(len(task.prepared) for task in batch.tasks):
            raise FrameError("an answer to nothing that was asked")
        self.batches.popleft()
        signer = self._signer
        finished: list[tuple[Task, list[bytes] | None]] = []
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
                finished.append((task, self._signatures(task, mine)))
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

    def _signatures(self, task: Task, answers: Sequence[Answer]) -> list[bytes] | None:
        for prepared, (status, told) in zip(task.prepared, answers, strict=True):
            if status != DONE:
                key = prepared.key
                why = told.decode(errors="replace") if status != UNKNOWN else "the helper does not keep it"
                self._signer.last_error = f"the key {key.selector}._domainkey.{key.domain} cannot sign: {why}"
                return None
        return [told for _, told in answers]

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


class Signer:
    """Hands digests to helpers and signatures back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, paths: Sequence[Path]) -> None:
        """Connects, to a helper at each path, when first asked to sign."""
        self.loop = loop
        self.signatures = 0
        """How many were made."""
        self.waiting = 0
        """Messages whose signatures are not there yet."""
        self.last_error = ""
        """Why a key could not be used, or a helper was left."""
        # Workers prefer different helpers: process ids of neighbours differ by one.
        first = os.getpid() % len(paths) if paths else 0
        self._paths = [*paths[first:], *paths[:first]]
        self._queue: Lane[Task] = Lane()
        self._wires: list[HelperWire] = []
        self._callers: list[asyncio.Task[None]] = []
        self._is_scheduled = False
        self._is_closed = False
        self._watch: asyncio.TimerHandle | None = None

    @property
    def helpers(self) -> int:
        """How many can be given work now."""
        return sum(wire.is_up for wire in self._wires)

    @property
    def is_saturated(self) -> bool:
        """All helpers have all they can take: more digests at once would not be signed sooner."""
        return bool(self._queue)

    def sign(self, prepared: Sequence[Prepared], done: Done, priority: int = PRIORITY_DEFAULT) -> None:
        """Have these signed, at least one, what is urgent before what waits; `done` is called later, never from here,
        with a signature for each.

        With None where a key cannot be used, and `last_error` says why. While no helper runs it waits.
        """
        if not self._callers:
            self._callers = [self.loop.create_task(self._keep_calling(path)) for path in self._paths]
        self.waiting += 1
        self._queue.push(priority, Task(prepared, done, priority))
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self._is_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Deal out what waits: evenly to helpers that have nothing, then to those with one batch."""
        queue = self._queue
        for outstanding in range(BATCHES_MAX):
            if not queue:
                break
            wires = [wire for wire in self._wires if wire.is_up and len(wire.batches) == outstanding]
            for at, wire in enumerate(wires):
                share = min(BATCH_MAX, -(-len(queue) // (len(wires) - at)))
                if not share:
                    break
                wire.send(self._take(share))
        if self._watch is None and self.waiting > len(queue):
            self._watch = self.loop.call_later(WATCH_S, self._on_watch)

    def _take(self, share: int) -> list[Task]:
        """The next few messages: so many digests, and no more than a batch has; at least one message."""
        queue = self._queue
        tasks: list[Task] = []
        digests = 0
        while len(tasks) < share and (task := queue.peek()) is not None:
            digests += len(task.prepared)
            if tasks and digests > BATCH_MAX:
                break
            tasks.append(queue.pop())
        return tasks

    def _put_back(self, tasks: Sequence[Task]) -> None:
        """They were handed out: before all others as urgent as they are."""
        for task in reversed(tasks):
            self._queue.push_front(task.priority, task)

    def answered(self, again: Sequence[Task], finished: Sequence[tuple[Task, list[bytes] | None]]) -> None:
        """A batch came back: the helper gets its next one before anything else is done."""
        self._put_back(again)
        self.waiting -= len(finished)
        self.flush()
        for task, signatures in finished:
            if signatures is not None:
                self.signatures += len(signatures)
            try:
                task.done(signatures)
            except Exception as error:  # noqa: BLE001 - one message must not keep the signatures of the others
                self.loop.call_exception_handler({"message": "an error after signing", "exception": error})

    def lost(self, wire: HelperWire, tasks: Sequence[Task]) -> None:
        """A helper died: what it had is next."""
        if wire in self._wires:
            self._wires.remove(wire)
        if self._is_closed:
            return
        self._put_back(tasks)
        self.flush()

    def _on_watch(self) -> None:
        """Leave helpers that hang; they are called again, and get work when they say that they read."""
        self._watch = None
        before_s = self.loop.time() - ANSWER_S
        for wire in list(self._wires):
            if wire.batches and wire.batches[0].sent_s < before_s:
                self.last_error = f"a signing helper did not answer in {ANSWER_S:g} s"
                wire.leave()
        if self.waiting > len(self._queue):
            self._watch = self.loop.call_later(WATCH_S, self._on_watch)

    async def _keep_calling(self, path: Path) -> None:
        while True:
            try:
                wire = await self._connect(path)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            await wire.lost
            await asyncio.sleep(RECONNECT_S)

    async def _connect(self, path: Path) -> HelperWire:
        # By way of the folder's descriptor: an address may have 108 bytes at most.
        folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
        try:
            _, wire = await self.loop.create_unix_connection(
                lambda: HelperWire(self), f"/proc/self/fd/{folder}/{path.name}"
            )
        finally:
            os.close(folder)
        self._wires.append(wire)
        if wire.lost.done():  # before we were told that it stands
            self.lost(wire, ())
        elif wire.is_up:
            self.flush()
        return wire

    async def close(self) -> None:
        """Break the connections; whatever waits is not called any more."""
        self._is_closed = True
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._queue = Lane()
        for wire in list(self._wires):
            wire.batches.clear()
            wire.transport.abort()
