"""An allowance counts what is said when it is said."""

from pathlib import Path
from unittest.mock import patch

import pytest

from bench.policed import Answering
from bench.sink import Profile, Sink
from mta.delivery import channel
from mta.delivery.allowance import Allowance
from mta.delivery.channel import Channel
from mta.delivery.job import Job
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, run_swiftly, swiftly

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


SHARED = 'match = {{ domains = ["*.test"] }}\n{limits}\n[retry]\nschedule = ["5m"]\njitter = "0%"\nexpire = "1d"\n'


def _told(path: Path, limits: str, *, asks: bool) -> list[tuple[str, str, float]]:
    """What becomes of mail for two sites of a provider, and when; `asks`: every question is asked of every message."""

    path.mkdir()

    async def deliver(loop: SwiftLoop) -> list[tuple[str, str, float]]:
        rig = DeliveryRig(loop, path, port=25, google=SHARED.format(limits=limits))
        for site in "ab":
            rig.domain(f"{site}.test", f"mx.{site}.test", address="192.0.2.25")
        for number in range(60):
            rig.send(f"r{number}@{'aab'[number % 3]}.test", priority=number // 7 % 3)
            if number % 20 == 0:
                await rig.until(lambda least=number // 2: rig.finals >= least)
        await rig.settled()
        await rig.stop()
        return [(line["event"], line["recipient"], line["time"]) for line in rig.events() if "recipient" in line]

    with patch.object(channel, "Connection", Answering):
        if not asks:
            return run_swiftly(deliver)
        with patch.object(Allowance, "lets", lambda self, now_s: False):
            return run_swiftly(deliver)


@pytest.mark.parametrize(
    "limits",
    [
        '[limits]\nconnections = 2\nrate = "3/s"',
        '[limits]\nrate = ["4/s", "90/min"]\n[source_limits]\nrate = "3/s"\n[provider_limits]\nrate = "150/min"',
        '[limits]\nmessages_per_connection = 4\n[provider_limits]\nconnections = 1\nrate = "5/s"',
    ],
)
def test_what_is_let_go_without_a_question_would_have_been_let_go(tmp_path: Path, limits: str) -> None:
    """The same messages at the same moments, one by one."""
    short, long = (_told(tmp_path / str(asks), limits, asks=asks) for asks in (False, True))

    assert short == long
    assert len({time_s for _, _, time_s in short}) > 10
