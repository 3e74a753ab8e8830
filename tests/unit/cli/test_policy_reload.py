"""`mta policy reload` against a face that makes something up of it."""

import json
from pathlib import Path

import pytest

from mta.admin.pages import ReloadPage
from mta.cli import main
from mta.testing.admin_rig import FakeAsker, face_in_thread

Printed = pytest.CaptureFixture[str]


def reloaded(folder: Path, page: ReloadPage, *words: str) -> int:
    """-> The exit status."""

    async def reload() -> ReloadPage:
        return page

    with face_in_thread(FakeAsker(), folder, reload=reload) as address:
        return main(["policy", "reload", "--admin", address, *words])


def test_all_took_it(tmp_path: Path, capsys: Printed):
    """A line says how many, another one what waits for a restart, and what is hardly meant has one each."""
    page = ReloadPage(2, restart=["hostname", "queue"], warnings=["policies/gogle.toml: is for nobody"])
    status = reloaded(tmp_path, page)

    assert status == 0
    assert capsys.readouterr().out.splitlines() == [
        "reloaded: 2 workers took it",
        "changed, but only a restart makes it so: hostname, queue",
        "warning: policies/gogle.toml: is for nobody",
    ]


def test_what_is_wrong_is_told_whole(tmp_path: Path, capsys: Printed):
    """Every line that the server has, and status 1."""
    status = reloaded(tmp_path, ReloadPage(wrong=["policies/a.toml:3: no\x1b[2J", "policies/b.toml:1: nor this"]))

    assert status == 1
    assert capsys.readouterr().out.splitlines() == [
        "not reloaded, nothing was changed:",
        "  policies/a.toml:3: no\\x1b[2J",
        "  policies/b.toml:1: nor this",
    ]


def test_a_worker_that_did_not_take_it_is_named(tmp_path: Path, capsys: Printed):
    """With status 1, for not all mail keeps to what is written."""
    status = reloaded(tmp_path, ReloadPage(1, problems=["worker 1 has not taken it yet"]))

    printed = capsys.readouterr()
    assert status == 1
    assert printed.out == "reloaded: 1 worker took it\n"
    assert printed.err == "mta policy reload: worker 1 has not taken it yet\n"


def test_programs_get_the_page(tmp_path: Path, capsys: Printed):
    """As the server gave it."""
    status = reloaded(tmp_path, ReloadPage(2), "--json")

    assert status == 0
    page = {"workers": 2, "wrong": [], "restart": [], "warnings": [], "problems": []}
    assert json.loads(capsys.readouterr().out) == page
