"""Counters that outlive the server: nobody is told to go on before the file says so."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mta.admin import counters_file, kept_file
from mta.admin.counters import KEPT_S, Counters
from mta.admin.kept_file import KeptFileError
from mta.clock import SystemClock
from mta.reporting.counting import Answered, Told
from mta_policies.allotments import Draw

START_S = int(SystemClock().wall_s())
DAY = (START_S, START_S + 86400)


class Supervisor:
    """Who hears the answers."""

    def __init__(self, path: Path, clock: Any = None) -> None:
        self.path = path
        self.answers: list[tuple[int, int, list[int]]] = []
        self.complaints: list[str] = []
        self.heard = asyncio.Event()
        self.counters = Counters(path, clock or SystemClock(), self._answer, self.complaints.append)
        self.counters.start()

    def _answer(self, worker: int, answered: Answered) -> None:
        self.answers.append((worker, answered.number, answered.got))
        self.heard.set()

    async def draw(self, number: int, wanted: int, worker: int = 0, whole: int = 100) -> None:
        self.counters.told(worker, Told(number, draws=[Draw("k", *DAY, whole, wanted)]))
        await self.hears()

    async def hears(self) -> None:
        await self.heard.wait()
        self.heard.clear()


def drawn(path: Path) -> int:
    return counters_file.load(path).drawn["k"][DAY[0]][1]


async def test_an_answer_comes_when_the_file_says_what_it_says(tmp_path: Path):
    """And a quota that is used up is answered without a write."""
    path = tmp_path / counters_file.NAME
    supervisor = Supervisor(path)
    await supervisor.draw(1, 60)
    assert drawn(path) == 60
    await supervisor.draw(2, 60, worker=1)
    assert drawn(path) == 100
    before = path.stat().st_mtime_ns
    await supervisor.draw(3, 60)
    assert supervisor.answers == [(0, 1, [60]), (1, 2, [40]), (0, 3, [0])]
    assert path.stat().st_mtime_ns == before
    await supervisor.counters.stop()


async def test_a_server_that_is_killed_goes_on_where_the_file_is(tmp_path: Path):
    """Nothing of a quota is given twice."""
    path = tmp_path / counters_file.NAME
    first = Supervisor(path)
    await first.draw(1, 70)
    second = Supervisor(path)
    await second.draw(1, 70)
    assert second.answers == [(0, 1, [30])]
    await second.counters.stop()
    await first.counters.stop()


async def test_states_are_kept_by_key_and_the_last_one_holds(tmp_path: Path):
    """Whoever saved it; one that nobody has saved for months is dropped."""
    path = tmp_path / counters_file.NAME
    now = [1_800_000_000.0]

    class Clock(SystemClock):
        def wall_s(self) -> float:
            return now[0]

    supervisor = Supervisor(path, Clock())
    for number, (worker, key, state) in enumerate([(0, "old", b"1"), (0, "k", b"2"), (1, "k", b"3")]):
        supervisor.counters.told(worker, Told(number, {"limit": {key: msgspec.Raw(state)}}))
    now[0] += KEPT_S / 2
    supervisor.counters.told(1, Told(3, {"limit": {"k": msgspec.Raw(b"4")}}))
    await supervisor.counters.stop()
    assert {key: bytes(state) for key, state in counters_file.load(path).states_of("limit").items()} == {
        "old": b"1",
        "k": b"4",
    }
    again = Supervisor(path, Clock())
    now[0] += KEPT_S / 2
    again.counters.told(0, Told(1, {"limit": {"new": msgspec.Raw(b"5")}}))
    await again.counters.stop()
    assert set(counters_file.load(path).states_of("limit")) == {"k", "new"}


async def test_while_the_disk_refuses_nobody_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is said once, and what came is written when the disk takes it again."""
    monkeypatch.setattr("mta.admin.counters.AGAIN_S", 0.001)
    path = tmp_path / counters_file.NAME
    supervisor = Supervisor(path)
    fails = [True, True, False]

    def save(to: Path, value: object) -> None:
        if fails.pop(0):
            raise OSError(28, "No space left on device")
        kept_file_save(to, value)

    kept_file_save = kept_file.save
    monkeypatch.setattr(kept_file, "save", save)
    await supervisor.draw(1, 60)
    assert fails == []
    assert len(supervisor.complaints) == 1
    assert "No space left on device" in supervisor.complaints[0]
    assert drawn(path) == 60
    await supervisor.counters.stop()


def test_a_file_that_is_none_of_ours_stops_the_start(tmp_path: Path):
    """An empty one would begin every quota afresh."""
    path = tmp_path / counters_file.NAME
    path.write_text("no json")

    async def start() -> None:
        Supervisor(path)

    with pytest.raises(KeptFileError, match="remove it to begin with nothing used of any quota"):
        asyncio.run(start())
