"""Suspensions: kept, told, ended."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.admin import suspension_file
from mta.admin import suspensions as room
from mta.admin.kept_file import KeptFileError
from mta.admin.suspensions import Suspensions, TooManyError
from mta.model.selection import Selection
from mta.reporting.questions import Suspend, Suspension
from mta.testing.admin_rig import FakeAsker
from mta.testing.fake_clock import FakeClock

SHOP = Selection(sender="*@shop.test")
EVERYTHING = Selection(all=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "suspensions.json"


@pytest.fixture
async def suspensions(path: Path, asker: FakeAsker, clock: FakeClock) -> AsyncIterator[Suspensions]:
    made = Suspensions(path, asker, clock)
    made.start()
    yield made
    await made.stop()


def told(asker: FakeAsker) -> list[tuple[int | None, list[str], bool, str]]:
    """What each worker was told: its number, ids, whether it tells, who ended."""
    return [
        (worker, [each.id for each in question.suspensions], question.tells, question.ended_by)
        for question, worker in asker.asked
        if isinstance(question, Suspend)
    ]


async def test_a_suspension_is_written_down_before_anybody_is_told(
    suspensions: Suspensions, asker: FakeAsker, clock: FakeClock, path: Path
) -> None:
    """Every worker gets all that hold, and one of them tells the event log."""
    on_disk: list[list[Suspension]] = []
    ask = asker.ask

    async def spy(question: Suspend, *, worker: int | None = None) -> list[bytes | None]:
        on_disk.append(suspension_file.load(path))
        return await ask(question, worker=worker)

    asker.ask = spy  # type: ignore[method-assign]

    added, problems = await suspensions.add(SHOP, 3600.0, "too fast", "kim")

    assert added == Suspension(added.id, SHOP, clock.wall_s(), clock.wall_s() + 3600.0, "too fast", "kim")
    assert problems == []
    assert told(asker) == [(0, [added.id], True, ""), (1, [added.id], False, "")]
    assert on_disk == [[added], [added]]
    assert suspensions.current() == [added]


async def test_another_worker_tells_where_the_first_is_down(suspensions: Suspensions, asker: FakeAsker) -> None:
    """Who is down is named, and hears of it when it comes up."""
    asker.down = {0}

    added, problems = await suspensions.add(SHOP, 3600.0, "", "kim")

    assert told(asker) == [(0, [added.id], True, ""), (1, [added.id], True, "")]
    assert problems == ["worker 0 does not answer"]


async def test_a_worker_that_comes_up_gets_what_holds(suspensions: Suspensions, asker: FakeAsker) -> None:
    """All of it, without waiting for the next change."""
    added, _ = await suspensions.add(SHOP, 3600.0, "", "kim")
    asker.asked.clear()

    suspensions.worker_up(1)
    await asyncio.sleep(0)

    assert told(asker) == [(1, [added.id], False, "")]


async def test_resuming_ends_one(suspensions: Suspensions, asker: FakeAsker, path: Path) -> None:
    """The others hold on; who ended it is told."""
    first, _ = await suspensions.add(SHOP, 3600.0, "", "kim")
    second, _ = await suspensions.add(EVERYTHING, 60.0, "", "kim")
    asker.asked.clear()

    resumed = await suspensions.resume(first.id, "lee")

    assert resumed == (first, [])
    assert told(asker) == [(0, [second.id], True, "lee"), (1, [second.id], False, "lee")]
    assert suspension_file.load(path) == [second]
    assert await suspensions.resume(first.id, "lee") is None


async def test_the_next_to_end_is_listed_first(suspensions: Suspensions, clock: FakeClock) -> None:
    """And one that is over is not listed any more, though nobody ended it yet."""
    later, _ = await suspensions.add(SHOP, 3600.0, "", "kim")
    sooner, _ = await suspensions.add(EVERYTHING, 60.0, "", "kim")

    assert suspensions.current() == [sooner, later]
    clock.advance(61)
    assert suspensions.current() == [later]


async def test_time_ends_them(
    suspensions: Suspensions, asker: FakeAsker, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its time is over it leaves the file, and the workers are told, by nobody's order."""
    monkeypatch.setattr(room, "WAKE_S_MAX", 0.001)
    added, _ = await suspensions.add(SHOP, 3600.0, "", "kim")
    asker.asked.clear()
    ended = asyncio.Event()
    ask = asker.ask

    async def spy(question: Suspend, *, worker: int | None = None) -> list[bytes | None]:
        ended.set() if worker == 1 else None
        return await ask(question, worker=worker)

    asker.ask = spy  # type: ignore[method-assign]
    clock.advance(3601)
    await ended.wait()

    assert added.until_s < clock.wall_s()
    assert suspension_file.load(path) == []
    assert told(asker)[0] == (0, [], True, "")


async def test_they_outlive_the_server(
    suspensions: Suspensions, asker: FakeAsker, clock: FakeClock, path: Path
) -> None:
    """A face that starts later takes up what the file holds."""
    added, _ = await suspensions.add(SHOP, 3600.0, "why", "kim")
    await suspensions.stop()

    successor = Suspensions(path, asker, clock)
    successor.start()
    asker.asked.clear()
    successor.worker_up(0)
    await asyncio.sleep(0)
    await successor.stop()

    assert successor.current() == [added]
    assert told(asker) == [(0, [added.id], True, "")]


async def test_a_file_that_is_none_of_ours_stops_the_start(asker: FakeAsker, clock: FakeClock, path: Path) -> None:
    """Rather than let go what somebody wanted to stay; the sentence says what to do."""
    path.write_text("half a li")  # noqa: ASYNC240 - a few bytes

    with pytest.raises(KeptFileError, match=r"suspensions\.json cannot be read: .*remove it"):
        Suspensions(path, asker, clock).start()


async def test_what_cannot_be_written_does_not_hold(suspensions: Suspensions, asker: FakeAsker, path: Path) -> None:
    """Nobody is told of a suspension that a restart would forget, and none is ended that it would bring back."""
    added, _ = await suspensions.add(SHOP, 3600.0, "", "kim")
    asker.asked.clear()
    path.with_name("suspensions.json.new").mkdir()

    with pytest.raises(OSError, match="directory"):
        await suspensions.add(EVERYTHING, 60.0, "", "kim")
    with pytest.raises(OSError, match="directory"):
        await suspensions.resume(added.id, "kim")

    assert suspensions.current() == [added]
    assert told(asker) == []


async def test_there_is_a_most(suspensions: Suspensions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs something with every message."""
    monkeypatch.setattr(room, "SUSPENSIONS_MAX", 2)
    await suspensions.add(SHOP, 60.0, "", "kim")
    await suspensions.add(SHOP, 60.0, "", "kim")

    with pytest.raises(TooManyError, match="2 suspensions hold already"):
        await suspensions.add(SHOP, 60.0, "", "kim")


async def test_many_at_once_are_all_kept(suspensions: Suspensions, asker: FakeAsker, path: Path) -> None:
    """Changes wait for each other; the last that workers hear is everything."""
    added = await asyncio.gather(*(suspensions.add(SHOP, 60.0 + number, "", "kim") for number in range(20)))

    ids = {suspension.id for suspension, _ in added}
    assert len(ids) == 20
    assert {each.id for each in suspension_file.load(path)} == ids
    assert set(told(asker)[-1][1]) == ids
