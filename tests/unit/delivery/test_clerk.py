"""The clerk: every question has an answer, and none stops the worker."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from mta.delivery.clerk import Clerk
from mta.model.selection import Selection
from mta.reporting.questions import Act, Failed, Question, Suspend
from mta.reporting.waiting import List, Show, Summarized, Summary
from mta.reporting.worker_counts import Metrics, WorkerCounts
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

ALL = Selection(all=True)
OF_WHAT_WAITS: list[Question] = [Summary(), List(ALL), Show("m1"), Act("hold", ALL)]


def rig_for(loop: SwiftLoop, tmp_path: Path) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.domain("a.test", "mx.a.test", address="127.0.0.1")
    return rig


@swiftly
async def test_what_waits_is_not_touched_before_it_is_known(loop: SwiftLoop, tmp_path: Path):
    """A worker that has just started answers with its counters, and takes suspensions."""
    rig = rig_for(loop, tmp_path)
    clerk = Clerk(rig.dispatcher)  # nobody has opened it

    for question in OF_WHAT_WAITS:
        assert isinstance(await clerk.answer(question), Failed)
    assert isinstance(await clerk.answer(Metrics()), WorkerCounts)
    assert await clerk.answer(Suspend([rig.suspension(all=True)])) is None
    assert rig.dispatcher.suspensions.active
    await rig.stop()


@swiftly
async def test_a_worker_that_stops_says_so(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also to a question that it was about to answer: what was touched stays touched."""
    monkeypatch.setattr("mta.delivery.walk.TURN_S", 0.0)
    rig = rig_for(loop, tmp_path)
    await rig.suspend(rig.suspension(all=True))
    for _ in range(600):
        rig.send("x@a.test")
    await asyncio.sleep(1)

    begun = loop.create_task(rig.clerk.answer(Act("hold", ALL)))
    while not rig.dispatcher.held:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    await rig.stop()

    assert await begun == Failed("the worker is stopping")
    for question in OF_WHAT_WAITS:
        assert await rig.clerk.answer(question) == Failed("the worker is stopping")
    assert 0 < rig.dispatcher.held < 600


@swiftly
async def test_an_error_of_ours_is_an_answer(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is reported, and the next question is answered."""
    rig = rig_for(loop, tmp_path)

    def fails() -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(rig.dispatcher.suspensions, "replace", lambda *_, **__: fails())
    answer = await rig.clerk.answer(Suspend([]))
    monkeypatch.undo()

    assert answer == Failed("an error of ours: RuntimeError: ours")
    assert rig.dispatcher.errors == 1
    assert [str(each["exception"]) for each in loop.problems] == ["ours"]
    loop.problems.clear()
    assert isinstance(await rig.clerk.answer(Summary()), Summarized)
    await rig.stop()


@swiftly
async def test_questions_and_answers_cross_as_json(loop: SwiftLoop, tmp_path: Path):
    """What the supervisor asks is read as it was meant, and what the clerk says can be written."""
    rig = rig_for(loop, tmp_path)
    rig.send("x@a.test", "ü@a.test", tenant="t")
    await asyncio.sleep(1)
    questions = [*OF_WHAT_WAITS, Metrics(), Suspend([rig.suspension(tenant="t")], True)]

    for question in questions:
        read = msgspec.json.decode(msgspec.json.encode(question), type=Question)
        assert read == question
        answer = await rig.clerk.answer(read)
        assert not isinstance(answer, Failed)
        assert msgspec.json.decode(msgspec.json.encode(answer)) is not None or answer is None
    await rig.stop()


@swiftly
async def test_several_questions_at_once_are_all_answered(loop: SwiftLoop, tmp_path: Path):
    """Walks wait for each other, counters for nobody."""
    rig = rig_for(loop, tmp_path)
    await rig.suspend(rig.suspension(all=True))
    for _ in range(300):
        rig.send("x@a.test")
    await asyncio.sleep(1)

    answers = await asyncio.gather(*(rig.clerk.answer(question) for question in [*OF_WHAT_WAITS * 3, Metrics()]))
    await rig.stop()

    assert not any(isinstance(answer, Failed) for answer in answers)
    assert isinstance(answers[-1], WorkerCounts)


@swiftly
async def test_who_asks_the_same_hears_the_same(loop: SwiftLoop, tmp_path: Path):
    """An impatient admin costs no second walk, and one who goes away takes nothing from the others."""
    rig = rig_for(loop, tmp_path)
    await rig.suspend(rig.suspension(all=True))
    for _ in range(50):
        rig.send("x@a.test")
    await asyncio.sleep(1)

    asked = [loop.create_task(rig.clerk.answer(Summary())) for _ in range(10)]
    await asyncio.sleep(0)
    asked.pop(0).cancel()
    answers = await asyncio.gather(*asked)
    again = await rig.clerk.answer(Summary())
    await rig.stop()

    assert isinstance(again, Summarized)
    assert again.messages == 50
    assert all(answer is answers[0] for answer in answers)
    assert again is not answers[0]
