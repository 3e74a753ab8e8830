"""Mail that is far from its turn waits as numbers: nothing of it is lost, doubled, late or out of order."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.delivery.pool import Pool
from mta.delivery.signatures import Signatures
from mta.resolve.errors import no_answer, no_domain
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.signing_rig import FakeRing, PromptSigner, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly

ONE = PLAIN.replace("connections = 10", "connections = 1")
MANY = 600
DEAD = "127.0.0.1"


@pytest.fixture(autouse=True)
def few_jobs(monkeypatch: pytest.MonkeyPatch):
    """A lane keeps a handful of jobs, so that hundreds of messages show what millions do."""
    monkeypatch.setattr("mta.delivery.spills.JOBS_KEPT", 8)
    monkeypatch.setattr("mta.delivery.spills.ROUND_S", 1.0)
    monkeypatch.setattr("mta_queue.line.SLACK", 4)


def pool_of(rig: DeliveryRig) -> Pool:
    """The only one that has mail."""
    [pool] = [pool for site in rig.dispatcher.domains.sites.values() for pool in site.pools.values() if pool.waiting]
    return pool


def order(rig: DeliveryRig) -> list[str]:
    return [line["recipient"].partition("@")[0] for line in rig.events("delivered")]


async def down(rig: DeliveryRig, **fields: Any) -> None:
    """MANY messages for a site that does not answer, until all but a few are numbers."""
    for name in names(MANY, "a.test"):
        rig.send(name, **fields)
    await asyncio.sleep(5.0)
    assert rig.dispatcher.spills.count > MANY - 20
    assert rig.dispatcher.jobs < 20
    assert len(rig.dispatcher.registry) < 20


@swiftly
async def test_back_from_an_outage(loop: SwiftLoop, tmp_path: Path):
    """All of it leaves in its order when the site is back, and nothing of it before its turn."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        await down(rig)
        pool = pool_of(rig)
        assert pool.waiting == MANY

        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        assert rig.dispatcher.spills.count == 0
        assert not pool.spill.seqs
        await rig.stop()

    assert order(rig) == [f"r{number}" for number in range(MANY)]


@swiftly
async def test_a_flood_does_not_delay_others(loop: SwiftLoop, tmp_path: Path):
    """Behind one tenant's backlog another one's ten messages have every second turn."""
    async with Sink([Profile(name="a", latency_s=0.01)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        for number, name in enumerate(names(MANY, "a.test")):
            rig.send(name, tenant="big", campaign=f"c{number % 3}")
        await asyncio.sleep(3.0)
        for number in range(10):
            rig.send(f"small{number}@a.test", tenant="small")
        await asyncio.sleep(3.0)

        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()

    went = order(rig)
    assert max(went.index(f"small{number}") for number in range(10)) < 30
    campaigns = Counter(int(name[1:]) % 3 for name in went[:100] if not name.startswith("small"))
    assert max(campaigns.values()) - min(campaigns.values()) <= 4


@swiftly
async def test_many_transactions_are_many_turns(loop: SwiftLoop, tmp_path: Path):
    """A tenant whose messages need ten transactions each waits ten rounds for the next one."""
    few = ONE.replace("[retry]", "recipients_per_transaction = 5\n[retry]")
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=few)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        for number in range(5):
            rig.send(*(f"big{number}-{each}@a.test" for each in range(50)), tenant="big")
        for number in range(40):
            rig.send(f"small{number}@a.test", tenant="small")
        await asyncio.sleep(3.0)

        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()

    went = order(rig)
    assert went.index("small8") < went.index("big1-0") < went.index("small12")
    assert went.index("small18") < went.index("big2-0")


@swiftly
async def test_signed_mail(loop: SwiftLoop, tmp_path: Path):
    """Mail that is signed before its turn comes back in its order too."""
    async with Sink([Profile(name="a")]) as sink:
        signer = PromptSigner(loop, 0.01)
        ring = FakeRing({"shop.test": [ed25519_key("shop.test")]}).as_ring()
        signatures = Signatures(ring, signer.as_signer(), loop)
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        await down(rig, content=b"From: a@shop.test\r\n\r\nhello\r\n", from_domain="shop.test")

        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()

    assert order(rig) == [f"r{number}" for number in range(MANY)]


@swiftly
async def test_several_recipients(loop: SwiftLoop, tmp_path: Path):
    """Recipients of one message at two sites wait in both, and each goes once."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        rig.domain("c.test", "mx.a.test")
        rig.domain("b.test", "mx.b.test", address=DEAD)
        for number in range(200):
            rig.send(f"x{number}@a.test", f"y{number}@b.test", f"z{number}@c.test")
        await asyncio.sleep(5.0)
        assert rig.dispatcher.spills.count > 350
        rig.dispatcher.take_up(list(rig.seqs.values()))  # the wheel may name them again at any time
        await asyncio.sleep(5.0)
        assert rig.dispatcher.jobs < 60

        rig.resolver.addresses_of["mx.b.test"] = [sink.profiles["b"].address]
        await rig.until(lambda: rig.finals == 200)
        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()


@swiftly
async def test_given_up_in_time(loop: SwiftLoop, tmp_path: Path):
    """Behind a site that is down each message is given up within two minutes of its own time, spilled or not."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.domain("a.test", "mx.a.test", address=DEAD)
    begun_s = loop.wall_s()
    for number, name in enumerate(names(MANY, "a.test")):
        rig.send(name, expire_s=600.0 + 1200.0 * (number % 3))
    await asyncio.sleep(10.0)
    assert rig.dispatcher.spills.count > MANY - 20

    told = []
    for count in (MANY // 3, 2 * MANY // 3, MANY):
        await rig.until(lambda count=count: rig.finals > count - MANY // 3)
        low = loop.wall_s() - begun_s
        await rig.until(lambda count=count: rig.finals >= count)
        told.append((low, loop.wall_s() - begun_s))
    await rig.settled()
    await rig.stop()

    assert len(told) == 3
    for (low, high), own_s in zip(told, (600.0, 1800.0, 3000.0), strict=True):
        assert own_s <= low <= high <= own_s + 120.0


@swiftly
async def test_suspended(loop: SwiftLoop, tmp_path: Path):
    """A whole site that is suspended keeps its numbers; a tenant's are set aside as they come back, and go later."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        await rig.suspend(rig.suspension(3600.0, site="mx.a.test"))
        for number, name in enumerate(names(MANY, "a.test")):
            rig.send(name, tenant="t" if number % 2 else "u")
        await asyncio.sleep(5.0)
        assert rig.dispatcher.spills.count > MANY - 30

        await rig.suspend(rig.suspension(3600.0, name="s2", tenant="t"))
        await rig.until(lambda: rig.finals == MANY // 2)
        await asyncio.sleep(10.0)
        assert rig.finals == MANY // 2
        assert rig.dispatcher.parking.parts == MANY // 2
        await rig.suspend()
        await rig.settled()
        await rig.stop()


@swiftly
async def test_held_and_cancelled(loop: SwiftLoop, tmp_path: Path):
    """What an admin takes away does not come back with its number."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        await down(rig)
        await rig.act("hold", recipient="r1*@a.test")
        await rig.act("cancel", recipient="r2*@a.test")
        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.until(lambda: rig.store.items == sum(name.startswith("r1") for name in names(MANY, "a.test")))

        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert {name[1] for name in order(rig)} == {"0", "1", "3", "4", "5", "6", "7", "8", "9"}


@swiftly
async def test_retried(loop: SwiftLoop, tmp_path: Path):
    """What waits as a number keeps its place and is not read back for it: its site is tried anew, at once."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        await down(rig)
        await asyncio.sleep(600.0)
        pool, last = pool_of(rig), max(rig.seqs.values())
        jobs, before = rig.dispatcher.jobs, pool.before(5, last)
        named: list[int] = []
        take_up = rig.dispatcher.agenda.take_up
        rig.dispatcher.agenda.take_up = lambda seqs: (named.extend(some := list(seqs)), take_up(some))[1]
        assert not pool.channels

        retried = await rig.act("retry")
        assert retried.touched == MANY
        assert not named
        assert (rig.dispatcher.jobs, pool.before(5, last)) == (jobs, before)
        assert pool.channels or pool.site.backoff.wait_s(loop.time()) == 0.0

        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()

    assert order(rig) == [f"r{number}" for number in range(MANY)]


@swiftly
async def test_moved_with_its_domain(loop: SwiftLoop, tmp_path: Path):
    """A reload that gives a domain another destination takes what is spilled along."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        await down(rig)

        rig.resolver.addresses_of["mx.b.test"] = [sink.profiles["b"].address]
        rig.domain("a.test", "mx.b.test")
        rig.reload(ONE, own='match = { domains = ["a.test"] }\n' + ONE)
        await rig.settled()
        await rig.stop()

    assert sink.profiles["b"].ids().total() == MANY
    assert order(rig) == [f"r{number}" for number in range(MANY)]


@swiftly
async def test_another_workers_now(loop: SwiftLoop, tmp_path: Path):
    """A change of owners moves what is spilled, each recipient once, and keeps no job of it."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.domain("a.test", "mx.a.test", address=DEAD)
    await down(rig)

    for workers in range(2, 12):
        if not rig.mover.moves:  # until one of them owns it
            rig.reload(workers=workers)
            await asyncio.sleep(30.0)
    assert Counter(seq for seq, _, _, _ in rig.mover.moves) == Counter(rig.seqs.values())
    assert rig.dispatcher.jobs == 0
    assert rig.dispatcher.spills.count == 0
    await rig.stop()


@swiftly
async def test_a_source_that_goes(loop: SwiftLoop, tmp_path: Path):
    """Mail of a source that is no more goes out from another one."""
    async with Sink([Profile(name="a")]) as sink:
        both = [SourceAddress("s1", "", "", "s1.test"), SourceAddress("s2", "", "", "s2.test")]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, sources=both)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        for name in names(MANY, "a.test"):
            rig.send(name)
        await asyncio.sleep(5.0)
        assert rig.dispatcher.spills.count > MANY - 40

        rig.sources = both[1:]
        rig.reload()
        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()

    assert {line["source"] for line in rig.events("delivered")} == {"s2"}


@swiftly
async def test_a_domain_that_is_looked_up(loop: SwiftLoop, tmp_path: Path):
    """Mail that waits for the DNS waits as numbers too; it goes, or bounces, when there is an answer."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE)
        rig.resolver.found["a.test"] = no_answer("a.test", "timeout")
        rig.resolver.found["b.test"] = no_answer("b.test", "timeout")
        await down(rig)
        for number in range(200):
            rig.send(f"b{number}@b.test")
        await asyncio.sleep(5.0)
        assert rig.dispatcher.jobs < 40

        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.resolver.found["b.test"] = no_domain("b.test")
        await rig.settled()
        await rig.stop()

    assert order(rig) == [f"r{number}" for number in range(MANY)]
    assert len(rig.events("bounced")) == 200


@swiftly
async def test_nothing_can_ever_be_sent(loop: SwiftLoop, tmp_path: Path):
    """A site whose hosts are no more gives up what is spilled too."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.domain("a.test", "mx.a.test", address=DEAD)
    await down(rig)

    rig.resolver.addresses_of["mx.a.test"] = no_domain("mx.a.test")
    await rig.settled()
    await rig.stop()

    assert len(rig.events("bounced")) == MANY


@swiftly
async def test_a_clock_that_jumps(loop: SwiftLoop, tmp_path: Path):
    """A year forward and back again loses nothing of what waits for its time."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace('"1d"', '"900d"'))
        rig.domain("a.test", "mx.a.test", address=DEAD)
        for number, name in enumerate(names(MANY, "a.test")):
            rig.send(name, send_at_s=loop.wall_s() + 3600.0 * (1 + number % 50))
        await asyncio.sleep(2.0)
        assert rig.dispatcher.jobs == 0

        loop.jump_s += 365 * 86_400.0
        await asyncio.sleep(0.3)
        loop.jump_s -= 365 * 86_400.0 + 3600.0
        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled(within_s=60 * 3600.0)
        await rig.stop()


@swiftly
async def test_numbers_of_mail_that_is_gone(loop: SwiftLoop, tmp_path: Path):
    """What an admin cancelled behind a site that is down is soon not counted any more; the rest keeps its order."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=ONE)
        rig.domain("a.test", "mx.a.test", address=DEAD)
        await down(rig)

        await rig.act("cancel", recipient="r*5@a.test")
        await asyncio.sleep(5.0)
        assert pool_of(rig).waiting <= MANY * 9 // 10 + 5
        rig.resolver.addresses_of["mx.a.test"] = [sink.profiles["a"].address]
        await rig.settled()
        await rig.stop()

    assert order(rig) == [f"r{number}" for number in range(MANY) if number % 10 != 5]


@swiftly
async def test_who_asks_is_told_where(loop: SwiftLoop, tmp_path: Path):
    """Where a number waits, and about how many go before it."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.domain("a.test", "mx.a.test", address=DEAD)
    await down(rig)
    pool = pool_of(rig)

    seqs = list(rig.seqs.values())
    assert rig.dispatcher.spills.pool_of(seqs[300], "a.test") is pool
    assert pool.before(5, seqs[300]) == 300
    assert rig.dispatcher.spills.pool_of(seqs[0], "a.test") is None
    assert pool.before(5, seqs[0]) is None
    await rig.act("cancel")
    await rig.settled()
    await rig.stop()
