"""The baseline is a real engine: what it says 250 to arrives, once, however often it must try."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiosmtplib
import dkim
import pytest
from cryptography.hazmat.primitives import serialization

from bench.baseline_directions import Limits, Place
from bench.baseline_server import Courier, Options, Server, place_of
from bench.baseline_spool import Item, Spool
from bench.keys import make_key
from bench.ledger import Ledger
from bench.load import Domain, Plan
from bench.rig import ROOT
from bench.sink import Profile, Sink
from mta.testing.ports import free_port

TIMEOUT_S = 60.0
POLL_S = 0.01


def options_for(folder: Path, sink: Sink | None, **changed: object) -> Options:
    routes = {"*": ("127.0.0.2", sink.port)} if sink else {}
    plain = Options(
        "127.0.0.1", free_port(), folder, is_synced=True, nameserver=("127.0.0.1", 9), mx_port=25, routes=routes,
        limits=[Limits(connections=4)], retry_s=0.01, idle_s=5.0,
    )  # fmt: skip
    return plain._replace(**changed)


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[Server]:
    server = Server(options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Looks at something that no event tells of, such as a folder."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + TIMEOUT_S
    while not condition():
        assert loop.time() < end_s, "not in time"
        await asyncio.sleep(POLL_S)


def files(folder: Path) -> list[str]:
    return os.listdir(folder)


def plan_for(options: Options, messages: int, words: dict[str, float] | None = None, recipients: int = 1) -> Plan:
    domains = [Domain("sink.test", words=words or {})]
    return Plan(
        port=options.port, messages=messages, sessions=5, domains=domains, recipients_per_message=recipients,
        sizes=[300, 20_000],
    )  # fmt: skip


async def test_what_is_accepted_arrives_once(tmp_path: Path):
    """Over as many connections as it may have, and its folder is empty afterwards."""
    async with Sink([Profile(name="sink", keep="contents")]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink)
        async with running(options) as server:
            await ledger.run(plan_for(options, 60, recipients=2))
            await until(lambda: not ledger.missing() and not files(tmp_path))

        assert (len(ledger.accepted), ledger.twice(), ledger.strangers()) == (60, {}, set())
        assert server.counts == {"accepted": 60, "delivered": 120, "deferred": 0, "bounced": 0}
        assert sink.profiles["sink"].connections_max == 4
        assert all(each.content.startswith(b"From: Load ") for each in sink.profiles["sink"].deliveries)


async def test_what_is_deferred_comes_again(tmp_path: Path):
    """At RCPT, at the final dot, with a connection that is cut or closed: all of it arrives in the end."""
    words = {"tempfail.1": 0.25, "deferdot.2": 0.25, "drop.1": 0.25, "421.1": 0.25}
    async with Sink([Profile(name="sink")]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink)
        async with running(options) as server:
            await ledger.run(plan_for(options, 40, words))
            await until(lambda: not ledger.missing() and not files(tmp_path))

        assert ledger.twice() == {}
        assert server.counts["delivered"] == 40
        assert server.counts["deferred"] >= 40


async def test_recipients_of_one_message_have_their_own_fates(tmp_path: Path):
    """One is delivered, one refused; the one that is deferred comes again alone."""
    async with Sink([Profile(name="sink")]) as sink:
        options = options_for(tmp_path, sink)
        Spool(tmp_path, is_synced=False).add(
            tmp_path / "1.mail", "s@x.test", ["a@sink.test", "unknown@sink.test", "tempfail.3@sink.test"], b"Hello.\r\n"
        )
        async with running(options) as server:
            await until(lambda: not files(tmp_path))

        assert server.counts == {"accepted": 0, "delivered": 2, "deferred": 3, "bounced": 1}
        assert sink.profiles["sink"].by_recipient() == {"a@sink.test": 1, "tempfail.3@sink.test": 1}


async def test_a_host_that_is_down_is_tried_again(tmp_path: Path):
    """Mail that comes meanwhile is accepted, and delivered when the host is back."""
    async with Sink([Profile(name="sink", down=True)]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink)
        async with running(options) as server:
            await ledger.run(plan_for(options, 20))
            await until(lambda: server.counts["deferred"] >= 20)
            await sink.profiles["sink"].set_down(False)
            await until(lambda: not ledger.missing())

        assert (ledger.twice(), server.counts["bounced"]) == ({}, 0)


async def test_it_goes_on_where_it_was_stopped(tmp_path: Path):
    """What had no fate is in the folder, and the next process delivers it."""
    async with Sink([Profile(name="sink", down=True)]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink)
        async with running(options):
            await ledger.run(plan_for(options, 20))
        left = len(files(tmp_path))
        await sink.profiles["sink"].set_down(False)
        async with running(options._replace(port=free_port())):
            await until(lambda: not ledger.missing() and not files(tmp_path))

        assert left == 20
        assert ledger.twice() == {}


async def test_contents_beyond_the_memory_come_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Byte for byte the same."""
    monkeypatch.setattr("bench.baseline_server.IN_MEMORY_BYTES_MAX", 0)
    async with Sink([Profile(name="sink", keep="contents")]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink)
        async with running(options):
            await ledger.run(plan_for(options, 10))
            await until(lambda: not ledger.missing())

        sizes = sorted(len(each.content) for each in sink.profiles["sink"].deliveries)
        assert sizes == [300] * 5 + [20_000] * 5


async def test_a_connection_carries_no_more_than_it_may(tmp_path: Path):
    """After so many messages it is closed and another one opened."""
    async with Sink([Profile(name="sink", messages_per_connection=5)]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink, limits=[Limits(connections=1, messages_per_connection=5)])
        async with running(options):
            await ledger.run(plan_for(options, 23))
            await until(lambda: not ledger.missing())

        provider = sink.profiles["sink"]
        assert provider.messages_per_connection == [5, 5, 5, 5, 3]
        assert (provider.connections_max, provider.mails_over) == (1, 0)


async def test_mail_that_comes_while_the_last_connection_closes_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nobody waits for it then, and no other connection is allowed: it is begun when the closing one is gone."""
    spool = Spool(tmp_path, is_synced=False)
    later = Item(spool.new_path(), "s@x.test", ["late@sink.test"], b"Hello.\r\n")
    async with Sink([Profile(name="sink")]) as sink:
        options = options_for(tmp_path, sink, limits=[Limits(connections=1)], idle_s=0.0)
        server = Server(options)
        courier = Courier(server, Place("127.0.0.2", sink.port, options.limits[0]))
        quits = []

        async def quit_slowly(client: aiosmtplib.SMTP) -> None:
            if not quits:
                courier.put(later, later.recipients)
            quits.append(client)
            client.close()

        monkeypatch.setattr(Courier, "_quit", staticmethod(quit_slowly))
        courier.put(Item(spool.new_path(), "s@x.test", ["a@sink.test"], b"Hello.\r\n"), ["a@sink.test"])
        await sink.until(lambda: sink.messages == 2)
        await server.stop()

    assert sink.profiles["sink"].by_recipient() == {"a@sink.test": 1, "late@sink.test": 1}


async def test_every_message_is_signed_with_the_key(tmp_path: Path):
    """dkimpy verifies what dkimpy has signed, after the way through the spool and two SMTP dialogues."""
    key = make_key(tmp_path, "load.test", bits=1_024)
    pem = serialization.load_pem_private_key(key.path.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    async with Sink([Profile(name="sink", keep="contents")]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path / "q", sink, key=pem, domain=key.domain, selector=key.selector)
        async with running(options):
            await ledger.run(plan_for(options, 6))
            await until(lambda: not ledger.missing())

        contents = [each.content for each in sink.profiles["sink"].deliveries]
        assert len(contents) == 6
        assert all(dkim.verify(each, dnsfunc=lambda name, timeout=5: key.record.encode()) for each in contents)


async def test_mail_for_nowhere_is_refused_for_good(tmp_path: Path):
    """A domain that takes no mail is no reason to try again."""
    async with Sink([Profile(name="sink")]):
        options = options_for(tmp_path, None, retry_s=600.0)
        server = Server(options)
        item_path = tmp_path / "1.mail"
        Spool(tmp_path, is_synced=False).add(item_path, "s@x.test", ["a@nowhere.test"], b"Hello.\r\n")
        [item] = Spool(tmp_path, is_synced=False).left()

        server.settle(item, {"a@nowhere.test": 550})

        assert (server.counts["bounced"], item_path.exists()) == (1, False)
        await server.stop()


async def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """452, and nothing was accepted."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    async with Sink([Profile(name="sink")]) as sink:
        ledger = Ledger(sink)
        options = options_for(tmp_path, sink)
        async with running(options) as server:
            load = await ledger.run(plan_for(options, 3))

        assert set(load.result.refused.values()) == {"452 4.3.1 No space left on device"}
        assert (server.counts["accepted"], sink.messages) == (0, 0)


def begin(folder: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.baseline_server", "--queue", str(folder), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--dns", "127.0.0.1:9"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert [process.stderr.readline(), process.stderr.readline()] == [f"listens on 127.0.0.1:{port}\n"] * 2
    return process


def test_its_processes_share_the_door_and_end_together(tmp_path: Path):
    """Two listen on one port, each with its folder; SIGTERM ends them cleanly, each with its counts."""
    process = begin(tmp_path, free_port())

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 0
    assert said == '{"accepted": 0, "delivered": 0, "deferred": 0, "bounced": 0}\n' * 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["0", "1"]


def test_its_processes_do_not_outlive_their_parent(tmp_path: Path):
    """However it ends: their end of the pipe says so. The last of them closes what it says."""
    process = begin(tmp_path, free_port())

    process.kill()
    _, said = process.communicate(timeout=TIMEOUT_S)

    assert said.count('"accepted": 0') == 2


@pytest.mark.parametrize(("text", "place"), [("127.0.0.1:25", ("127.0.0.1", 25)), ("[::1]:2525", ("::1", 2525))])
def test_places_are_read(text: str, place: tuple[str, int]):
    """IPv4, and IPv6 in brackets."""
    assert place_of(text) == place
