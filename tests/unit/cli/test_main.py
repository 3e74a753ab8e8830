"""The `mta` command: which file runs, and with which status it ends."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mta import VERSION, cli
from mta.cli import COMMANDS, main
from mta_policies.located import Problem


class TroubleError(Exception):
    """What reading a configuration raises, as far as the command line cares."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("trouble")
        self.problems = problems


@pytest.fixture
def fake_command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A command `fake` whose `run` the test sets."""
    module = ModuleType("mta_fake_command")

    def add(subparsers: cli.Subparsers) -> None:
        subparsers.add_parser("fake", help="is not real").set_defaults(run=vars(module)["run"])

    vars(module)["add"] = add
    monkeypatch.setitem(sys.modules, "mta_fake_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", "mta_fake_command")
    return module


def raising(error: BaseException):
    def run(_: object) -> int:
        raise error

    return run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`mta version` prints one line with the version and succeeds."""
    status = main(["version"])

    assert status == 0
    assert capsys.readouterr().out.startswith(f"mta {VERSION} (Python 3.")


def test_version_needs_no_server() -> None:
    """`mta version` does not import what only a server needs."""
    script = "import sys; from mta.cli import main; main(['version']); print([m for m in sys.modules if m in sys.argv])"
    heavy = ["uvloop", "dns", "aiosmtplib", "mta.config", "mta.worker"]

    done = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`mta --help` lists all commands, each with a text, and succeeds."""
    with pytest.raises(SystemExit) as end:
        main(["--help"])

    out = capsys.readouterr().out
    assert end.value.code == 0
    for name in COMMANDS:
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`mta COMMAND --help` tells how it is used and what it does."""
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])

    out = capsys.readouterr().out
    assert end.value.code == 0
    assert out.startswith(f"usage: mta {name}")
    assert len(out.splitlines()) > 4


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["version", "--nonsense"], ["send"], ["send", "--from", "a@b"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with status 2 and shows the right one on standard error."""
    with pytest.raises(SystemExit) as end:
        main(arguments)

    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == ""
    assert said.err.startswith("usage: mta")


@pytest.mark.parametrize(
    ("arguments", "usage", "hint"),
    [
        (["queue", "list", "--domian", "x"], "mta queue list", "there is no option --domian; did you mean --domain?"),
        (["queue", "cancel", "--al=1"], "mta queue cancel", "ignored explicit argument"),
        (["dkim", "keygen", "a.test", "s1", "--bit5", "2048"], "mta dkim keygen", "did you mean --bits?"),
        (["policy", "list", "google"], "mta policy list", "not expected here: google"),
        (["suspend", "--domian=a.test"], "mta suspend", "did you mean --domain?"),
    ],
)
def test_a_slip_is_told_with_the_commands_own_usage(
    arguments: list[str], usage: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with that of `mta`, which knows none of its options; the nearest known one is named."""
    with pytest.raises(SystemExit) as end:
        main(arguments)

    err = capsys.readouterr().err
    assert end.value.code == 2
    assert err.startswith(f"usage: {usage}")
    assert hint in err


def test_status_is_the_commands(fake_command: ModuleType) -> None:
    """What a command returns is the exit status."""
    vars(fake_command)["run"] = lambda args: 69

    assert main(["fake"]) == 69


def test_problems_are_listed(fake_command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes in the configuration are listed with file and line, one a line, without a traceback."""
    problems = [Problem("mta.toml", 3, "unknown key"), Problem("policies/x.toml", 9, "not a rate")]
    vars(fake_command)["run"] = raising(TroubleError(problems))

    status = main(["fake"])

    said = capsys.readouterr().err.splitlines()
    assert status == 1
    assert len(said) == 2
    assert said[0].startswith("mta.toml:3")
    assert said[1].startswith("policies/x.toml:9")


def test_bugs_are_not_hidden(fake_command: ModuleType) -> None:
    """Any other exception is a bug and keeps its traceback."""
    vars(fake_command)["run"] = raising(ZeroDivisionError("bug"))

    with pytest.raises(ZeroDivisionError, match="bug"):
        main(["fake"])


def test_interrupt(fake_command: ModuleType) -> None:
    """Ctrl-C ends quietly, with the status that shells know."""
    vars(fake_command)["run"] = raising(KeyboardInterrupt())

    assert main(["fake"]) == 130


def test_reader_that_has_enough() -> None:
    """A closed standard output (`mta ... | head`) ends the command without a traceback."""
    script = "import sys; from mta.cli import main; sys.exit(main(['version']))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        status = process.wait()

    assert status == 1
    assert said == b""


def test_installed_command() -> None:
    """The `mta` beside this Python is this one."""
    command = Path(sys.executable).with_name("mta")

    done = subprocess.run([command, "version"], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert VERSION in done.stdout
