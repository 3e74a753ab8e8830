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
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any

import uvloop

from mta import accepted
from mta.clock import SystemClock
from mta.config import Config
from mta.control import Line, Order, Report
from mta.delivery.connection import SourceAddress
from mta.delivery.deadlines import Sweeper, Timeouts
from mta.delivery.dispatcher import Dispatcher
from mta.delivery.sources import Sources
from mta.delivery.tls import TlsContexts
from mta.handoff.claims import Claims
from mta.handoff.door import Door
from mta.handoff.link import LinkWire, Mesh
from mta.handoff.mover import Mover
from mta.handoff.owner import Owner
from mta.handoff.placement import Placement, Route
from mta.model import envelope as envelopes
from mta.model.identity import IdMaker
from mta.reporting.event_log import EventLog
from mta.reporting.events import Events, decode_note
from mta.resolve.resolver import Resolver
from mta.smtp import replies
from mta.submission.accept import Acceptor, Tenants, TenantSettings
from mta.submission.listener import Doors, ListenerSettings
from mta_queue.disk import OsDisk
from mta_queue.store import LogFormatError, LogLockedError, Position, Recovered, Store

LINKS_WAIT_S = 10.0  # a worker whose neighbour does not come up in this time begins without it
LOCK_WAIT_S = 5.0  # a worker whose supervisor was killed ends within this, unless it is reading a huge log
LOCK_POLL_S = 0.05
SAID_S = 0.1  # last words are written at the end of a turn of the loop
DRAIN_S = 25.0  # SIGTERM to the last transaction cut off; with the doors' share the whole stop stays under 30 s
DOORS_S = 3.0  # sessions that are in the middle of a message may end it in this time
CHECK_S = 0.5  # how often disk space and answers of dead owners are looked at
GC_THRESHOLDS = (50_000, 20, 50)  # most objects die by reference count; full collections of a big queue are long
FOUND_AT_ONCE = 5_000  # items that wait on the disk are taken up in portions, so that the loop turns in between


class Worker:
    """Everything that one process does."""

    def __init__(self, config: Config, number: int, epoch: int, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.number = number
        self.workers = config.worker_count
        self.loop = loop
        self.clock = SystemClock()
        self.random = Random()
        self.ids = IdMaker(self.random.getrandbits(25))
        directory = config.queue.directory
        self.disk = OsDisk()
        self.store = Store(directory / str(number), disk=self.disk, durability=config.queue.durability)
        placement = self._placement(config, epoch)
        self.mesh = Mesh(loop, number, self.workers, directory / "links")
        self.event_log = EventLog(config.log.events, mark=self._mark, on_flushed=self._events_written)
        self.events = Events(
            self.event_log.write, worker=number, prefix=IdMaker(self.random.getrandbits(25)).make(time.time())
        )
        self.sweeper = Sweeper(self.clock)
        self.resolver = self._resolver(config)
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
        )
        self.owner = Owner(self.store, self.dispatcher, self.events.received)
        self.owner.attach(self.mesh)
        self.door = Door(placement, self.owner, self.mesh, self.clock)
        self.mover = Mover(self.store, placement, self.mesh, self.clock, self.dispatcher.arrived)
        self.claims = Claims(self.mesh, epoch, self.dispatcher.yield_to)
        self.acceptor = Acceptor(
            clock=self.clock,
            ids=self.ids,
            submitter=self.door,
            events=self.events,
            tenants=self._tenants(config),
            content_bytes_max=config.queue.memory_max_bytes // self.workers,
            size_max_bytes=config.queue.message_size_max_bytes,
        )
        self.doors = Doors(loop, self.clock, self.acceptor)
        self._tasks: set[asyncio.Task[None]] = set()
        self._retirements: list[asyncio.Task[None]] = []
        self._listening: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None

    # built from the configuration

    def _placement(self, config: Config, epoch: int) -> Placement:
        routes = [
            Route(tuple(route.domains), tuple((host.host, host.port) for host in route.hosts), route.policy)
            for route in config.routes
        ]
        return Placement(config.policy_set, routes, self.workers, self.number, epoch)

    def _sources(self, config: Config) -> Sources:
        sources = [SourceAddress(source.name, source.ipv4, source.ipv6, source.ehlo) for source in config.sources]
        return Sources(sources, {pool.name: pool.sources for pool in config.pools}, config.hostname)

    def _tenants(self, config: Config) -> Tenants:
        return Tenants(
            [TenantSettings(tenant.name, tuple(tenant.senders), tenant.pool) for tenant in config.tenants],
            [pool.name for pool in config.pools],
        )

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
        recovered = await self._open(self.store)
        orphans = await self._open_orphans()
        self.store.start(self.loop)
        self.sweeper.start(self.loop)
        self.owner.remember(recovered)
        self.dispatcher.start(self.mover, self.claims)
        self.mover.settle(self.number, recovered.arriving, lambda: None)
        settled = [self._settle_orphan(log, found) for log, _, found in orphans]
        await self.mesh.start()
        if not await self.mesh.all_up(LINKS_WAIT_S):
            missing = [str(worker) for worker, link in self.mesh.links.items() if not link.is_settled]
            say(f"worker {self.number}: no link to worker {', '.join(missing)} yet, beginning without")
        self._tell_again(recovered, self.owner.forgotten)
        for _, _, found in orphans:
            self._tell_again(found, set())
        self.event_log.start(self.loop)  # not before: its marks say that all of this has been told
        self._keep(self._take_up(recovered))
        for (log, store, found), is_settled in zip(orphans, settled, strict=True):
            self._keep(self._drain(log, store, found, is_settled))
        self._timer = self.loop.call_later(CHECK_S, self._check)

    def _keep(self, work: Coroutine[object, object, None]) -> None:
        """A task that nobody holds may be collected while it runs."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, store: Store) -> Recovered:
        """Open a log; one whose worker was killed a moment ago may still be locked by it."""
        end_s = self.loop.time() + LOCK_WAIT_S
        while True:
            try:
                recovered = store.open()
            except LogLockedError:
                if self.loop.time() > end_s:
                    raise
                await asyncio.sleep(LOCK_POLL_S)
            else:
                for what in recovered.set_aside:
                    say(f"worker {self.number}: set aside: {what}")
                return recovered

    async def _open_orphans(self) -> list[tuple[int, Store, Recovered]]:
        """Logs without a worker: there were more workers once."""
        orphans = []
        for path in sorted(self.config.queue.directory.iterdir()):
            if not path.name.isdigit() or int(path.name) < self.workers:
                continue
            log = int(path.name)
            if log % self.workers != self.number:
                continue
            store = Store(path, disk=self.disk, durability=self.config.queue.durability)
            recovered = await self._open(store)
            store.start(self.loop)
            orphans.append((log, store, recovered))
            self.mover.stores[log] = store
        return orphans

    def _settle_orphan(self, log: int, found: Recovered) -> asyncio.Event:
        """Ask about what was on its way into a log without a worker; the event tells when all is answered."""
        settled = asyncio.Event()
        self.mover.settle(log, found.arriving, settled.set)
        return settled

    def _tell_again(self, recovered: Recovered, without: set[int]) -> None:
        """What the event log may lack since the last stop."""
        for untold in recovered.untold:
            if untold.seq in without:
                continue
            envelope = envelopes.decode(untold.meta)
            if untold.kind == "item":
                if envelope.told_recipients is not None:
                    self.events.received(envelope)
                continue
            fate = decode_note(untold.note)
            for part in untold.parts:
                self.events.fate(envelope, envelope.recipients[part], fate)

    async def _take_up(self, recovered: Recovered) -> None:
        waiting = [item for item in recovered.waiting if item[0] not in self.owner.forgotten]
        for at in range(0, len(waiting), FOUND_AT_ONCE):
            for seq, _, parts in waiting[at : at + FOUND_AT_ONCE]:
                self.dispatcher.found(seq, parts)
            await asyncio.sleep(0)

    async def _drain(self, log: int, store: Store, recovered: Recovered, settled: asyncio.Event) -> None:
        """Move everything in a log without a worker to its owners; when all it had to tell is told, remove it."""
        await settled.wait()
        arrived = [seq for seq, _, _ in recovered.arriving if store.is_living(seq)]
        is_empty = asyncio.Event()
        self.mover.drain(log, store, [*(seq for seq, _, _ in recovered.waiting), *arrived], is_empty.set)
        await is_empty.wait()
        while not await self.event_log.drain():  # noqa: ASYNC110 - a disk that is full tells nobody when it is not
            await asyncio.sleep(CHECK_S)
        retirement = self.loop.create_task(self._retire(log, store))
        self._retirements.append(retirement)
        await asyncio.shield(retirement)

    async def _retire(self, log: int, store: Store) -> None:
        """An emptied log, all of it told, is removed; once begun it is not broken off."""
        store.told(store.mark_position())
        del self.mover.stores[log]
        await store.close()
        await self.loop.run_in_executor(None, shutil.rmtree, store.directory)
        say(f"worker {self.number}: log {log}, which has no worker any more, was emptied and removed")

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
        try:
            is_full = self.store.free_bytes() < self.config.queue.disk_free_min_bytes
        except OSError:
            is_full = True
        self.acceptor.closed_reply = replies.NO_SPACE if is_full or self.event_log.is_stuck else b""

    def reload(self, config: Config, epoch: int) -> None:
        """New policies, routes, sources, pools and tenants; what else changed needs a restart."""
        self.config = config
        placement = self._placement(config, epoch)
        self.door.placement = placement
        self.mover.placement = placement
        self.acceptor.tenants = self._tenants(config)
        self.dispatcher.reload(placement, self._sources(config), config.delivery.port, config.delivery.idle_timeout_s)
        self.event_log.reopen()

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
        self.sweeper.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._retirements)
        await self.mesh.close()  # before the stores: a frame must not meet a closed one
        mark = self.owner.mark()
        if not await self.event_log.close():
            self.owner.events_written(mark)
        for log, store in list(self.mover.stores.items()):
            if log != self.number:
                await store.close()
        await self.store.close()
        await self.resolver.close()


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
    line = Line(Order, lambda order: orders.put_nowait(order) if isinstance(order, Order) else None, _supervisor_gone)
    control = socket.socket(fileno=args.control)
    await loop.create_connection(lambda: line, sock=control)
    sockets = [socket.socket(fileno=int(each)) for each in args.sockets.split(",") if each]
    try:
        worker = Worker(accepted.read(args.accepted, args.config), args.worker, args.epoch, loop)
        await worker.start()
    except (LogLockedError, LogFormatError, OSError) as error:
        return await _fail(line, args.worker, [_sentence(error)])
    line.send(Report(args.worker, "linked"))
    while True:
        order = await orders.get()
        if order.do == "open":
            await worker.open_doors(sockets)
            line.send(Report(args.worker, "open"))
        elif order.do == "reload":
            worker.reload(accepted.read(args.accepted, accepted.place_of(order.config)), order.epoch)
            line.send(Report(args.worker, "reloaded"))
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


def _sentence(error: LogLockedError | LogFormatError | OSError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


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
    parser.add_argument("--control", required=True, type=int, help="descriptor of the line to the supervisor")
    parser.add_argument("--sockets", required=True, help="descriptors of the bound sockets, one a listener")
    args = parser.parse_args()
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(serve(args))
    os._exit(status)  # threads that wait for a dead disk must not keep a stopped server alive


if __name__ == "__main__":
    main()
