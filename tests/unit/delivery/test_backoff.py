"""Backoff: a site that is down is knocked at ever more rarely, by one connection at a time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.delivery.health import health_of
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta_policies.backoff import FIRST_WAIT_S, JITTER, WAIT_MAX_S, Backoff

PROBE, OTHER = "probe", "other"
BUSY = Reply(421, "4.7.0", "busy")
LATER = Reply(451, "4.3.0", "later")
LOST = Deferred(Reply(451, "4.4.2", "lost"), "mail", from_peer=False)


def test_a_new_one_is_well():
    """Nothing has to be waited for, and an answer is no news."""
    backoff = Backoff()

    assert backoff.wait_s(5.0) == 0.0
    assert backoff.answered(4.0) is False


def test_a_failure_is_waited_for():
    """A second, without chance's part."""
    backoff = Backoff()

    assert backoff.failed(100.0, 0.5, begun_s=99.0) is True

    assert backoff.wait_s(100.0) == FIRST_WAIT_S
    assert backoff.wait_s(100.5) == 0.5
    assert backoff.wait_s(101.0) == 0.0


def test_a_wave_of_failures_is_one():
    """Connections that were begun before the first of them failed tell nothing new."""
    backoff = Backoff()

    news = [backoff.failed(100.0 + number, 0.5, begun_s=99.0) for number in range(10)]

    assert news == [True] + [False] * 9
    assert backoff.failures == 1


def test_one_probe_at_a_time():
    """As long as it is on its way nobody else tries."""
    backoff = Backoff()
    backoff.failed(100.0, 0.5)

    backoff.begin(PROBE)

    assert backoff.wait_s(200.0) == math.inf
    assert backoff.end(OTHER) is False
    assert backoff.wait_s(200.0) == math.inf
    assert backoff.end(PROBE) is True
    assert backoff.wait_s(200.0) == 0.0


def test_a_connection_to_a_site_that_is_well_is_no_probe():
    """Its end is nothing that others wait for."""
    backoff = Backoff()

    backoff.begin(PROBE)

    assert backoff.end(PROBE) is False


def test_only_a_connection_begun_after_the_failure_proves_anything():
    """Older ones that still carry mail do not say that one more would be taken."""
    backoff = Backoff()
    backoff.failed(100.0, 0.5)
    backoff.begin(PROBE)

    assert backoff.answered(99.0) is False
    assert backoff.failures == 1
    assert backoff.answered(101.5) is True
    assert backoff.wait_s(101.5) == 0.0


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40))
def test_waits_grow_to_their_most(chances: list[float]):
    """Each doubles the last, within the jitter, up to two minutes."""
    backoff, now_s, mean_s = Backoff(), 0.0, FIRST_WAIT_S

    for chance in chances:
        backoff.failed(now_s, chance)
        wait_s = backoff.wait_s(now_s)
        assert mean_s * (1 - JITTER) <= wait_s + 1e-6
        assert wait_s <= mean_s * (1 + JITTER) + 1e-6
        now_s, mean_s = backoff.until_s, min(WAIT_MAX_S, mean_s * 2)


@pytest.mark.parametrize(
    ("outcomes", "is_first", "health"),
    [
        ([Delivered(Reply(250, "", "ok"))], True, True),
        ([Bounced(Reply(550, "5.1.1", "no"), "rcpt")], True, True),
        ([Deferred(LATER, "rcpt")], True, True),
        ([Deferred(BUSY, "mail")], True, False),
        ([Deferred(BUSY, "mail")], False, False),
        ([Deferred(BUSY, "rcpt"), Delivered(Reply(250, "", "ok"))], False, True),
        ([LOST], True, False),
        ([LOST], False, None),
        ([Bounced(Reply(552, "5.3.4", "too big"), "local", False)], True, None),
    ],
)
def test_what_a_transaction_says_about_the_peer(outcomes: list[Outcome], is_first: bool, health: bool | None):
    """An answer is well, 421 and a connection that breaks at once are trouble, the rest says nothing."""
    assert health_of(outcomes, is_first) is health
