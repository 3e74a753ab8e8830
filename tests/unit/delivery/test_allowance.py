"""An allowance counts what is said when it is said."""

from pathlib import Path

import pytest

from bench.sink import Profile, Sink
from mta.delivery.channel import Channel
from mta.delivery.job import Job
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly

LIMITED = "[{level}]\nrate = '30/min'\n[retry]\nschedule = ['5m']\n"


class LateClock:
    """The loop's time is as old as its turn, which may have been long."""

    def __init__(self, loop: SwiftLoop) -> None:
        self.wall_s = loop.wall_s
        self.turn_s = 0.05
        self._loop = loop

    def monotonic_s(self) -> float:
        return self._loop.time() + self.turn_s


@pytest.mark.parametrize("level", ["limits", "source_limits", "provider_limits"])
@swiftly
async def test_a_mail_at_the_end_of_a_long_turn_counts_from_then(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
):
    """The next one, in a short turn, comes no sooner after it than the rate allows."""
    said_s: list[float] = []
    clock, send = LateClock(loop), Channel.send

    def sends(channel: Channel, job: Job) -> None:
        said_s.append(clock.monotonic_s())
        clock.turn_s = 0.0
        send(channel, job)

    monkeypatch.setattr(Channel, "send", sends)
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=LIMITED.format(level=level))
        rig.dispatcher.clock = clock
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        rig.send("b@a.test")
        rig.send("c@a.test")
        await rig.settled()
        await rig.stop()

    first_s, second_s = said_s
    assert second_s - first_s >= 2.0
