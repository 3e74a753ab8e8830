"""This server as an engine: policies from what the plan allows each destination, its own key, a fast retry."""

import time
from collections.abc import Sequence

import msgspec

from bench.engines import Destination, EngineError, EnginePlan
from bench.rig import ADMIN_SOCKET, Rig, RigError
from mta.admin.address import UnixAddress
from mta.admin.answers import COUNTS_KEPT_S
from mta.cli.asking import Asking, NoServerError, RefusedError
from mta.reporting.worker_counts import WorkerCounts

NAME = "server"
PREFIX = "bench-"
SECONDS_AN_HOUR = 3_600  # rates are whole numbers there
RETRY_JITTER = "10%"


class _Workers(msgspec.Struct):
    """What the admin face says of them."""

    workers: list[WorkerCounts]


class MtaEngine:
    """`mta serve` as an admin would run it."""

    name = "mta"

    def __init__(self) -> None:
        self.smtp_port = 0
        self._rig: Rig | None = None

    def start(self, rig: Rig, plan: EnginePlan) -> None:
        """Returns when it takes mail. Raises EngineError without a DNS, RigError where it does not come up."""
        if not plan.dns_port:
            raise EngineError("the engine mta finds mail hosts in the DNS; the plan has none")
        self._rig = rig
        rig.start_server(
            policies(plan),
            workers=plan.workers,
            durability=plan.durability,
            key=plan.key,
            smtp_port=plan.smtp_port,
            delivery=f'idle_timeout = "{plan.idle_timeout_s:g}s"',
        )
        self.smtp_port = rig.smtp_port

    def pids(self) -> list[int]:
        """The supervisor."""
        assert self._rig is not None, "not started"
        return [self._rig.pid(NAME)]

    def signing_cpu_s(self) -> float:
        """CPU seconds that the signing alone has taken so far, as its workers count them; RigError where none says."""
        assert self._rig is not None, "not started"
        time.sleep(COUNTS_KEPT_S)  # who asked before may have been answered with older ones
        try:
            page = Asking(UnixAddress(self._rig.folder / ADMIN_SOCKET)).get("/workers", _Workers)
        except (NoServerError, RefusedError) as error:
            raise RigError(str(error)) from error
        return sum(each.signing_cpu_s for each in page.workers)

    def stop(self) -> None:
        """SIGTERM; raises RigError where it does not end with 0."""
        assert self._rig is not None, "not started"
        status = self._rig.stop(NAME)
        if status:
            raise RigError(f"the server ended with status {status}; it wrote last:\n{self._rig.tail(NAME)}")


def policies(plan: EnginePlan) -> dict[str, str]:
    """Policy files by name; `default` is always there, for it says when deferred mail comes again.

    The others have names of their own: a file called `google` would only be laid over the shipped one, whose limits
    would hold where it says nothing.
    """
    texts = {
        f"{PREFIX}{each.name}" if _is_named(each) else "default": policy(each, plan.workers)
        for each in plan.destinations
    }
    retry = f'\n[retry]\nschedule = ["{plan.retry_s:g}s"]\njitter = "{RETRY_JITTER}"\navoid = []\n'
    texts["default"] = texts.get("default") or policy(Destination(name="default"), plan.workers)
    return {name: text + retry for name, text in texts.items()}


def policy(destination: Destination, workers: int) -> str:
    """One policy file, without its retries."""
    match = []
    if destination.domains:
        match.append(f"domains = {_list(destination.domains)}")
    if destination.mx:
        match.append(f"mx = {_list(destination.mx)}")
    owners = min(destination.owners, workers, destination.connections)
    lines = [f"match = {{ {', '.join(match)} }}", f"owners = {owners}"] if match else []
    rate = f"{round(destination.rate_per_s * SECONDS_AN_HOUR)}/h" if destination.rate_per_s else "none"
    return "\n".join(
        [
            *lines,
            'tls = "none"',
            "",
            "[limits]",
            f"connections = {destination.connections}",
            'connection_rate = "none"',
            f"messages_per_connection = {destination.messages_per_connection}",
            f'rate = "{rate}"',
            "",
        ]
    )


def _is_named(destination: Destination) -> bool:
    return bool(destination.domains or destination.mx)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
