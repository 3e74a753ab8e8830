"""Mail that nothing stands before goes to a connection that has nothing to do, without a turn in the lane; all other
mail takes its turn."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.sink import Profile, Sink
from mta.delivery.job import Job
from mta.delivery.pool import Pool
from mta.testing.delivery_rig import PLAIN, DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

PARTS_MAX = 2
POLICY = PLAIN.replace("[limits]\n", f"[limits]\nrecipients_per_transaction = {PARTS_MAX}\n")


def _cools(pool: Pool, job: Job) -> None:
    job.content = None


def _is_long(pool: Pool, job: Job) -> None:
    job.parts = range(PARTS_MAX + 1)


def _recipients_of_a_connection_are_counted(pool: Pool, job: Job) -> None:
    pool.allowance.limits = replace(pool.allowance.limits, recipients_per_connection=PARTS_MAX)


def _waits(pool: Pool, job: Job) -> None:
    pool.lane.push(0, job.part(job.parts))


OBSTACLES: dict[str, Callable[[Pool, Job], object]] = {
    "no idle connection": lambda pool, job: pool.idle.clear(),
    "other mail waits": _waits,
    "others are numbers": lambda pool, job: setattr(pool.lane, "spilled", 1),
    "numbers come back": lambda pool, job: setattr(pool.spill, "is_returning", True),
    "others are read back": lambda pool, job: setattr(pool._backlog, "is_loading", True),
    "keys": lambda pool, job: setattr(pool._engine.signatures, "is_off", False),
    "keys were there": lambda pool, job: setattr(pool.lane, "signs", True),
    "limits": lambda pool, job: setattr(pool.allowance, "is_free", False),
    "a firing": lambda pool, job: setattr(pool, "braked", object()),
    "single messages are kept back": lambda pool, job: setattr(pool._engine.parking, "active", True),
    "limits across destinations": lambda pool, job: setattr(pool._engine.reserving, "active", True),
    "suspensions": lambda pool, job: setattr(pool._engine.suspensions, "active", True),
    "the disk refuses": lambda pool, job: setattr(pool._engine, "is_overdue", True),
    "the site is held": lambda pool, job: setattr(pool.site, "holds", 1),
    "the pool is closed": lambda pool, job: setattr(pool, "is_closed", True),
    "cold": _cools,
    "another host first": lambda pool, job: setattr(job, "prefer_host", "mx.a.test"),
    "too many recipients for a transaction": _is_long,
    "recipients of a connection are counted": _recipients_of_a_connection_are_counted,
}


@pytest.mark.parametrize("obstacle", [None, *OBSTACLES])
@swiftly
async def test_what_is_in_the_way_has_mail_take_its_turn(
    loop: SwiftLoop, tmp_path: Path, obstacle: str | None, monkeypatch: pytest.MonkeyPatch
):
    """One reason is enough; without one it is on its way when `push` returns."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=POLICY)
        rig.domains_of(sink.profiles)
        rig.send("first@a.test")
        await rig.settled()
        [site] = rig.dispatcher.domains.sites.values()
        [pool] = site.pools.values()
        took_turns: list[Job] = []
        sent: list[Job] = []
        with monkeypatch.context() as patch:
            patch.setattr(Pool, "put", lambda self, job: took_turns.append(job))
            patch.setattr(Pool, "pump", lambda self, granted=None: None)
            patch.setattr(Pool, "_send", lambda self, channel, job: sent.append(job))
            job = Job(7, (0,), "a.test", rig.envelope("b@a.test"), b"content", pool.source.name)
            if obstacle is not None:
                OBSTACLES[obstacle](pool, job)

            pool.push(job)

        assert (sent, took_turns) == (([job], []) if obstacle is None else ([], [job]))


@swiftly
async def test_what_expired_on_its_way_is_not_sent(loop: SwiftLoop, tmp_path: Path):
    """The connection is free, but the time was over when the domain was found."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        rig.domain("other.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("first@a.test")
        await rig.settled()
        rig.resolver.delay_s = 0.5

        late = rig.send("late@other.test", expire_s=0.2)
        await rig.settled()

        assert rig.fates()[late, "late@other.test"] == ["expired"]
        assert sink.profiles["a"].ids().total() == 1
        await rig.stop()


@swiftly
async def test_it_arrives_and_the_connection_takes_more(loop: SwiftLoop, tmp_path: Path):
    """One message after another, over the connection that is there."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        for number in range(20):
            rig.send(f"b{number}@a.test")
            await rig.settled()

        assert sink.profiles["a"].messages_per_connection == [20]
        await rig.stop()
