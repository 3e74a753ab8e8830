"""What counts is on disk before it is used: one request at a time, answered once, loaded by the next life."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from mta.reporting.counting import Answered
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly


class Kept:
    """Has one state a key."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.wanted: dict[str, int] = {}
        self.is_saved: list[dict[str, int]] = []
        self.loaded: dict[str, int] = {}
        self.asked = 0

    def to_save(self, wall_s: float) -> Mapping[str, int]:
        self.asked += 1
        wanted, self.wanted = self.wanted, {}
        return wanted

    def saved(self, states: Mapping[str, int]) -> None:
        self.is_saved.append(dict(states))

    def dump(self, wall_s: float) -> Mapping[str, int]:
        return self.now

    def load(self, states: Mapping[str, int]) -> None:
        self.loaded = dict(states)


@swiftly
async def test_one_request_is_under_way_at_a_time(loop: SwiftLoop, tmp_path: Path):
    """What comes meanwhile goes with the next one, at once when the answer is there."""
    rig = DeliveryRig(loop, tmp_path, port=0)
    kept, other = Kept(), Kept()
    keeping = rig.dispatcher.keeping
    keeping.register("one", kept, int)
    keeping.register("two", other, int)
    rig.counters.is_stuck = True
    kept.wanted, other.wanted = {"a": 1}, {"a": 7}
    keeping.soon()
    await asyncio.sleep(1)
    assert kept.is_saved == []
    asked = kept.asked
    kept.wanted = {"a": 2, "b": 3}
    await asyncio.sleep(1)
    assert kept.asked == asked
    rig.counters.go_on()
    await asyncio.sleep(0.01)
    assert kept.is_saved == [{"a": 1}, {"a": 2, "b": 3}]
    assert other.is_saved == [{"a": 7}]
    assert rig.counters.told == 2
    await rig.stop()


@swiftly
async def test_the_next_life_hears_what_was_kept(loop: SwiftLoop, tmp_path: Path):
    """After a crash what was saved last, after a clean stop what was really used; also who registers later."""
    rig = DeliveryRig(loop, tmp_path, port=0)
    kept = Kept()
    keeping = rig.dispatcher.keeping
    keeping.register("one", kept, int)
    kept.wanted = {"a": 10, "b": 1}
    keeping.soon()
    await asyncio.sleep(0.01)
    after_crash = Kept()
    rig.counters.serve(keeping)
    keeping.register("one", after_crash, int)
    assert after_crash.loaded == {"a": 10, "b": 1}
    after_crash.now = {"a": 4}
    await keeping.stop()
    after_stop = Kept()
    rig.counters.serve(keeping)
    keeping.register("one", after_stop, int)
    assert after_stop.loaded == {"a": 4, "b": 1}
    await rig.stop()


@swiftly
async def test_a_stop_does_not_wait_for_ever(loop: SwiftLoop, tmp_path: Path):
    """Of a disk that takes nothing, or a supervisor that is gone."""
    rig = DeliveryRig(loop, tmp_path, port=0)
    kept = Kept()
    rig.dispatcher.keeping.register("one", kept, int)
    rig.counters.is_stuck = True
    kept.now = {"a": 1}
    begun_s = loop.time()
    await rig.dispatcher.keeping.stop()
    assert loop.time() - begun_s < 5
    await rig.stop()


@swiftly
async def test_an_answer_for_an_earlier_life_is_nothing(loop: SwiftLoop, tmp_path: Path):
    """It says that something else is on disk."""
    rig = DeliveryRig(loop, tmp_path, port=0)
    kept = Kept()
    rig.dispatcher.keeping.register("one", kept, int)
    rig.counters.is_stuck = True
    kept.wanted = {"a": 1}
    rig.dispatcher.keeping.soon()
    await asyncio.sleep(0.5)
    rig.dispatcher.keeping.answered(Answered(1))
    assert kept.is_saved == []
    rig.counters.go_on()
    assert kept.is_saved == [{"a": 1}]
    await rig.stop()
