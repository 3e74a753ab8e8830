"""Adapted: which messages on a path count against the rate that the event log told, and which an admin let go."""

from pathlib import Path
from typing import Any

import pytest

from mta.config import load
from mta.testing.adapted import Adapted
from mta.testing.promised_mail import Message, Recipient
from mta.testing.scripted_provider import Transaction
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_loop import SimulatedLoop, SimulatedTime

KEY = "path out-1 - p0.test > p0"
POLICY = """
match = { mx = ["*.p0.test"] }
[adapt]
on = ["other"]
floor = "30/min"
ceiling = "240/min"
"""
MUTED = {"event": "rule", "rule": "adapt", "change": "muted", "policy": "p0", "by": "command: admin"}


class Rig:
    """An Adapted that was told of one path's rate, 30/min, a minute ago."""

    def __init__(self, directory: Path) -> None:
        (directory / "policies").mkdir()
        (directory / "policies" / "p0.toml").write_text(POLICY)
        (directory / "mta.toml").write_text("")
        self.time = SimulatedTime(0)
        self.adapted = Adapted(SimulatedClock(self.time), lambda transaction: "p0.test", lambda message: "")
        self.adapted.configured(load(directory / "mta.toml"))
        fired = {"change": "fired", "by": "rule", "action": "slow", "rate": ["30/min"], "key": KEY}
        assert self.told(MUTED | fired | {"reason": "60/min to 30/min: 450 not now"}) == []
        self.time.now_s += 60.0

    def told(self, event: dict[str, Any]) -> list[str]:
        return [what for what, _ in self.adapted.told(event)]

    def goes(self, *numbers: int) -> None:
        """Messages, a tenth of a second apart."""
        for number in numbers:
            message = Message(number, "a@b.test", ["u@p0.example"])
            client = SimulatedLoop(self.time, "worker")
            sent = Transaction("p0", "p0", "out-1", "127.0.0.2", client, self.time.now_s, "good")
            assert not list(self.adapted.begun(Recipient("u@p0.example", message), sent, is_first=True))
            self.time.now_s += 0.1

    def ended(self) -> list[str]:
        return [what for what, _ in self.adapted.ended()]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_what_waited_for_a_rate_goes_at_once_when_an_admin_mutes_it(rig: Rig):
    """The line that tells it comes later, and names no path."""
    rig.goes(1)
    rig.adapted.muted("p0", "adapt")

    rig.goes(2, 3, 4)

    assert rig.told(MUTED) == []
    assert rig.ended() == []


def test_what_goes_right_before_a_mute_counts(rig: Rig):
    """A mute is no excuse for what was before."""
    rig.goes(1, 2, 3, 4)

    rig.adapted.muted("p0", "adapt")

    assert rig.told(MUTED) == []
    assert rig.ended() == [f"3.85 messages at once for {KEY} by 0.5/s, 1.50 may go"]


@pytest.mark.parametrize(("policy", "rule"), [("p1", "adapt"), ("p0", "r0")])
def test_a_mute_of_another_rule_lets_nothing_go(rig: Rig, policy: str, rule: str):
    """The rates of one policy alone are muted."""
    rig.goes(1)
    rig.adapted.muted(policy, rule)

    rig.goes(2, 3, 4)

    assert rig.ended() == [f"3.85 messages at once for {KEY} by 0.5/s, 1.50 may go"]


def test_a_mute_that_no_admin_made_is_wrong_and_lets_nothing_go(rig: Rig):
    """An engine does not excuse itself by a line in its log."""
    assert rig.told(MUTED) == ["the rates of p0 are told as muted, and no admin did so"]

    rig.goes(1, 2, 3, 4)

    assert rig.ended() == [f"3.85 messages at once for {KEY} by 0.5/s, 1.50 may go"]
