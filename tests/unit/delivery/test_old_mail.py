"""Mail that has left memory and mail that comes as fast as it may go: the old one is passed for a moment at most."""

import asyncio
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.signatures import Signatures
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.signing_rig import FakeRing, PromptSigner, ed25519_key
from mta.testing.swift_loop import SwiftLoop, swiftly

KEY = ed25519_key("shop.test")
CONTENT = b"From: a@shop.test\r\n\r\nhello\r\n"
POLICY = """
match = {{ mx = ["*.prov.test"] }}
[{level}]
rate = "30/min"
[retry]
schedule = ["5m"]
"""


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize(("level", "other"), [("limits", "a"), ("provider_limits", "a"), ("provider_limits", "b")])
@pytest.mark.parametrize(("priority", "campaign"), [(5, ""), (9, ""), (5, "spring")])
@swiftly
async def test_it_goes_before_what_is_fresh(
    loop: SwiftLoop, tmp_path: Path, signs: bool, level: str, other: str, priority: int, campaign: str
):
    """Whatever goes the same way, of the same site or of another one that shares the limit."""
    signatures = Signatures(FakeRing({"shop.test": [KEY]}).as_ring(), PromptSigner(loop).as_signer(), loop)
    async with Sink([Profile(name="p")]) as sink:
        rig = DeliveryRig(
            loop, tmp_path, port=sink.port, signatures=signatures if signs else None, prov=POLICY.format(level=level)
        )
        rig.disk.is_cached = False
        for site in "ab":
            rig.domain(f"{site}.test", f"mx.{site}.prov.test", address=sink.profiles["p"].address)
        rig.send(*{"first@a.test", f"first@{other}.test"}, content=CONTENT, from_domain="shop.test")
        await asyncio.sleep(0.1)

        rig.send("old@a.test", content=CONTENT, from_domain="shop.test", priority=priority, campaign=campaign)
        await asyncio.sleep(1.6)
        for number in range(20):
            rig.send(f"new{number}@{other}.test", content=CONTENT, from_domain="shop.test")
            await asyncio.sleep(2.0)
        await rig.settled()
        await rig.stop()

    order = [line["recipient"].partition("@")[0] for line in rig.events("delivered")]
    assert order.index("old") <= 4
