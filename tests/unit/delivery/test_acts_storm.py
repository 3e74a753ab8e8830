"""Admins in a storm: whatever they do at whatever moment, each recipient has one fate."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.sink import Profile, Sink
from mta.delivery.registry import is_held
from mta.delivery.suspensions import Suspensions
from mta.testing.delivery_rig import FINAL, PLAIN, DeliveryRig, slow_signatures
from mta.testing.memory_disk import MemoryDisk
from mta.testing.swift_loop import SwiftLoop, run_swiftly


@pytest.mark.parametrize("seed", range(8))
def test_a_storm_of_orders_loses_and_doubles_nothing(tmp_path: Path, seed: int):
    """Whatever admins do while mail is deferred, refused, resolved, read back, signed and sent, and while the server
    is restarted: each recipient is delivered once, bounced once or cancelled once; senders hear of what bounced."""

    async def storm(loop: SwiftLoop) -> None:
        random = Random(seed)
        async with Sink([Profile(name=name, latency_s=0.02 * at) for at, name in enumerate("abc")]) as sink:
            disk = MemoryDisk()
            accepted: set[tuple[str, str]] = set()
            final: Counter[tuple[str, str, str]] = Counter()
            uncertain: set[str] = set()
            told = 0
            count = 0
            for generation in range(3):
                folder = tmp_path / str(generation)
                folder.mkdir()
                rig = DeliveryRig(
                    loop,
                    folder,
                    port=sink.port,
                    disk=disk,
                    default=PLAIN.replace("= 10", "= 2"),
                    memory_bytes_max=2_000,
                    wants_dsn=lambda envelope: True,
                    signatures=slow_signatures(loop) if seed % 2 else None,
                )
                rig.domains_of(sink.profiles)
                rig.count = count
                for seq, parts in rig.recovered.waiting:
                    rig.dispatcher.found(seq, parts)
                await _storm(loop, random, rig, sink)
                accepted |= rig.accepted
                count = rig.count
                if generation == 2:
                    await _calm_down(rig, sink, accepted, final)
                await rig.stop()
                assert rig.dispatcher.errors == 0
                told += rig.notices.released
                uncertain.update(line["recipient"] for line in rig.events("deferred") if line.get("uncertain"))
                final.update(
                    (line["id"], line["recipient"], line["event"]) for line in rig.events() if line["event"] in FINAL
                )
            arrived = Counter[str]()
            for profile in sink.profiles.values():
                arrived.update(profile.by_recipient())

        assert {(message, recipient) for message, recipient, _ in final} == accepted
        assert set(final.values()) == {1}
        assert len(final) == len(accepted)
        delivered = {recipient: 1 for _, recipient, event in final if event == "delivered"}
        assert delivered.keys() <= arrived.keys()
        for recipient in uncertain:  # a mail host that went down took it perhaps and did not say so
            arrived[recipient] = delivered.get(recipient, 0)
        assert +arrived == delivered
        bounced = {message for message, _, event in final if event == "bounced"}
        assert {event for _, _, event in final} <= {"delivered", "bounced", "cancelled"}
        assert len(bounced) <= told <= sum(event == "bounced" for _, _, event in final)

    run_swiftly(storm)


async def _storm(loop: SwiftLoop, random: Random, rig: DeliveryRig, sink: Sink) -> None:
    orders: list[asyncio.Task[object]] = []
    words = ["x", "x", "tempfail.1", "tempfail.2", "deferdot.1", "drop.1", "unknown"]
    for step in range(50):
        recipients = {
            f"{random.choice(words)}+{rig.count}.{part}@{random.choice('abc')}.test"
            for part in range(random.choice((1, 1, 3)))
        }
        delay_s = random.choice((0.0, 0.0, 0.0, 400.0))
        rig.send(*sorted(recipients), tenant=random.choice("tu"), **_send_at(loop, delay_s))
        if random.random() < 0.4:
            verb = random.choice(("hold", "release", "retry", "retry", "cancel"))
            orders.append(loop.create_task(rig.act(verb, **_some(random, rig.count))))
        if random.random() < 0.2:
            chosen = {"all": True} if random.random() < 0.3 else _some(random, rig.count)
            await rig.suspend(rig.suspension(random.choice((1.0, 30.0, 500.0)), f"s{step}", **chosen))
        if random.random() < 0.1:
            await sink.profiles[random.choice("abc")].set_down(random.random() < 0.5)
        if random.random() < 0.2:
            rig.notices.fails = random.random() < 0.5
            rig.notices.holds = random.random() < 0.5
            while rig.notices.held and not rig.notices.holds:
                rig.notices.held.pop()()
        await asyncio.sleep(random.choice((0.0, 0.001, 0.1, 2.0, 100.0)))
        _check_counts(rig)
    await asyncio.gather(*orders)
    rig.notices.fails = rig.notices.holds = False
    while rig.notices.held:
        rig.notices.held.pop()()


def _check_counts(rig: DeliveryRig) -> None:
    """What is held and what is parked is counted as it is, once."""
    store, parking = rig.store, rig.dispatcher.parking
    waiting = [(seq, part, due_s) for seq in store.seqs() for part, due_s in store.dues(seq)]
    assert rig.dispatcher.held == sum(is_held(due_s) for _, _, due_s in waiting)
    parked = [(seq, part) for seq, parts in parked_of(rig.dispatcher.suspensions) for part in parts]
    assert parking.parts == len(parked) == len(set(parked))
    assert set(parked) <= {(seq, part) for seq, part, due_s in waiting if not is_held(due_s)}


def parked_of(suspensions: Suspensions) -> list[tuple[int, Sequence[int]]]:
    return [item for held in suspensions._known.values() if not held.is_over for item in held.lot.parked.items()]


async def _calm_down(
    rig: DeliveryRig, sink: Sink, accepted: set[tuple[str, str]], final: Counter[tuple[str, str, str]]
) -> None:
    """Let everything go, and wait for it."""
    for profile in sink.profiles.values():
        await profile.set_down(False)
    await rig.suspend()
    await rig.act("release")
    await rig.until(lambda: rig.finals + len(final) >= len(accepted) and rig.store.items == 0)
    await asyncio.sleep(1)
    rig.is_clean()
    assert rig.dispatcher.held == 0
    assert rig.dispatcher.parking.parts == 0


def _send_at(loop: SwiftLoop, delay_s: float) -> dict[str, Any]:
    return {"send_at_s": loop.wall_s() + delay_s} if delay_s else {}


def _some(random: Random, step: int) -> dict[str, Any]:
    return random.choice(
        (
            {"domain": f"{random.choice('abc')}.test"},
            {"site": f"mx.{random.choice('abc')}.test"},
            {"tenant": random.choice("tu")},
            {"recipient": f"*{random.randrange(10)}.*@*"},
            {"id": f"m{random.randrange(step + 1)}"},
            {"older_than_s": random.choice((1.0, 60.0))},
        )
    )
