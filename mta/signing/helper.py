"""A signing helper: a process that holds keys in memory and signs digests for all workers.

Signatures cost more than everything else that is done for a message, so they are made beside the workers' event
loops, on all cores, whichever worker a destination's mail belongs to. A helper reads whatever its workers wrote, signs
a round of it and answers each of them with one write; rounds get longer by themselves when there is more to do. It
reads no file and knows no domain: a worker tells it each key before the first use. On its line to the supervisor it
tells every few seconds that it lives, and it ends when that line closes.
"""

import argparse
import contextlib
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mta.signing import signing_frames as frames
from mta.signing.multibuffer import load_multibuffer
from mta.signing.signing_bench import Bench, Keys
from mta.signing.signing_frames import KEY, SIGN, FrameError, FrameReader

READ_BYTES = 1 << 16  # at most what one worker has outstanding
ROUND_DIGESTS = 16  # of one worker in a round: two full calls of the multi-buffer library, 5 ms with OpenSSL
KEYS_MAX = 4096  # in memory; what is used least is told again when it is needed
BACKLOG = 128


class _Guest:
    """One worker's connection."""

    __slots__ = ("connection", "out", "pending", "reader")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = FrameReader()
        self.pending: deque[tuple[int, bytes]] = deque()
        self.out = b""


class _Share:
    """What one worker has in a round."""

    __slots__ = ("batches", "entries", "guest")

    def __init__(self, guest: _Guest) -> None:
        self.guest = guest
        self.batches: list[tuple[bytes, int]] = []
        """Ref, and how many digests."""
        self.entries: list[tuple[bytes, bytes]] = []


class Helper:
    """The loop: whoever listens, whoever wrote, and rounds of signing."""

    def __init__(
        self,
        listening: socket.socket,
        control: socket.socket,
        bench: Bench,
        keys: Keys,
        heartbeat_s: float,
    ) -> None:
        """`control` is the line to the supervisor, who hears a byte at least every `heartbeat_s`."""
        self._listening = listening
        self._control = control
        self._bench = bench
        self._keys = keys
        self._guests: dict[socket.socket, _Guest] = {}
        self._selector = selectors.DefaultSelector()
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(control, selectors.EVENT_READ)
        self._heartbeat_s = heartbeat_s
        self._next_heartbeat_s = 0.0
        self.is_over = False

    def run(self) -> None:
        """Until the supervisor is gone."""
        while not self.is_over:
            self._heartbeat(time.monotonic())
            self.turn(self._heartbeat_s)
        self.close()

    def _heartbeat(self, now_s: float) -> None:
        if now_s < self._next_heartbeat_s:
            return
        self._next_heartbeat_s = now_s + self._heartbeat_s
        # A supervisor that is gone is noticed where the line is read; one that is busy has bytes enough to read.
        with contextlib.suppress(OSError):
            self._control.send(b".", socket.MSG_DONTWAIT)

    def turn(self, timeout_s: float | None = None) -> None:
        """Take what is there, and sign a round of it; waits so long at most, and only where nothing is left to do."""
        is_busy = any(guest.pending for guest in self._guests.values())
        for ready, events in self._selector.select(0 if is_busy else timeout_s):
            if ready.fileobj is self._listening:
                self._accept()
            elif ready.fileobj is self._control:
                self.is_over = not self._hears_control()
            else:
                assert isinstance(ready.fileobj, socket.socket), "only sockets are registered"
                guest = self._guests.get(ready.fileobj)
                if guest is not None and events & selectors.EVENT_WRITE:
                    self._write(guest, b"")
                if guest is not None and events & selectors.EVENT_READ:
                    self._read(guest)
        shares: list[_Share] = []
        digests = 0
        for guest in list(self._guests.values()):
            if guest.pending and (share := self._share_of(guest)) is not None:
                shares.append(share)
                digests += len(share.entries)
                if digests >= ROUND_DIGESTS:
                    self._sign(shares)
                    shares, digests = [], 0
        if shares:
            self._sign(shares)

    def _hears_control(self) -> bool:
        try:
            return bool(self._control.recv(1))
        except OSError:
            return False

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        connection.setblocking(False)
        guest = self._guests[connection] = _Guest(connection)
        self._selector.register(connection, selectors.EVENT_READ)
        self._write(guest, frames.greeting(self._bench.lanes))

    def _read(self, guest: _Guest) -> None:
        try:
            data = guest.connection.recv(READ_BYTES)
            if not data:
                self._drop(guest)
                return
            guest.pending.extend(guest.reader.receive(data))
        except BlockingIOError:
            return
        except (OSError, FrameError):
            self._drop(guest)

    def _share_of(self, guest: _Guest) -> "_Share | None":
        """One worker's next batches; what is left waits until the other workers had theirs."""
        share = _Share(guest)
        pending = guest.pending
        try:
            while pending and (pending[0][0] == KEY or len(share.entries) < ROUND_DIGESTS):
                kind, payload = pending.popleft()
                if kind == KEY:
                    self._keys.learn(*frames.read_key(payload))
                elif kind == SIGN:
                    ref, batch = frames.read_sign(payload)
                    share.batches.append((ref, len(batch)))
                    share.entries += batch
                else:
                    raise FrameError(f"a worker does not say {kind}")
        except FrameError:
            self._drop(guest)
            return None
        return share if share.batches else None

    def _sign(self, shares: Sequence["_Share"]) -> None:
        """Several workers' digests fill the lanes together; each worker gets its answers with one write."""
        entries = [entry for share in shares for entry in share.entries]
        before_s = time.thread_time()
        answers = self._bench.sign(entries)
        each_us = (time.thread_time() - before_s) * 1e6 / len(entries)
        at = 0
        for share in shares:
            cpu_us = round(each_us * len(share.entries))
            told = []
            for ref, count in share.batches:
                told.append(frames.signed(ref, cpu_us, answers[at : at + count]))
                at += count
                cpu_us = 0  # the first batch tells the time of all of them
            self._write(share.guest, b"".join(told))

    def _write(self, guest: _Guest, data: bytes) -> None:
        was_full = bool(guest.out)
        data = guest.out + data
        try:
            sent = guest.connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(guest)
            return
        guest.out = data[sent:]
        if bool(guest.out) != was_full:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if guest.out else 0)
            self._selector.modify(guest.connection, events)

    def _drop(self, guest: _Guest) -> None:
        """A worker that died, or something that is none."""
        if self._guests.pop(guest.connection, None) is not None:
            self._selector.unregister(guest.connection)
            guest.connection.close()
            guest.pending.clear()

    def close(self) -> None:
        """Let go of everything."""
        for guest in list(self._guests.values()):
            self._drop(guest)
        self._selector.close()
        self._listening.close()


def listen(path: Path) -> socket.socket:
    """A socket that workers connect to; one that was left there is replaced.

    From inside the folder, because an address may have 108 bytes at most.
    """
    os.chdir(path.parent)
    Path(path.name).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path.name)
    listening.listen(BACKLOG)
    return listening


def main() -> None:
    """Entry of the helper process; started by the supervisor alone."""
    parser = argparse.ArgumentParser(prog="python -m mta.signing.helper", description=__doc__)
    parser.add_argument("--listen", required=True, type=Path, help="where workers connect")
    parser.add_argument("--control", required=True, type=int, help="descriptor of the line to the supervisor")
    parser.add_argument("--heartbeat", required=True, type=float, help="seconds between two signs of life on it")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the supervisor; workers that finish still need signatures
    keys = Keys(KEYS_MAX)
    bench = Bench(keys, load_multibuffer())
    Helper(listen(args.listen), socket.socket(fileno=args.control), bench, keys, args.heartbeat).run()


if __name__ == "__main__":
    main()
