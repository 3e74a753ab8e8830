"""The rig starts processes, tells when they are ready, and leaves none behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

import mta.config
from bench.keys import make_key
from bench.load import Domain, Plan, run
from bench.processes import cpu_s
from bench.rig import Rig, RigError, is_listening
from bench.temper import Profile
from mta.testing.ports import free_port

QUIET = [sys.executable, "-c", "import os, time; print('here', os.getpid(), flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
    "print('here', flush=True)\n"
    "while True: time.sleep(600)",
]


def has_written(rig: Rig, name: str) -> bool:
    return rig.log_of(name).exists() and "here" in rig.log_of(name).read_text()


def test_whether_somebody_listens_is_seen():
    """A port is listening as long as its server does."""
    port = free_port()

    with socket.create_server(("127.0.0.1", port)):
        assert is_listening("127.0.0.1", port)
    assert not is_listening("127.0.0.1", port)


def test_a_sink_process_takes_mail_and_counts(tmp_path: Path):
    """Its counts are of this moment while it runs, and its last word afterwards; it ends politely."""
    with Rig(tmp_path) as rig:
        port = rig.start_sink([Profile(name="x"), Profile(name="y", connections_max=1)])
        uvloop.run(run(Plan(host="127.0.0.2", port=port, messages=20, sessions=2, domains=[Domain("x.test")])))

        while_running = rig.sink_counts()
        status = rig.stop("sink")
        at_the_end = rig.sink_counts()

    assert (while_running["x"].messages, while_running["y"].messages) == (20, 0)
    assert (at_the_end["x"].messages, at_the_end["x"].connections_max) == (20, 2)
    assert status == 0
    assert not is_listening("127.0.0.2", port)


def test_what_arrived_can_be_had_from_a_running_sink(tmp_path: Path):
    """Ids with their times, on the clock of this process too; and the contents of the sample."""
    with Rig(tmp_path) as rig:
        port = rig.start_sink([Profile(name="x", sample_every=10)])
        plan = Plan(host="127.0.0.2", port=port, messages=20, sessions=2, domains=[Domain("x.test")], run_id="r")
        result = uvloop.run(run(plan))

        arrivals, samples = rig.arrivals(), rig.samples()

    assert sorted(arrivals.ids) == sorted(f"r-{number}" for number in range(20))
    assert result.began_s <= min(arrivals.times_s) <= max(arrivals.times_s) <= result.ended_s
    assert len(samples) == 2
    assert all(b"X-Bench-Id: r-" in content for content in samples)


def test_a_providers_temper_can_be_changed_while_it_runs(tmp_path: Path):
    """And one that does not exist is an error in words."""
    with Rig(tmp_path) as rig:
        port = rig.start_sink([Profile(name="x")])
        rig.set_sink("x", down=True)
        while_down = is_listening("127.0.0.2", port)
        rig.set_sink("x", down=False)

        assert (while_down, is_listening("127.0.0.2", port)) == (False, True)
        with pytest.raises(RigError, match="the sink refuses"):
            rig.set_sink("y", down=True)


def test_a_process_gets_variables_of_its_own(tmp_path: Path):
    """Beside those of this process."""
    show = [sys.executable, "-c", "import os; print('here', os.environ['OWN'], 'PATH' in os.environ)"]
    with Rig(tmp_path) as rig:
        rig.start("own", show, env={"OWN": "value"})

        with pytest.raises(RigError):  # it ends by itself
            rig.wait("own", lambda: False)

    assert rig.log_of("own").read_text() == "here value True\n"


def test_a_server_that_shall_sign_has_the_key_in_its_configuration(tmp_path: Path):
    """With what else was asked for; `mta check` takes it."""
    key = make_key(tmp_path, "load.test", "s1", bits=1_024)
    source = '[[source]]\nname = "out-1"\nipv4 = "127.0.0.1"\n'
    with Rig(tmp_path) as rig:
        rig.sink_port, rig.dns_port = 2_526, 5_353
        rig.start_server({}, workers=1, key=key, delivery='idle_timeout = "7s"', more=source)

    config = mta.config.load(tmp_path / "mta.toml")
    assert [(each.domain, each.selector, each.key) for each in config.dkim] == [("load.test", "s1", key.path)]
    assert config.admin.address == f"unix:{tmp_path}/admin.sock"
    assert config.delivery.idle_timeout_s == 7.0
    assert [each.name for each in config.sources] == ["out-1"]


def test_a_process_that_ended_is_noticed_with_its_last_words(tmp_path: Path):
    """The error holds the end of its log."""
    with Rig(tmp_path) as rig:
        rig.start("failing", [sys.executable, "-c", "raise SystemExit('out of cheese')"])

        with pytest.raises(RigError, match=r"(?s)failing ended with status 1.*out of cheese"):
            rig.wait("failing", lambda: False)


def test_nothing_is_left_behind(tmp_path: Path):
    """The end of the block ends what it started, also after an error."""
    rig = Rig(tmp_path)

    def work() -> None:
        with rig:
            rig.start("quiet", QUIET)
            rig.wait("quiet", lambda: has_written(rig, "quiet"))
            process = int(rig.log_of("quiet").read_text().split()[1])
            os.kill(process, 0)
            raise ZeroDivisionError(process)

    with pytest.raises(ZeroDivisionError) as error:
        work()

    with pytest.raises(ProcessLookupError):
        os.kill(error.value.args[0], 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_middle_of_a_start_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It comes when the process is known, and is ended with the others."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(number)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), Rig(tmp_path) as rig:
            rig.start("quiet", QUIET)
    finally:
        signal.signal(number, before)

    assert [process.poll() for process in started] == [-signal.SIGTERM]


def test_a_process_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After the time for politeness comes SIGKILL."""
    monkeypatch.setattr("bench.rig.STOP_TIMEOUT_S", 0.2)
    with Rig(tmp_path) as rig:
        rig.start("stubborn", STUBBORN)
        rig.wait("stubborn", lambda: has_written(rig, "stubborn"))

        status = rig.stop("stubborn")

    assert status == -9


def test_cpu_time_of_a_process_includes_its_children(tmp_path: Path):
    """A parent that only waits for a busy child has used what the child has."""
    busy = (
        "import os\nparent = os.getppid()\nprint('here', flush=True)\nwhile os.getppid() == parent: sum(range(10_000))"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with Rig(tmp_path) as rig:
        rig.start("parent", [sys.executable, "-c", parent])

        rig.wait("parent", lambda: has_written(rig, "parent") and rig.cpu_s("parent") > 0.5)

        assert rig.cpu_s("parent") > 0.5


def test_a_process_that_is_gone_has_used_nothing():
    """Where there is no such process there is no time either."""
    assert cpu_s(2**22 + 1) == 0.0


def test_a_log_that_is_not_there_has_an_empty_tail(tmp_path: Path):
    """And a long one only its last lines."""
    rig = Rig(tmp_path)
    rig.log_of("long").write_text("".join(f"line {number}\n" for number in range(100)))

    assert rig.tail("none") == "    (it wrote nothing)"
    assert rig.tail("long", lines=2) == "    line 98\n    line 99"
