"""Signatures on the way out: before the turn, once a message, and never without where there must be one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.job import SIGNING, WAITING, Job, Signature
from mta.delivery.signatures import Signatures
from mta.model.envelope import Envelope, Recipient
from mta.model.outcome import Reply
from mta.reporting.events import decode_note
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.fake_clock import FakeClock
from mta.testing.signing_rig import FakeRing, HandSigner, PromptSigner, ed25519_key, rsa_key, verify
from mta.testing.swift_loop import SwiftLoop, swiftly

KEY = ed25519_key("shop.test")
ESP = rsa_key("esp.test")
CONTENT = b"From: a@shop.test\r\nSubject: hello\r\n\r\nhello\r\n"


class Desk:
    """Signatures without a server around them."""

    def __init__(self, ring: FakeRing | None = None) -> None:
        self.ring = ring or FakeRing({"shop.test": [KEY, ESP]})
        self.signer = HandSigner()
        self.clock = FakeClock()
        self.signatures = Signatures(self.ring.as_ring(), self.signer.as_signer(), self.clock)
        self.told: list[Reply | None] = []

    def job(self, from_domain: str = "shop.test", signature: Signature | None = None, **fields: Any) -> Job:
        envelope = Envelope("m1", "a@shop.test", [Recipient("b@x.test", "x.test")], 0.0, 9, **fields)
        envelope.from_domain = from_domain
        return Job(1, (0,), "x.test", envelope, CONTENT, "s", signature=signature)

    def begin(self, job: Job) -> Reply | None:
        return self.signatures.begin(job, self.told.append)


def test_off():
    """Without a ring, or with an empty one, nothing is signed; one that refuses what is unsigned is looked at."""
    clock = FakeClock()

    assert Signatures(None, None, clock).is_off
    assert Signatures(FakeRing({}).as_ring(), None, clock).is_off
    assert not Signatures(FakeRing({}, unsigned="refuse").as_ring(), None, clock).is_off
    assert not Desk().signatures.is_off


def test_reload():
    """Keys come and go while the server runs."""
    desk = Desk()

    desk.signatures.reload(FakeRing({}).as_ring())
    assert desk.signatures.is_off
    desk.signatures.reload(desk.ring.as_ring())
    assert not desk.signatures.is_off


def test_signed_by_all_keys():
    """All keys of the From domain sign, and a verifier believes each."""
    desk = Desk()
    job = desk.job()

    assert desk.begin(job) is None
    assert job.signature is not None
    assert job.signature.fields is None
    assert desk.told == []
    desk.signer.finish()

    assert desk.told == [None]
    fields = job.signature.fields
    assert fields is not None
    assert fields.count(b"DKIM-Signature: ") == 2
    assert job.signature.domains == "shop.test,esp.test"
    second = fields.rindex(b"DKIM-Signature: ")
    assert verify(fields[:second] + CONTENT, KEY)
    assert verify(fields[second:] + CONTENT, ESP)


def test_domains_are_told_once():
    """Two keys of one domain are one domain."""
    desk = Desk(FakeRing({"shop.test": [KEY, rsa_key("shop.test")]}))
    job = desk.job()

    desk.begin(job)
    desk.signer.finish()

    assert job.signature is not None
    assert job.signature.domains == "shop.test"


def test_once_for_all_jobs_of_a_message():
    """Who comes while a message is being signed waits for the same signature; who comes later has it."""
    desk = Desk()
    shared = Signature()
    first, second, third = (desk.job(signature=shared) for _ in range(3))

    assert desk.begin(first) is None
    assert desk.begin(second) is None
    desk.signer.finish()

    assert desk.told == [None, None]
    assert desk.begin(third) is None
    assert desk.signer.asked == 1
    assert shared.fields
    assert shared.waiting is None


def test_nobody_signs():
    """Mail without a key goes as it is, at once."""
    desk = Desk()
    job = desk.job("else.test")

    assert desk.begin(job) is None

    assert job.signature is not None
    assert job.signature.fields == b""
    assert desk.signer.asked == 0


def test_refused_without_key():
    """Where unsigned mail is refused and the key is gone, the message must wait."""
    desk = Desk(FakeRing({"shop.test": [KEY]}, unsigned="refuse"))
    job = desk.job("else.test")

    reply = desk.begin(job)

    assert reply is not None
    assert (reply.code, reply.enhanced) == (451, "4.7.20")
    assert "else.test" in reply.text
    assert job.signature is not None
    assert job.signature.fields is None


def test_notification_is_never_refused():
    """What the server itself has to tell a sender goes without a key too."""
    desk = Desk(FakeRing({"shop.test": [KEY]}, unsigned="refuse"))
    job = desk.job("me.test", cause_id="m0")

    assert desk.begin(job) is None

    assert job.signature is not None
    assert job.signature.fields == b""


def test_key_file_that_cannot_be_read():
    """The reason stands in the reply; nothing goes unsigned."""
    desk = Desk(FakeRing({"shop.test": [KEY]}, broken=["broken.test"]))
    job = desk.job("broken.test")

    reply = desk.begin(job)

    assert reply is not None
    assert (reply.code, reply.enhanced) == (451, "4.3.5")
    assert "keys/broken.test.pem: cannot be read" in reply.text


def test_key_that_a_helper_refuses():
    """All jobs of the message hear why, and the next attempt asks anew."""
    desk = Desk()
    shared = Signature()
    first, second = (desk.job(signature=shared) for _ in range(2))
    desk.begin(first)
    desk.begin(second)

    desk.signer.refuse("the key is bad")

    assert [reply and (reply.code, reply.enhanced, "the key is bad" in reply.text) for reply in desk.told] == [
        (451, "4.3.5", True)
    ] * 2
    assert shared.fields is None
    desk.begin(first)
    desk.signer.finish()
    assert shared.fields


def test_parts_share_the_signature():
    """Some recipients of a job as a job of their own are of the same message, whether it is signed yet or not."""
    desk = Desk()
    job = desk.job()

    early = job.part([0])
    desk.begin(job)
    late = job.part([0])

    assert early.signature is job.signature
    assert late.signature is job.signature


# with connections


@swiftly
async def test_all_mail_is_signed(loop: SwiftLoop, tmp_path: Path):
    """What a provider gets is what was accepted with a good signature before it; events name the domains."""
    signer = PromptSigner(loop, 0.01)
    signatures = Signatures(FakeRing({"shop.test": [ESP, KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(100, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.settled()
        await rig.stop()

    contents = [each.content for each in sink.profiles["a"].deliveries]
    assert len(contents) == 100
    assert all(content.endswith(CONTENT) and verify(content, KEY, ESP) for content in contents)
    assert {line["dkim"] for line in rig.events("delivered")} == {"esp.test,shop.test"}
    assert signer.signatures == 200


@swiftly
async def test_once_for_many_recipients(loop: SwiftLoop, tmp_path: Path):
    """A message to many sites, in several transactions each, is signed once."""
    signer = PromptSigner(loop, 0.01)
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    policy = PLAIN.replace("[limits]", "[limits]\nrecipients_per_transaction = 2")
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures, default=policy)
        for number in range(5):
            rig.domain(f"d{number}.test", f"mx.d{number}.test", address=sink.profiles["a"].address)
        rig.send(
            *(name for number in range(5) for name in names(5, f"d{number}.test")),
            content=CONTENT,
            from_domain="shop.test",
        )
        await rig.settled()
        await rig.stop()

    contents = [each.content for each in sink.profiles["a"].deliveries]
    assert len(contents) == 15
    assert len(set(contents)) == 1
    assert verify(contents[0], KEY)
    assert signer.asked == 1


@swiftly
async def test_once_for_all_attempts(loop: SwiftLoop, tmp_path: Path):
    """A deferral keeps the signature with the message on the disk: every attempt carries the same."""
    signer = PromptSigner(loop, 0.01)
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("tempfail.2+1@a.test", content=CONTENT, from_domain="shop.test")
        await rig.until(lambda: len(rig.events("deferred")) == 1)
        loaded = rig.store.load(rig.seqs["m1"])
        assert loaded is not None
        note = decode_note(loaded.parts[0].note)
        await rig.settled()
        await rig.stop()

    assert signer.asked == 1
    [delivery] = sink.profiles["a"].deliveries
    assert delivery.content == note.signature + CONTENT
    assert note.dkim == "shop.test"


@swiftly
async def test_size_counts_the_signature(loop: SwiftLoop, tmp_path: Path):
    """A peer that takes just the message without its signature does not get it."""
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), PromptSigner(loop).as_signer(), loop)
    async with Sink([Profile(name="a", size_max=len(CONTENT) + 10)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await rig.settled()
        await rig.stop()

    [bounced] = rig.events("bounced")
    assert bounced["enhanced"] == "5.3.4"


@swiftly
async def test_added_date_is_signed(loop: SwiftLoop, tmp_path: Path):
    """Delayed mail without a Date gets one before it is signed."""
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), PromptSigner(loop).as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test", send_at_s=loop.wall_s() + 60, date_missing=True)
        await rig.settled()
        await rig.stop()

    [delivery] = sink.profiles["a"].deliveries
    fields, _, rest = delivery.content.partition(b"Date: ")
    assert rest.endswith(b"+0000\r\n" + CONTENT)
    assert b"date:" in b"".join(fields.split())
    assert verify(delivery.content, KEY)


@swiftly
async def test_burst_begins_few(loop: SwiftLoop, tmp_path: Path):
    """However much waits for a provider with few connections, only a little of it is being signed or ready."""
    signer = PromptSigner(loop, 0.01)
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", latency_s=1.0)]) as sink:
        policy = PLAIN.replace("connections = 10", "connections = 2\nrate = '1/s'")
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures, default=policy)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(200, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.until(lambda: len(rig.events("delivered")) == 20)

        assert signer.asked <= 20 + 2 + 4
        await rig.settled()
        await rig.stop()


@swiftly
async def test_no_signature_without_connection(loop: SwiftLoop, tmp_path: Path):
    """For a site that takes no connection nothing is signed in advance, beside the few that a connection would take."""
    signer = PromptSigner(loop, 0.01)
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(500, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(3600.0)

        assert signer.asked <= 64
        assert rig.dispatcher.memory.resident_bytes == 0
        await sink.profiles["a"].set_down(False)
        await rig.settled()
        await rig.stop()


@swiftly
async def test_helpers_are_down(loop: SwiftLoop, tmp_path: Path):
    """While nobody signs nothing goes out and memory is let go; mail without a key goes on."""
    signer = HandSigner()
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(100, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        rig.send("plain@a.test", content=CONTENT, from_domain="else.test", priority=9)
        await asyncio.sleep(600.0)

        assert [line["recipient"] for line in rig.events("delivered")] == ["plain@a.test"]
        assert rig.dispatcher.memory.resident_bytes == 0
        assert 2 <= len(signer.queue) <= 64
        while rig.finals < 101:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.1)
        await rig.settled()
        await rig.stop()

    contents = {each.recipients[0]: each.content for each in sink.profiles["a"].deliveries}
    assert contents.pop("plain@a.test") == CONTENT
    assert all(verify(content, KEY) for content in contents.values())


@swiftly
async def test_expires_while_it_is_signed(loop: SwiftLoop, tmp_path: Path):
    """A message whose signature does not come is given up in time; when it comes after all nothing is sent."""
    signer = HandSigner()
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test", expire_s=60.0)
        await asyncio.sleep(65.0)

        assert len(rig.events("expired")) == 1
        signer.finish()
        await rig.settled(30.0)
        await rig.stop()

    assert len(rig.events("expired")) == 1
    assert sink.messages == 0


@swiftly
async def test_key_gone_since_acceptance(loop: SwiftLoop, tmp_path: Path):
    """Put off as our own decision, no attempt; signed and sent when the key is there again."""
    ring = FakeRing({"shop.test": [KEY]}, unsigned="refuse")
    signatures = Signatures(ring.as_ring(), PromptSigner(loop).as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        ring.keys = {}
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await rig.until(lambda: bool(rig.events("deferred")))

        [deferred] = rig.events("deferred")
        assert (deferred["stage"], deferred["code"], deferred["enhanced"]) == ("local", 451, "4.7.20")
        assert deferred["next_attempt"] > loop.wall_s() + 200
        ring.keys = {"shop.test": [KEY]}
        await rig.settled()
        await rig.stop()

    [delivery] = sink.profiles["a"].deliveries
    assert verify(delivery.content, KEY)


@swiftly
async def test_broken_key_holds_only_its_mail(loop: SwiftLoop, tmp_path: Path):
    """Mail of one domain whose key file is broken waits; the mail around it goes."""
    ring = FakeRing({"shop.test": [KEY]}, broken=["broken.test"])
    signer = HandSigner()
    signatures = Signatures(ring.as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b1@a.test", content=CONTENT, from_domain="broken.test")
        rig.send("b2@a.test", content=CONTENT, from_domain="shop.test")
        rig.send("b3@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)
        signer.refuse("no such key")
        signer.finish()
        await asyncio.sleep(1.0)

        assert {line["recipient"] for line in rig.events("deferred")} == {"b1@a.test", "b2@a.test"}
        assert [line["recipient"] for line in rig.events("delivered")] == ["b3@a.test"]
        ring.broken.clear()
        await rig.until(lambda: bool(signer.queue))
        signer.finish()
        await rig.settled()
        await rig.stop()


@swiftly
async def test_last_key_goes(loop: SwiftLoop, tmp_path: Path):
    """When the last key is taken away what waits goes unsigned; a signature that comes late changes nothing."""
    signer = HandSigner()
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(30, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)
        assert signer.queue
        assert sink.messages == 0

        signatures.reload(None)
        rig.reload()
        await asyncio.sleep(0.01)
        signer.finish(len(signer.queue))
        await rig.settled()
        await rig.stop()

    assert {each.content for each in sink.profiles["a"].deliveries} == {CONTENT}


@swiftly
async def test_first_key_comes(loop: SwiftLoop, tmp_path: Path):
    """From the moment that there is a key all mail that has not begun to leave is signed."""
    signatures = Signatures(None, PromptSigner(loop).as_signer(), loop)
    policy = PLAIN.replace("connections = 10", "connections = 1\nrate = '1/s'")
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures, default=policy)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(30, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await rig.until(lambda: sink.messages == 10)

        signatures.reload(FakeRing({"shop.test": [KEY]}).as_ring())
        await rig.settled()
        await rig.stop()

    contents = [each.content for each in sink.profiles["a"].deliveries]
    assert contents[:10] == [CONTENT] * 10
    assert all(verify(content, KEY) for content in contents[10:])


@swiftly
async def test_moves_while_it_is_signed(loop: SwiftLoop, tmp_path: Path):
    """Mail whose destination changes takes its signature along, although it was begun elsewhere."""
    signer = HandSigner()
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(10, "a.test"):
            rig.send(name, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.1)
        begun = len(signer.queue)
        assert begun

        rig.reload(prov='match = { domains = ["a.test"] }\n' + PLAIN)
        await asyncio.sleep(0.1)
        while rig.finals < 10:
            signer.finish(len(signer.queue))
            await asyncio.sleep(0.1)
        await rig.settled()
        await rig.stop()

    assert signer.asked == 10
    assert {line["policy"] for line in rig.events("delivered")} == {"prov"}
    assert all(verify(each.content, KEY) for each in sink.profiles["a"].deliveries)


@swiftly
async def test_ends_while_it_is_signed(loop: SwiftLoop, tmp_path: Path):
    """A job that somebody ended is dropped when its signature comes."""
    signer = HandSigner()
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b@a.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.1)
        [site] = rig.dispatcher.domains.sites.values()
        [job] = [job for pool in site.pools.values() for job in pool.lane]
        assert job.state == SIGNING

        rig.dispatcher.ended(job)
        signer.finish()
        await asyncio.sleep(1.0)

        [pool] = site.pools.values()
        assert not pool.lane
        assert sink.messages == 0
        assert job.state != WAITING
        await rig.stop()


@swiftly
async def test_cannot_be_prepared(loop: SwiftLoop, tmp_path: Path):
    """An error of ours in one message stops that one, and it is tried again later."""
    signer = PromptSigner(loop)
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    plain, asked = signer.sign, []

    def sign(prepared: Any, done: Any, priority: int = 5) -> None:
        asked.append(loop.time())
        if len(asked) == 1:
            raise ValueError("a bug")
        plain(prepared, done, priority)

    signer.sign = sign
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("b1@a.test", content=CONTENT, from_domain="shop.test")
        rig.send("b2@a.test", content=CONTENT, from_domain="shop.test")
        await rig.settled()
        await rig.stop()

    assert len(asked) == 3
    assert asked[2] - asked[1] > 500
    assert [str(problem["exception"]) for problem in loop.problems] == ["a bug"]
    loop.problems.clear()


@swiftly
async def test_error_beside_others_of_the_message(loop: SwiftLoop, tmp_path: Path):
    """An error of ours at one site keeps the message's other sites from nothing."""
    signer = HandSigner()
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), signer.as_signer(), loop)
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, signatures=signatures)
        rig.domains_of(sink.profiles)
        rig.send("b@a.test", "b@b.test", content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(1.0)
        [site] = [site for site in rig.dispatcher.domains.sites.values() if site.name == "mx.a.test"]
        [pool] = site.pools.values()

        def fails(job: Job) -> None:
            raise ValueError("a bug")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "signed", fails)
            signer.finish()
        await asyncio.sleep(1.0)
        assert [line["recipient"] for line in rig.events("delivered")] == ["b@b.test"]
        pool.pump()
        await rig.settled()
        await rig.stop()

    assert [str(problem["exception"]) for problem in loop.problems] == ["a bug"]
    loop.problems.clear()
