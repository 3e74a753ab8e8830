"""Retry: when to try again, and when to give up. Pure: time and chance are arguments.

Times are Unix seconds, because `avoid` means minutes that other people's clocks show too. Minutes of the hour
are those of UTC, which are everybody's but where a zone is off by half an hour.
"""

from functools import lru_cache

from mta_policies.schema import Retry
from mta_policies.units import MinuteWindow

MINUTE_S = 60
HOUR_MINUTES = 60
SPREAD_MINUTES_MAX = 10  # what was held back by an avoided window comes back over so many minutes, not at once


def next_attempt_s(retry: Retry, attempts: int, now_s: float, random_unit: float, after_s: float = 0.0) -> float:
    """When to try again after so many attempts (the one just made included), Unix seconds, never before `now_s`.

    `random_unit` is a chance from 0 to 1 (1 not included): it places the time within the jitter, and within
    the minutes after an avoided window. `after_s`: a rule says when, instead of the schedule: never before that.
    """
    if after_s:
        delay_s = after_s * (1.0 + retry.jitter * random_unit)
    else:
        delay_s = retry.schedule[min(max(attempts, 1), len(retry.schedule)) - 1]
        delay_s *= 1.0 + retry.jitter * (2.0 * random_unit - 1.0)
    return after_avoided_s(retry.avoid, now_s + delay_s, random_unit)


def after_avoided_s(avoid: tuple[MinuteWindow, ...], at_s: float, random_unit: float) -> float:
    """The same time, or where it lies in an avoided window, one in the minutes after its end."""
    if not avoid:
        return at_s
    to_wait, to_spread = _hour(avoid)[int(at_s // MINUTE_S) % HOUR_MINUTES]
    if not to_wait:
        return at_s
    # Whoever lies in the window has a chance from a narrow range: its later digits are spread over all of 0 to 1.
    spread_unit = random_unit * 7919.0 % 1.0
    return (at_s // MINUTE_S + to_wait) * MINUTE_S + spread_unit * (to_spread * MINUTE_S - 1)


@lru_cache(maxsize=1024)
def _hour(avoid: tuple[MinuteWindow, ...]) -> tuple[tuple[int, int], ...]:
    """For each minute of the hour: minutes to the end of its window (0: it is in none), and the free ones after."""
    avoided = {minute for window in avoid for minute in window.minutes()}
    assert len(avoided) < HOUR_MINUTES, "nothing is left of the hour"  # the reader refuses it

    def run(start: int, is_avoided: bool) -> int:
        length = 0
        while ((start + length) % HOUR_MINUTES in avoided) == is_avoided and length < SPREAD_MINUTES_MAX + HOUR_MINUTES:
            length += 1
        return length

    hour = []
    for minute in range(HOUR_MINUTES):
        to_wait = run(minute, True)
        hour.append((to_wait, min(run(minute + to_wait, False), SPREAD_MINUTES_MAX) if to_wait else 0))
    return tuple(hour)


def expires_s(retry: Retry, accepted_s: float, own_expire_s: float = 0.0) -> float:
    """When a message is given up, Unix seconds. `accepted_s`: when it was accepted, or, where it was delayed, due;
    `own_expire_s`: seconds that the sender asked for, 0 for none."""
    return accepted_s + (own_expire_s or retry.expire_s)
