"""A worker: one event loop on one core. Builds the real things, starts and stops them in order.

Order of start: the logs are opened and what they hold is known; the links stand and what a crash left open between
workers is settled; mail that waits goes out; only then, when the supervisor says so, clients are let in.
"""

import argparse
import asyncio
import contextlib
import encodings.idna  # noqa: F401 - getaddrinfo imports it when first called, which fails without a free descriptor
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import uvloop

from mta import accepted, remedies, stop_mark
from mta.admin import counters_file, rules_file, suspension_file
from mta.admin.kept_file import KeptFileError
from mta.clock import SystemClock
from mta.config import Config
from mta.control import ANSWER_BYTES_MAX, Line, Order, Report
from mta.delivery.clerk import Clerk
from mta.delivery.connection import SourceAddress
from mta.delivery.deadlines import Sweeper, Timeouts
from mta.delivery.dispatcher import Dispatcher
from mta.delivery.keeping import Keeping
from mta.delivery.signatures import Signatures
from mta.delivery.sources import Sources
from mta.delivery.tls import TlsContexts
from mta.handoff.claims import Claims
from mta.handoff.door import Door
from mta.handoff.lending import Lending
from mta.handoff.link import LinkWire, Mesh
from mta.handoff.mover import Mover
from mta.handoff.notices import Notices
from mta.handoff.owner import Owner
from mta.handoff.placement import Placement, Route
from mta.heap import Heap
from mta.model.envelope import Envelope
from mta.model.identity import IdMaker
from mta.orphan_logs import OrphanLogs, orphans_of
from mta.reporting.event_log import EventLog
from mta.reporting.events import Events
from mta.reporting.questions import Failed, Question
from mta.reporting.retelling import tell_again
from mta.reporting.worker_counts import WorkerCounts
from mta.resolve.resolver import Resolver
from mta.signing.keyring import KeyPlace, KeyRing
from mta.signing.keys import KeyFileError
from mta.signing.signer import Signer
from mta.smtp import replies
from mta.submission.accept import Acceptor, Tenants, TenantSettings
from mta.submission.listener import Doors, ListenerSettings
from mta.tasks import Tasks
from mta_queue.disk import OsDisk
from mta_queue.store import LogFormatError, LogLockedError, Position, Recovered, Store

LINKS_WAIT_S = 10.0  # a worker whose neighbour does not come up in this time begins without it
LOCK_WAIT_S = 5.0  # a worker whose supervisor was killed ends within this, unless it is reading a huge log
POLL_S = 0.05
SAID_S = 0.1  # last words are written at the end of a turn of the loop
DRAIN_S = 25.0  # SIGTERM to the last transaction cut off; with the doors' share the whole stop stays under 30 s
DOORS_S = 3.0  # sessions that are in the middle of a message may end it in this time
CHECK_S = 0.5  # how often disk space and answers of dead owners are looked at
GC_THRESHOLDS = (50_000, 20, 50)  # most objects die by reference count; full collections of a big queue are long
FOUND_AT_ONCE = 2_000  # items that wait on the disk are taken up in portions, so that the loop turns in between


class Worker:
    """Everything that one process does."""

    def __init__(
        self,
        config: Config,
        number: int,
        epoch: int,
        loop: asyncio.AbstractEventLoop,
        *,
        is_again: bool = False,
    ) -> None:
        """`is_again`: another process had this number before, while the server ran."""
        self.config = config
        self.number = number
        self.workers = config.worker_count
        self.loop = loop
        self.clock = SystemClock()
        self.random = Random()
        self.ids = IdMaker(self.random.getrandbits(25))
        directory = config.queue.directory
        self.disk = OsDisk()
        self.store = self._store_of(directory / str(number))
        placement = self._placement(config, epoch)
        self.mesh = Mesh(loop, number, self.workers, directory / "links")
        self.event_log = EventLog(config.log.events, mark=self._mark, on_flushed=self._events_written)
        self.events = Events(
            self.event_log.write, worker=number, prefix=IdMaker(self.random.getrandbits(25)).make(time.time())
        )
        self.sweeper = Sweeper(self.clock)
        self.resolver = self._resolver(config)
        self.signer = Signer(loop, [directory / "links" / f"signer-{each}.sock" for each in range(self.workers)])
        ring = self._ring(config)
        self.signatures = Signatures(ring, self.signer, self.clock)
        self._tenants_now = self._tenants(config)
        self.dispatcher = Dispatcher(
            loop=loop,
            clock=self.clock,
            random=self.random,
            store=self.store,
            resolver=self.resolver,
            placement=placement,
            mesh=self.mesh,
            sources=self._sources(config),
            events=self.events,
            sweeper=self.sweeper,
            tls=TlsContexts(),
            timeouts=Timeouts(),
            port=config.delivery.port,
            idle_timeout_s=config.delivery.idle_timeout_s,
            memory_bytes_max=config.queue.memory_max_bytes // self.workers,
            signatures=self.signatures,
            wants_dsn=self._wants_dsn,
            hostname=config.hostname,
        )
        self.dispatcher.warming.change(config.warmup_plans, self._plan_origin)
        self.owner = Owner(self.store, self.dispatcher, self.events.received)
        self.owner.attach(self.mesh)
        self.door = Door(placement, self.owner, self.mesh, self.clock)
        self.mover = Mover(self.store, placement, self.mesh, self.clock, self.dispatcher.arrived)
        self.notices = Notices(self.mover, self.clock)
        self.claims = Claims(self.mesh, epoch, self.dispatcher.yield_to)
        if is_again:
            self.dispatcher.follows_s = loop.time()
        self.lending = Lending(self.mesh, self.clock, self.workers, is_fresh=not is_again)
        self.dispatcher.reserving.start(self.lending, config.limits, self._limits_written(config))
        self.acceptor = Acceptor(
            clock=self.clock,
            ids=self.ids,
            submitter=self.door,
            events=self.events,
            tenants=self._tenants_now,
            may_send=ring.may_send,
            content_bytes_max=config.queue.memory_max_bytes // self.workers,
            size_max_bytes=config.queue.message_size_max_bytes,
        )
        self.doors = Doors(loop, self.clock, self.acceptor)
        self.heap = Heap()
        self.clerk = Clerk(self.dispatcher, self.owner.is_kept_back, self.owner, lambda: not self.acceptor.closed_reply)
        self._tasks = Tasks()
        self._orphans: OrphanLogs | None = None
        self._listening: list[socket.socket] = []
        self._started_s = self.clock.wall_s()
        self._follows_crash = False
        self._timer: asyncio.TimerHandle | None = None
        self.on_hearing: Callable[[], None] = lambda: None
        """Called at the start, when the kept files were read: what holds besides may be told from now on."""

    # built from the configuration

    def _store_of(self, directory: Path) -> Store:
        return Store(directory, disk=self.disk, durability=self.config.queue.durability)

    def _placement(self, config: Config, epoch: int) -> Placement:
        routes = [
            Route(tuple(route.domains), tuple((host.host, host.port) for host in route.hosts), route.policy)
            for route in config.routes
        ]
        return Placement(config.policy_set, routes, self.workers, self.number, epoch)

    def _sources(self, config: Config) -> Sources:
        sources = [SourceAddress(source.name, source.ipv4, source.ipv6, source.ehlo) for source in config.sources]
        return Sources(sources, {pool.name: pool.sources for pool in config.pools}, config.hostname)

    def _plan_origin(self, source: str, provider: str) -> str:
        """Where the plan of a new source for a provider is written."""
        config, name = self.config, provider.rpartition(":")[2]
        number, warmup = next((i, each) for i, each in enumerate(config.warmups) if each.source == source)
        path = ("providers", name) if name in warmup.providers else ("plan",)
        return config.origin("warmup", number, *path)

    def _limits_written(self, config: Config) -> list[str]:
        """Where each `[[limit]]` is written."""
        return [config.origin("limit", number) for number in range(len(config.limits))]

    def _tenants(self, config: Config) -> Tenants:
        return Tenants(
            [
                TenantSettings(tenant.name, tuple(tenant.senders), tenant.pool, tenant.dsn == "sender")
                for tenant in config.tenants
            ],
            [pool.name for pool in config.pools],
        )

    def _ring(self, config: Config) -> KeyRing:
        """Raises KeyFileError."""
        places = [
            KeyPlace(key.domain, key.selector, key.key, key.sign == "always", pem)
            for key, pem in zip(config.dkim, config.pems, strict=True)
        ]
        return KeyRing(places, config.signing.directory, config.signing.unsigned)

    def _wants_dsn(self, envelope: Envelope) -> bool:
        """Who is told of mail that did not arrive: never the null sender, nor whoever was told already."""
        return bool(envelope.sender) and not envelope.cause_id and self._tenants_now.wants_dsn(envelope.tenant)

    def _resolver(self, config: Config) -> Resolver:
        ours = [listener.address.host for listener in config.listeners if listener.address.port == config.delivery.port]
        return Resolver(
            nameservers=[str(server) for server in config.dns.nameservers],
            clock=self.clock,
            prohibited=config.delivery.prohibited_networks,
            own_names=[config.hostname] if ours else [],
            own_addresses=ours,
        )

    def _listener_settings(self) -> list[ListenerSettings]:
        return [
            ListenerSettings(
                hostname=self.config.hostname,
                size_max_bytes=self.config.queue.message_size_max_bytes,
                recipients_max=self.config.queue.recipients_max,
                trusted=tuple(listener.trusted),
                addresses=listener.addresses,
                long_lines=listener.long_lines,
                tenant=listener.tenant,
                hide_client=listener.hide_client,
            )
            for listener in self.config.listeners
        ]

    # the start

    async def start(self) -> None:
        """Everything but the doors. Raises LogLockedError, LogFormatError and OSError, with nothing acted upon."""
        directory = self.config.queue.directory
        recovered = await self._open(self.store)
        if not stop_mark.take(self.disk, self.store.directory):
            self._follows_crash = True
            self.dispatcher.fates.crashed(self.store.mark_position() + 1, self._started_s)
        orphans = OrphanLogs(self.loop, self.mover, self.event_log, lambda text: say(f"worker {self.number}: {text}"))
        await orphans.open(orphans_of(directory, self.number, self.workers), self._store_of, self._open)
        self.store.start(self.loop)
        self.sweeper.start(self.loop)
        self.owner.remember(recovered)
        self.dispatcher.suspensions.replace(suspension_file.load(directory / suspension_file.NAME))
        self.dispatcher.restraints.load(rules_file.load(directory / rules_file.NAME))
        self.dispatcher.keeping.load(counters_file.load(directory / counters_file.NAME))
        self.on_hearing()
        self.dispatcher.start(self.mover, self.claims, self.notices)
        self.mover.settle(self.number, recovered.arriving, lambda: None)
        orphans.settle()
        await self.mesh.start()
        if not await self.mesh.all_up(LINKS_WAIT_S):
            missing = [str(worker) for worker, link in self.mesh.links.items() if not link.is_settled]
            say(f"worker {self.number}: no link to worker {', '.join(missing)} yet, beginning without")
        self._tell_again(recovered, self.owner.forgotten)
        for found in orphans.found:
            self._tell_again(found, set())
        self.event_log.start(self.loop)  # not before: its marks say that all of this has been told
        self._tasks.start(self._take_up(recovered))
        for draining in orphans.drains():
            self._tasks.start(draining)
        self._orphans = orphans
        self._timer = self.loop.call_later(CHECK_S, self._check)

    async def _open(self, store: Store) -> Recovered:
        """Open a log; one whose worker was killed a moment ago may still be locked by it."""
        end_s = self.loop.time() + LOCK_WAIT_S
        while True:
            try:
                recovered = store.open()
            except LogLockedError:
                if self.loop.time() > end_s:
                    raise
                await asyncio.sleep(POLL_S)
            else:
                for what in recovered.set_aside:
                    say(f"worker {self.number}: set aside: {what}")
                return recovered

    def _tell_again(self, recovered: Recovered, without: set[int]) -> None:
        """What the event log may lack since the last stop."""
        for untold in recovered.untold:
            if untold.seq not in without:
                tell_again(self.events, untold, self.config.hostname)

    async def _take_up(self, recovered: Recovered) -> None:
        while not self.mover.is_decided_here:  # noqa: ASYNC110 - a sync away, but where the disk fails
            await asyncio.sleep(POLL_S)
        forgotten = self.owner.forgotten
        waiting = iter(recovered.waiting)
        due = 0
        while found := list(islice(waiting, FOUND_AT_ONCE)):
            if self._follows_crash:
                due += sum(due_s <= self._started_s for _, parts in found for _, due_s in parts)
            for seq, parts in found:
                if seq not in forgotten:
                    self.dispatcher.found(seq, parts)
            await asyncio.sleep(0)
        if due:
            words = "it was not stopped cleanly; of these recipients those that were on their way may get mail twice"
            say(f"worker {self.number}: {words}: {due}")
        self.clerk.is_open = True

    async def open_doors(self, sockets: list[socket.socket]) -> None:
        """Let clients in."""
        self._listening = [bound.dup() for bound in sockets]
        await self.doors.open(list(zip(sockets, self._listener_settings(), strict=True)))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    # while it runs

    def _mark(self) -> Position:
        return self.owner.mark()

    def _events_written(self, mark: object) -> None:
        assert isinstance(mark, int), "what `_mark` gave"
        self.owner.events_written(Position(mark))

    def _check(self) -> None:
        self._timer = self.loop.call_later(CHECK_S, self._check)
        self.door.sweep(self.loop.time())
        self.heap.look(self.dispatcher.memory.resident_bytes, self.loop.time())
        try:
            is_full = self.store.free_bytes() < self.config.queue.disk_free_min_bytes or self.store.is_failing
        except OSError:
            is_full = True
        self.acceptor.closed_reply = replies.NO_SPACE if is_full or self.event_log.is_stuck else b""

    def reload(self, config: Config, epoch: int) -> None:
        """New policies, routes, sources, pools and tenants; what else changed needs a restart."""
        try:
            ring = self._ring(config)
        except (
            KeyFileError
        ) as error:  # the file was changed since the supervisor looked: the keys that we have are good
            say(f"worker {self.number}: the keys stay as they were: {error}")
        else:
            self.signatures.reload(ring)
            self.acceptor.may_send = ring.may_send
        self.config = config
        self._tenants_now = self._tenants(config)
        placement = self._placement(config, epoch)
        self.door.placement = placement
        self.mover.placement = placement
        self.acceptor.tenants = self._tenants_now
        self.dispatcher.warming.change(config.warmup_plans, self._plan_origin)
        self.dispatcher.reload(
            placement, self._sources(config), config.delivery.port, config.delivery.idle_timeout_s, self._wants_dsn
        )
        self.dispatcher.reserving.change(config.limits, self._limits_written(config))
        self.event_log.reopen()

    async def answer(self, question: Question) -> bytes:
        """What this worker knows, as JSON; of its numbers those that are not delivery's are filled in here."""
        answer = await self.clerk.answer(question)
        if isinstance(answer, WorkerCounts):
            answer.worker = self.number
            answer.started_s = self._started_s
            answer.received = self.acceptor.accepted
            answer.rejected = self.acceptor.refused
            answer.sessions = len(self.doors.sessions)
            answer.signatures = self.signer.signatures
            answer.signing = self.signer.waiting
            answer.signing_cpu_s = self.signer.signature_cpu_s
            answer.signing_lanes = self.signer.lanes
            answer.events_pending_bytes = self.event_log.pending_bytes
            answer.is_taking_mail = not self.acceptor.closed_reply
        encoded = msgspec.json.encode(answer)
        if len(encoded) > ANSWER_BYTES_MAX:
            return msgspec.json.encode(
                Failed("the answer is too large: narrow the selection, or ask for fewer at once")
            )
        return encoded

    # the end

    async def close_doors(self) -> None:
        """No new mail; who comes now is refused by the system."""
        closing = self.loop.create_task(self.doors.close(DOORS_S))
        await asyncio.sleep(0)
        for bound in self._listening:
            # The supervisor holds them too, so that closing ours alone would leave clients in the queue of nobody.
            with contextlib.suppress(OSError):
                bound.shutdown(socket.SHUT_RDWR)
            bound.close()
        self._listening.clear()
        await closing

    async def stop(self) -> None:
        """Finish what is under way, write everything down."""
        if self._timer is not None:
            self._timer.cancel()
        await self.dispatcher.stop(DRAIN_S)
        await self.dispatcher.keeping.stop()
        await self.signer.close()
        self.sweeper.stop()
        self._tasks.cancel()
        if self._orphans is not None:
            await self._orphans.retired()
        await self.mesh.close()  # before the stores: a frame must not meet a closed one
        mark = self.owner.mark()
        if not await self.event_log.close():
            self.owner.events_written(mark)
        for log, store in list(self.mover.stores.items()):
            if log != self.number:
                await store.close()
        await self.store.close(self._leave_stop_mark)
        await self.resolver.close()

    def _leave_stop_mark(self) -> None:
        """While the log is still ours: whoever opens it next is to find the mark or none, for good."""
        with contextlib.suppress(OSError):  # without it the next start is as after a crash
            stop_mark.leave(self.disk, self.store.directory)


def say(text: str) -> None:
    """One line for whoever started the server."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the foreground server's own voice


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A bug. On a link it would leave two workers out of step: this one dies, and what is on disk is found again."""
    loop.default_exception_handler(context)
    if isinstance(context.get("protocol"), LinkWire):
        sys.stderr.flush()
        os._exit(70)  # EX_SOFTWARE of sysexits.h


async def serve(args: argparse.Namespace) -> int:
    """The life of a worker process."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_exception)
    loop.add_signal_handler(signal.SIGTERM, lambda: None)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    orders: asyncio.Queue[Order] = asyncio.Queue()
    answering = Tasks()
    keeping: Keeping | None = None

    def take(order: Order | Report) -> None:
        assert isinstance(order, Order), "the line has orders"
        if order.counted is not None and keeping is not None:  # also a stop waits for it
            keeping.answered(order.counted)
        elif order.question is not None:  # also at the start: it may be what holds from now on
            answering.start(answer(order.number, order.question))
        else:
            orders.put_nowait(order)

    async def answer(number: int, question: Question) -> None:
        text = msgspec.Raw(await worker.answer(question))
        line.send(Report(args.worker, "answer", number=number, answer=text))

    line = Line(Order, take, _supervisor_gone)
    control = socket.socket(fileno=args.control)
    await loop.create_connection(lambda: line, sock=control)
    sockets = [socket.socket(fileno=int(each)) for each in args.sockets.split(",") if each]
    try:
        config = accepted.read(args.accepted, args.config)
        worker = Worker(config, args.worker, args.epoch, loop, is_again=args.again)
        keeping = worker.dispatcher.keeping
        keeping.tell = lambda told: line.send(Report(args.worker, "counting", told=told))
        worker.dispatcher.restraints.report = lambda changes: line.send(Report(args.worker, "changed", changes=changes))
        worker.on_hearing = lambda: line.send(Report(args.worker, "hearing"))
        await worker.start()
    except (LogLockedError, LogFormatError, KeyFileError, KeptFileError, OSError) as error:
        return await _fail(line, args.worker, [_sentence(error)])
    line.send(Report(args.worker, "linked"))
    while True:
        order = await orders.get()
        if order.do == "open":
            await worker.open_doors(sockets)
            line.send(Report(args.worker, "open"))
        elif order.do == "reload":
            worker.reload(accepted.read(args.accepted, accepted.place_of(order.config)), order.epoch)
            line.send(Report(args.worker, "reloaded", number=order.epoch))
        elif order.do == "close_doors":
            await worker.close_doors()
            line.send(Report(args.worker, "doors_closed"))
        else:
            await worker.stop()
            line.send(Report(args.worker, "stopped"))
            await asyncio.sleep(0)
            return 0


async def _fail(line: Line, number: int, problems: Sequence[object]) -> int:
    """Tell the supervisor what is wrong; -> the exit status for whom it is too bad."""
    for problem in problems:
        line.send(Report(number, "problem", str(problem)))
    await asyncio.sleep(SAID_S)
    return 1


def _sentence(error: Exception) -> str:
    return remedies.sentence(error) if isinstance(error, OSError) else str(error)


def _supervisor_gone() -> None:
    """Nobody would stop or restart this process any more; what is on disk is found again at the next start."""
    os._exit(1)


def _raise_descriptor_limit() -> None:
    """As many descriptors as this process may have: each client and each connection out is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Entry of the worker process; started by the supervisor alone."""
    parser = argparse.ArgumentParser(prog="python -m mta.worker", description=__doc__)
    parser.add_argument("--accepted", required=True, type=int, help="descriptor of the accepted configurations")
    parser.add_argument("--config", required=True, type=accepted.place_of, help="place of the one that holds")
    parser.add_argument("--worker", required=True, type=int)
    parser.add_argument("--epoch", required=True, type=int)
    parser.add_argument("--again", action="store_true", help="follows a process that died while the server ran")
    parser.add_argument("--control", required=True, type=int, help="descriptor of the line to the supervisor")
    parser.add_argument("--sockets", required=True, help="descriptors of the bound sockets, one a listener")
    args = parser.parse_args()
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(serve(args))
    os._exit(status)  # threads that wait for a dead disk must not keep a stopped server alive


if __name__ == "__main__":
    main()
