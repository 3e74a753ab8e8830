"""The town: a server with two destinations, one that takes everything at once and one that keeps its mail waiting.

Everything that a backlog is measured by is asked for here: what the processes hold and use, what they read, how long a
command takes, what the sink has counted.
"""

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.load import Load, Result
from bench.mailing import Domain, Plan
from bench.processes import cpu_s, memory, tree
from bench.rig import ADMIN_SOCKET, Rig, mta
from bench.scenarios import Options, World, mailing
from bench.temper import Profile
from mta.testing.ports import free_port

SWIFT, SLOW = "swift", "slow"
SWIFT_DOMAIN, SLOW_DOMAIN = f"{SWIFT}.test", f"{SLOW}.test"
POLL_S = 0.2
STALL_S = 60.0  # without any change: what is waited for will not come
SETTLE_S = 3.0  # what waits leaves memory after a second, and pages go back a moment later
IDLE_S = 10.0
COMMAND_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 60.0


class BacklogError(Exception):
    """There are no figures: mail was lost, doubled or refused, or a command failed."""


class Town:
    """Rig, sink and server; `with Town(folder) as town`."""

    def __init__(
        self,
        folder: Path,
        *,
        slow: Profile,
        slow_policy: str = "",
        workers: int = 2,
        idle_s: float = IDLE_S,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`slow`: the temper of the destination that the backlog is for; `slow_policy`: what our admin allows it, ""
        everything; `idle_s`: for how long a server at rest is looked at; `env`: variables for the server."""
        self.rig = Rig(folder)
        self.workers = workers
        self._idle_s = idle_s
        self._env = env
        self._slow = slow
        self._smtp_port = free_port()
        limits = '[limits]\nconnections = 40\nconnection_rate = "none"\nmessages_per_connection = 0\nrate = "none"\n'
        common = f'tls = "none"\nowners = {workers}\n'
        self._policies = {
            f"bench-{SWIFT}": f'match = {{ domains = ["{SWIFT_DOMAIN}"] }}\n{common}\n{limits}',
            f"bench-{SLOW}": f'match = {{ domains = ["{SLOW_DOMAIN}"] }}\n{common}\n{slow_policy or limits}'
            '\n[retry]\nschedule = ["6h"]\njitter = "20%"\navoid = []\n',
        }

    def __enter__(self) -> "Town":
        world = World()
        world.domain(SWIFT_DOMAIN, world.host(f"mx.{SWIFT_DOMAIN}", "127.0.0.2"))
        world.domain(SLOW_DOMAIN, world.host(f"mx.{SLOW_DOMAIN}", "127.0.0.3"))
        self.rig.__enter__()
        try:
            swift = Profile(name=SWIFT, address="127.0.0.2", times=False)
            self.rig.start_sink([swift, msgspec.structs.replace(self._slow, name=SLOW, address="127.0.0.3")])
            self.rig.start_dns(world.zone)
            self.start()
        except BaseException:
            self.rig.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.rig.stop()

    # the server

    def start(self) -> None:
        """Returns when it takes mail."""
        self.rig.start_server(self._policies, workers=self.workers, smtp_port=self._smtp_port, env=self._env)

    def stop(self) -> None:
        """SIGTERM, and until it has ended; raises BacklogError where that was not clean."""
        status = self.rig.stop("server")
        if status:
            raise BacklogError(f"the server ended with status {status}:\n{self.rig.tail('server')}")

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.rig.pid("server")

    def memory_mb(self) -> float:
        """What all processes of the server hold now, shared pages counted once."""
        time.sleep(min(SETTLE_S, self._idle_s))
        return memory([self.pid]).pss / 1e6

    def cpu_s(self) -> float:
        """What they have used so far."""
        return cpu_s(self.pid)

    def idle_percent(self) -> float:
        """CPU that they use while nothing is asked of them, of one core."""
        before_s, began_s = self.cpu_s(), time.monotonic()
        time.sleep(self._idle_s)
        return (self.cpu_s() - before_s) / (time.monotonic() - began_s) * 100

    def read_bytes(self) -> int:
        """What the processes that live have read so far, from wherever, the page cache too."""
        total = 0
        for each in tree([self.pid]):
            for line in Path(f"/proc/{each}/io").read_text().splitlines():
                name, _, value = line.partition(": ")
                total += int(value) if name == "rchar" else 0
        return total

    def queue_bytes(self) -> int:
        """What its segments take on the disk."""
        return sum(path.stat().st_size for path in (self.rig.folder / "queue").rglob("*.seg"))

    def waiting(self) -> int:
        """Messages in the queue, as the workers count them; -1 where not all answer yet."""
        return self.total("messages")

    def total(self, name: str) -> int:
        """A count that every worker keeps, of all of them; -1 where not all answer yet."""
        try:
            with socket.socket(socket.AF_UNIX) as admin:
                admin.settimeout(ANSWER_TIMEOUT_S)
                # By way of the folder's descriptor: an address may have 108 bytes at most.
                folder = os.open(self.rig.folder, os.O_PATH)
                try:
                    admin.connect(f"/proc/self/fd/{folder}/{ADMIN_SOCKET}")
                finally:
                    os.close(folder)
                admin.sendall(b"GET /workers HTTP/1.0\r\nHost: localhost\r\n\r\n")
                answer = b"".join(iter(lambda: admin.recv(1 << 16), b""))
        except OSError:
            return -1
        page = json.loads(answer.partition(b"\r\n\r\n")[2])
        if len(page.get("workers", ())) != self.workers:
            return -1
        return sum(worker[name] for worker in page["workers"])

    def command(self, *words: str) -> tuple[float, dict[str, object]]:
        """`mta queue ...` with `--json` -> seconds, what it printed.

        Raises BacklogError where it fails; that nothing was there to be touched (status 1) is no failure.
        """
        began_s = time.monotonic()
        config = str(self.rig.folder / "mta.toml")
        done = subprocess.run(
            [mta(), "queue", *words, "--json", "--config", config],
            capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S,
        )  # fmt: skip
        took_s = time.monotonic() - began_s
        if done.returncode == 1 and done.stdout:
            page = json.loads(done.stdout)
            if page.get("touched") == 0 and not page.get("problems"):
                return took_s, page
        if done.returncode:
            raise BacklogError(f"mta queue {' '.join(words)}: status {done.returncode}: {done.stderr or done.stdout}")
        return took_s, json.loads(done.stdout)

    # mail

    def plan(self, domain: str, messages: int, run_id: str, **fields: object) -> Plan:
        """Mail of 4 KB to one of the two destinations."""
        fields = {"sessions": 50, **fields}
        plan = mailing(Options(), messages=messages, domains=[Domain(domain)], run_id=run_id, **fields)
        return msgspec.structs.replace(plan, port=self.rig.smtp_port)

    async def send(self, plan: Plan) -> Result:
        """Hands it in; raises BacklogError where not all of it is accepted."""
        result = await Load(plan).run()
        self.rig.check()
        if len(result.accepted) != plan.messages:
            raise BacklogError(f"not all was accepted: {result.report()}")
        return result

    def count(self, name: str, what: str = "") -> int:
        """Messages that a destination has taken, or how often it said something (`RCPT 451`)."""
        counts = self.rig.sink_counts()[name]
        return counts.replies.get(what, 0) if what else counts.messages

    async def until(self, name: str, wanted: int, what: str = "") -> float:
        """Waits until a count has come so far; -> monotonic time. Raises BacklogError where it does not."""
        last, moved_s = -1, time.monotonic()
        while (now := self.count(name, what)) < wanted:
            self.rig.check()
            if now != last:
                last, moved_s = now, time.monotonic()
            elif time.monotonic() - moved_s > STALL_S:
                raise BacklogError(f"{name} has {now:,} of {wanted:,} ({what or 'messages'}), and nothing more comes")
            await asyncio.sleep(POLL_S)
        if now > wanted:
            raise BacklogError(f"{name} has {now:,}, and {wanted:,} were sent ({what or 'messages'})")
        return time.monotonic()

    async def until_waiting(self, wanted: int) -> None:
        """Waits until so many messages are in the queue, and all workers say so."""
        last, moved_s = -1, time.monotonic()
        while (now := await asyncio.to_thread(self.waiting)) != wanted:
            self.rig.check()
            if now != last:
                last, moved_s = now, time.monotonic()
            elif time.monotonic() - moved_s > STALL_S:
                raise BacklogError(f"{now:,} messages are in the queue, and {wanted:,} should be")
            await asyncio.sleep(POLL_S)

    async def relay(self, messages: int, run_id: str) -> tuple[float, float]:
        """New mail to the swift destination -> messages a second until the last arrived, CPU a message in us."""
        before, before_s, began_s = self.count(SWIFT), self.cpu_s(), time.monotonic()
        await self.send(self.plan(SWIFT_DOMAIN, messages, run_id))
        ended_s = await self.until(SWIFT, before + messages)
        return messages / (ended_s - began_s), (self.cpu_s() - before_s) / messages * 1e6

    def arrived_s(self, ids: Sequence[str]) -> dict[str, float]:
        """When messages of these ids were taken: monotonic seconds."""
        arrivals, wanted = self.rig.arrivals(), set(ids)
        return {each: at_s for each, at_s in zip(arrivals.ids, arrivals.times_s, strict=True) if each in wanted}

    async def until_arrived(self, ids: Sequence[str]) -> dict[str, float]:
        """Waits until all of these were taken; when: monotonic seconds."""
        last, moved_s = -1, time.monotonic()
        while len(found := self.arrived_s(ids)) < len(ids):
            self.rig.check()
            if len(found) != last:
                last, moved_s = len(found), time.monotonic()
            elif time.monotonic() - moved_s > STALL_S:
                raise BacklogError(f"{len(ids) - len(found):,} of {len(ids):,} messages do not arrive")
            await asyncio.sleep(POLL_S)
        return found
