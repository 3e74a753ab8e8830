"""Failpoints: named places in a worker where it kills itself, so that crashes happen exactly where they hurt.

The server knows nothing of them. A test starts it with `environment(...)`: every Python process below reads a
`sitecustomize` that the test wrote, and in a worker the methods that the table names are wrapped before the worker
begins. What is not armed is not touched, and without that environment there is nothing at all.

    env = environment(folder, ["group.torn:3", "move.taken:1/server"], segment_bytes=65_536)
    server = RunningServer(folder, port=sink.port, env=env)
    ...
    hits(folder)        # {"group.torn"}: which have fired; each fires once, in whichever worker gets there first

`NAME:COUNT` kills the worker that gets there for that time, `NAME:COUNT/server` the whole server with it.
"""

import functools
import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

ARMED = "MTA_FAILPOINTS"
HITS = "MTA_FAILPOINT_HITS"
SEGMENT_BYTES = "MTA_SEGMENT_BYTES"
COPYING = "MTA_COPYING"
COPY_LOOK_S = 0.05  # between looks for something to copy
FOLDER = "failpoints"

_START = """from mta.testing.failpoints import arm_worker

arm_worker()
"""


class Failpoint(NamedTuple):
    """One place."""

    seam: str
    """`module:Class.method`."""
    when: Literal["before", "after", "torn"]
    """torn: half of what is to be written is written."""
    times_max: int
    """The method is called at least so often in a second of load; a crash that is drawn at random stays below it."""
    story: str
    """What is done and what is not when it strikes."""
    of: str = ""
    """Only calls with an argument of this class count."""
    suffix: str = ""
    """Only calls with an argument, a path, that ends so."""


_DISK = "mta_queue.disk:OsDisk."

FAILPOINTS: dict[str, Failpoint] = {
    "group.before_write": Failpoint(_DISK + "append", "before", 40, "a group is in memory alone"),
    "group.torn": Failpoint(_DISK + "append", "torn", 40, "half of a group is written"),
    "group.before_sync": Failpoint(_DISK + "sync", "before", 30, "a group is written and not synced"),
    "group.after_sync": Failpoint(_DISK + "sync", "after", 30, "a group is durable and its thread has told nobody"),
    "group.before_callbacks": Failpoint(
        "mta_queue.journal:Journal._committed", "before", 30, "a group is durable and nobody who waits for it knows"
    ),
    "segment.created": Failpoint(_DISK + "create", "after", 2, "a new segment is an empty file", suffix=".seg"),
    "segment.before_sync": Failpoint(
        "mta_queue.committer:Committer._sync_new", "before", 2, "a new segment is written, and nothing of it synced"
    ),
    "segment.before_seal": Failpoint(
        "mta_queue.segment:SegmentWriter.seal", "before", 2, "a segment is full and not sealed"
    ),
    "segment.after_seal": Failpoint(
        "mta_queue.segment:SegmentWriter.seal", "after", 2, "a segment is sealed and the next one not begun"
    ),
    "segment.before_removal": Failpoint(
        _DISK + "unlink", "before", 1, "a segment that nobody needs is still there", suffix=".seg"
    ),
    "segment.after_removal": Failpoint(
        _DISK + "unlink", "after", 1, "a segment is gone, the directory not synced", suffix=".seg"
    ),
    "segment.unlisted": Failpoint(
        "mta_queue.inventory:Inventory.write", "after", 2, "a list is new, and what is off it is still there"
    ),
    "copies.written": Failpoint("mta_queue.copies:Copies.write", "after", 2, "some of a segment of copies is written"),
    "copies.whole": Failpoint(
        "mta_queue.copies:Copies.publish", "before", 2, "copies are whole and durable, and have not their name"
    ),
    "copies.named": Failpoint(
        "mta_queue.copies:Copies.publish", "after", 2, "copies have their name for good, and the catalog does not know"
    ),
    "copies.placed": Failpoint(
        "mta_queue.copying:Round.let_go",
        "after",
        2,
        "copies took the place of their items, which still lie elsewhere",
    ),
    "handoff.taken": Failpoint(
        "mta.handoff.link:Link.answer", "before", 20, "the owner has a message and its door does not know", "Taken"
    ),
    "handoff.settled": Failpoint(
        "mta.handoff.door:Door._settle", "before", 40, "all owners have a message and 250 is not said"
    ),
    "handoff.before_release": Failpoint(
        "mta.handoff.owner:Owner.release", "before", 20, "all owners have a message, and this one still holds it"
    ),
    "move.taken": Failpoint(
        "mta.handoff.mover:_Move.record", "before", 1, "a move is durable there and not recorded here"
    ),
    "move.recorded": Failpoint(
        "mta.handoff.link:Link.send", "before", 1, "what arrived there is recorded here and not let go", "Gone"
    ),
    "move.before_release": Failpoint(
        "mta.handoff.arrivals:Arrivals.release", "before", 2, "what arrived is to be let go and is not yet"
    ),
    "notice.taken": Failpoint(
        "mta.handoff.notices:_Notice.record", "before", 5, "a notification is durable and the fate not recorded"
    ),
    "delivery.begun": Failpoint("mta.delivery.channel:Channel.send", "before", 40, "a connection gets a message"),
    "delivery.answered": Failpoint(
        "mta.delivery.fates:Fates.settle", "before", 40, "the other side has said 250 and it is written nowhere"
    ),
    "fate.recorded": Failpoint(
        "mta.reporting.events:Events.fate", "before", 40, "a fate is in the queue's hands and not told"
    ),
    "events.before_write": Failpoint(
        "mta.reporting.log_file:LogFile.append", "before", 2, "fates are recorded and their lines not written"
    ),
    "events.after_write": Failpoint(
        "mta.reporting.log_file:LogFile.append", "after", 2, "lines are written and the queue would tell them again"
    ),
    "events.before_told": Failpoint(
        "mta_queue.store:Store.told", "before", 2, "the event log has lines, and the queue is about to hear of it"
    ),
    "start.locked": Failpoint(_DISK + "lock", "after", 1, "a log is locked and nothing of it read"),
    "start.reading": Failpoint("mta_queue.segment:SegmentReader.__init__", "after", 1, "a segment is being read"),
    "start.stabilising": Failpoint(
        "mta_queue.segment:make_stable", "before", 1, "a segment that was cut short is read and not written again"
    ),
    "start.read": Failpoint(_DISK + "draw_marker", "before", 1, "a log is read and no segment begun"),
    "start.opened": Failpoint("mta_queue.store:Store.open", "after", 1, "a log is open and nothing taken up"),
    "start.taking_up": Failpoint(
        "mta.delivery.dispatcher:Dispatcher.found", "before", 3, "some of what waited is taken up"
    ),
    "reload.begun": Failpoint("mta.delivery.dispatcher:Dispatcher.reload", "before", 1, "a worker begins to reload"),
    "reload.done": Failpoint("mta.delivery.dispatcher:Dispatcher.reload", "after", 1, "one worker has reloaded"),
}


def environment(
    folder: Path, armed: Iterable[str], *, segment_bytes: int = 0, copying: Literal["", "eager", "never"] = ""
) -> dict[str, str]:
    """Variables for a server that is started with these failpoints; `folder` gets what they need.

    `segment_bytes`: segments are full sooner than at 64 MB, so that seals and removals happen in a short run.
    `copying`: what waits is copied all the time, so that compaction does, or never.
    """
    place = folder / FOLDER
    (place / "hits").mkdir(parents=True, exist_ok=True)
    (place / "sitecustomize.py").write_text(_START)
    found = [str(place), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        "PYTHONPATH": os.pathsep.join(found),
        ARMED: ",".join(armed),
        HITS: str(place / "hits"),
        SEGMENT_BYTES: str(segment_bytes),
        COPYING: copying,
    }


def hits(folder: Path) -> set[str]:
    """Names of the failpoints that have fired."""
    place = folder / FOLDER / "hits"
    return {each.name for each in place.iterdir()} if place.is_dir() else set()


def arm_worker() -> None:
    """Arm this process as its environment says; one that is no worker is left alone."""
    if "mta.worker" in sys.orig_argv:
        arm(os.environ)


def arm(environ: Mapping[str, str]) -> None:
    """Wrap the methods of what is armed; raises KeyError and ValueError for what there is not."""
    if segment_bytes := int(environ.get(SEGMENT_BYTES) or 0):
        defaults: dict[str, Any] | None = importlib.import_module("mta_queue.store").Store.__init__.__kwdefaults__
        assert defaults is not None, "the store has its limit by default"
        assert "segment_bytes_max" in defaults, "the store has its limit by default"
        defaults["segment_bytes_max"] = segment_bytes
    if environ.get(COPYING) == "eager":
        importlib.import_module("mta.testing.eager_copying").copy_all_the_time(COPY_LOOK_S)
    elif environ.get(COPYING) == "never":
        importlib.import_module("mta.testing.eager_copying").never_copy()
    for text in filter(None, environ.get(ARMED, "").split(",")):
        name, _, count = text.partition(":")
        number, _, whom = count.partition("/")
        strike = functools.partial(_strike, Path(environ[HITS]) / name, whole_server=whom == "server")
        _wrap(FAILPOINTS[name], int(number), strike)


def seam_of(failpoint: Failpoint) -> tuple[Any, str]:
    """What holds the method or function, and its name. Raises AttributeError where it is not there."""
    module, _, path = failpoint.seam.partition(":")
    *owners, name = path.split(".")
    home = functools.reduce(getattr, owners, importlib.import_module(module))
    getattr(home, name)
    return home, name


def _wrap(failpoint: Failpoint, number: int, strike: Callable[[], None]) -> None:
    home, name = seam_of(failpoint)
    original = getattr(home, name)
    numbers = itertools.count(1)  # next() of it is one step for all threads

    def counts(arguments: Sequence[object]) -> bool:
        if failpoint.of and all(type(each).__name__ != failpoint.of for each in arguments):
            return False
        if failpoint.suffix and not any(str(each).endswith(failpoint.suffix) for each in arguments):
            return False
        return next(numbers) == number

    @functools.wraps(original)
    def wrapped(*arguments: Any, **more: Any) -> Any:
        is_now = counts(arguments)
        if is_now and failpoint.when == "torn":
            disk, file, offset, buffers = arguments
            data = b"".join(buffers)
            original(disk, file, offset, [data[: len(data) // 2]])
        if is_now and failpoint.when != "after":
            strike()
        result = original(*arguments, **more)
        if is_now and failpoint.when == "after":
            strike()
        return result

    setattr(home, name, wrapped)


def _strike(hit: Path, *, whole_server: bool) -> None:
    """The end of this process, and of the server; nothing where this failpoint has fired before."""
    try:
        os.close(os.open(hit, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if whole_server:
        supervisor = os.getppid()
        family = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        for pid in [supervisor, *map(int, family)]:
            if pid not in (1, os.getpid()):
                _kill(pid)
    _end()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _end() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL is final")
