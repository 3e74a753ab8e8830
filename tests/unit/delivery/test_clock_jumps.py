"""Somebody sets the clock: due times mean the new one, time-outs and rates do not notice, nothing comes as a storm."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from bench.temper import most_in_window
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue.store import Loaded

HOUR_S = 3600.0
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
MANY = 1_000
RATE = 50
RATED = PLAIN.replace("[limits]\n", f'[limits]\nrate = "{RATE}/s"\n').replace('expire = "1d"', 'expire = "1000d"')
AT_ONCE_MAX = 2_000  # what one look at the timetable may read back


def rig_of(loop: SwiftLoop, tmp_path: Path, sink: Sink, default: str = PLAIN) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
    rig.domains_of(sink.profiles)
    return rig


@swiftly
async def test_what_a_jump_forward_makes_due_goes_in_order_and_within_the_limits(loop: SwiftLoop, tmp_path: Path):
    """A year at once: all that waited for a later hour is due together, is read back in slices and leaves no faster
    than the policy lets it."""
    async with Sink([Profile(name="a", times=True)]) as sink:
        rig = rig_of(loop, tmp_path, sink, RATED)
        begun_s = loop.wall_s()
        for number in range(MANY):
            rig.send(f"r{number}@a.test", send_at_s=begun_s + HOUR_S + number)
        await asyncio.sleep(10)
        read: list[int] = []
        load_soon = rig.store.load_soon

        def watched(seqs: Sequence[int], done: Callable[[list[Loaded]], None]) -> None:
            read.append(len(seqs))
            load_soon(seqs, done)

        rig.store.load_soon = watched  # pyright: ignore[reportAttributeAccessIssue]
        before_s = loop.time()
        loop.jump_s = YEAR_S
        await rig.settled()
        took_s = loop.time() - before_s
        await rig.stop()

    provider = sink.profiles["a"]
    assert set(provider.by_recipient().values()) == {1}
    assert provider.connections_max <= 10
    assert max(read) <= AT_ONCE_MAX
    assert took_s >= MANY / RATE - 1
    arrived = [int(each.recipients[0].partition("@")[0][1:]) for each in provider.deliveries]
    assert max(abs(place - number) for place, number in enumerate(arrived)) <= 3 * 10  # ten connections overtake a bit
    delivered = rig.events("delivered")
    assert {each["attempt"] for each in delivered} == {1}


@swiftly
async def test_a_retry_waits_for_the_time_that_was_said(loop: SwiftLoop, tmp_path: Path):
    """An hour back, and it waits an hour longer; new mail to the same domain goes at once."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        rig.send("tempfail.1@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        due_s = rig.events("deferred")[0]["next_attempt"]
        loop.jump_s = -HOUR_S
        rig.send("new@a.test")
        await asyncio.sleep(600)
        went = sink.profiles["a"].by_recipient()
        await rig.settled()
        await rig.stop()

    assert went == {"new@a.test": 1}
    [again] = [each for each in rig.events("delivered") if each["recipient"] == "tempfail.1@a.test"]
    assert due_s <= again["time"] <= due_s + 5


@swiftly
async def test_parked_mail_that_is_let_go_before_its_time_comes_again_goes_then(loop: SwiftLoop, tmp_path: Path):
    """It was due when it was parked; then it is an hour earlier, and only another recipient of its message is due."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        other = rig.suspension(DAY_S / 2, "s1", domain="b.test")
        await rig.suspend(other)
        rig.send("tempfail.1@a.test", "x@b.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        await rig.suspend(other, rig.suspension(HOUR_S, "s2", domain="a.test"))
        await rig.until(lambda: rig.dispatcher.parking.parts == 2)
        loop.jump_s = -HOUR_S
        await asyncio.sleep(5)
        await rig.suspend(other)
        await rig.until(lambda: rig.finals == 1, 2 * HOUR_S)
        await rig.suspend()
        await rig.settled()
        await rig.stop()

    assert sink.profiles["a"].by_recipient() == {"tempfail.1@a.test": 1}


@swiftly
async def test_an_hour_forward_and_back_loses_and_doubles_nothing(loop: SwiftLoop, tmp_path: Path):
    """Again and again while mail flows, is deferred and waits: what was put off while the clock was ahead comes when it
    is there again."""
    async with Sink([Profile(name="a", latency_s=0.05)]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        for step, jump_s in enumerate((HOUR_S, -HOUR_S, 2 * HOUR_S, 0.0, -2 * HOUR_S, 0.0)):
            for number in range(20):
                rig.send(f"tempfail.{number % 3}+{step}.{number}@a.test")
            await asyncio.sleep(1)
            loop.jump_s = jump_s
        await rig.settled(DAY_S)
        await rig.stop()

    assert set(sink.profiles["a"].by_recipient().values()) == {1}
    assert all(each["queued_s"] >= 0 for each in rig.events("delivered"))


@swiftly
async def test_mail_flows_while_the_clock_stands_still(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is new goes, a peer that hangs is left in its time; retries come when the clock goes on."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        frozen_s = loop.wall_s()
        monkeypatch.setattr(loop, "wall_s", lambda: frozen_s)
        rig.send("hang@b.test")
        rig.send("tempfail.1@a.test")
        for number in range(20):
            rig.send(f"r{number}@a.test")
        await asyncio.sleep(1_000)
        went = rig.finals
        left = [each["text"] for each in rig.events("deferred") if each["domain"] == "b.test"]
        monkeypatch.undo()
        await rig.until(lambda: rig.finals == 21)
        await rig.stop()

    assert went == 20
    assert left == ["timed out while waiting for the reply to RCPT"]


@swiftly
@pytest.mark.parametrize("jump_s", [YEAR_S, -HOUR_S], ids=["a year on", "an hour back"])
async def test_rates_do_not_see_the_clock(loop: SwiftLoop, tmp_path: Path, jump_s: float):
    """No more in any second than the policy says, whatever the clock did in the middle."""
    async with Sink([Profile(name="a", times=False)]) as sink:
        rig = rig_of(loop, tmp_path, sink, RATED)
        times_s: list[float] = []
        provider = sink.profiles["a"]
        mail = provider.mail

        def timed(connection_number: int, address: str = "") -> str:
            times_s.append(loop.time())
            return mail(connection_number, address)

        provider.mail = timed  # pyright: ignore[reportAttributeAccessIssue]
        for name in names(400, "a.test"):
            rig.send(name)
        await asyncio.sleep(3)
        loop.jump_s = jump_s
        await rig.settled()
        await rig.stop()

    assert len(times_s) == 400
    assert most_in_window(times_s) <= 2 * RATE  # a burst of one second's worth, and that second
    assert times_s[-1] - times_s[0] >= 400 / RATE - 2


@swiftly
async def test_what_is_over_its_time_after_a_jump_is_given_up_and_told(loop: SwiftLoop, tmp_path: Path):
    """The time that a message may take is the wall clock's, as its sender reads it."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        for number in range(300):
            rig.send(f"tempfail+{number}@a.test")
        await rig.until(lambda: len(rig.events("deferred")) == 300)
        loop.jump_s = YEAR_S
        rig.send("new@a.test")
        await rig.settled()
        await rig.stop()

    assert len(rig.events("expired")) == 300
    assert sink.profiles["a"].by_recipient() == {"new@a.test": 1}


@swiftly
@pytest.mark.parametrize(("jump_s", "lasts_s"), [(300.0, 300.0), (-300.0, 900.0)], ids=["on", "back"])
async def test_a_suspension_ends_at_the_time_that_was_said(
    loop: SwiftLoop, tmp_path: Path, jump_s: float, lasts_s: float
):
    """Five minutes on, and it is over five minutes sooner; five back, and later."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_of(loop, tmp_path, sink)
        begun_s = loop.time()
        await rig.suspend(rig.suspension(600.0, domain="a.test"), tells=True)
        rig.send("x@a.test")
        await asyncio.sleep(5)
        loop.jump_s = jump_s
        await rig.until(lambda: rig.finals == 1)
        ended_s = loop.time() - begun_s
        await rig.stop()

    assert lasts_s <= ended_s <= lasts_s + 3
    assert [each["event"] for each in rig.events() if each["event"] in ("suspended", "resumed")] == [
        "suspended",
        "resumed",
    ]
