"""The sink: takes mail like a handful of mailbox providers, each with a temper of its own, and counts exactly.

In a test, beside the code under test:

    async with Sink([Profile(name="strict", connections_max=3), Profile(name="swift")]) as sink:
        ...                                              # deliver to sink.profiles["strict"].address, sink.port
        await sink.until(lambda: sink.messages == 500)   # no sleeping: looked at whenever something arrives
        assert sink.profiles["strict"].connections_max <= 3
        assert set(sink.profiles["swift"].ids().values()) == {1}

All providers listen on one port, each on an address of its own (127.0.0.2, 127.0.0.3 ...), as MX hosts do; a
profile whose address is a network is thousands of them (bench.neighbourhood).
Alone: `python -m bench.sink --config FILE.json` (`{"port": 2526, "profiles": [{"name": "strict", ...}]}`, the
fields of `Profile`), or for one provider `python -m bench.sink --listen 127.0.0.2:2526 --latency-s 0.05`. It writes
its counts every second and on SIGTERM, and does what the control address is told, one JSON line each:
`{"set": {"strict": {"down": true}}}`, `{"arrivals": "FILE"}`, `{"samples": "FILE"}` or `{}`; the answer is the counts.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from bench.neighbourhood import Neighbourhood, Newcomer, wildcard_socket
from bench.provider import BACKLOG, Provider
from bench.temper import Delivery, Profile

PORT_TRIES_MAX = 20
FIRST_HOST = 2  # 127.0.0.1 is for the server and its clients

__all__ = ["Delivery", "Profile", "Provider", "Sink"]


class Sink:
    """Several providers in the running event loop. `port` 0 chooses a free one that all of them share."""

    def __init__(self, profiles: list[Profile], *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._settings = profiles
        self.port = port
        self.tls = tls
        """Given, every provider offers STARTTLS with this certificate."""
        self.profiles: dict[str, Provider] = {}
        self.messages = 0
        """Taken by all providers together."""
        self.shares_port = any("/" in profile.address for profile in profiles)
        """A socket that hears for whole networks stands beside those of single addresses."""
        self._places: list[socket.socket] = []
        self._neighbourhoods: list[Neighbourhood] = []
        self._wild: asyncio.Server | None = None
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def __aenter__(self) -> "Sink":
        for number, profile in enumerate(self._settings, start=FIRST_HOST):
            if "/" in profile.address:
                provider = Neighbourhood(profile, self)
                self._neighbourhoods.append(provider)
            else:
                provider = Provider(profile, self)
                provider.address = profile.address or f"127.0.0.{number}"
            self.profiles[profile.name] = provider
        self._take_places()
        for provider in self.profiles.values():
            if not provider.profile.down:
                await provider.set_down(False)
        if self._neighbourhoods:
            wild = wildcard_socket(self.port)
            loop = asyncio.get_running_loop()
            self._wild = await loop.create_server(lambda: Newcomer(self.provider_at), sock=wild, backlog=BACKLOG)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._wild is not None:
            self._wild.close()
        for provider in self.profiles.values():
            await provider.set_down(True)
        for place in self._places:
            place.close()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Returns when the condition holds; it is looked at when a connection or a message comes or goes.

        Raises TimeoutError with the counts, so that a test that waited in vain says what it saw.
        """
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (condition, future)
        self._waiting.append(waiting)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_s} s: {self.report()}") from None
        finally:
            self._waiting.remove(waiting)

    def changed(self) -> None:
        """Something came or went: whoever waits looks again."""
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)

    def provider_at(self, address: str) -> Provider | None:
        """The neighbourhood that an address of ours is in."""
        ip = ipaddress.IPv4Address(address)
        return next((each for each in self._neighbourhoods if ip in each.network), None)

    def arrivals(self) -> "Arrivals":
        """Every message that was taken, and when; needs profiles that keep ids."""
        deliveries = [each for provider in self.profiles.values() for each in provider.deliveries]
        return Arrivals([each.id for each in deliveries], [each.at_s for each in deliveries])

    def report(self) -> dict[str, dict[str, object]]:
        """All counts by provider, fit for JSON."""
        return {
            name: {"address": provider.address, "port": provider.port, "down": provider.profile.down}
            | provider.report()
            for name, provider in self.profiles.items()
        }

    def _take_places(self) -> None:
        """Binds every address, listening or not, so that a provider that is down keeps its port from others."""
        for tries_left in reversed(range(PORT_TRIES_MAX)):
            try:
                self.port = self._bind_all()
            except OSError:  # the port that the first one was given is taken on another address
                for place in self._places:
                    place.close()
                self._places.clear()
                if self.port or not tries_left:
                    raise
            else:
                return

    def _bind_all(self) -> int:
        shared_port = self.port
        for provider in self.profiles.values():
            if isinstance(provider, Neighbourhood):
                continue
            place = socket.socket(socket.AF_INET6 if ":" in provider.address else socket.AF_INET)
            self._places.append(place)
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.shares_port:
                place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            place.bind((provider.address, provider.profile.port or shared_port))
            provider.port = place.getsockname()[1]
            shared_port = shared_port or provider.port
        if self._neighbourhoods and not shared_port:
            place = wildcard_socket(0)
            self._places.append(place)
            shared_port = place.getsockname()[1]
        for provider in self._neighbourhoods:
            provider.port = shared_port
        return shared_port


class Arrivals(msgspec.Struct, array_like=True, frozen=True):
    """What arrived, as the control address writes it to a file (msgpack)."""

    ids: list[str]
    times_s: list[float]
    """Monotonic, which is one clock for all processes of a machine."""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What `--config` holds."""

    profiles: list[Profile]
    port: int = 0


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """One line to the control address."""

    set: dict[str, dict[str, object]] = {}
    """New values of `Profile` fields, by provider."""
    arrivals: str = ""
    """A file to write `Arrivals` to."""
    samples: str = ""
    """A file to write the kept contents to, a list."""


async def apply(sink: Sink, line: bytes) -> bytes:
    """Does what a control line says; the answer is the counts, or `{"error": ...}`."""
    try:
        change = msgspec.json.decode(line, type=Change)
        _write_files(sink, change)
        for name, fields in change.set.items():
            provider = sink.profiles[name]
            changed = msgspec.convert(msgspec.to_builtins(provider.profile) | fields, Profile)
            for field in set(fields) - {"down"}:
                setattr(provider.profile, field, getattr(changed, field))
            if "down" in fields:
                await provider.set_down(changed.down)
    except (msgspec.MsgspecError, KeyError, OSError) as error:
        return msgspec.json.encode({"error": str(error)})
    return msgspec.json.encode(sink.report())


def _write_files(sink: Sink, change: Change) -> None:
    if change.arrivals:
        Path(change.arrivals).write_bytes(msgspec.msgpack.encode(sink.arrivals()))
    if change.samples:
        samples = [content for provider in sink.profiles.values() for content in provider.samples]
        Path(change.samples).write_bytes(msgspec.msgpack.encode(samples))


async def _serve(settings: Settings, tls: ssl.SSLContext | None, control: str, report: str) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Sink(settings.profiles, port=settings.port, tls=tls) as sink:

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(await apply(sink, line) + b"\n")
            writer.close()

        if control:
            host, _, port = control.rpartition(":")
            await asyncio.start_server(converse, host, int(port))
        for name, provider in sink.profiles.items():
            print(f"{name} listens on {provider.address}:{provider.port}", file=sys.stderr, flush=True)
        while not stopped.is_set():
            _write_report(report, sink)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), 1.0)
        _write_report(report, sink)


def _write_report(report: str, sink: Sink) -> None:
    encoded = msgspec.json.encode(sink.report()) + b"\n"
    if report == "-":
        sys.stdout.buffer.write(encoded)
        sys.stdout.flush()
    elif report:
        whole = Path(f"{report}.{os.getpid()}")
        whole.write_bytes(encoded)
        whole.replace(report)  # whoever reads it meanwhile sees a complete one


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.sink`"""
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description="Takes mail as mailbox providers do.")
    parser.add_argument(
        "--config", metavar="FILE", help="JSON: port and profiles; the other flags are for one provider"
    )
    parser.add_argument("--listen", default="127.0.0.2:2526", metavar="ADDRESS:PORT")
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--connections-max", type=int, default=0)
    parser.add_argument("--messages-per-connection", type=int, default=0)
    parser.add_argument("--rate-per-s", type=float, default=0.0)
    parser.add_argument("--deferred-percent", type=float, default=0.0)
    parser.add_argument("--bounced-percent", type=float, default=0.0)
    parser.add_argument("--greylist-s", type=float, default=0.0)
    parser.add_argument("--keep", choices=["counts", "ids", "contents"], default="counts")
    parser.add_argument("--certificate", metavar="FILE", help="PEM with its key: STARTTLS is offered")
    parser.add_argument(
        "--control", default="", metavar="ADDRESS:PORT", help="takes JSON lines, answers with the counts"
    )
    parser.add_argument("--report", default="-", metavar="FILE", help='counts every second and at the end; "" for none')
    args = parser.parse_args(argv)
    if args.config:
        settings = msgspec.json.decode(Path(args.config).read_bytes(), type=Settings)
    else:
        host, _, port = args.listen.rpartition(":")
        names = set(Profile.__struct_fields__) & set(vars(args))
        fields = {name: value for name, value in vars(args).items() if name in names}
        settings = Settings([Profile(name="sink", address=host.strip("[]"), port=int(port), times=False, **fields)])
    tls = None
    if args.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.certificate)
    uvloop.run(_serve(settings, tls, args.control, args.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
