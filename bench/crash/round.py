"""A round: one server, killed under load in ways that its seed draws, until nothing is left to deliver.

Which failpoints are armed goes round with the seed, so that any row of `len(FAILPOINTS) / 2` seeds meets all of them.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from bench.crash.checks import Facts, Problem, notice_of, problems, story
from bench.ledger import Ledger, Village, WatchedLoad
from bench.load import Domain, Plan
from bench.sink import Profile, Sink
from mta.admin.address import UnixAddress
from mta.cli.asking import Asking, NoServerError, RefusedError
from mta.testing.failpoints import FAILPOINTS, environment, hits
from mta.testing.running_server import RunningServer, ServerEndedError
from mta.testing.signing_rig import rsa_key
from mta.testing.toy_dns import ToyDns
from mta_queue import inspection
from mta_queue.disk import OsDisk

HOME = "home.test"
SENDER = f"shop@{HOME}"
SEGMENT_BYTES = 128 << 10  # full several times in a round
COPYING_SHARE = 0.3  # of the rounds without a failpoint there: a crash finds copies wherever it comes
MESSAGES_MIN, MESSAGES_MAX = 200, 500  # a second of load, or less
DRAIN_S = 60.0
WAVES_MAX = 5  # loads, one after another, until every failpoint of the round has struck
LOST_S = 5.0  # with an empty queue nothing is on its way any more: what is missing then is lost
STARTS_MAX = 6  # each failpoint of a start strikes once
POLL_S = 0.05
SLOW_S = 0.004  # for each group of replies; a round should not wait for the slow one
WORDS: list[dict[str, float]] = [
    {"unknown": 0.1},
    {"unknown": 0.1},
    {"unknown": 0.1, "tempfail.1": 0.3},
    {"unknown": 0.05, "deferdot.1": 0.05, "dropdot.1": 0.02},
    {"unknown": 0.15, "421.1": 0.01},
]
"""What becomes of recipients, by provider (see bench.temper): fast, slow, deferring, breaking off, hanging up."""
NAMES = list(FAILPOINTS)
ROUNDS = 20
"""As many, one seed after the other, have every failpoint."""


class Script(NamedTuple):
    """What a seed stands for."""

    seed: int
    armed: tuple[str, ...]
    """Failpoints that hold from the beginning, as `environment` takes them."""
    armed_later: tuple[str, ...]
    """Those of a start: they hold once the server has run."""
    kills: dict[int, str]
    """Accepted messages -> worker, server, helper or reload, each done then."""
    messages: int
    recipients: int
    is_signed: bool
    copies: bool
    """What waits is copied all the time."""

    @property
    def names(self) -> set[str]:
        """Of the failpoints."""
        return {text.partition(":")[0] for text in (*self.armed, *self.armed_later)}

    def __str__(self) -> str:
        said = [*self.armed, *self.armed_later, *(f"{what} after {count}" for count, what in self.kills.items())]
        copying = ", copying all the time" if self.copies else ""
        return f"{self.messages} messages to {self.recipients}, {', '.join(said)}{copying}"


def script_of(seed: int) -> Script:
    """The same for a seed, always."""
    random = Random(seed)
    first, behind = (number * len(NAMES) // ROUNDS for number in (seed, seed + 1))
    names = [NAMES[at % len(NAMES)] for at in range(first, behind)]
    texts = {
        name: f"{name}:{random.randint(1, FAILPOINTS[name].times_max)}{random.choice(('', '', '/server'))}"
        for name in names
    }
    later = tuple(text for name, text in texts.items() if name.startswith("start."))
    messages = random.randrange(MESSAGES_MIN, MESSAGES_MAX)
    kills = {}
    if later:
        kills[messages // 2] = "server"
    elif random.random() < 0.6:
        kills[random.randrange(1, messages * 3 // 4)] = random.choice(("worker", "server", "helper"))
    if any(name.startswith("reload.") for name in names) or random.random() < 0.2:
        kills[messages // 4] = "reload"
    is_signed = "helper" in kills.values() or random.random() < 0.1
    armed = tuple(text for text in texts.values() if text not in later)
    copies = any(name.startswith("copies.") for name in names) or random.random() < COPYING_SHARE
    return Script(seed, armed, later, kills, messages, random.randint(1, 3), is_signed, copies)


class Outcome(NamedTuple):
    """What a round has shown."""

    script: Script
    facts: Facts
    problems: list[Problem]
    hits: set[str]
    lives: int
    """How often the whole server was started."""

    @property
    def told(self) -> int:
        """Attempts that the event log tells as after a crash."""
        return sum(bool(event.get("after_crash")) for event in self.facts.events)

    def story(self, folder: Path, *, stories_max: int = 5) -> str:
        """For whoever has to find out why."""
        lines = [f"crash round {self.script.seed} failed: {self.script}", f"its files: {folder}"]
        lines += [f"  {each.message or 'the server'}: {each.text}" for each in self.problems[:20]]
        for message in dict.fromkeys(each.message for each in self.problems if each.message):
            lines += ["", *story(self.facts, message)]
            stories_max -= 1
            if not stories_max:
                break
        return "\n".join([*lines, "", f"play it again: make crash SEED={self.script.seed}"])


class _Scene:
    """The server of a round, started again whenever it is dead."""

    def __init__(self, server: RunningServer, script: Script, folder: Path) -> None:
        self._server = server
        self._script = script
        self._folder = folder
        self._random = Random(script.seed)
        self._pids: set[int] = set()
        self.lives = 0

    async def keep(self) -> None:
        """Start it again after each of its deaths."""
        while True:
            await self._server.ended()
            self._server.env = _environment(
                self._folder, self._script, [*self._script.armed, *self._script.armed_later]
            )
            await self.start()

    async def start(self) -> None:
        """Raises ServerEndedError where it does not come up, and no failpoint is to blame."""
        for _ in range(STARTS_MAX):
            self.lives += 1
            before = hits(self._folder)
            try:
                await self._server.start()
            except ServerEndedError:
                if hits(self._folder) == before:
                    raise
            else:
                return
        raise ServerEndedError(f"not up after {STARTS_MAX} starts: {self._server.log[-2000:]}")

    async def stop(self, ledger: Ledger) -> int:
        """Stop it cleanly; -> its status. Where a failpoint struck meanwhile there is another life to be told of."""
        while True:
            before = hits(self._folder)
            status = await self._server.stop()
            if hits(self._folder) == before:
                return status
            await self.start()
            await _drained(self._server, ledger)

    def do(self, what: str) -> None:
        """Kill or reload; one that is dead already stays so."""
        if what == "server":
            self._server.kill()
        elif what == "reload":
            self._signal(self._server.pid, signal.SIGHUP)
        else:
            pids = list(self._server.worker_pids().values()) if what == "worker" else self._server.helper_pids()
            if pids:
                self._signal(self._random.choice(pids), signal.SIGKILL)

    def _signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _environment(folder: Path, script: Script, armed: Sequence[str]) -> dict[str, str]:
    return environment(folder, armed, segment_bytes=SEGMENT_BYTES, copying="eager" if script.copies else "")


async def play(script: Script, folder: Path) -> Outcome:
    """One round in an empty folder. Raises ServerEndedError where the server cannot be kept alive."""
    village = Village(len(WORDS))
    village.zone[HOME] = {"MX": [f"10 mx.{HOME}."]}
    village.zone[f"mx.{HOME}"] = {"A": ["127.0.0.7"]}
    profiles = [*village.profiles(), Profile(name=HOME, address="127.0.0.7", keep="contents", times=False)]
    profiles[1].latency_s = SLOW_S
    more = ""
    if script.is_signed:
        (folder / "s1.pem").write_bytes(rsa_key(HOME, "s1").pem)
        more = f'[[dkim]]\ndomain = "{HOME}"\nselector = "s1"\nkey = "s1.pem"\n'
    async with ToyDns(village.zone) as dns, Sink(profiles) as sink, contextlib.AsyncExitStack() as stack:
        server = RunningServer(
            folder,
            dns=dns.address,
            port=sink.port,
            policies=village.policies(),
            more=more,
            env=_environment(folder, script, script.armed),
        )
        stack.push_async_exit(server)  # its first start may fail, at a failpoint
        scene = _Scene(server, script, folder)
        await scene.start()
        return await _played(script, folder, sink, server, village, scene)


async def _played(
    script: Script, folder: Path, sink: Sink, server: RunningServer, village: Village, scene: "_Scene"
) -> Outcome:
    ledger = Ledger(sink, without=[HOME])
    put_off: set[str] = set()
    keeper = asyncio.create_task(scene.keep())
    try:
        for wave in range(WAVES_MAX):
            load = WatchedLoad(_plan(script, wave, server, village), _actions(script, wave, scene))
            ledger.follow(load)
            await _beside(keeper, load.run())
            await _beside(keeper, _drained(server, ledger))
            put_off |= load.put_off
            if script.names <= hits(folder):
                break
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    status = await scene.stop(ledger)
    facts = _facts(ledger, put_off, sink, server)
    found = problems(facts)
    if status:
        found.append(Problem(f"the last stop ended with status {status}"))
    if "Traceback" in server.log:
        found.append(Problem("server.log has a traceback"))
    return Outcome(script, facts, found, hits(folder), scene.lives)


def _plan(script: Script, wave: int, server: RunningServer, village: Village) -> Plan:
    return Plan(
        port=server.smtp_port,
        messages=script.messages,
        sessions=10,
        sizes=[1_024, 6_000],
        domains=[Domain(name, words=words) for name, words in zip(village.names, WORDS, strict=True)],
        recipients_per_message=script.recipients,
        sender=SENDER,
        seed=script.seed * WAVES_MAX + wave,
        persist=True,
        reconnect_s=DRAIN_S,
    )


def _actions(script: Script, wave: int, scene: _Scene) -> dict[int, Callable[[], None]]:
    """What is done in the middle of a load; in a second one only what a failpoint needs that has not struck."""
    kills = script.kills
    if wave:
        kills = {count: what for count, what in kills.items() if what == "reload" or script.armed_later}
    return {count: partial(scene.do, what) for count, what in kills.items()}


async def _beside(keeper: asyncio.Task[None], work: Coroutine[object, object, object]) -> None:
    """Wait for the work; a server that cannot be kept alive ends it."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([keeper, task], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        keeper.result()
    await task


async def _drained(server: RunningServer, ledger: Ledger) -> None:
    """Wait until nothing is left to deliver; not for ever, the checks say what is missing."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + DRAIN_S
    empty_s = 0.0
    asking = Asking(UnixAddress(server.folder / "admin.sock"))
    while loop.time() < end_s:
        try:
            page = await asyncio.to_thread(asking.get, "/workers", _Workers)
        except (NoServerError, RefusedError):
            page = _Workers([])
        if len(page.workers) < server.workers or any(each.messages for each in page.workers):
            empty_s = 0.0
        elif not ledger.missing():
            return
        elif not empty_s:
            empty_s = loop.time()
        elif loop.time() - empty_s > LOST_S:
            return
        await asyncio.sleep(POLL_S)


class _Worker(msgspec.Struct):
    messages: int


class _Workers(msgspec.Struct):
    workers: list[_Worker]


def _facts(ledger: Ledger, put_off: set[str], sink: Sink, server: RunningServer) -> Facts:
    ledger.read()
    reports = [inspection.verify(OsDisk(), log) for log in inspection.logs_in(OsDisk(), server.folder / "queue")]
    providers = dict(sink.profiles)
    home = providers.pop(HOME)
    return Facts(
        recipients=ledger.recipients,
        accepted=ledger.accepted,
        uncertain=ledger.uncertain,
        put_off=put_off,
        deliveries={name: provider.deliveries for name, provider in providers.items()},
        notices=[notice_of(delivery) for delivery in home.deliveries],
        events=server.events(),
        queue_problems=[problem for report in reports for problem in report.problems],
        queue_items=sum(report.items for report in reports),
    )
