"""A signing helper: a process that holds keys in memory and signs digests for all workers.

Signatures cost more than everything else that is done for a message, so they are made beside the workers' event
loops, on all cores, whichever worker a destination's mail belongs to. A helper reads whatever its workers wrote, signs
a round of it and answers each of them with one write; rounds get longer by themselves when there is more to do. It
reads no file and knows no domain: a worker tells it each key before the first use. It ends with its supervisor, whose
line closes then.
"""

import argparse
import os
import selectors
import signal
import socket
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mta.signing import signing_frames as frames
from mta.signing.keys import SigningKey, key_of
from mta.signing.multibuffer import MultiBuffer, load_multibuffer
from mta.signing.signing_frames import DONE, KEY, REFUSED, SIGN, UNKNOWN, Answer, FrameError, FrameReader

READ_BYTES = 1 << 16  # at most what one worker has outstanding
ROUND_DIGESTS = 16  # of one worker in a round: two full calls of the multi-buffer library, 5 ms with OpenSSL
KEYS_MAX = 4096  # in memory; what is used least is told again when it is needed
BACKLOG = 128


class Key(Protocol):
    """What signs."""

    def sign(self, digest: bytes) -> bytes:
        """-> the signature."""
        ...


class Keys:
    """Keys that the helper was told: those used last."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys: OrderedDict[bytes, SigningKey | str] = OrderedDict()
        self._keys_max = keys_max

    def __len__(self) -> int:
        return len(self._keys)

    def learn(self, key_id: bytes, pem: bytes) -> None:
        """Read a key; what cannot be read is remembered with the reason."""
        if key_id in self._keys:
            self._keys.move_to_end(key_id)
            return
        try:
            found: SigningKey | str = key_of(pem)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a key, its mail must be told
            found = str(error) or type(error).__name__
        self._keys[key_id] = found
        if len(self._keys) > self._keys_max:
            self._keys.popitem(last=False)

    def get(self, key_id: bytes) -> SigningKey | str | None:
        """A key, why it cannot be used, or None where it is not known."""
        found = self._keys.get(key_id)
        if found is not None:
            self._keys.move_to_end(key_id)
        return found


class Bench:
    """Where signatures are made: eight at once where library and CPU can, else one after another."""

    def __init__(self, keys: Keys, multibuffer: MultiBuffer | None) -> None:
        self._keys = keys
        self._multibuffer = multibuffer

    def sign(self, entries: Sequence[tuple[bytes, bytes]]) -> list[Answer]:
        """(key id, digest) of each -> what becomes of each."""
        answers: list[Answer] = []
        eights: list[tuple[int, SigningKey]] = []
        multibuffer = self._multibuffer
        last_id, key = b"", None
        for key_id, digest in entries:
            if key_id != last_id:
                last_id, key = key_id, self._keys.get(key_id)
            if key is None:
                answers.append((UNKNOWN, b""))
            elif isinstance(key, str):
                answers.append((REFUSED, key.encode()[: frames.TEXT_BYTES_MAX]))
            elif multibuffer is not None and multibuffer.takes(key):
                eights.append((len(answers), key))
                answers.append((UNKNOWN, b""))
            else:
                answers.append(_sign_one(key, digest))
        if multibuffer is not None and eights:
            digests = [(key, entries[at][1]) for at, key in eights]
            for (at, key), signature in zip(eights, multibuffer.sign(digests), strict=True):
                answers[at] = (DONE, signature) if signature else _sign_one(key, entries[at][1])
        return answers


def _sign_one(key: Key, digest: bytes) -> Answer:
    try:
        return DONE, key.sign(digest)
    except Exception as error:  # noqa: BLE001 - one key must not stop the others
        return REFUSED, f"{type(error).__name__}: {error}".encode()[: frames.TEXT_BYTES_MAX]


class _Guest:
    """One worker's connection."""

    __slots__ = ("connection", "out", "pending", "reader")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.reader = FrameReader()
        self.pending: deque[tuple[int, bytes]] = deque()
        self.out = b""


class Helper:
    """The loop: whoever listens, whoever wrote, and rounds of signing."""

    def __init__(self, listening: socket.socket, control: socket.socket | None, bench: Bench, keys: Keys) -> None:
        self._listening = listening
        self._control = control
        self._bench = bench
        self._keys = keys
        self._guests: dict[socket.socket, _Guest] = {}
        self._selector = selectors.DefaultSelector()
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        if control is not None:
            self._selector.register(control, selectors.EVENT_READ)
        self.is_over = False

    def run(self) -> None:
        """Until the supervisor is gone."""
        while not self.is_over:
            self.turn()
        self.close()

    def turn(self, timeout_s: float | None = None) -> None:
        """Take what is there, and sign a round of it; waits only where nothing is left from the last one."""
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
        for guest in list(self._guests.values()):
            if guest.pending:
                self._serve(guest)

    def _hears_control(self) -> bool:
        assert self._control is not None, "only a registered one becomes ready"
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
        self._write(guest, frames.greeting())

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

    def _serve(self, guest: _Guest) -> None:
        """A round of one worker's batches; what is left waits until the other workers had theirs."""
        batches: list[tuple[bytes, int]] = []
        entries: list[tuple[bytes, bytes]] = []
        pending = guest.pending
        try:
            while pending and (pending[0][0] == KEY or len(entries) < ROUND_DIGESTS):
                kind, payload = pending.popleft()
                if kind == KEY:
                    self._keys.learn(*frames.read_key(payload))
                elif kind == SIGN:
                    ref, batch = frames.read_sign(payload)
                    batches.append((ref, len(batch)))
                    entries += batch
                else:
                    raise FrameError(f"a worker does not say {kind}")
        except FrameError:
            self._drop(guest)
            return
        if not batches:
            return
        answers = self._bench.sign(entries)
        told = []
        at = 0
        for ref, count in batches:
            told.append(frames.signed(ref, answers[at : at + count]))
            at += count
        self._write(guest, b"".join(told))

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
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the supervisor; workers that finish still need signatures
    keys = Keys()
    bench = Bench(keys, load_multibuffer())
    Helper(listen(args.listen), socket.socket(fileno=args.control), bench, keys).run()


if __name__ == "__main__":
    main()
