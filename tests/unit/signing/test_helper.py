"""A signing helper, over real sockets and turned by hand."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from mta.signing import signing_frames as frames
from mta.signing.helper import ROUND_DIGESTS, Helper, listen
from mta.signing.keys import SigningKey
from mta.signing.multibuffer import MultiBuffer
from mta.signing.signing_bench import Bench, Keys
from mta.signing.signing_frames import DONE, GREETING, REFUSED, SIGNED, UNKNOWN, Answer, FrameReader
from mta.testing.signing_rig import ed25519_key, rsa_key

DIGEST = bytes(range(32))
OTHER = bytes(range(32, 64))


class Rig:
    """A helper, and workers that speak to it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "signer-0.sock"
        self.keys = Keys(keys_max=3)
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.control, theirs = socket.socketpair()
        self.theirs = theirs
        self.helper = Helper(self.listening, theirs, Bench(self.keys, None), self.keys, heartbeat_s=0.01)
        self.workers: list[Worker] = []

    def worker(self) -> "Worker":
        worker = Worker(self)
        self.workers.append(worker)
        self.helper.turn(0)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.socket.close()
        if not self.helper.is_over:
            self.helper.close()
        self.control.close()
        self.theirs.close()


class Worker:
    """One worker's side."""

    def __init__(self, rig: Rig) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(rig.path))
        self.socket.settimeout(5)
        self.reader = FrameReader()
        self.cpu_us: list[int] = []
        """What each batch of `answers` took."""
        self._rig = rig

    def say(self, *said: bytes) -> None:
        self.socket.sendall(b"".join(said))
        self._rig.helper.turn(0)

    def hears(self) -> list[tuple[int, bytes]]:
        return self.reader.receive(self.socket.recv(1 << 20))

    def answers(self) -> list[tuple[int, list[Answer]]]:
        told = [frames.read_signed(payload) for kind, payload in self.hears() if kind == SIGNED]
        self.cpu_us = [cpu_us for _, cpu_us, _ in told]
        return [(ref, answers) for ref, _, answers in told]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def key_frame(key: SigningKey) -> bytes:
    return frames.key(key.key_id, key.pem)


@pytest.mark.parametrize("key", [rsa_key(), ed25519_key()], ids=["rsa", "ed25519"])
def test_signs(rig: Rig, key: SigningKey):
    """A signature is what the key itself makes."""
    worker = rig.worker()
    worker.hears()

    worker.say(key_frame(key), frames.sign(4, [key.key_id, DIGEST]))

    [(ref, [(status, signature)])] = worker.answers()
    assert (ref, status) == (4, DONE)
    assert key.confirms(signature, DIGEST)


def test_greets_first(rig: Rig):
    """A worker hears that the helper reads before it says anything."""
    worker = rig.worker()

    assert worker.hears() == [(GREETING, b"\1")]


@pytest.mark.parametrize(("multibuffer", "lanes"), [(None, 1), (cast(MultiBuffer, object()), 8)])
def test_lanes(multibuffer: MultiBuffer | None, lanes: int):
    """With the multi-buffer library eight signatures are made at once."""
    assert Bench(Keys(1), multibuffer).lanes == lanes


def test_one_write_answers_all_batches(rig: Rig):
    """What is there is signed in one go, and each batch answered under its ref and in its order."""
    worker = rig.worker()
    worker.hears()
    key, other = ed25519_key(), ed25519_key("b.test")

    worker.say(
        key_frame(key),
        frames.sign(1, [key.key_id, DIGEST]),
        key_frame(other),
        frames.sign(2, [other.key_id, DIGEST, key.key_id, OTHER]),
    )

    first, second = worker.answers()
    assert first == (1, [(DONE, key.sign(DIGEST))])
    assert second == (2, [(DONE, other.sign(DIGEST)), (DONE, key.sign(OTHER))])


def test_time_is_of_the_signing_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """The CPU time that the bench takes is told once for all batches of a round."""
    worker = rig.worker()
    worker.hears()
    key = ed25519_key()
    cpu_s = [2.0, 2.000_75, 3.0, 3.000_001]
    monkeypatch.setattr(time, "thread_time", lambda: cpu_s.pop(0))

    worker.say(key_frame(key), frames.sign(1, [key.key_id, DIGEST]), frames.sign(2, [key.key_id, OTHER]))
    worker.answers()
    assert worker.cpu_us == [750, 0]

    worker.say(frames.sign(3, [key.key_id, DIGEST]))
    worker.answers()
    assert worker.cpu_us == [1]


def test_unknown_key(rig: Rig):
    """A key that the helper was not told is answered as such, the digests beside it are signed."""
    worker = rig.worker()
    worker.hears()
    key, other = ed25519_key(), ed25519_key("b.test")

    worker.say(key_frame(key), frames.sign(1, [other.key_id, DIGEST, key.key_id, DIGEST]))

    assert worker.answers() == [(1, [(UNKNOWN, b""), (DONE, key.sign(DIGEST))])]


def test_keys_that_are_used_stay(rig: Rig):
    """Of more keys than it keeps the one that was used longest ago is forgotten."""
    worker = rig.worker()
    worker.hears()
    first, second, third, fourth = (ed25519_key(f"{name}.test") for name in "abcd")
    worker.say(key_frame(first), key_frame(second), key_frame(third), frames.sign(1, [first.key_id, DIGEST]))
    worker.hears()

    worker.say(key_frame(fourth), frames.sign(2, [first.key_id, DIGEST, second.key_id, DIGEST]))

    assert worker.answers() == [(2, [(DONE, first.sign(DIGEST)), (UNKNOWN, b"")])]
    assert len(rig.keys) == 3


def test_key_that_is_none(rig: Rig):
    """What cannot be read as a key is answered with the reason, to whoever signs with it."""
    worker = rig.worker()
    worker.hears()

    worker.say(frames.key(bytes(16), b"garbage"), frames.sign(1, [bytes(16), DIGEST]))

    [(_, [(status, text)])] = worker.answers()
    assert status == REFUSED
    assert b"is not a PEM file" in text


def test_workers_take_turns(rig: Rig):
    """A worker with a lot to sign does not keep another one waiting: it gets one round, then the other is served."""
    key = ed25519_key()
    busy, modest = rig.worker(), rig.worker()
    busy.hears()
    modest.hears()
    much = [key.key_id, DIGEST] * ROUND_DIGESTS
    busy.socket.sendall(key_frame(key) + frames.sign(1, much) + frames.sign(2, much))
    modest.socket.sendall(frames.sign(1, [key.key_id, OTHER]))

    rig.helper.turn(0)

    assert [ref for ref, _ in busy.answers()] == [1]
    assert modest.answers() == [(1, [(DONE, key.sign(OTHER))])]
    rig.helper.turn(0)
    assert [ref for ref, _ in busy.answers()] == [2]


def test_worker_dies(rig: Rig):
    """A worker that is gone takes nothing along."""
    key = ed25519_key()
    dying, living = rig.worker(), rig.worker()
    living.hears()
    dying.socket.close()

    rig.helper.turn(0)
    living.say(key_frame(key), frames.sign(1, [key.key_id, DIGEST]))

    assert living.answers() == [(1, [(DONE, key.sign(DIGEST))])]


def test_worker_dies_while_it_is_served(rig: Rig):
    """An answer that nobody reads any more is thrown away."""
    key = ed25519_key()
    dying = rig.worker()
    dying.socket.sendall(key_frame(key) + frames.sign(1, [key.key_id, DIGEST]))
    dying.socket.close()

    rig.helper.turn(0)
    rig.helper.turn(0)

    living = rig.worker()
    assert living.hears() == [(GREETING, b"\1")]


@pytest.mark.parametrize(
    "said",
    [b"EHLO me\r\n", frames.greeting(1), struct.pack("<IB", 3, 3) + b"abc", struct.pack("<IB", 2, 2) + b"ab"],
    ids=["another protocol", "a helper", "half a batch", "half a key"],
)
def test_stranger(rig: Rig, said: bytes):
    """Whoever says something else is shown the door."""
    stranger = rig.worker()
    stranger.hears()

    stranger.say(said)

    assert stranger.socket.recv(10) == b""


def test_worker_that_does_not_read(rig: Rig):
    """Answers that do not fit into the socket wait, and the others are served meanwhile."""
    key = rsa_key(bits=1024)
    slow, swift = rig.worker(), rig.worker()
    slow.hears()
    swift.hears()
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    batches = 400
    slow.say(key_frame(key))
    for ref in range(batches):
        slow.say(frames.sign(ref, [key.key_id, DIGEST] * ROUND_DIGESTS))

    swift.say(frames.sign(1, [key.key_id, OTHER]))

    assert [ref for ref, _ in swift.answers()] == [1]
    refs: list[int] = []
    while len(refs) < batches:
        rig.helper.turn(0)
        refs += [ref for ref, _ in slow.answers()]
    assert refs == list(range(batches))


def test_ends_with_its_supervisor(rig: Rig):
    """When the line to the supervisor closes the helper is over."""
    thread = threading.Thread(target=rig.helper.run)
    thread.start()

    rig.control.close()
    thread.join(10)

    assert not thread.is_alive()
    assert rig.helper.is_over


def test_says_that_it_lives(rig: Rig):
    """The supervisor hears of a helper that has nothing to do, again and again."""
    rig.control.settimeout(10)
    thread = threading.Thread(target=rig.helper.run)
    thread.start()

    heard = [rig.control.recv(1) for _ in range(3)]

    assert heard == [b"."] * 3
    rig.control.close()
    thread.join(10)
    assert not thread.is_alive()


def test_supervisor_that_does_not_read(rig: Rig):
    """A supervisor that has no time for signs of life keeps no worker waiting."""
    with contextlib.suppress(BlockingIOError):
        while True:
            rig.theirs.send(bytes(4096), socket.MSG_DONTWAIT)
    key = ed25519_key()
    worker = rig.worker()
    worker.hears()
    thread = threading.Thread(target=rig.helper.run)
    thread.start()

    for ref in range(3):
        worker.socket.sendall(key_frame(key) + frames.sign(ref, [key.key_id, DIGEST]))
        assert worker.answers() == [(ref, [(DONE, key.sign(DIGEST))])]

    rig.control.close()
    thread.join(10)
    assert not thread.is_alive()


def test_listens_in_a_deep_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A path that is longer than an address may be is no problem, nor is a socket that was left there."""
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    for _ in range(2):
        listening = listen(deep / "signer-1.sock")
        assert (deep / "signer-1.sock").is_socket()
        listening.close()
