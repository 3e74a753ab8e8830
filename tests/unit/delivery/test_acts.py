"""Retry, hold, release and cancel, over real loopback sockets: who is touched, and that each goes out once or never."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.sink import Profile, Sink
from mta.delivery.clerk import Clerk
from mta.delivery.job import LOADING, SIGNING, Job
from mta.delivery.registry import HELD_S, is_held
from mta.model import envelope as envelopes
from mta.model.selection import Selection
from mta.reporting.events import Events
from mta.reporting.questions import Act, Acted, Failed
from mta.reporting.retelling import tell_again
from mta.resolve.errors import no_answer
from mta.resolve.sites import MailHosts, MxHost
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names, slow_signatures
from mta.testing.memory_disk import MemoryDisk
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue.store import Origin, Store

HOUR_S = 3_600.0


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    rig = DeliveryRig(loop, tmp_path, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


# ---- hold and release


@swiftly
async def test_what_is_held_does_not_go(loop: SwiftLoop, tmp_path: Path):
    """Mail for a site that is down is held; when the site is up nothing goes, and all of it after the release."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        for name in names(5, "a.test"):
            rig.send(name)
        await asyncio.sleep(5)

        held = await rig.act("hold")
        await sink.profiles["a"].set_down(False)
        await asyncio.sleep(HOUR_S)
        assert rig.fates() == {}
        assert rig.dispatcher.held == 5
        rig.is_clean()
        released = await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert (held.touched, held.messages, held.sending) == (5, 5, 0)
    assert (released.touched, released.messages) == (5, 5)
    assert sink.profiles["a"].by_recipient() == {f"r{n}@a.test": 1 for n in range(5)}
    assert rig.dispatcher.held == 0


@swiftly
async def test_twice_is_once(loop: SwiftLoop, tmp_path: Path):
    """What is held already is not touched again, and what is not held cannot be released."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test", "y@a.test")
        await asyncio.sleep(1)

        assert (await rig.act("release")).touched == 0
        assert (await rig.act("hold")).touched == 2
        assert (await rig.act("hold")).touched == 0
        assert (await rig.act("retry")).touched == 0
        assert rig.dispatcher.held == 2
        assert (await rig.act("release")).touched == 2
        assert (await rig.act("release")).touched == 0
        await sink.profiles["a"].set_down(False)
        await rig.settled()
        await rig.stop()


@swiftly
async def test_held_mail_is_held_after_a_restart(loop: SwiftLoop, tmp_path: Path):
    """Also what was never tried; attempts and due time are as before when it is released."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.send("tempfail.1@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        await sink.profiles["a"].set_down(True)
        rig.send("new@a.test")
        await asyncio.sleep(1)
        await rig.act("hold")
        await rig.stop()
        await sink.profiles["a"].set_down(False)

        (tmp_path / "2").mkdir()
        after = rig_for(loop, tmp_path / "2", sink, disk=rig.disk)
        for seq, parts in after.recovered.waiting:
            after.dispatcher.found(seq, parts)
        await asyncio.sleep(HOUR_S)
        assert after.dispatcher.held == 2
        assert after.events() == []
        released = await after.act("release")
        await after.until(lambda: len(after.events("delivered")) == 2)
        await after.stop()

    assert released.touched == 2
    assert {line["recipient"]: line["attempt"] for line in after.events("delivered")} == {
        "tempfail.1@a.test": 2,
        "new@a.test": 1,
    }


@swiftly
async def test_what_an_admin_heard_of_is_on_stable_storage(loop: SwiftLoop, tmp_path: Path):
    """The power is lost at the moment of the answer: what was held is held, what was cancelled is no more."""
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        rig = DeliveryRig(loop, tmp_path / str(seed), port=1, disk=MemoryDisk(seed))
        rig.resolver.found["a.test"] = no_answer("a.test", "timeout")
        held, free = rig.send("held@a.test"), rig.send("released@a.test")
        rig.send("cancelled@a.test")
        await asyncio.sleep(1)
        await rig.act("hold")
        await rig.act("release", id=free)
        await rig.act("cancel", recipient="cancelled@*")
        rig.disk.lose_power()

        recovered = Store(Path("/queue/0"), disk=rig.disk).open()
        ids = dict(recovered.recent)
        found = [(ids[seq], is_held(due_s)) for seq, ((_, due_s),) in recovered.waiting]
        await rig.stop()

        assert found == [(held, True), (free, False)]


@swiftly
async def test_a_disk_that_does_not_take_it_is_told(loop: SwiftLoop, tmp_path: Path):
    """It holds until a crash, and whoever asked knows that."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.resolver.found["a.test"] = no_answer("a.test", "timeout")
    rig.send("x@a.test")
    await asyncio.sleep(1)

    def refuse(operation: str, path: Path) -> None:
        raise OSError(28, "No space left on device")

    rig.disk.on_call = refuse
    answer = await rig.clerk.answer(Act("hold", Selection(all=True)))
    rig.disk.on_call = lambda operation, path: None
    await rig.stop()

    assert isinstance(answer, Failed)
    assert "the disk does not take it" in answer.error
    assert rig.dispatcher.held == 1
    assert rig.dispatcher.errors == 0


@swiftly
async def test_orders_are_not_told_as_deferrals(loop: SwiftLoop, tmp_path: Path):
    """After a crash the queue tells each deferral once, however often it was written down since."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.send("tempfail.1@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        rig.send("new@a.test", send_at_s=loop.wall_s() + 600)
        await asyncio.sleep(1)
        for verb in ("hold", "release", "retry", "hold"):
            await rig.act(verb)
        await rig.until(lambda: rig.dispatcher.held == 1)
        await rig.stop()

    after = Store(Path("/queue/0"), disk=rig.disk, jobs=loop.jobs)
    lines: list[dict[str, Any]] = []
    events = Events(lambda line: lines.append(json.loads(line)), worker=0, prefix="e")
    for untold in after.open().untold:
        tell_again(events, untold, "me.test")
    await after.close()
    told = Counter((line["event"], line["id"]) for line in lines)
    assert told == {("deferred", "m1"): 1, ("delivered", "m1"): 1}


@swiftly
async def test_a_release_brings_the_old_time_back(loop: SwiftLoop, tmp_path: Path):
    """A deferred recipient that is held and released at once is tried when its schedule says, once."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.send("tempfail.1@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        due_s = rig.events("deferred")[0]["next_attempt"]

        for _ in range(3):
            await rig.act("hold")
            await rig.act("release")
        await rig.settled()
        await rig.stop()

    (delivered,) = rig.events("delivered")
    assert due_s <= delivered["time"] <= due_s + 2
    assert delivered["attempt"] == 2


@swiftly
async def test_time_does_not_run_out_while_mail_is_held(loop: SwiftLoop, tmp_path: Path):
    """It is given up when it is released too late."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace('"1d"', '"10m"'))
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test")
        await asyncio.sleep(1)

        await rig.act("hold")
        await asyncio.sleep(HOUR_S)
        assert rig.fates() == {}
        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert [line["recipient"] for line in rig.events("expired")] == ["x@a.test"]


@swiftly
async def test_delayed_mail_keeps_its_time(loop: SwiftLoop, tmp_path: Path):
    """Held and released, or told to be retried: it is not sent before its sender wants it."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        send_at_s = loop.wall_s() + 3600
        rig.send("x@a.test", send_at_s=send_at_s)
        await asyncio.sleep(1)

        assert (await rig.act("retry")).touched == 0
        assert (await rig.act("hold")).touched == 1
        assert (await rig.act("release")).touched == 1
        await rig.settled()
        await rig.stop()

    assert rig.events("delivered")[0]["time"] >= send_at_s


@swiftly
async def test_what_is_being_read_back_can_be_taken(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Held while its content is on its way from the disk: it does not go, and memory counts nothing for it."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        for name in names(4, "a.test"):
            rig.send(name)
        await asyncio.sleep(30)
        contents_soon = rig.store.contents_soon
        monkeypatch.setattr(rig.store, "content_now", lambda seq: None)
        monkeypatch.setattr(rig.store, "contents_soon", lambda *asked: loop.call_later(5, contents_soon, *asked))
        await sink.profiles["a"].set_down(False)
        await rig.act("retry")
        await rig.until(lambda: any(job.state == LOADING for seq in rig.seqs.values() for job in _jobs(rig, seq)))

        held = await rig.act("hold")
        await asyncio.sleep(60)
        rig.is_clean()
        assert rig.fates() == {}
        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert held.touched == 4


def _jobs(rig: DeliveryRig, seq: int) -> Sequence[Job]:
    return rig.dispatcher.registry.jobs(seq)


@swiftly
async def test_an_act_answers_bit_by_bit(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each answer says where the next question goes on, also where long nothing is met that is meant."""
    monkeypatch.setattr("mta.delivery.acts.ACT_S", -1.0)
    monkeypatch.setattr("mta.delivery.walk.ITEMS_AT_ONCE", 8)
    monkeypatch.setattr("mta.delivery.walk.GLANCES_AT_ONCE", 8)
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        for name in names(40, "a.test"):
            rig.send(name, send_at_s=loop.wall_s() + 900)
        await asyncio.sleep(10)

        act, looked_at, touched = Act("cancel", Selection(recipient="r39@*")), list[int](), 0
        while True:
            answer = await rig.clerk.answer(act)
            assert isinstance(answer, Acted)
            looked_at.append(answer.looked_at)
            touched += answer.touched
            if not answer.next:
                break
            act = msgspec.structs.replace(act, after=answer.next, until=answer.until)
        await rig.settled()
        await rig.stop()

    assert touched == 1
    assert looked_at == list(range(1, 41))


# ---- retry


@swiftly
async def test_a_retry_goes_at_once_and_only_once(loop: SwiftLoop, tmp_path: Path):
    """The time that the schedule had planned passes without another attempt."""
    default = PLAIN.replace('["5m"]', '["1h"]')
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=default)
        rig.send("tempfail.2@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        began_s = rig.events("deferred")[0]["time"]

        await asyncio.sleep(1800)
        retried = await rig.act("retry")
        await rig.settled()
        await rig.stop()

    assert retried.touched == 1
    attempts = [(line["event"], line["attempt"], line["time"] - began_s) for line in rig.events()]
    assert [(event, attempt) for event, attempt, _ in attempts] == [("deferred", 1), ("deferred", 2), ("delivered", 3)]
    assert attempts[1][2] == pytest.approx(1800, abs=3)
    assert attempts[2][2] == pytest.approx(1800 + 3600, abs=5)


@swiftly
async def test_a_retry_knocks_at_a_site_that_is_left_alone(loop: SwiftLoop, tmp_path: Path):
    """It need not wait for the end of the pause."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test")
        await asyncio.sleep(3600)
        await sink.profiles["a"].set_down(False)
        (site,) = rig.dispatcher.domains.sites.values()
        await rig.until(lambda: site.backoff.wait_s(loop.time()) > 30)

        asked_s = loop.time()
        retried = await rig.act("retry")
        await rig.until(lambda: rig.finals == 1)
        await rig.stop()

    assert retried.touched == 1
    assert loop.time() - asked_s < 15


@swiftly
async def test_a_retry_looks_a_domain_up_again(loop: SwiftLoop, tmp_path: Path):
    """Mail whose mail hosts could not be found goes as soon as they can."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.resolver.found["b.test"] = no_answer("b.test", "time-out")
        rig.send("x@b.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        rig.resolver.found["b.test"] = MailHosts("b.test", (MxHost(10, "mx.a.test"),), False, 0.0)

        asked_s = loop.time()
        retried = await rig.act("retry", domain="b.test")
        await rig.settled(within_s=3.0)
        await rig.stop()

    assert retried.touched == 1
    assert loop.time() - asked_s < 15


# ---- cancel


@swiftly
async def test_what_is_cancelled_never_goes(loop: SwiftLoop, tmp_path: Path):
    """Mail in a lane, for its time, for the DNS, held or suspended: it is told as cancelled, and its sender of
    nothing."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = rig_for(loop, tmp_path, sink, wants_dsn=lambda envelope: True)
        rig.resolver.found["lost.test"] = no_answer("lost.test", "time-out")
        rig.send("tempfail@b.test")
        rig.send("held@b.test", send_at_s=loop.wall_s() + 600)
        await rig.until(lambda: len(rig.events("deferred")) == 1)
        await rig.act("hold", recipient="held@*")
        parks = rig.suspension(HOUR_S, tenant="t")
        await rig.suspend(parks)
        rig.send("parked@b.test", tenant="t")
        await sink.profiles["a"].set_down(True)
        rig.send("down@a.test", "too@a.test")
        rig.send("dns@lost.test")
        await asyncio.sleep(10)
        assert rig.dispatcher.parking.parts == 1

        cancelled = await rig.act("cancel")
        await rig.settled(within_s=5.0)
        await asyncio.sleep(HOUR_S)
        rig.is_clean()
        await rig.stop()

    assert (cancelled.touched, cancelled.messages) == (6, 5)
    assert len(rig.events("cancelled")) == 6
    assert {line["text"] for line in rig.events("cancelled")} == {"Cancelled by admin"}
    assert {line["recipient"]: line["attempt"] for line in rig.events("cancelled")}["tempfail@b.test"] == 1
    assert rig.notices.sent == []
    assert rig.dispatcher.held == 0
    assert rig.dispatcher.parking.parts == 0
    assert rig.dispatcher.fates.cancelled == 6


@swiftly
async def test_only_what_is_meant_is_touched(loop: SwiftLoop, tmp_path: Path):
    """One recipient of a transaction is taken out, the others of the message go."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test", "y@a.test", "z@a.test")
        await asyncio.sleep(5)

        assert (await rig.act("cancel", recipient="Y@a.test")).touched == 1
        assert (await rig.act("hold", recipient="z@*")).touched == 1
        await sink.profiles["a"].set_down(False)
        await rig.until(lambda: rig.finals == 2)
        assert rig.fates() == {("m1", "y@a.test"): ["cancelled"], ("m1", "x@a.test"): ["delivered"]}
        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert sink.profiles["a"].by_recipient() == {"x@a.test": 1, "z@a.test": 1}


@swiftly
async def test_a_transaction_of_several_domains_can_lose_one(loop: SwiftLoop, tmp_path: Path):
    """The first domain's recipients are held; those of the other find their site all the same."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        rig.domain("b.test", "mx.a.test")
        rig.send("warm@a.test", "up@b.test")
        await rig.settled()
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test", "y@b.test")
        await asyncio.sleep(5)
        assert rig.dispatcher.jobs == 1

        assert (await rig.act("hold", domain="a.test")).touched == 1
        await sink.profiles["a"].set_down(False)
        await rig.until(lambda: rig.finals == 3)
        await rig.act("release")
        await rig.settled()
        await rig.stop()


@swiftly
async def test_what_is_being_signed_can_be_taken(loop: SwiftLoop, tmp_path: Path):
    """Held or cancelled while the signature is made: it does not go with it, nor without."""
    async with Sink([Profile(name="a", latency_s=1.0)]) as sink:
        rig = rig_for(loop, tmp_path, sink, signatures=slow_signatures(loop, 20.0))
        rig.send("held@a.test")
        rig.send("cancelled@a.test")
        rig.send("goes@a.test")
        await rig.until(lambda: any(job.state == SIGNING for job in _jobs(rig, rig.seqs["m1"])))

        held = await rig.act("hold", recipient="held@*")
        cancelled = await rig.act("cancel", recipient="cancelled@*")
        await rig.until(lambda: rig.finals == 2)
        await asyncio.sleep(100)
        rig.is_clean()
        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert (held.touched, cancelled.touched) == (1, 1)
    assert sink.profiles["a"].by_recipient() == {"goes@a.test": 1, "held@a.test": 1}


# ---- who is left alone


@swiftly
async def test_an_end_is_left_alone(loop: SwiftLoop, tmp_path: Path):
    """A recipient whose bounce is being written down, with a notification before it, is neither held nor cancelled."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, wants_dsn=lambda envelope: True)
        rig.notices.holds = True
        rig.send("unknown@a.test")
        await rig.until(lambda: bool(rig.notices.held))

        answers = [await rig.act(verb) for verb in ("cancel", "hold", "retry")]
        assert rig.fates() == {}
        rig.notices.held.pop()()
        await rig.settled()
        await rig.stop()

    assert [(each.touched, each.sending, each.left) for each in answers] == [(0, 1, {"being sent": 1})] * 3
    assert len(rig.events("bounced")) == 1


@swiftly
async def test_a_transaction_is_left_alone(loop: SwiftLoop, tmp_path: Path):
    """What is being sent is counted and ends by itself; what waits behind it is cancelled."""
    async with Sink([Profile(name="a", latency_s=5.0)]) as sink:
        rig = rig_for(loop, tmp_path, sink, default=PLAIN.replace("= 10", "= 1"))
        for name in names(4, "a.test"):
            rig.send(name)
        await rig.until(lambda: any(channel.job for channel in _channels(rig)))

        cancelled = await rig.act("cancel")
        await rig.settled()
        await rig.stop()

    assert (cancelled.touched, cancelled.sending) == (3, 1)
    assert len(rig.events("delivered")) == 1
    assert len(rig.events("cancelled")) == 3


def _channels(rig: DeliveryRig) -> list:
    sites = rig.dispatcher.domains.sites.values()
    return [channel for site in sites for pool in site.pools.values() for channel in pool.channels]


@swiftly
async def test_what_is_not_ours_yet_is_left_alone(loop: SwiftLoop, tmp_path: Path):
    """A message that its door keeps back, and one that is arriving from another worker, are not touched."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink)
        await sink.profiles["a"].set_down(True)
        rig.send("kept@a.test")
        rig.send("free@a.test")
        envelope = rig.envelope("arriving@a.test")
        meta, content = envelopes.encode(envelope), rig.content_of(envelope)
        rig.store.append(envelope.id, meta, 1, content, lambda seq: None, lambda error: None, origin=Origin(1, 7))
        await asyncio.sleep(1)
        kept = rig.seqs["m1"]
        rig.clerk = Clerk(rig.dispatcher, is_kept_back=lambda seq: seq == kept)
        rig.clerk.is_open = True

        cancelled = await rig.act("cancel")
        await rig.stop()

    assert cancelled.touched == 1
    assert [line["recipient"] for line in rig.events("cancelled")] == ["free@a.test"]
    assert rig.store.items == 2


@swiftly
async def test_what_moves_away_is_left_alone(loop: SwiftLoop, tmp_path: Path):
    """Another worker has it, or will: it is neither sent from here nor held here."""
    async with Sink([Profile(name="a")]) as sink:
        rig = rig_for(loop, tmp_path, sink, workers=2)
        for number in range(20):
            rig.domain(f"d{number}.test", f"mx.d{number}.test", address=sink.profiles["a"].address)
        for number in range(20):
            rig.send(f"x@d{number}.test")
        await rig.until(lambda: len(rig.mover.moves) + rig.finals == 20)
        moving = len(rig.mover.moves)
        assert 0 < moving < 20

        held = await rig.act("hold")
        retried = await rig.act("retry")
        await asyncio.sleep(HOUR_S)
        assert (held.touched, held.sending) == (0, moving)
        assert (retried.touched, retried.sending) == (0, moving)
        for done in rig.mover.done:
            done()
        await rig.stop()

    assert len(rig.events("delivered")) == 20 - moving
    assert rig.dispatcher.registry.in_hand(rig.mover.moves[0][0]) == set()


# ---- all together


def test_held_times_come_back_exactly_enough():
    """A due time survives being held to a millisecond, in any century that matters."""
    for due_s in (0.0, 1.5, 1_700_000_000.123, 32_503_680_000.0):
        assert abs((HELD_S + due_s) - HELD_S - due_s) < 0.001
