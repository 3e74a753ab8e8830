"""Machine: several workers in one process, with disks, links and time in a test's hands.

Every worker has its own loop, its log on a MemoryDisk, and the real owner, door, mover, notices and fates; delivery is
a list that the test empties, and recipients named `bounce...` may be refused there. A worker that crashes loses all but
its disk. The machine knows what every client was told, what was delivered and whom a notification told about, and
`check` says whether the promise was kept.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

from mta.delivery.fates import Fates
from mta.delivery.job import ENDED, SENDING, Job
from mta.handoff.door import OWNER_WAIT_S, Door
from mta.handoff.link import LinkWire, Mesh
from mta.handoff.mover import Mover, PartState
from mta.handoff.notices import Notices
from mta.handoff.owner import Owner
from mta.handoff.placement import Placement
from mta.model import envelope as envelopes
from mta.model.clock import Clock
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Bounced, Delivered, Reply
from mta.reporting.events import Events, Fate, Way, encode_note
from mta.reporting.retelling import tell_again
from mta.reporting.worker_counts import PolicyCounts
from mta.testing.judged import judged_pool
from mta.testing.memory_disk import MemoryDisk
from mta.testing.stepped_loop import SteppedLoop
from mta_queue.store import Loaded, Recovered, Store

DIRECTORY = Path("/queue")
ID_DIGITS = 6
MOMENT_S = 0.01  # the queue gathers what comes within a few milliseconds
HOSTNAME = "me.test"
OK = Reply(250, "2.0.0", "taken")
TOO_BIG = Reply(552, "5.3.4", "too big")
UNKNOWN = Reply(550, "5.1.1", "unknown")
NOTE = encode_note(Fate("delivered", 0.0, OK, "content"))
PUT_OFF_S = 61.0  # what could not be told is tried again after a minute


class Pipe:
    """One direction of a connection: bytes in order, and then its end."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.reader: LinkWire | None = None
        self.is_ended = False
        self.other: Pipe
        self.is_clogged = False
        """The reader reads nothing."""

    # What a transport offers the wire at the other end.

    def write(self, data: bytes) -> None:
        if not self.is_ended:
            self.chunks.append(data)

    def abort(self) -> None:
        self.chunks.clear()
        self.is_ended = self.other.is_ended = True
        self.other.chunks.clear()


class _Placement:
    """Whose a domain is, as the test says; doors may be behind the times."""

    def __init__(self, machine: "Machine", me: int) -> None:
        self.me = me
        self.workers = len(machine.disks)
        self.epoch = 1
        self._machine = machine

    def owner(self, domain: str, now_s: float) -> int:
        return self._machine.owner_at_door(domain)


class Worker:
    """One life of one worker."""

    def __init__(self, machine: "Machine", number: int, extra_logs: Sequence[int] = ()) -> None:
        self.machine = machine
        self.number = number
        self.loop = SteppedLoop()
        self.loop.now_s = machine.now_s
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.disk = machine.disks[number]
        self.store = self._store(number)
        self.mesh = Mesh(loop, number, len(machine.disks), DIRECTORY / "links")
        placement = cast(Placement, _Placement(machine, number))
        clock = cast(Clock, machine)
        self.events = Events(self._tell, worker=number, prefix="e")
        self.owner = Owner(self.store, self, self.events.received)
        self.owner.attach(self.mesh)
        self.door = Door(placement, self.owner, self.mesh, clock)
        self.mover = Mover(self.store, placement, self.mesh, clock, self.arrived)
        self.notices = Notices(self.mover, clock)
        self.fates = Fates(
            self.store, self.events, self, clock, Random(1), wants_dsn=lambda envelope: True, hostname=HOSTNAME
        )
        self.fates.start(cast(Notices, self))
        self.pool = judged_pool(clock, self.tally(""))
        self.jobs: deque[tuple[int, int, Envelope]] = deque()
        """(seq, part, envelope) that may be delivered."""
        self.lines: list[str] = []
        self.uncertain: list[tuple[int, tuple[str, str]]] = []
        """Deliveries of this life: the number of the record that says so, and what it was."""
        self.emptied: list[int] = []
        self.outgoing: list[Pipe] = []
        self.has_begun = False
        self.recovered = self.store.open()
        self.owner.remember(self.recovered)
        self.orphans = [(log, store, store.open()) for log, store in ((log, self._store(log)) for log in extra_logs)]
        self.store.start(loop)
        for log, store, _ in self.orphans:
            store.start(loop)
            self.mover.stores[log] = store
        self.mover.settle(number, self.recovered.arriving, lambda: None)
        for log, store, found in self.orphans:
            self._drain(log, store, found)

    def _store(self, log: int) -> Store:
        return Store(DIRECTORY / str(log), disk=self.disk, segment_bytes_max=4000, jobs=self.loop.jobs)

    def _drain(self, log: int, store: Store, found: Recovered) -> None:
        def settled() -> None:
            self.mover.drain(log, store, store.seqs(), lambda: self.emptied.append(log))

        self.mover.settle(log, found.arriving, settled)

    @property
    def may_begin(self) -> bool:
        """It has not, and what a crash left open is settled."""
        return not self.has_begun and self.mesh.were_all_settled and self.mover.is_decided_here

    def begin(self) -> None:
        """All links stand: what was found is told again and taken up."""
        self.has_begun = True
        for untold in self.recovered.untold:
            if untold.seq in self.owner.forgotten:
                continue
            tell_again(self.events, untold, HOSTNAME)
        for seq, _ in self.recovered.waiting:
            if seq not in self.owner.forgotten:
                self._load(seq)

    # Delivery.

    def take(self, seq: int, envelope: Envelope, content: bytes) -> None:
        assert content == self.machine.content_of(envelope.id)
        self.jobs.extend((seq, part, envelope) for part in range(len(envelope.recipients)))

    def arrived(self, seq: int, states: Sequence[PartState]) -> None:
        self._load(seq)

    def _load(self, seq: int, parts: Sequence[int] = ()) -> None:
        loaded = self.store.load(seq)
        assert loaded is not None
        envelope = envelopes.decode(loaded.meta)
        self.jobs.extend((seq, state.part, envelope) for state in loaded.parts if not parts or state.part in parts)

    def state_of(self, seq: int, part: int) -> PartState:
        """What is recorded of a part."""
        loaded = cast(Loaded, self.store.load(seq))
        return next(PartState(state.due_s, state.note) for state in loaded.parts if state.part == part)

    def deliver(self) -> bool:
        """The oldest job goes out, or to the worker that owns its domain; False where there is none."""
        if not self.jobs:
            return False
        seq, part, envelope = self.jobs.popleft()
        recipient = envelope.recipients[part]
        owner = self.machine.owners[recipient.domain]
        if owner != self.number:
            self.mover.move(seq, (part,), envelope, [self.state_of(seq, part)], owner)
            return True
        if not envelope.cause_id and not self.machine.answers(envelope.id):
            if envelope.id in self.machine.shared:
                assert envelope.id in self.machine.lost_doors, f"{envelope.id} was delivered before all owners had it"
            self.machine.early.add(envelope.id)
        if recipient.address.startswith("bounce"):
            self._attempt(seq, part, envelope)
            return True
        self.store.finish(seq, [part], NOTE)
        self._delivered(envelope, recipient.address)
        self.tell(f"delivered {envelope.id} {recipient.address}")
        return True

    def _delivered(self, envelope: Envelope, address: str) -> None:
        self.machine.delivered[envelope.id, address] += 1
        self.uncertain.append((self.store.mark_position(), (envelope.id, address)))
        for about in self.machine.notices[envelope.id] if envelope.cause_id else ():
            assert address.startswith("s@")
            self.machine.informed[envelope.cause_id, about] += 1
            self.uncertain.append((self.store.mark_position(), (envelope.cause_id, f"notice about {about}")))

    def _attempt(self, seq: int, part: int, envelope: Envelope) -> None:
        """A transaction with all recipients of the message that are here and go to the same worker."""
        parts = [part]
        for job in [job for job in self.jobs if job[0] == seq]:
            address = envelope.recipients[job[1]].address
            if address.startswith("bounce") and self.machine.owners[envelope.recipients[job[1]].domain] == self.number:
                parts.append(job[1])
                self.jobs.remove(job)
        content = self.machine.content_of(envelope.id) if self.machine.random.random() < 0.5 else None
        job = Job(seq, parts, envelope.recipients[part].domain, envelope, content, "")
        job.state = SENDING
        outcomes = []
        for each in parts:
            address = envelope.recipients[each].address
            refuses = self.machine.refuses(address)
            outcomes.append(Bounced(UNKNOWN if each % 2 else TOO_BIG, "rcpt") if refuses else Delivered(OK))
        self.fates.settle(self.pool, job, outcomes, Way(host="mx.example"), False)
        for each, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, Delivered):
                self._delivered(envelope, envelope.recipients[each].address)

    def send(self, envelope: Envelope, *rest: Any) -> None:
        """A notification begins its way."""
        assert envelope.cause_recipients
        self.machine.notices[envelope.id] = envelope.cause_recipients
        self.notices.send(envelope, *rest)

    # What fates ask of the dispatcher.

    def later(self, due_s: float, seq: int, parts: Sequence[int]) -> None:
        self.loop.call_later(due_s - self.machine.now_s, lambda: self._load(seq, parts))

    def soon(self, call: Callable[[], None]) -> None:
        self.loop.call_soon(call)

    def split(self, job: Job, parts: Sequence[int]) -> Job:
        return job.part(parts)

    def ended(self, job: Job) -> None:
        assert job.state != ENDED
        job.state = ENDED

    def set_aside(self, job: Job, error: Exception) -> None:
        raise error

    def tally(self, policy: str) -> PolicyCounts:
        return PolicyCounts()

    # The event log.

    def _tell(self, line: bytes) -> None:
        told = json.loads(line)
        self.tell(" ".join(str(told[name]) for name in ("event", "id", "recipient", "dsn") if name in told))

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def flush(self) -> None:
        """Not before all that was found is told again, for the mark says so; links are faster than half a second."""
        unsent = any(link._gather for link in self.mesh.links.values())
        unread = any(pipe.chunks and pipe.reader for pipe in self.outgoing)
        if not self.has_begun or unsent or unread:
            return
        mark = self.owner.mark()
        self.machine.log.update(self.lines)
        self.lines.clear()
        self.owner.events_written(mark)

    @property
    def left_behind(self) -> dict[str, int]:
        """What should be nothing when all is done."""
        door = self.door
        windows = door._windows.values()
        found = {
            "jobs": len(self.jobs),
            "items": self.store.items,
            "held": self.owner.held,
            "untold": len(self.owner._untold),
            "recovered": len(self.owner.recovered),
            "moves": self.mover.moving + self.mover.lanes.left_open,
            "notices": self.notices.pending + self.fates.ending,
            "arriving": self.mover.arrivals.arriving + len(self.mover.arrivals._undecided),
            "offered": sum(len(w.offered) + len(w.waiting) + w.offered_bytes for w in windows),
            "held at door": sum(len(w.held) + len(w.forgetting) + len(w.abandoned) + len(w.refusing) for w in windows),
            "waiting bytes": door.waiting_bytes,
        }
        return {name: count for name, count in found.items() if count}


class Machine:
    """All workers, the clients and the peers."""

    def __init__(self, workers: int, seed: int = 0) -> None:
        self.random = Random(seed)
        self.disks = [MemoryDisk(seed * 100 + number) for number in range(workers)]
        self.workers: list[Worker | None] = [None] * workers
        self.pipes: list[Pipe] = []
        self.now_s = 1000.0
        self.owners: dict[str, int] = {}
        """Domain -> the worker that delivers its mail."""
        self.owner_at_door: Callable[[str], int] = lambda domain: self.owners[domain]
        self.clients: dict[str, tuple[int, list[str], list[bytes]]] = {}
        """Message id -> (worker, recipients, answers)."""
        self.lost_doors: set[str] = set()
        """Whose clients were not answered when the door died."""
        self.given_up: set[str] = set()
        """Refused after a wait for an owner that was not back in time, perhaps with its share written down."""
        self.delivered: Counter[tuple[str, str]] = Counter()
        self.informed: Counter[tuple[str, str]] = Counter()
        """Message and recipient -> how often its sender got a notification about it."""
        self.notices: dict[str, list[str]] = {}
        """A notification's id -> whom it tells about."""
        self.refuses: Callable[[str], bool] = lambda address: True
        """Whether a recipient `bounce...` is, this time."""
        self.excused: Counter[tuple[str, str]] = Counter()
        """Deliveries that were in flight at a crash: these may come again."""
        self.shared: set[str] = set()
        """Messages of several owners: nobody delivers them before the client was answered, unless the door died."""
        self.sizes: dict[str, int] = {}
        self.early: set[str] = set()
        """Messages of one owner that were delivered before the door knew that they were taken."""
        self.log: set[str] = set()
        self.crashes = 0

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker is not None]

    def worker(self, number: int) -> Worker:
        found = self.workers[number]
        assert found is not None
        return found

    # What happens.

    def start(self, number: int, extra_logs: Sequence[int] = ()) -> None:
        """A worker begins a new life; links are made by `connect`."""
        self.now_s += 0.01
        self.workers[number] = Worker(self, number, extra_logs)

    def connect(self) -> bool:
        """One link that is missing is made; False where none is."""
        for worker in self.living():
            for lower in range(worker.number):
                other = self.workers[lower]
                link = worker.mesh.links[lower]
                if other is None or link.is_connected:
                    continue
                calling, called = LinkWire(worker.mesh, link), LinkWire(other.mesh, None)
                up, down = Pipe(), Pipe()
                up.reader, down.reader, up.other, down.other = called, calling, down, up
                self.pipes += (up, down)
                worker.outgoing.append(up)
                other.outgoing.append(down)
                called.connection_made(cast(asyncio.BaseTransport, down))
                calling.connection_made(cast(asyncio.BaseTransport, up))
                return True
        return False

    def carry(self, pipe: Pipe, length_bytes: int = 1 << 30) -> bool:
        """The next bytes come to the reader, or the end does."""
        if pipe.is_clogged or pipe.reader is None:
            return False
        if pipe.chunks:
            data = b"".join(pipe.chunks)
            pipe.chunks.clear()
            if length_bytes < len(data):
                pipe.chunks.append(data[length_bytes:])
            pipe.reader.data_received(data[:length_bytes])
        elif pipe.is_ended:
            reader, pipe.reader = pipe.reader, None
            self.pipes.remove(pipe)
            reader.connection_lost(None)
        else:
            return False
        return True

    def crash(self, number: int, power_lost: bool = False, lose_sent: bool = False) -> None:
        """The process is gone; `lose_sent`: with it what it had written to its links and nobody has read."""
        worker = self.worker(number)
        self.workers[number] = None
        self.crashes += 1
        for at, what in worker.uncertain:
            if at > worker.store._journal.settled:
                self.excused[what] += 1
        for message_id, (door, _, _) in self.clients.items():
            if door == number and not self.answers(message_id):
                self.lost_doors.add(message_id)
        for pipe in self.pipes[:]:
            reader = pipe.reader
            if reader is not None and reader._mesh is worker.mesh:
                pipe.reader = None
                pipe.other.is_ended = pipe.is_ended = True
                if lose_sent:
                    pipe.other.chunks.clear()
                self.pipes.remove(pipe)
        if power_lost:
            self.disks[number].lose_power()
        else:
            self.disks[number].kill()

    def submit(self, door: int, recipients: Sequence[str], lines: int = 10, sender: str = "s@sender.example") -> str:
        """A client hands a message in."""
        message_id = f"{len(self.clients):0{ID_DIGITS}}"
        answers: list[bytes] = []
        self.clients[message_id] = (door, list(recipients), answers)
        self.sizes[message_id] = lines
        content = self.content_of(message_id)
        envelope = Envelope(
            message_id,
            sender,
            [Recipient(address, address.partition("@")[2]) for address in recipients],
            self.now_s,
            len(content),
        )
        submitted_s = self.now_s

        def refused(reply: bytes) -> None:
            answers.append(reply)
            if self.now_s - submitted_s >= OWNER_WAIT_S:
                self.given_up.add(message_id)

        self.worker(door).door.submit(envelope, content, lambda: answers.append(b"250"), refused)
        if envelope.told_recipients is None:  # the door left it to the shares to say who tells
            self.shared.add(message_id)
        return message_id

    def content_of(self, message_id: str) -> bytes:
        return (message_id.encode() + b"\r\n") * self.sizes[message_id]

    def answers(self, message_id: str) -> list[bytes]:
        return self.clients[message_id][2]

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for worker in self.living():
            worker.loop.now_s = self.now_s - seconds
            worker.loop.wait(seconds)
            worker.door.sweep(self.now_s)

    def tick(self) -> bool:
        """A moment passes, and what was put off for a moment happens; False where nothing was."""
        if not any(timer.when_s <= self.now_s + MOMENT_S for each in self.living() for timer in each.loop.timers):
            return False
        self.now_s += MOMENT_S
        for worker in self.living():
            loop = worker.loop
            loop.now_s = self.now_s
            due = [timer for timer in loop.timers if timer.when_s <= self.now_s]
            loop.timers = [timer for timer in loop.timers if timer not in due]
            for timer in due:
                if not timer.is_cancelled:
                    timer.call()
        return True

    # Steps, the smallest there are, in an order that is always the same.

    def actions(self) -> list[Callable[[], Any]]:
        found: list[Callable[[], Any]] = [self.connect]
        for worker in self.living():
            found += [worker.loop.turn, worker.loop.run_job, worker.deliver, worker.flush]
            if worker.may_begin:
                found.append(worker.begin)
        found += [lambda pipe=pipe: self.carry(pipe) for pipe in self.pipes]
        return found

    def run(self, steps: int = 1 << 30) -> int:
        """Everything goes its way until nothing is left to do; returns how many steps that took."""
        taken = 0
        quiet = 0
        while quiet < 3:
            has_moved = False
            for action in self.actions():
                if taken >= steps:
                    return taken
                did = action()
                if did or did is None:
                    taken += 1
                has_moved |= bool(did)
            if any(worker.may_begin for worker in self.living()):
                has_moved = True
            if not has_moved and taken < steps and self.tick():
                has_moved = True
                taken += 1
            quiet = 0 if has_moved else quiet + 1
        return taken

    def recover(self) -> None:
        """Whoever is dead comes back, disks work, and everything ends."""
        for number, worker in enumerate(self.workers):
            self.disks[number].on_call = lambda operation, path: None
            if worker is None:
                self.start(number)
        for seconds in (1.1, 1.1, 1.1, 1.1, PUT_OFF_S, 1.1, 1.1):
            self.run()
            self.pass_time(seconds)
        self.run()

    # The promise.

    def check(self) -> None:
        """What must hold after `recover`."""
        for message_id, (_, recipients, answers) in self.clients.items():
            assert len(answers) <= 1, f"{message_id} was answered {answers}"
            if not answers:
                assert message_id in self.lost_doors, f"{message_id} was never answered"
            accepted = answers == [b"250"]
            for address in recipients:
                times = self.delivered[message_id, address]
                informed = self.informed[message_id, address]
                assert times or informed or not accepted, f"{message_id} to {address} is lost"
                allowed = self.excused[message_id, address]
                assert times <= allowed + (not informed), f"{message_id} to {address} was delivered {times} times"
                again = self.excused[message_id, f"notice about {address}"]
                assert informed <= again + 1, f"{message_id} to {address} was told of {informed} times"
                refused = answers and not accepted
                if refused and message_id not in self.given_up and message_id not in self.early:
                    assert not times, f"{message_id} to {address} was refused and delivered"
                    assert not informed, f"{message_id} to {address} was refused and told of"
                if times and not informed and not refused:
                    assert f"delivered {message_id} {address}" in self.log
                if informed and not refused:
                    self._check_told(message_id, address)
            if accepted:
                assert f"received {message_id}" in self.log, f"{message_id} was never told"
        for worker in self.living():
            assert not worker.left_behind, f"worker {worker.number}: {worker.left_behind}"

    def _check_told(self, message_id: str, address: str) -> None:
        """The event log has the end of a recipient and names the notification, which it has too."""
        lines = [line.split() for line in self.log if line.startswith(f"bounced {message_id} {address} ")]
        assert lines, f"{message_id} to {address}: nobody told that it bounced"
        received = {line.split()[1] for line in self.log if line.startswith("received ")}
        assert any(line[-1] in received for line in lines), f"{message_id} to {address}: {lines}"
