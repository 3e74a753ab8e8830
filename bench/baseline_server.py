"""The baseline: the mail engine that a good programmer writes in an afternoon from well-known libraries.

    python -m bench.baseline_server --listen 127.0.0.1:2525 --queue FOLDER --dns 127.0.0.1:5353 --port 2526

aiosmtpd takes the mail in, one file a message is written and synced before the 250, dnspython finds the mail hosts,
aiosmtplib takes it out over connections that are kept open, dkimpy signs where a key is given. It runs on uvloop, in
as many processes as it is told to (SO_REUSEPORT shares the door out), each with a queue folder of its own. What a
server of ours is compared with in bench/README.md must be a real one: it loses nothing that it said 250 to, tries
again what was deferred, and after a crash it goes on with what its folder holds.

What it does not do, in its favour: no Received header, no event log, no limits but connections a host, no bounce
messages (a refusal is counted). It signs in the process that also moves the bytes, before it writes the file, as such
engines do; dkimpy computes RSA in Python. aiosmtplib has one command in flight, by design.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import aiosmtplib
import dkim
import dns.exception
import msgspec
import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session

from bench.baseline_directions import Directions, Limits, Place
from bench.baseline_spool import Item, Spool

P = ParamSpec("P")
R = TypeVar("R")

HOSTNAME = "baseline.test"
MESSAGE_BYTES_MAX = 50_000_000
WRITER_THREADS = 32  # so many files are synced at once, which lets the file system share one journal commit
IN_MEMORY_BYTES_MAX = 64_000_000  # contents kept for their delivery; of the others only the file's name is kept
CONNECTIONS_TOTAL_MAX = 2_000  # of one process, below the usual limit of open files
TIMEOUT_S = 60.0  # of each command
ATTEMPTS_MAX = 1_000  # then it is given up, so that a queue comes to an end
QUIT_TIMEOUT_S = 0.5  # QUIT is a courtesy


class Options(NamedTuple):
    """What one process is told."""

    host: str
    port: int
    """Where it listens."""
    queue: Path
    """Its own folder; it is made."""
    is_synced: bool
    """fsync before the 250."""
    nameserver: tuple[str, int] | None
    mx_port: int
    """Where the hosts that the DNS names are spoken to."""
    routes: Mapping[str, tuple[str, int]]
    """Domain, or `*`, -> host and port; before the DNS."""
    limits: Sequence[Limits]
    """The first that fits holds; the last one is for all others."""
    retry_s: float
    """Between two attempts."""
    idle_s: float
    """A connection with nothing to send is closed after this time, or when others need its place."""
    key: bytes = b""
    """RSA, PEM; b"" signs nothing."""
    domain: str = ""
    selector: str = ""


class Courier:
    """Takes mail to one host, over as many connections as there is work for, up to the limit."""

    def __init__(self, server: "Server", place: Place) -> None:
        self._server = server
        self._place = place
        self._waiting: deque[tuple[Item, list[str]]] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._connections = 0

    def put(self, item: Item, recipients: list[str]) -> None:
        """Deliver it when its turn comes; the server is told what became of it."""
        self._waiting.append((item, recipients))
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._begin()

    def _begin(self) -> None:
        if self._connections < self._place.limits.connections:
            self._connections += 1
            self._server.run(self._carry())

    async def _carry(self) -> None:
        """One connection's life."""
        client: aiosmtplib.SMTP | None = None
        try:
            async with self._server.connections:
                sent = 0
                while await self._has_work():
                    item, recipients = self._waiting.popleft()
                    if client is not None and sent == self._place.limits.messages_per_connection > 0:
                        await self._quit(client)
                    if client is None or not client.is_connected:
                        client, sent = self._client(), 0
                    await self._deliver(client, item, recipients)
                    sent += 1
                if client is not None:
                    await self._quit(client)
        finally:
            self._connections -= 1
            if client is not None:
                client.close()
            if self._waiting and not self._server.has_stopped:
                self._begin()  # it came while this one said good-bye, and counted on it

    def _client(self) -> aiosmtplib.SMTP:
        address, port, _ = self._place
        return aiosmtplib.SMTP(
            hostname=address, port=port, local_hostname=HOSTNAME, start_tls=False, use_tls=False, timeout=TIMEOUT_S
        )

    @staticmethod
    async def _quit(client: aiosmtplib.SMTP) -> None:
        if client.is_connected:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=QUIT_TIMEOUT_S)
        client.close()

    async def _has_work(self) -> bool:
        """True as soon as something waits, False where nothing came for some time."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + (0.0 if self._server.connections.locked() else self._server.options.idle_s)
        # Another one may be faster than the one that was woken, and wait_for may overhear that it is cancelled.
        while not self._waiting and not self._server.has_stopped and loop.time() < end_s:
            future: asyncio.Future[None] = loop.create_future()
            self._idle.append(future)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(future, end_s - loop.time())
        return bool(self._waiting) and not self._server.has_stopped

    async def _deliver(self, client: aiosmtplib.SMTP, item: Item, recipients: list[str]) -> None:
        """One attempt. Whatever happens, each recipient gets a reply code: 250, or of how it was refused, 0 for now."""
        codes = dict.fromkeys(recipients, 0)
        try:
            content = item.content
            if content is None:
                content = (await self._server.in_thread(Spool.read, item.path))[2]
            if not client.is_connected:
                await client.connect()
            refused, _ = await client.sendmail(item.sender, recipients, content)
            codes = {each: refused[each].code if each in refused else 250 for each in recipients}
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes.update({each.recipient: each.code for each in error.recipients})
        except aiosmtplib.SMTPConnectResponseError:
            client.close()  # a greeting of 4xx or 5xx is about the connection, not about the recipients
        except aiosmtplib.SMTPResponseException as error:
            codes = dict.fromkeys(recipients, error.code)
        except ValueError:  # an address that cannot be sent, which aiosmtplib refuses before it says anything
            codes = dict.fromkeys(recipients, 553)
        except (aiosmtplib.SMTPException, OSError):
            client.close()
        self._server.settle(item, codes)


class Server:
    """One process: a door, a spool, couriers."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.counts: Counter[str] = Counter(accepted=0, delivered=0, deferred=0, bounced=0)
        """accepted counts messages, the others recipients (deferred: attempts)."""
        self.connections = asyncio.Semaphore(CONNECTIONS_TOTAL_MAX)
        self._loop = asyncio.get_running_loop()
        self._spool = Spool(options.queue, options.is_synced)
        self._directions = Directions(options.routes, options.limits, options.nameserver, options.mx_port)
        self._couriers: dict[Place, Courier] = {}
        self._threads = ThreadPoolExecutor(WRITER_THREADS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_memory_bytes = 0
        self._listener: asyncio.Server | None = None
        self.has_stopped = False
        """Nothing is begun any more."""

    async def start(self) -> None:
        """Go on with what is left, and listen. Raises OSError."""
        for item in self._spool.left():
            self._forward(item, item.recipients)
        self._listener = await self._loop.create_server(
            self._door, self.options.host, self.options.port, reuse_port=True, backlog=1024
        )

    async def stop(self) -> None:
        """End; what has no fate stays in the spool."""
        self.has_stopped = True
        if self._listener is not None:
            self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown()

    def _door(self) -> SMTP:
        return SMTP(
            self, hostname=HOSTNAME, data_size_limit=MESSAGE_BYTES_MAX, enable_SMTPUTF8=True, timeout=TIMEOUT_S,
            loop=self._loop,
        )  # fmt: skip

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        """A message is here: 250 when it is on disk."""
        content, sender = envelope.content, envelope.mail_from or ""
        assert isinstance(content, bytes), "aiosmtpd decodes only where it is told to"
        if self.options.key:
            content = self._sign(content) + content
        path = self._spool.new_path()
        try:
            await self.in_thread(self._spool.add, path, sender, envelope.rcpt_tos, content)
        except OSError as error:
            return f"452 4.3.1 {error.strerror}"
        self.counts["accepted"] += 1
        item = Item(path, sender, list(envelope.rcpt_tos), None)
        if self._in_memory_bytes + len(content) <= IN_MEMORY_BYTES_MAX:
            item.content = content
            self._in_memory_bytes += len(content)
        self._forward(item, item.recipients)
        return "250 2.0.0 Taken"

    def _sign(self, content: bytes) -> bytes:
        options = self.options
        return dkim.sign(
            content, options.selector.encode(), options.domain.encode(), options.key,
            canonicalize=(b"relaxed", b"relaxed"),
        )  # fmt: skip

    def _forward(self, item: Item, recipients: Iterable[str]) -> None:
        """Every domain of the recipients on its own: whose host is known goes to its courier at once."""
        if self.has_stopped:
            return
        by_domain: dict[str, list[str]] = {}
        for recipient in recipients:
            by_domain.setdefault(recipient.rpartition("@")[2].lower(), []).append(recipient)
        for domain, each in by_domain.items():
            place = self._directions.known(domain)
            if place is not None:
                self._courier(place).put(item, each)
            else:
                self.run(self._find_and_put(item, domain, each))

    def _courier(self, place: Place) -> Courier:
        courier = self._couriers.get(place)
        if courier is None:
            courier = self._couriers[place] = Courier(self, place)
        return courier

    async def _find_and_put(self, item: Item, domain: str, recipients: list[str]) -> None:
        try:
            place = await self._directions.find(domain)
        except LookupError:
            self.settle(item, dict.fromkeys(recipients, 550))
        except (dns.exception.DNSException, OSError):
            self.settle(item, dict.fromkeys(recipients, 0))
        else:
            self._courier(place).put(item, recipients)

    def settle(self, item: Item, codes: Mapping[str, int]) -> None:
        """An attempt is over: the file goes, or is written anew with those that have no fate, and they wait."""
        again = []
        for recipient, code in codes.items():
            if 200 <= code < 300:
                self.counts["delivered"] += 1
            elif code >= 500 or item.attempts >= ATTEMPTS_MAX:
                self.counts["bounced"] += 1
                say(f"refused {recipient}: {code}")
            else:
                self.counts["deferred"] += 1
                again.append(recipient)
        done = codes.keys() - set(again)
        item.recipients = [each for each in item.recipients if each not in done]
        if not item.recipients:
            if item.content is not None:
                self._in_memory_bytes -= len(item.content)
            item.path.unlink(missing_ok=True)
            return
        if done:
            content = item.content if item.content is not None else Spool.read(item.path)[2]
            self._spool.replace(item.path, item.sender, item.recipients, content)
        if again:
            item.attempts += 1
            self._loop.call_later(self.options.retry_s, self._forward, item, again)

    def run(self, work: Coroutine[object, object, None]) -> None:
        """In a task that is referred to while it runs."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def in_thread(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """What the function returns; the file system may take its time."""
        return await self._loop.run_in_executor(self._threads, functools.partial(function, *arguments, **named))


async def serve(options: Options, parent: int) -> Counter[str]:
    """One process, until the parent's pipe ends (as it does when the parent does) or SIGTERM comes; -> its counts."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_reader(parent, stopped.set)
    server = Server(options)
    await server.start()
    say(f"listens on {options.host}:{options.port}")
    await stopped.wait()
    loop.remove_reader(parent)
    await server.stop()
    return server.counts


def say(text: str) -> None:
    """A line on standard error, in one write: several processes share it."""
    os.write(2, f"{text}\n".encode())


def supervise(processes: int, argv: Sequence[str]) -> int:
    """Start the processes and wait; SIGTERM ends them, and so does our own end. -> 1 where one failed by itself."""
    stopping = False
    children: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    command = [sys.executable, "-m", "bench.baseline_server", *argv]
    numbered = ([*command, "--number", str(number)] for number in range(processes))
    children.extend(subprocess.Popen(each, stdin=subprocess.PIPE) for each in numbered)
    status = 0
    for child in children:
        child_status = child.wait()
        if child_status and not stopping:
            status = 1
            stop(0, None)
    return status


def place_of(text: str) -> tuple[str, int]:
    """`127.0.0.1:25`"""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def options_of(args: argparse.Namespace) -> Options:
    """What the process of this number does. Raises OSError where key or routes cannot be read."""
    routes: dict[str, str] = json.loads(Path(args.routes).read_bytes()) if args.routes else {}
    limits = msgspec.json.decode(Path(args.limits).read_bytes(), type=list[Limits]) if args.limits else []
    return Options(
        *place_of(args.listen),
        queue=args.queue / f"{args.number}",
        is_synced=args.durability == "fsync",
        nameserver=place_of(args.dns) if args.dns else None,
        mx_port=args.port,
        routes={domain: place_of(place) for domain, place in routes.items()},
        limits=limits or [Limits(connections=args.connections)],
        retry_s=args.retry_s,
        idle_s=args.idle_s,
        key=Path(args.key).read_bytes() if args.key else b"",
        domain=args.domain,
        selector=args.selector,
    )


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.baseline_server`; ends with SIGTERM, exit 1 where a process failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.baseline_server", description="A straightforward engine.")
    parser.add_argument("--listen", default="127.0.0.1:2525", metavar="ADDRESS:PORT")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--queue", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--durability", choices=["fsync", "os"], default="fsync")
    parser.add_argument("--dns", default="", metavar="ADDRESS:PORT", help="left out: the system's name servers")
    parser.add_argument("--port", type=int, default=25, help="where mail hosts are spoken to")
    parser.add_argument("--routes", default="", metavar="FILE", help='JSON: {"domain": "host:port"}; "*" for all')
    parser.add_argument("--connections", type=int, default=20, help="to one host, of each process")
    parser.add_argument(
        "--limits", default="", metavar="FILE", help="JSON: a list of Limits, the last one for all others"
    )
    parser.add_argument("--retry-s", type=float, default=2.0)
    parser.add_argument("--idle-s", type=float, default=5.0)
    parser.add_argument("--key", default="", metavar="FILE", help="RSA, PEM: every message is signed")
    parser.add_argument("--domain", default="")
    parser.add_argument("--selector", default="")
    parser.add_argument("--number", type=int, default=-1, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.key and not (args.domain and args.selector):
        parser.error("--key needs --domain and --selector")
    if args.number < 0:
        return supervise(args.processes, sys.argv[1:] if argv is None else argv)
    try:
        counts = uvloop.run(serve(options_of(args), sys.stdin.fileno()))
    except OSError as error:
        say(f"baseline: {error}")
        return 1
    say(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
