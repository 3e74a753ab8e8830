"""Postfix as an engine, without Postfix: what it would read, how it is started, and what is refused beforehand."""

import asyncio
import os
import pwd
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.engines import Destination, EngineError, EnginePlan, KeyFile
from bench.engines.postfix import TUNING, Files, PostfixEngine, check, let_in, programs, usable
from bench.rig import Rig, RigError
from mta.testing.ports import free_port
from mta.testing.toy_dns import ToyDns

BIG = Destination(name="big.one", domains=("big.test",), connections=7, messages_per_connection=20)
BY_MX = Destination(name="mxed", mx=("*.mxed-mail.test",), connections=3)
ROUTES = {
    "big.test": "127.0.0.2:2526",
    "hosted.test": "127.0.0.2:2526",
    "a.test": "127.0.0.3:2526",
    "b.test": "127.0.0.3:2526",
    "small.test": "127.0.0.4:2526",
}
MASTER = f"""#!{sys.executable}
import pathlib, socket, sys, time
config = pathlib.Path(sys.argv[sys.argv.index("-c") + 1])
port = int((config / "master.cf").read_text().split()[0].rpartition(":")[2])
if "broken" in (config / "main.cf").read_text():
    sys.exit("fatal: nothing works")
server = socket.create_server(("127.0.0.1", port))
while True:
    connection, _ = server.accept()
    connection.sendall(b"220 fake ESMTP\\r\\n")
    connection.close()
"""


def plan_for(folder: Path, **changed: object) -> EnginePlan:
    plain: dict[str, object] = {"routes": ROUTES, "destinations": (BIG, BY_MX), "smtp_port": 2525, "sink_port": 2526}
    return EnginePlan(folder=folder, **{**plain, **changed})  # pyright: ignore[reportArgumentType] - by name


def settings(text: str) -> Mapping[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(plan_for(tmp_path, retry_s=3.2, idle_timeout_s=7.0), Path("/usr/lib/postfix"), tmp_path / "x.log")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that look like Postfix's, for somebody who looks like root."""
    folder = tmp_path / "programs"
    folder.mkdir()
    scripts = {
        "postconf": f"#!/bin/sh\necho {folder}\n",
        "postfix": '#!/bin/sh\ntest "$1 $3" = "-c check" && test -f "$2/master.cf"\n',
        "master": MASTER,
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, user, group: None)
    monkeypatch.setattr("bench.engines.postfix.let_in", lambda outermost, inner: None)  # folders of tests are closed
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=1, pw_gid=1))
    return folder


def test_it_is_started_from_files_of_its_own(tmp_path: Path, installed: Path):
    """It greets on the plan's port, its processes are its master's, and it ends with SIGTERM."""
    folder = tmp_path / "engine"
    folder.mkdir()
    engine, port = PostfixEngine(), free_port()

    with Rig(tmp_path) as rig:
        engine.start(rig, plan_for(folder, smtp_port=port))
        pids = engine.pids()
        engine.stop()

    assert engine.smtp_port == port
    assert len(pids) == 1
    assert sorted(each.name for each in folder.iterdir()) == ["config", "data", "queue"]


def test_one_that_does_not_come_up_says_why(tmp_path: Path, installed: Path):
    """The end of its log is in the error."""
    folder = tmp_path / "engine"
    folder.mkdir()

    with Rig(tmp_path) as rig, pytest.raises(RigError, match="nothing works"):
        PostfixEngine().start(rig, plan_for(folder, hostname="broken.test"))


def test_one_that_was_never_started_is_stopped():
    """Nothing happens, and nothing is measured."""
    engine = PostfixEngine()

    engine.stop()

    assert engine.pids() == []


def test_a_machine_without_it_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """How to install it, where it is in no folder that programs are in."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)

    with pytest.raises(EngineError, match=r"not installed .*apt-get install postfix"):
        usable(plan_for(tmp_path))


def test_who_is_not_root_is_told(tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch):
    """Its master must be root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(EngineError, match="started by root"):
        usable(plan_for(tmp_path))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"key": KeyFile(Path("k"), "load.test", "s", "")}, "does not sign by itself"),
        ({"durability": "os"}, "cannot be told not to"),
        ({"routes": {}}, "needs routes"),
    ],
)
def test_what_it_cannot_do_is_said_beforehand(tmp_path: Path, installed: Path, changed: dict[str, object], what: str):
    """One sentence, before anything runs."""
    with pytest.raises(EngineError, match=what):
        usable(plan_for(tmp_path, **changed))


def test_programs_are_where_postconf_says(installed: Path):
    """And where it fails, its words are told."""
    found = programs(installed / "postconf")
    (installed / "postconf").write_text("#!/bin/sh\necho 'fatal: no main.cf' >&2\nexit 1\n")

    assert found == installed
    with pytest.raises(EngineError, match="fatal: no"):
        programs(installed / "postconf")


def test_a_configuration_that_is_refused_is_told(installed: Path, tmp_path: Path):
    """In Postfix's words."""
    (installed / "postfix").write_text("#!/bin/sh\necho 'bad string length 0' >&2\nexit 1\n")

    with pytest.raises(EngineError, match="bad string length 0"):
        check(installed / "postfix", tmp_path)


def test_its_user_can_pass_our_folders(tmp_path: Path):
    """Those of the rig are opened for passing through, not for reading."""
    rig, engine = tmp_path / "rig", tmp_path / "rig" / "engine"
    engine.mkdir(parents=True)
    rig.chmod(0o700)
    engine.chmod(0o750)

    let_in(rig, engine, top=rig)

    assert (stat.S_IMODE(rig.stat().st_mode), stat.S_IMODE(engine.stat().st_mode)) == (0o701, 0o751)


def test_a_foreign_folder_is_not_opened(tmp_path: Path):
    """It is named, and stays as it is."""
    foreign, ours = tmp_path / "foreign", tmp_path / "foreign" / "rig"
    ours.mkdir(parents=True)
    foreign.chmod(0o700)

    with pytest.raises(EngineError, match=f"cannot pass {foreign}"):
        let_in(ours, ours)

    assert stat.S_IMODE(foreign.stat().st_mode) == 0o700


def test_every_setting_of_the_tuning_has_its_reason(files: Files):
    """In the file, too, right above the setting."""
    lines = files.main_cf().splitlines()

    for name, value, why in TUNING:
        at = lines.index(f"{name} = {value}")
        assert why
        assert lines[at - 1] == f"# {why}"
    assert len({each.name for each in TUNING}) == len(TUNING)


def test_no_setting_is_given_twice(files: Files):
    """Postfix would take the last one, and only warn."""
    names = [line.partition(" = ")[0] for line in files.main_cf().splitlines() if not line.startswith("#")]

    assert len(set(names)) == len(names)


def test_the_plan_is_in_the_settings(files: Files, tmp_path: Path):
    """Whole seconds, for Postfix knows no others; everything that is written is in the plan's folder."""
    found = settings(files.main_cf())

    assert (found["minimal_backoff_time"], found["maximal_backoff_time"], found["queue_run_delay"]) == ("3s",) * 3
    assert found["smtp_connection_cache_time_limit"] == "7s"
    assert found["queue_directory"] == str(tmp_path / "queue")
    assert found["data_directory"] == str(tmp_path / "data")
    assert found["maillog_file"] == str(tmp_path / "x.log")
    assert found["transport_maps"] == f"texthash:{tmp_path / 'config' / 'transport'}"
    assert found["smtp-big-one_destination_concurrency_limit"] == "7"
    assert found["smtp-mxed_initial_destination_concurrency"] == "3"


def test_each_destination_has_a_client_of_its_own(files: Files):
    """With as many processes as connections, and with its messages a connection; nothing runs in a chroot."""
    services = {line.split()[0]: line.split() for line in files.master_cf().splitlines() if line[0] != " "}

    assert "smtp-big-one unix - - n - 7 smtp\n  -o smtp_connection_reuse_count_limit=20\n" in files.master_cf()
    assert services["smtp-mxed"][-2:] == ["3", "smtp"]
    assert services["smtp"][-2:] == ["300", "smtp"]
    assert services["127.0.0.1:2525"][-1] == "smtpd"
    assert {words[4] for words in services.values()} == {"n"}


def test_domains_go_to_the_client_of_their_mail_host(files: Files):
    """Hosted ones too, since they lead to the same place; a place that nobody names has the common one."""
    assert files.transport().splitlines() == [
        "big.test smtp-big-one:[127.0.0.2]:2526",
        "hosted.test smtp-big-one:[127.0.0.2]:2526",
        "a.test smtp:[127.0.0.3]:2526",
        "b.test smtp:[127.0.0.3]:2526",
        "small.test smtp:[127.0.0.4]:2526",
    ]


async def test_a_destination_known_by_its_mail_hosts_is_found_in_the_dns(tmp_path: Path):
    """One question for each place that several domains share; those that lead there share the client."""
    zone = {
        name: {"MX": [f"10 {name.removesuffix('.test')}.{'mxed' if at[8] == '3' else 'other'}-mail.test."]}
        for name, at in ROUTES.items()
    }
    async with ToyDns(zone) as dns:
        port = int(dns.address.rpartition(":")[2])
        files = Files(plan_for(tmp_path, dns_port=port), Path("/p"), tmp_path / "x.log")

        lines = (await asyncio.to_thread(files.transport)).splitlines()

    assert [line.split()[1].partition(":")[0] for line in lines] == [
        "smtp-big-one", "smtp-big-one", "smtp-mxed", "smtp-mxed", "smtp",
    ]  # fmt: skip
    assert dns.queries.total() == 1


def test_one_route_for_all_is_understood(tmp_path: Path):
    """The star stands for whatever has no line of its own."""
    files = Files(plan_for(tmp_path, routes={"*": "127.0.0.2:25"}), Path("/p"), tmp_path / "x.log")

    assert files.transport() == "* smtp:[127.0.0.2]:25\n"
