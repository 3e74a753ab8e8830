"""The backlog of a pool: who goes next, who is signed next, and what an admin keeps back."""

import asyncio
from pathlib import Path

from bench.sink import Profile, Sink
from mta.delivery.backlog import PARKED_AT_ONCE, SIGNED_AHEAD_MAX, SIGNED_AHEAD_MIN
from mta.delivery.job import Job
from mta.delivery.pool import Pool
from mta.delivery.signatures import Signatures
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.signing_rig import FakeRing, HandSigner, PromptSigner, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly

KEY = ed25519_key("shop.test")
CONTENT = b"From: a@shop.test\r\n\r\nhello\r\n"
ONE = PLAIN.replace("connections = 10", "connections = 1")


class FakeSuspensions:
    """What an admin keeps back: whole pools until a time, or jobs of some domains."""

    def __init__(self) -> None:
        self.active = True
        self.parts = 0
        self.until_s = 0.0
        self.domains: set[str] = set()
        self.parked: list[Job] = []
        self.most_in_a_turn = 0
        self._in_turn = 0
        self.engine: DeliveryRig | None = None

    def pool_until_s(self, pool: Pool) -> float:
        return self.until_s

    def parks(self, pool: Pool, job: Job) -> bool:
        if job.domain not in self.domains:
            return False
        assert self.engine is not None
        if not self._in_turn:
            self.engine.loop.call_soon(self._new_turn)
        self._in_turn += 1
        self.most_in_a_turn = max(self.most_in_a_turn, self._in_turn)
        self.parked.append(job)
        self.engine.dispatcher.ended(job)
        return True

    def signature(self, seq: int) -> None:
        """Nothing was signed before it was parked."""

    def _new_turn(self) -> None:
        self._in_turn = 0

    def sweep(self) -> None:
        """The test says when it is over."""


def signing(loop: SwiftLoop, signer: HandSigner) -> Signatures:
    return Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)


def suspended(rig: DeliveryRig) -> FakeSuspensions:
    suspensions = FakeSuspensions()
    suspensions.engine = rig
    setattr(rig.dispatcher, "suspensions", suspensions)  # noqa: B010 - another type, with the same face
    setattr(rig.dispatcher, "parking", suspensions)  # noqa: B010
    return suspensions


def order(rig: DeliveryRig) -> list[str]:
    return [line["recipient"].partition("@")[0] for line in rig.events("delivered")]


@swiftly
async def test_urgent_mail_is_begun_first(loop: SwiftLoop, tmp_path: Path):
    """Urgent mail that comes behind a full look-ahead is signed next; what is ready passes only until it is."""
    signer = HandSigner()
    async with Sink([Profile(name="a", latency_s=0.5)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(100, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test", priority=2)
        await asyncio.sleep(30.0)
        signer.finish(len(signer.queue))
        await rig.until(lambda: len(rig.events("delivered")) == 1)
        signer.finish(len(signer.queue))
        begun = signer.asked

        rig.send("urgent@a.test", content=CONTENT, from_domain="shop.test", priority=8)
        await asyncio.sleep(0.01)
        assert signer.asked >= begun + 1
        signer.finish(at=len(signer.queue) - 1)
        done = len(rig.events("delivered"))
        while rig.finals < 101:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.05)
        await rig.settled()
        await rig.stop()

    assert order(rig).index("urgent") <= done + 1


@swiftly
async def test_ready_mail_passes_what_is_being_signed(loop: SwiftLoop, tmp_path: Path):
    """A connection does not stand idle for an urgent message whose signature is late."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("urgent@a.test", content=CONTENT, from_domain="shop.test", priority=9)
        for name in names(3, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test", priority=0)
        await asyncio.sleep(1.0)

        while len(signer.queue) > 1:
            signer.finish(at=1)
            await asyncio.sleep(0.1)
        assert order(rig) == ["r0", "r1", "r2"]
        signer.finish()
        await rig.settled()
        await rig.stop()


@swiftly
async def test_order_is_kept(loop: SwiftLoop, tmp_path: Path):
    """Signed in their order, messages of one priority leave in their order."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(
            loop, tmp_path, port=sink.port, signatures=signing(loop, PromptSigner(loop, 0.01)), default=ONE
        )
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(200, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.settled()
        await rig.stop()

    assert order(rig) == [f"r{number}" for number in range(200)]


@swiftly
async def test_idle_connections_ask_for_more(loop: SwiftLoop, tmp_path: Path):
    """Where signatures take longer than transactions more of them are begun at once, up to a bound."""
    signer = PromptSigner(loop, 0.05)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        begun_s = loop.time()
        for name in names(2000, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.settled()
        took_s = loop.time() - begun_s
        await rig.stop()

    assert SIGNED_AHEAD_MAX // 2 <= signer.max_waiting <= SIGNED_AHEAD_MAX
    assert took_s < 2000 * 0.05 / 20


@swiftly
async def test_one_wait_asks_for_more_once(loop: SwiftLoop, tmp_path: Path):
    """Mail that comes in crowds while a signature is being made does not grow the look-ahead with each message: what
    another tenant sends next would go behind all of it."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("first@a.test", content=CONTENT, from_domain="shop.test")
        await rig.until(lambda: bool(rig.dispatcher.domains.sites) and signer.asked == 1)
        await asyncio.sleep(1.0)
        for name in names(SIGNED_AHEAD_MAX, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
            await asyncio.sleep(0)
        assert 1 < signer.asked <= 4 * SIGNED_AHEAD_MIN
        while rig.finals < 1 + SIGNED_AHEAD_MAX:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.05)
        await rig.settled()
        await rig.stop()


@swiftly
async def test_saturated_helpers_are_not_asked_for_more(loop: SwiftLoop, tmp_path: Path):
    """Where all helpers are busy a pool begins no more than its connections need."""
    signer = PromptSigner(loop, 0.05)
    signer.is_saturated = True
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(100, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.settled()
        await rig.stop()

    assert signer.max_waiting == 2


@swiftly
async def test_signing_begins_with_the_connection(loop: SwiftLoop, tmp_path: Path):
    """While a connection is being opened its first messages are signed."""
    signer = HandSigner()
    async with Sink([Profile(name="a", latency_s=1.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer))
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.3)

        [site] = rig.dispatcher.domains.sites.values()
        [pool] = site.pools.values()
        assert pool.opener.count == 1
        assert signer.asked == 1
        assert not pool.is_unused
        assert site.waiting_domains() == {"a.test"}
        assert pool.head_priority == 5
        signer.finish()
        await rig.settled()
        await rig.stop()


@swiftly
async def test_several_connections_while_all_is_signed(loop: SwiftLoop, tmp_path: Path):
    """Mail that is being signed is a reason to open connections as any other."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer))
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(6, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.5)

        assert signer.asked == 6
        assert rig.dispatcher.connections == 6
        signer.finish(6)
        await rig.settled()
        await rig.stop()


@swiftly
async def test_uncertain_mail_waits_for_its_host(loop: SwiftLoop, tmp_path: Path):
    """A signed retry goes to the host that perhaps has the message already."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, PromptSigner(loop, 0.01)))
        a, b = sink.profiles["a"], sink.profiles["b"]
        rig.resolver.addresses_of.update({"mx1.a.test": [a.address], "mx2.a.test": [b.address]})
        rig.domain("a.test", "mx1.a.test", "mx2.a.test")
        for number in range(10):
            rig.send(f"dropdot.1+{number}@a.test", content=CONTENT, from_domain="shop.test")
            await asyncio.sleep(0.5)
        await rig.settled()
        await rig.stop()

    assert all(line.get("uncertain") for line in rig.events("deferred"))
    assert {line["host"] for line in rig.events("delivered")} == {line["host"] for line in rig.events("deferred")}


@swiftly
async def test_suspended_pool(loop: SwiftLoop, tmp_path: Path):
    """Nothing begins in a pool that is suspended, no connection and no signature; it flows when the time is over."""
    signer = PromptSigner(loop)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer))
        suspensions = suspended(rig)
        suspensions.until_s = loop.time() + 100
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(20, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(95.0)

        assert signer.asked == 0
        assert sink.profiles["a"].connections_total == 0
        await rig.settled(20.0)
        await rig.stop()


@swiftly
async def test_suspended_jobs_are_parked(loop: SwiftLoop, tmp_path: Path):
    """What an admin keeps back is taken away before a connection is opened for it, a bounded number at a time."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.domain("b.test", "mx.a.test")
        first = suspended(rig)
        first.until_s = loop.time() + 10
        count = 4 * PARKED_AT_ONCE
        for name in names(count, "b.test"):
            rig.send(name, content=CONTENT)
        await asyncio.sleep(5.0)
        first.domains = {"b.test"}
        await asyncio.sleep(6.0)

        assert len(first.parked) == count
        assert first.most_in_a_turn <= PARKED_AT_ONCE
        assert sink.profiles["a"].connections_total == 0
        rig.send("r@a.test", content=CONTENT)
        await rig.until(lambda: rig.finals == 1)
        await rig.stop()


@swiftly
async def test_suspended_after_it_was_signed(loop: SwiftLoop, tmp_path: Path):
    """Signed mail that is suspended before its turn does not go out."""
    signer = HandSigner()
    async with Sink([Profile(name="a", latency_s=0.2)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer))
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.05)
        signer.finish()
        suspensions = suspended(rig)
        suspensions.domains = {"a.test"}
        await asyncio.sleep(5.0)

        assert len(suspensions.parked) == 1
        assert sink.messages == 0
        await rig.stop()


@swiftly
async def test_refused_signatures_hold_up_nobody(loop: SwiftLoop, tmp_path: Path):
    """Where all that was begun cannot be signed the next is begun at once, on a connection that has nothing to do."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(20, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)
        begun = len(signer.queue)
        assert begun < 20

        for _ in range(begun):
            signer.refuse("no such key")
        assert signer.queue
        signer.finish(len(signer.queue))
        await asyncio.sleep(1.0)
        assert len(rig.events("deferred")) == begun
        assert rig.events("delivered")
        while rig.finals < 20:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.05)
        await rig.settled()
        await rig.stop()


@swiftly
async def test_ended_while_signing_holds_up_nobody(loop: SwiftLoop, tmp_path: Path):
    """Where all that was begun is cancelled meanwhile the mail behind it is begun when the signatures come."""
    signer = HandSigner()
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), default=ONE)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(SIGNED_AHEAD_MAX, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test", campaign="stopped")
            await asyncio.sleep(0.01)
        begun = len(signer.queue)
        assert begun == SIGNED_AHEAD_MAX
        for name in names(10, "a.test"):
            rig.send(f"other{name}", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)
        assert len(signer.queue) == begun

        await rig.act("cancel", campaign="stopped")
        signer.finish(begun)
        assert signer.queue
        while rig.finals < begun + 10:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.05)
        await rig.settled()
        await rig.stop()

    assert len(rig.events("delivered")) == 10


@swiftly
async def test_down_site_is_told_while_all_is_signed(loop: SwiftLoop, tmp_path: Path):
    """A site that takes no connection is told of in the event log, though the only message is still being signed."""
    signer = HandSigner()
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer))
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)

        [deferred, *_] = rig.events("deferred")
        assert deferred["stage"] == "connect"
        await rig.stop()


@swiftly
async def test_no_connection_for_what_has_ended(loop: SwiftLoop, tmp_path: Path):
    """Mail that was cancelled while it was being signed is no reason to open a connection."""
    signer = HandSigner()
    async with Sink([Profile(name="a", latency_s=1.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signing(loop, signer), idle_timeout_s=1.0)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.5)
        await rig.act("cancel")
        await asyncio.sleep(60.0)

        assert sink.profiles["a"].connections_total == 1
        signer.finish()
        await rig.settled()
        await rig.stop()
