"""The screens of docs/guide/policies.md: does what that page says, in its order, and compares what is printed.

The page is a script, done in a folder of its own (`bench.playground`):

    ```toml         its first line names a file ("# policies/isp.toml"), which is written
    ```sh           a command a line that must succeed; what it prints is not shown
    ```console      `$ ` and a command, below it what it prints; several may follow each other
    ```console counts    as before, where numbers depend on the moment

`make docs` writes the screens anew; tests/layout compares those that need no server, tests/end_to_end the others. Times
are compared by their form alone (`FORMS`), ids of messages and of what rules set off by which of them is the same as
another. Commands that only look are repeated until they show what the page does, for one may come before there is
anything to see.
"""

import asyncio
import contextlib
import difflib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench import playground
from bench.sink import Sink
from mta.cli import main as mta
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guide" / "policies.md"
REHEARSAL = ROOT / "docs" / "guide" / "rehearsal.md"
"""Its screens need no server."""

ELSEWHERE = "…/"
"""On the page: where the checkout is."""
USER = "kim"
"""Who types, on the page."""
LISTENER = "127.0.0.1:2525"
UNTIL_S = 30.0  # on a machine that does other things as well
AGAIN_S = 0.05
SETTLED_S = 3.0  # when screens are written anew: how long they may change

NEEDS_SERVER = (
    *("mta queue", "mta rule", "mta send", "mta suspend"),
    *("mta policy reload", "mta policy explain", "mta policy warmup"),
)
LOOKS = (
    *("mta queue summary", "mta queue list", "mta queue show", "mta queue why"),
    *("mta rule list", "mta rule show", "mta policy explain", "mta policy warmup"),
)
"""Commands that ask the server and change nothing."""

FORMS: Final = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d"), "(time)"),
    (re.compile(r"just now|\b\d[\d,]* (?:s|min|h|d) ago"), "(a while) ago"),
    (re.compile(r"\bin (?:about )?\d[\d,]* (?:s|min|h|d)\b"), "in (a while)"),
)
COUNTS: Final = (
    (re.compile(r"\b\d[\d,]* (?:s|min|h|d)\b"), "(a while)"),
    (re.compile(r"(?<![\w.,/:-])\d[\d,]*(?![\w,/:]|\.\d)"), "(n)"),
)
"""Numbers by themselves: that of a limit or of a line is always compared."""
ID: Final = re.compile(r"\b(?:f[0-9a-f]{8}|(?=[a-z]*\d)[0-9a-z]{18,24})\b")
"""Of a firing, of a message."""


class Step(NamedTuple):
    """One thing to do."""

    kind: str
    """file, run, or screen."""
    line: int
    """Where it stands on the page, from 0: the command, or the name of the file."""
    text: str
    """The command, or the file."""
    shown: tuple[str, ...] = ()
    """Of a screen: what the page says is printed."""
    counts_vary: bool = False


class Screen(NamedTuple):
    """What came of a step that prints."""

    step: Step
    printed: tuple[str, ...]
    """With the ids of the page, where it knows them."""

    @property
    def is_same(self) -> bool:
        """How many blanks are between two words depends on what stands above and below them."""
        return [line.split() for line in self._formed(self.step.shown)] == [
            line.split() for line in self._formed(self.printed)
        ]

    def difference(self, page: str) -> str:
        """For a person."""
        lines = difflib.unified_diff(
            self._formed(self.step.shown), self._formed(self.printed), "the page", "what is printed", lineterm="", n=2
        )
        return "\n".join([f"{page}:{self.step.line + 1}: $ {self.step.text}", *lines])

    def _formed(self, lines: Iterable[str]) -> list[str]:
        formed = []
        for line in lines:
            text = line.rstrip()
            for pattern, form in (*FORMS, *(COUNTS if self.step.counts_vary else ())):
                text = pattern.sub(form, text)
            formed.append(text)
        return formed


def steps_of(page: str) -> list[Step]:
    """What the page says is to be done."""
    steps: list[Step] = []
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        info = lines[at].removeprefix("```").split() if lines[at].startswith("```") else []
        at += 1
        if not info:
            continue
        end = lines.index("```", at)
        steps += _block(info, at, lines[at:end])
        at = end + 1
    return steps


def _block(info: Sequence[str], at: int, lines: Sequence[str]) -> Iterator[Step]:
    if info[0] == "toml":
        yield Step("file", at, "\n".join([*lines, ""]))
    elif info[0] == "sh":
        yield from (Step("run", at + number, line) for number, line in enumerate(lines) if line)
    elif info[0] == "console":
        begins = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for number, after in zip(begins, [*begins[1:], len(lines)], strict=True):
            shown = tuple(lines[number + 1 : after])
            yield Step("screen", at + number, lines[number][2:], shown, "counts" in info)


class Player:
    """Does the steps in the current folder. `listener`: where the server listens, "" where there is none."""

    def __init__(self, *, listener: str = "", writes: bool = False) -> None:
        """`writes`: for a page that is to be written anew; screens are then not waited for so long, and those that need
        no server are made beside one as well."""
        self._listener = listener
        self._writes = writes
        self._patience_s = SETTLED_S if writes else UNTIL_S
        self._real: dict[str, str] = {}
        """Id of the page -> that of this time."""

    def play(self, steps: Iterable[Step]) -> Iterator[Screen]:
        """All of them, in order; those that need a server only where there is one. Blocks while it waits."""
        for step in steps:
            if step.kind == "file":
                file = Path(step.text.partition("\n")[0].removeprefix("# "))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(step.text, "utf-8")
            elif self._is_done(step):
                if step.kind == "run":
                    self._run(step)
                else:
                    yield self._screen(step)

    def _is_done(self, step: Step) -> bool:
        """Here and now: what needs no server is compared without one."""
        if step.text.startswith((*NEEDS_SERVER, "python -m bench.load")):
            return bool(self._listener)
        return self._writes or not self._listener or step.kind == "run"

    def _run(self, step: Step) -> None:
        python = shlex.quote(sys.executable)
        command = step.text.replace("python ", f"{python} ", 1)
        if command.startswith("mta "):
            command = command.replace("mta ", f"{python} -m mta.cli ", 1)
        if "bench.load" in command:
            command += f" --to {self._listener}"
        done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"line {step.line + 1}: {step.text} gives {done.returncode}: {done.stderr}")

    def _screen(self, step: Step) -> Screen:
        """Commands that only look are repeated until they show what the page does, or for long enough."""
        end_s = time.monotonic() + self._patience_s
        looks = step.text.startswith(LOOKS)
        while True:
            printed = self._printed(step)
            screen = Screen(step, tuple(self._named(printed, step.shown)))
            is_late = time.monotonic() > end_s
            if screen.is_same or not looks or is_late:
                if is_late:  # what is wrong once is not waited for at every further screen
                    self._patience_s = min(self._patience_s, SETTLED_S)
                self._real.update(_pairs(step.shown, printed, self._real))
                return Screen(step, tuple(self._named(printed, ())))
            time.sleep(AGAIN_S)

    def _printed(self, step: Step) -> list[str]:
        command = ID.sub(lambda found: self._real.get(found[0], found[0]), step.text)
        typed, _, behind = command.partition(" | ")
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                mta(shlex.split(typed, comments=True)[1:])
            except SystemExit as ended:  # argparse's
                out.write(f"exit status {ended.code}\n")
        text = out.getvalue()
        if behind:
            done = subprocess.run(["bash", "-c", behind], check=False, input=text, capture_output=True, text=True)
            text = done.stdout
        return text.splitlines()

    def _named(self, printed: Iterable[str], shown: Iterable[str]) -> Iterator[str]:
        """With the page's ids in the place of those of this time."""
        real = {**self._real, **_pairs(shown, printed, self._real)}
        named = {ours: theirs for theirs, ours in real.items()}
        for line in printed:
            yield ID.sub(lambda found: named.get(found[0], found[0]), line).replace(f"{ROOT}/", ELSEWHERE)


def _pairs(shown: Iterable[str], printed: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """The new ids of a screen on the page and in what was printed, in the order in which they appear."""
    theirs = dict.fromkeys(each for line in shown for each in ID.findall(line) if each not in known)
    ours = dict.fromkeys(each for line in printed for each in ID.findall(line) if each not in known.values())
    return dict(zip(theirs, ours, strict=False))


class _Server(RunningServer):
    """A server with the playground's configuration and no policy of its own, in the current folder."""

    def write_policy(self, name: str, text: str) -> None:
        del name, text

    def write_config(self) -> None:
        listener = f"127.0.0.1:{self.smtp_port}"
        text = playground.config(listener=listener, admin="unix:admin.sock", dns=self._dns, mail_port=self._port)
        self.config.write_text(text, "utf-8")


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[None]:
    """In this folder, as the page's user."""
    before = os.environ.get("LOGNAME")
    os.environ["LOGNAME"] = USER
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        if before is None:
            del os.environ["LOGNAME"]
        else:
            os.environ["LOGNAME"] = before


def play_alone(page: str, folder: Path) -> list[Screen]:
    """The screens that need no server."""
    with _place(folder):
        playground.furnish(Path(), playground.config())
        return list(Player().play(steps_of(page)))


@contextlib.asynccontextmanager
async def _running() -> AsyncIterator[RunningServer]:
    """The playground and a server in the current folder."""
    async with (
        ToyDns(playground.ZONE) as dns,
        Sink(playground.profiles()) as sink,
        _Server(Path(), dns=dns.address, port=sink.port, shipped=True) as server,
    ):
        yield server
        await server.stop()


async def play_with_server(page: str, folder: Path, *, writes: bool = False) -> list[Screen]:
    """Those that need a server; with `writes` all."""
    with _place(folder):
        async with _running() as server:
            player = Player(listener=f"127.0.0.1:{server.smtp_port}", writes=writes)
            return await asyncio.to_thread(lambda: list(player.play(steps_of(page))))


def differences(screens: Iterable[Screen]) -> str:
    """What a person reads where the page is not what is printed; "" where it is."""
    found = [screen.difference(PAGE.relative_to(ROOT).as_posix()) for screen in screens if not screen.is_same]
    return "\n\n".join([*found, "`make docs` writes the screens anew"] if found else [])


def written(page: str, screens: Sequence[Screen]) -> str:
    """The page with what was printed; what differs only in times stays as it was."""
    lines = page.splitlines()
    for screen in reversed(screens):
        if not screen.is_same:
            begin = screen.step.line + 1
            lines[begin : begin + len(screen.step.shown)] = screen.printed
    return "\n".join([*lines, ""])


def main() -> int:
    """Writes the screens of docs/guide/policies.md and rehearsal.md."""
    page = REHEARSAL.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        REHEARSAL.write_text(written(page, play_alone(page, Path(folder))), "utf-8")
    page = PAGE.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        screens = asyncio.run(play_with_server(page, Path(folder), writes=True))
    PAGE.write_text(written(page, screens), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
