"""Domains: looked up once however much mail waits, kept as long as the DNS says, moved where they are another's."""

import asyncio
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery import domains, fates
from mta.handoff.frames import Told
from mta.handoff.mover import PartState
from mta.handoff.placement import Placement
from mta.model.outcome import Reply
from mta.reporting.events import Fate, encode_note
from mta.resolve.errors import no_answer, no_domain
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly


@swiftly
async def test_one_look_up_for_all_that_waits(loop: SwiftLoop, tmp_path: Path):
    """And none for mail that comes while the answer holds; then one again."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.resolver.delay_s, rig.resolver.ttl_s = 1.0, 100.0
        for name in names(50, "a.test"):
            rig.send(name)
        await rig.settled()
        rig.send("later@a.test")
        await rig.settled()
        first = rig.resolver.asked["a.test"]

        await rig.until(lambda: loop.time() > 1200)
        rig.send("again@a.test")
        await rig.settled()
        await rig.stop()

    assert first == 1
    assert rig.resolver.asked["a.test"] == 2


@swiftly
async def test_answers_that_differ_each_time(loop: SwiftLoop, tmp_path: Path):
    """Every set of hosts is a site of its own while it is in use, and is forgotten when it is not."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.resolver.ttl_s = 1.0
        for number in range(30):
            rig.domain("a.test", f"mx{number}.a.test", address=sink.profiles["a"].address)
            rig.send(f"r{number}@a.test")
            await rig.settled()
            await asyncio.sleep(2)
        most = len(rig.dispatcher.domains.sites)

        await rig.until(lambda: loop.time() > 8000)
        await rig.stop()

    assert most == 30
    assert rig.dispatcher.domains.sites == {}
    assert rig.dispatcher.domains.destinations == {}
    assert sink.profiles["a"].connections_open == 0


@swiftly
async def test_known_domains_are_bounded(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The oldest is forgotten, and asked for again when it is needed."""
    monkeypatch.setattr(domains, "DOMAINS_MAX", 3)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        for number in range(5):
            rig.domain(f"d{number}.test", "mx.a.test", address=sink.profiles["a"].address)
            rig.send(f"b@d{number}.test")
            await rig.settled()

        assert len(rig.dispatcher.domains.known()) == 3
        rig.send("b@d0.test")
        await rig.settled()
        await rig.stop()

    assert rig.resolver.asked["d0.test"] == 2


@swiftly
async def test_an_error_of_ours_in_a_look_up_is_tried_again(loop: SwiftLoop, tmp_path: Path):
    """The mail waits as behind any other failure."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.send("b@a.test")  # the resolver does not know the name: KeyError
        await rig.until(lambda: rig.resolver.asked["a.test"] >= 2)

        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        await rig.settled(30.0)
        await rig.stop()

    assert rig.dispatcher.errors >= 2
    assert {type(each["exception"]) for each in loop.problems} == {KeyError}
    loop.problems.clear()
    assert (rig.lines[0]["event"], rig.lines[0]["code"]) == ("deferred", 451)


@swiftly
async def test_the_one_who_asks_tells_the_others(loop: SwiftLoop, tmp_path: Path):
    """Who owns the domain's destination, and for how long; mail of another owner goes there with its state."""
    rig = DeliveryRig(loop, tmp_path, port=2525, workers=2)
    placement = rig.dispatcher.placement
    hosts = {number: f"mx{number}.test" for number in range(20)}
    theirs = next(host for host in hosts.values() if _owner(placement, host) == 1)
    domain = next(f"d{number}.test" for number in range(20) if placement.asker(f"d{number}.test") == 0)
    rig.domain(domain, theirs)
    rig.send(f"b@{domain}", f"c@{domain}")
    await rig.until(lambda: bool(rig.mover.moves))
    rig.is_clean()
    await rig.stop()

    [told] = rig.mesh.told
    assert isinstance(told, Told)
    assert (told.domain, list(told.owners)) == (domain, [1])
    assert [(parts, owner) for _, parts, _, owner in rig.mover.moves] == [((0, 1), 1)]
    assert placement.owner(domain, loop.time()) == 1


@swiftly
async def test_two_workers_with_different_answers_do_not_play_ball(loop: SwiftLoop, tmp_path: Path):
    """Mail that another worker moved here and that is not ours either is looked at again before it goes on; mail of
    our own, and of the worker that asks for all, goes on at once."""
    rig = DeliveryRig(loop, tmp_path, port=2525, workers=2)
    placement = rig.dispatcher.placement
    theirs = next(f"mx{number}.test" for number in range(20) if _owner(placement, f"mx{number}.test") == 1)
    disputed = next(f"d{number}.test" for number in range(20) if placement.asker(f"d{number}.test") == 1)
    asked_here = next(f"d{number}.test" for number in range(20) if placement.asker(f"d{number}.test") == 0)
    rig.domain(disputed, theirs)
    rig.domain(asked_here, theirs)

    rig.hand(f"b@{disputed}")
    rig.hand(f"b@{asked_here}")
    rig.send(f"own@{asked_here}")
    await rig.until(lambda: len(rig.mover.moves) == 2)
    at_once_s = loop.time()
    await rig.until(lambda: len(rig.mover.moves) == 3)
    waited_s = loop.time() - at_once_s
    rig.is_clean()
    await rig.stop()

    assert waited_s >= 25.0
    assert rig.resolver.asked[disputed] == 2
    assert [each["recipient"] for each in rig.events("deferred")] == [f"b@{disputed}"]


@swiftly
async def test_a_message_moves_as_one(loop: SwiftLoop, tmp_path: Path):
    """One of its recipients was tried before, so it has two jobs here; where it goes it is one item, signed once."""
    rig = DeliveryRig(loop, tmp_path, port=2525, workers=2)
    placement = rig.dispatcher.placement
    theirs = next(f"mx{number}.test" for number in range(20) if _owner(placement, f"mx{number}.test") == 1)
    rig.domain("a.test", theirs)
    due_s = loop.wall_s() + 50
    seq = rig.seqs[rig.send(*names(3, "a.test"), send_at_s=due_s)]
    await asyncio.sleep(1)
    note = encode_note(Fate("deferred", 0.0, Reply(451, "", "later"), "rcpt", 1, due_s))
    rig.store.postpone(seq, (1,), due_s, note)
    await rig.until(lambda: bool(rig.mover.moves))
    await asyncio.sleep(1)
    rig.is_clean()
    await rig.stop()

    assert rig.mover.moves == [
        (seq, (0, 1, 2), [PartState(due_s, b""), PartState(due_s, note), PartState(due_s, b"")], 1)
    ]


def _owner(placement: Placement, host: str) -> int:
    return placement.owners(placement.by_mx((host,), host))[0]


@swiftly
async def test_stopping_while_names_are_looked_up(loop: SwiftLoop, tmp_path: Path):
    """Nothing is begun, nothing is left behind, the mail stays in the queue."""
    rig = DeliveryRig(loop, tmp_path, port=2525)
    rig.domain("a.test", "mx.a.test", address="127.0.0.1")
    rig.resolver.delay_s = 30.0
    rig.resolver.found["b.test"] = no_answer("b.test", "time-out")
    rig.send("b@a.test", "b@b.test")
    await rig.until(lambda: loop.time() > 1005)

    await rig.stop()
    await rig.until(lambda: loop.time() > 1100)

    assert rig.store.items == 1
    assert rig.resolver.asked["mx.a.test"] == 0


@swiftly
async def test_a_reload_asks_anew_for_what_waits(loop: SwiftLoop, tmp_path: Path):
    """Mail whose domain cannot be resolved goes by a new route at once."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.resolver.found["a.test"] = no_answer("a.test", "time-out")
        for name in names(5, "a.test"):
            rig.send(name)
        await rig.until(lambda: loop.time() > 1200)

        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.reload(default=PLAIN)
        await rig.settled(2.0)
        await rig.stop()

    assert sink.messages == 5


@swiftly
async def test_a_domain_that_vanishes_is_given_up_bit_by_bit(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The loop turns in between; what an admin cancels meanwhile does not bounce too."""
    monkeypatch.setattr(fates, "BOUNCED_AT_ONCE", 1)
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.resolver.found["a.test"] = no_answer("a.test", "timeout")
    for name in names(200, "a.test"):
        rig.send(name)
    await asyncio.sleep(5)
    rig.resolver.found["a.test"] = no_domain("a.test")

    await rig.act("retry")
    await asyncio.sleep(0)
    await rig.act("cancel")
    await rig.settled()
    await rig.stop()

    assert rig.events("bounced")
    assert rig.events("cancelled")
