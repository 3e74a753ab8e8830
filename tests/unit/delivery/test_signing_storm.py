"""A storm while mail is signed: nothing leaves unsigned, twice or never, and no connection waits for nothing."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from bench.sink import Profile, Sink
from mta.delivery.signatures import Signatures
from mta.signing.signature import Prepared
from mta.testing.delivery_rig import PLAIN, DeliveryRig
from mta.testing.signing_rig import FakeRing, HandSigner, ed25519_key, verify
from mta.testing.swift_loop import SwiftLoop, run_swiftly

KEYS = [ed25519_key("shop.test", f"s{number}") for number in range(3)]
CONTENT = b"From: a@shop.test\r\nSubject: hello\r\n\r\n"
SETTLED_S = 3600.0
"""A few rounds of the schedule; idle connections stay longer, so that whoever waits for their end waits for ever."""


class StormySigner(HandSigner):
    """Answers some time later, in any order; refuses now and then, and is away for a while."""

    def __init__(self, loop: SwiftLoop, random: Random) -> None:
        super().__init__()
        self._loop = loop
        self._random = random
        self.is_away = False
        self.refuses = 0.1

    def sign(self, prepared: Sequence[Prepared], done: Callable[[list[bytes] | None], None], priority: int = 5) -> None:
        super().sign(prepared, done, priority)
        self._loop.call_later(self._random.choice((0.0, 0.001, 0.05, 2.0)), self.go_on)

    def go_on(self) -> None:
        """One of those that wait, unless it is away."""
        if self.is_away or not self.queue:
            return
        at = self._random.randrange(len(self.queue))
        if self._random.random() < self.refuses:
            self.queue.rotate(-at)
            self.refuse("a storm")
        else:
            self.finish(at=at)

    def is_back(self) -> None:
        """Everything that waited is answered."""
        self.is_away = False
        while self.queue:
            self.go_on()


@pytest.mark.parametrize("seed", range(4))
def test_all_is_signed_and_sent_once(tmp_path: Path, seed: int):
    """Whatever happens to keys, helpers, owners, sites and orders: what is not cancelled arrives once, well signed."""

    async def storm(loop: SwiftLoop) -> None:
        random = Random(seed)
        signer = StormySigner(loop, random)
        ring = FakeRing({"shop.test": [KEYS[0]]}, unsigned="refuse")
        signatures = Signatures(ring.as_ring(), signer.as_signer(), loop)
        profiles = [Profile(name=name, latency_s=0.02 * at, keep="contents") for at, name in enumerate("abc")]
        async with Sink(profiles) as sink:
            rig = DeliveryRig(
                loop,
                tmp_path,
                port=sink.port,
                signatures=signatures,
                memory_bytes_max=random.choice((1_000, 1 << 30)),
                default=_policy(random),
            )
            rig.domains_of(sink.profiles)
            for _ in range(40):
                _mail(rig, random)
                await _trouble(rig, sink, signer, signatures, random)
                rig.dispatcher.idle_timeout_s = 100 * SETTLED_S
                await asyncio.sleep(random.choice((0.0, 0.0, 0.01, 0.1, 1.0, 60.0)))
            signer.refuses = 0.0
            signatures.reload(FakeRing({"shop.test": KEYS[1:]}, unsigned="refuse").as_ring())
            for profile in sink.profiles.values():
                await profile.set_down(False)
            await rig.suspend()
            await rig.act("release")
            signer.is_back()
            await rig.settled(SETTLED_S)
            await rig.stop()

        deliveries = [each for profile in sink.profiles.values() for each in profile.deliveries]
        for each in deliveries:
            fields, _, _ = each.content.partition(b"From: ")
            assert verify(each.content, *KEYS), fields
        arrived = Counter(recipient for each in deliveries for recipient in each.recipients)
        delivered = Counter(line["recipient"] for line in rig.events("delivered"))
        for line in rig.events("deferred"):
            if line.get("uncertain"):  # a mail host that went down took it perhaps and did not say so
                arrived[line["recipient"]] = delivered[line["recipient"]]
        assert +arrived == delivered
        assert {line["dkim"] for line in rig.events("delivered")} == {"shop.test"}
        assert not signer.queue
        assert rig.dispatcher.errors == 0

    run_swiftly(storm)


def _policy(random: Random) -> str:
    connections = random.choice((1, 2, 10))
    rate = random.choice(("", "rate = '5/s'\n"))
    whole = random.choice(("", "[provider_limits]\nconnections = 2\nrate = '10/s'\n"))
    return PLAIN.replace("connections = 10\n", f"connections = {connections}\n{rate}") + whole


def _mail(rig: DeliveryRig, random: Random) -> None:
    for _ in range(random.choice((1, 1, 5, 30))):
        to = {
            f"{random.choice(('x', 'x', 'x', 'tempfail.1'))}+{rig.count}.{part}"
            for part in range(random.choice((1, 3)))
        }
        recipients = sorted(f"{name}@{random.choice('abc')}.test" for name in to)
        rig.send(
            *recipients,
            content=CONTENT + random.choice((b"", b"text", b"8 bit: \xe4 \r\n\r\n")),
            from_domain="shop.test",
            priority=random.randrange(10),
            tenant=random.choice("tu"),
            date_missing=random.random() < 0.3,
        )


async def _trouble(rig: DeliveryRig, sink: Sink, signer: StormySigner, signatures: Signatures, random: Random) -> None:
    if random.random() < 0.2:
        await rig.act(random.choice(("hold", "release", "cancel", "retry")), tenant=random.choice("tu"))
    if random.random() < 0.1:
        await rig.suspend(rig.suspension(random.choice((1.0, 60.0)), domain=f"{random.choice('abc')}.test"))
    if random.random() < 0.1:
        await sink.profiles[random.choice("abc")].set_down(random.random() < 0.5)
    if random.random() < 0.1:
        signatures.reload(FakeRing({"shop.test": [random.choice(KEYS)]}, unsigned="refuse").as_ring())
    if random.random() < 0.1:
        domains = random.sample(["a.test", "b.test", "c.test"], 2)
        rig.reload(default=_policy(random), prov=f"match = {{ domains = {json.dumps(domains)} }}\n" + _policy(random))
    if random.random() < 0.2:
        signer.is_away = not signer.is_away
        if not signer.is_away:
            signer.is_back()
