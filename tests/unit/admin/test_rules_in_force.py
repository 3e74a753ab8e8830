"""What rules set off: kept, told to every worker but the one that knows it, changed by an admin, ended."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mta.admin import rules_file
from mta.admin.rules_in_force import RulesInForce
from mta.reporting.questions import Rules
from mta.testing.admin_rig import FakeAsker
from mta.testing.fake_clock import FakeClock
from mta_policies.answers import Answer
from mta_policies.firing import Change
from mta_policies.firings import Firings
from mta_policies.rulebook import Action

KEY = "site mx.x > google"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.json"


@pytest.fixture
async def rules(path: Path, asker: FakeAsker, clock: FakeClock) -> AsyncIterator[RulesInForce]:
    made = RulesInForce(path, asker, clock)
    made.start()
    yield made
    await made.stop()


def fired(clock: FakeClock) -> Change:
    answer = Answer(421, "4.7.28", "too fast", "mail")
    return Firings().fire(
        "google", "fast", Action("suspend", for_s=60.0), KEY, answer, clock.wall_s(), "f1", scope="site"
    )


def told(asker: FakeAsker) -> list[tuple[int | None, list[str], bool]]:
    return [
        (worker, [change.what for change in question.changes], question.tells)
        for question, worker in asker.asked
        if isinstance(question, Rules)
    ]


async def reported(rules: RulesInForce, clock: FakeClock) -> None:
    rules.reported(1, [fired(clock)])
    await rules._tasks.ended()


async def test_what_a_worker_reports(rules: RulesInForce, asker: FakeAsker, clock: FakeClock, path: Path) -> None:
    """It is written down, and the others hear of it; the same once more is no news."""
    await reported(rules, clock)
    await reported(rules, clock)

    assert [firing.id for firing in rules.firings()] == ["f1"]
    assert [firing.id for firing in rules_file.load(path).firings] == ["f1"]
    assert told(asker) == [(0, ["fired"], False)]


async def test_a_command(rules: RulesInForce, asker: FakeAsker, clock: FakeClock, path: Path) -> None:
    """All hear of it, one of them tells the event log, and the file has it."""
    await reported(rules, clock)
    asker.asked.clear()

    done = await rules.cancel("f1", "kim", "they called")

    assert done is not None
    assert (done[0].by, done[0].why, done[1]) == ("command: kim", "they called", [])
    assert told(asker) == [(0, ["cancelled"], True), (1, ["cancelled"], False)]
    assert rules_file.load(path).firings == ()
    assert await rules.cancel("f1", "kim", "") is None


async def test_a_worker_that_starts_gets_all(rules: RulesInForce, asker: FakeAsker, clock: FakeClock) -> None:
    """Firings and mutes."""
    await reported(rules, clock)
    await rules.mute("fast", 60.0, "kim", "")
    asker.asked.clear()

    rules.worker_up(1)
    await rules._tasks.ended()

    [(question, worker)] = asker.asked
    assert isinstance(question, Rules)
    assert question.snapshot is not None
    assert (worker, len(question.snapshot.firings), len(question.snapshot.mutes)) == (1, 1, 1)


async def test_a_disk_that_is_full(
    rules: RulesInForce, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """What an admin says holds all the same, and he hears that it is not written down."""
    await reported(rules, clock)

    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mta.admin.kept_file.save", full)
    done = await rules.cancel("f1", "kim", "")
    monkeypatch.undo()

    assert done is not None
    assert done[1] == ["it holds, but could not be written down: No space left on device"]
    assert rules.firings() == []


async def test_a_stop_while_the_file_is_written(
    rules: RulesInForce, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for that: nothing stops the thread, and another one beside it would spoil the file."""
    loop = asyncio.get_running_loop()
    jobs: list[asyncio.Future[None]] = []

    def in_a_thread(executor: object, work: object, *args: object) -> asyncio.Future[None]:
        jobs.append(loop.create_future())
        return jobs[-1]

    monkeypatch.setattr(loop, "run_in_executor", in_a_thread)
    rules.reported(1, [fired(clock)])
    stopping = loop.create_task(rules.stop())
    for _ in range(20):
        await asyncio.sleep(0)
    begun = [job.done() for job in jobs]
    jobs[0].set_result(None)
    await stopping

    assert begun == [False]
    assert len(jobs) == 1
