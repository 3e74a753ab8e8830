"""The signer: a worker's way to signatures, for the most part made by helper processes.

What is to be signed gathers in one queue, the most urgent first. At the end of a turn of the loop it is dealt out to
helpers that have little to do, and each answer fetches the next batch, so batches grow by themselves where there is
much to do, and one worker's mail is signed on all cores. A signature that comes alone while nothing else is under way
is made by the worker itself: to wake another process costs as much as the signature. A helper that dies loses nothing:
what it had goes back to the head of the queue, for another one or for its successor; with no helper at all everything
waits but what comes alone.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from mta.model.envelope import PRIORITY_DEFAULT
from mta.signing.helper_wire import Done, Finished, HelperWire, Task
from mta.signing.signature import Prepared
from mta.signing.signing_bench import Bench, Keys
from mta.signing.signing_frames import DONE, UNKNOWN, Answer
from mta_queue.timetable import Lane

BATCH_MAX = 16  # digests in one batch: the first of them waits for the last, 5 ms with RSA-2048
BATCHES_MAX = 2  # a helper has outstanding: while it signs one the next is there already
SECOND_BATCH_MIN = 8  # digests: a helper that is at work is not woken for fewer, they gather until it answers
ALONE_MAX = 2  # digests: a message with an RSA and an Ed25519 key, or two messages
ALONE_KEYS_MAX = 512  # that the worker signs with itself: 9 KB each
RECONNECT_S = 0.05  # a restarted helper is back well within a second
ANSWER_S = 10.0  # a helper that does not answer in this time hangs; its work is given to others
WATCH_S = 1.0  # how often that is looked at, while something is outstanding


class Signer:
    """Hands digests to helpers and signatures back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, paths: Sequence[Path], alone_max: int = ALONE_MAX) -> None:
        """Connects, to a helper at each path, when first asked to sign.

        The worker makes up to `alone_max` signatures itself where nothing else is to be signed; 0: helpers make all.
        """
        self.loop = loop
        self.signatures = 0
        """How many were made."""
        self.signature_cpu_s = 0.0
        """CPU time of the signing alone, here and in the helpers."""
        self.waiting = 0
        """Messages whose signatures are not there yet."""
        self.last_error = ""
        """Why a key could not be used, or a helper was left."""
        # Workers prefer different helpers: process ids of neighbours differ by one.
        first = os.getpid() % len(paths) if paths else 0
        self._paths = [*paths[first:], *paths[:first]]
        self._alone_max = alone_max
        self._keys = Keys(ALONE_KEYS_MAX)
        self._bench = Bench(self._keys, None)
        self._queue: Lane[Task] = Lane()
        self._digests = 0  # in the queue
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
    def lanes(self) -> int:
        """How many signatures each helper makes at once; 0 where none can be given work now."""
        return min((wire.lanes for wire in self._wires if wire.is_up), default=0)

    @property
    def is_saturated(self) -> bool:
        """All helpers have all they can take: more digests at once would not be signed sooner."""
        return self._digests >= SECOND_BATCH_MIN

    def sign(self, prepared: Sequence[Prepared], done: Done, priority: int = PRIORITY_DEFAULT) -> None:
        """Have these signed, at least one, what is urgent before what waits; `done` is called later, never from here,
        with a signature for each.

        With None where a key cannot be used, and `last_error` says why. While no helper runs all waits but what comes
        alone.
        """
        if not self._callers:
            self._callers = [
                self.loop.create_task(self._keep_calling(path, rank)) for rank, path in enumerate(self._paths)
            ]
        self.waiting += 1
        self._queue.push(priority, Task(prepared, done, priority))
        self._digests += len(prepared)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self._is_scheduled = False
        if self._is_closed:
            return
        if self._is_alone():
            self._sign_alone()
        else:
            self._deal()

    def flush(self) -> None:
        """Deal out what waits; where it is so little that the worker signs it itself, at the end of this turn."""
        if self._is_alone():
            self._schedule()
        else:
            self._deal()

    # what comes alone

    def _is_alone(self) -> bool:
        """Next to nothing waits, all of it is signed quickly, and no helper is at work for us."""
        if not 0 < self._digests <= self._alone_max or any(wire.batches for wire in self._wires):
            return False
        return all(prepared.key.is_quick for task in self._queue for prepared in task.prepared)

    def _sign_alone(self) -> None:
        """Sign what waits, here and now."""
        tasks = self._take(self._digests)
        entries: list[tuple[bytes, bytes]] = []
        for task in tasks:
            for key, _, digest in task.prepared:
                self._keys.learn(key.key_id, key.pem)
                entries.append((key.key_id, digest))
        before_s = time.thread_time()
        answers = self._bench.sign(entries)
        self.signature_cpu_s += time.thread_time() - before_s
        finished: list[Finished] = []
        at = 0
        for task in tasks:
            finished.append((task, self.signatures_of(task, answers[at : at + len(task.prepared)])))
            at += len(task.prepared)
        self.waiting -= len(finished)
        self._tell(finished)

    # what helpers sign

    def _deal(self) -> None:
        """To helpers that have nothing, each as much as it signs at once or more; then, to those with one batch, what
        is worth another. While one is at work for us another one is not woken for less than fills its lanes: eight take
        as long as three."""
        for outstanding in range(BATCHES_MAX):
            wires = [wire for wire in self._wires if wire.is_up and len(wire.batches) == outstanding]
            for at, wire in enumerate(wires):
                is_first = not outstanding and not any(other.batches for other in self._wires)
                if self._digests < (1 if is_first else SECOND_BATCH_MIN if outstanding else wire.lanes):
                    break
                share = -(-self._digests // (len(wires) - at))
                full = -(-share // wire.lanes) * wire.lanes
                wire.send(self._take(max(full, SECOND_BATCH_MIN if outstanding else 1)))
        if self._watch is None and self.waiting > len(self._queue):
            self._watch = self.loop.call_later(WATCH_S, self._on_watch)

    def _take(self, digests_min: int) -> list[Task]:
        """The next few messages: at least so many digests, where a batch has room for them and there are as many."""
        queue = self._queue
        tasks: list[Task] = []
        digests = 0
        while digests < digests_min and (task := queue.peek()) is not None:
            count = len(task.prepared)
            if tasks and digests + count > BATCH_MAX:
                break
            digests += count
            tasks.append(queue.pop())
        self._digests -= digests
        return tasks

    def _put_back(self, tasks: Sequence[Task]) -> None:
        """They were handed out: before all others as urgent as they are."""
        for task in reversed(tasks):
            self._queue.push_front(task.priority, task)
            self._digests += len(task.prepared)

    def answered(self, again: Sequence[Task], finished: Sequence[Finished]) -> None:
        """A batch came back: the helper gets its next one before anything else is done."""
        self._put_back(again)
        self.waiting -= len(finished)
        self.flush()
        self._tell(finished)

    def signatures_of(self, task: Task, answers: Sequence[Answer]) -> list[bytes] | None:
        """A message's signatures; None where there is not one of each key, and `last_error` says why."""
        for prepared, (status, told) in zip(task.prepared, answers, strict=True):
            if status != DONE:
                key = prepared.key
                why = told.decode(errors="replace") if status != UNKNOWN else "the helper does not keep it"
                self.last_error = f"the key {key.selector}._domainkey.{key.domain} cannot sign: {why}"
                return None
        return [told for _, told in answers]

    def _tell(self, finished: Sequence[Finished]) -> None:
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

    async def _keep_calling(self, path: Path, rank: int) -> None:
        while True:
            try:
                wire = await self._connect(path, rank)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            await wire.lost
            await asyncio.sleep(RECONNECT_S)

    async def _connect(self, path: Path, rank: int) -> HelperWire:
        # By way of the folder's descriptor: an address may have 108 bytes at most.
        folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
        try:
            _, wire = await self.loop.create_unix_connection(
                lambda: HelperWire(self, rank), f"/proc/self/fd/{folder}/{path.name}"
            )
        finally:
            os.close(folder)
        self._wires.append(wire)
        self._wires.sort(key=lambda each: each.rank)
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
        self._queue, self._digests = Lane(), 0
        for wire in list(self._wires):
            wire.batches.clear()
            wire.transport.abort()
