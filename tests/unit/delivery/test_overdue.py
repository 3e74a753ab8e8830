"""A disk that takes no fates: mail goes out until too many of them wait in memory, then it waits for the disk."""

import asyncio
from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue import journal

MESSAGES = 40
SLOWLY = '[limits]\nrate = "1/s"\nconnections = 1\n[retry]\nschedule = ["5m"]\njitter = "0%"\nexpire = "1d"\n'


@swiftly
async def test_no_more_is_sent_than_fates_can_wait(loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a disk that fails deliveries stop at the bound for fates in memory, and go on when they are written."""
    monkeypatch.setattr(journal, "FATES_WAITING_BYTES_MAX", 1_500)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=SLOWLY)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for number in range(MESSAGES):
            rig.send(f"r{number}@a.test")
        await asyncio.sleep(3.0)

        def broken(operation: str, path: Path) -> None:
            raise OSError(5, "made up")

        rig.disk.on_call = broken
        await asyncio.sleep(60.0)
        stopped_at = len(sink.profiles["a"].by_recipient())
        await asyncio.sleep(60.0)
        still = len(sink.profiles["a"].by_recipient())
        rig.disk.on_call = lambda operation, path: None
        await rig.settled()
        await rig.stop()

    assert 5 < stopped_at == still < MESSAGES
    assert sink.profiles["a"].by_recipient() == {f"r{number}@a.test": 1 for number in range(MESSAGES)}
