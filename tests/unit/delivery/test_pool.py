"""A pool under all kinds of weather at once: whatever the peers do, limits hold and every recipient has one fate.

The same with signatures that come late and out of order, and with keys that come and go while mail waits.
"""

import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from bench.sink import Profile, Sink
from mta.delivery.connection import SourceAddress
from mta.delivery.signatures import Signatures
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.signing_rig import FakeRing, PromptSigner, ed25519_key, verify
from mta.testing.swift_loop import SwiftLoop, swiftly

SEEDS = int(os.environ.get("WEATHER_SEEDS", "6"))  # WEATHER_SEEDS=100 pytest ... looks further
WORDS = ("ok", "ok", "ok", "ok", "unknown", "tempfail.2", "421.1", "drop.1", "deferdot.1", "spam", "dropdot.1", "slow")


def policy(random: Random) -> str:
    """Limits of every kind, tight ones, at every level."""
    return f"""
match = {{ mx = ["*.prov.test"] }}
tls = "none"
[limits]
connections = {random.choice([1, 2, 4])}
connection_rate = {random.choice(['"none"', '"20/s"'])}
messages_per_connection = {random.choice([0, 1, 3, 10])}
rate = {random.choice(['"none"', '"10/s"'])}
recipients_per_transaction = {random.choice([0, 1, 3])}
recipients_per_connection = {random.choice([0, 5])}
mix_domains = {random.choice(["true", "false"])}
[source_limits]
connections = {random.choice([0, 1, 3])}
rate = {random.choice(['"none"', '"20/s"'])}
[provider_limits]
connections = {random.choice([0, 2, 5])}
rate = {random.choice(['"none"', '"30/s"'])}
[retry]
schedule = ["10s", "60s"]
jitter = "20%"
expire = "2h"
"""


def assert_limits(rig: DeliveryRig) -> None:
    """At this moment no meter counts more than it may."""
    for destination in rig.dispatcher.domains.destinations.values():
        meters = [destination.provider_limit.meter]
        meters += [pool.meter for site in destination.sites.values() for pool in site.pools.values()]
        meters += [destination.source_limit(source).meter for source in rig.sources]
        assert all(meter.connections_open <= meter.connections_max for meter in meters)


KEY = ed25519_key("shop.test")
BODY = "From: a@shop.test\r\nMessage-ID: <{0}>\r\n\r\nhello {0}\r\n"


class LateSigner(PromptSigner):
    """Takes its time, a different one for each."""

    def __init__(self, loop: SwiftLoop, random: Random) -> None:
        super().__init__(loop)
        self._random = random

    def finish(self, count: int = 1, at: int = 0) -> None:
        """Any of those that wait."""
        super().finish(count, self._random.randrange(len(self.queue)))

    @property
    def delay_s(self) -> float:
        return self._random.choice([0.0, 0.001, 0.01, 0.01, 2.0])

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        """It is chance's."""


@pytest.mark.parametrize("signs", ["never", "always", "at times"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_weather(seed: int, signs: str, tmp_path: Path):
    """Sites that go down and come back, peers that defer, drop and throttle, in a few kilobytes of memory.

    What is signed is signed once, with one signature for all recipients and attempts.
    """

    @swiftly
    async def main(loop: SwiftLoop) -> None:
        random = Random(seed)
        text = policy(random)
        sources = [SourceAddress(f"s{number}", f"127.0.1.{number}", "", f"s{number}.test") for number in (1, 2)]
        profiles = [
            Profile(
                name=f"p{number}",
                latency_s=random.choice([0.0, 0.05]),
                messages_per_connection=random.choice([0, 0, 4]),
                connections_max=random.choice([0, 0, 1]),
                deferred_percent=random.choice([0, 20]),
                keep="contents",
            )
            for number in range(4)
        ]
        async with Sink(profiles) as sink:
            ring = FakeRing({"shop.test": [KEY]}).as_ring()
            signer = LateSigner(loop, Random(seed))
            signatures = Signatures(ring if signs == "always" else None, signer.as_signer(), loop)
            rig = DeliveryRig(
                loop, tmp_path, port=sink.port, sources=sources, memory_bytes_max=random.choice([3_000, 1 << 20]),
                signatures=signatures, prov=text,
            )  # fmt: skip
            rig.disk.is_cached = random.random() < 0.5
            providers = list(sink.profiles.values())
            for number in range(8):
                hosts = [f"mx{number // 2}-{which}.prov.test" for which in range(2)]
                for which, host in enumerate(hosts):
                    rig.resolver.addresses_of[host] = [providers[(number // 2 + which) % 4].address]
                rig.domain(f"d{number}.test", *hosts)
            for number in range(250):
                recipients = {
                    f"{random.choice(WORDS)}+{number}-{part}@d{random.randrange(8)}.test"
                    for part in range(random.choice([1, 1, 1, 2, 7]))
                }
                content = BODY.format(f"m{number + 1}").encode()
                rig.send(*recipients, priority=random.randrange(10), content=content, from_domain="shop.test")
                if number % 50 == 20:
                    provider = random.choice(providers)
                    await provider.set_down(not provider.profile.down)
                    await asyncio.sleep(random.choice([0.3, 3]))
                    assert_limits(rig)
                if number == 120:
                    rig.reload(prov=text)
                if signs == "at times" and number in (60, 119, 180):
                    signatures.reload(ring if signatures.is_off else None)
                    if number == 180:
                        rig.reload(prov=text)
            for provider in providers:
                await provider.set_down(False)
            while rig.finals < len(rig.accepted):
                await asyncio.sleep(5)
                assert_limits(rig)
                assert loop.time() < 10_000, rig.left()
            await rig.settled()
            await rig.stop()
            for destination in rig.dispatcher.domains.destinations.values():
                assert destination.provider_limit.meter.connections_open == 0
        by_recipient: dict[str, int] = {}
        for provider in providers:
            for recipient, count in provider.by_recipient().items():
                by_recipient[recipient] = by_recipient.get(recipient, 0) + count
        delivered = {line["recipient"] for line in rig.events("delivered")}
        uncertain = {line["recipient"] for line in rig.events("deferred") if line.get("uncertain")}
        assert set(by_recipient) == delivered
        assert {recipient for recipient, count in by_recipient.items() if count > 1} <= uncertain
        assert not rig.events("expired")
        assert not signer.queue
        signed: dict[str, set[bytes]] = {}
        for provider in providers:
            for each in provider.deliveries:
                before, _, content = each.content.partition(b"From: ")
                assert content == BODY.format(each.id).encode()[6:]
                signed.setdefault(each.id, set()).add(before)
                assert not before or verify(each.content, KEY)
        made = set().union(*signed.values())
        if signs == "never":
            assert made == {b""}
        elif signs == "always":
            assert b"" not in made
            assert all(len(each) == 1 for each in signed.values())
            assert len(signed) <= signer.signatures <= rig.count
        else:
            assert b"" in made
            assert len(made) > 20

    main()
