"""`mta queue why`: sentences about each recipient that waits."""

from collections.abc import Iterator
from typing import Any

import pytest

from mta.admin.pages import MessagePage
from mta.cli.queue_why import _why_lines
from mta.reporting.waiting import Reason, RecipientRow, State

NOW_S = 1_750_000_000.0


def said(state: State, reason: Reason, **more: Any) -> str:
    values = {"policy": "google", "waits_for": "its turn", **more}
    row = RecipientRow("m1", "a@x.test", "news@shop.test", "x.test", state, reason=reason, **values)
    lines: Iterator[str] = _why_lines(MessagePage("m1", rows=[row]), NOW_S, None)
    first, *rest = lines
    assert first == f"a@x.test: {state}"
    return " ".join(line.strip() for line in rest)


def test_a_limit_is_told_with_its_place() -> None:
    """Which value of which policy, in which file and line, how many are before it, and when its turn comes, about."""
    reason = Reason("rate", "limits.rate", "20/s", "policies/google.toml:12", 2, 2400, NOW_S + 240, 10.0)
    text = said("ready", reason, waits_for="the rate of 20/s; 2,400 before it")
    assert text == (
        "It waits for the rate of 20/s; 2,400 before it. "
        "That is limits.rate = 20/s of the policy google, written in policies/google.toml:12, of which each of 2 "
        "workers has its share. It is tried next in about 4 min: 2,400 before it at 10/s."
    )


def test_what_is_scheduled_says_when_and_what_was_said() -> None:
    """The step of the schedule, the last reply, and the end of its time."""
    reason = Reason("schedule", "retry.schedule", "5m", "built in", next_s=NOW_S + 300)
    text = said(
        "scheduled",
        reason,
        waits_for="its next attempt",
        last_reply="451 4.3.0 later",
        last_host="mx.x.test",
        last_s=NOW_S - 60,
        attempts=1,
        expires_s=NOW_S + 86_400,
        expires_from="policies/default.toml:9",
    )
    assert "That is retry.schedule = 5m of the policy google, which no file says otherwise." in text
    assert "It is tried next in 5 min, " in text
    assert "`mta queue retry --id m1` tries at once." in text
    assert "mx.x.test said: 451 4.3.0 later (1 attempt, 1 min ago)." in text
    assert "(retry.expire, policies/default.toml:9)." in text


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("held", Reason("held"), "`mta queue release --id m1` lets it go."),
        ("held", Reason("exported"), "would send it twice"),
        ("suspended", Reason("suspended", next_s=NOW_S + 60), "`mta suspend list`"),
        ("sending", Reason("sending"), "A transaction with it is under way. Its fate is known in a moment."),
        ("ready", Reason("connections"), "When it is tried next cannot be known."),
        ("ready", Reason("connections", before=7), "When it is tried next cannot be known: 7 before it."),
        ("ready", Reason("down", next_s=NOW_S - 1), "It is tried next now, "),
    ],
)
def test_every_state_has_a_sentence(state: State, reason: Reason, expected: str) -> None:
    """And what the admin can do about it."""
    assert expected in said(state, reason)


@pytest.mark.parametrize(
    ("next_s", "told"), [(NOW_S + 7200, "up before that, in 60 min, "), (NOW_S + 60, "up in 60 min, ")]
)
def test_what_is_given_up_before_its_turn_says_so(next_s: float, told: str) -> None:
    """Nobody is to wait for a turn that does not come."""
    reason = Reason("quota", "limits.quota", "2 per day", "policies/google.toml:3", next_s=next_s)

    assert f"It is given {told}" in said("ready", reason, expires_s=NOW_S + 3600)


def test_what_waits_no_more_is_said() -> None:
    """With the place where its past is."""
    assert list(_why_lines(MessagePage("m1"), NOW_S, None)) == [
        "m1: nothing of it waits any more; mta queue show m1 says what became of it"
    ]
