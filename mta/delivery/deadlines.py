"""Deadlines: how long a peer may take, and the one timer that watches all of them.

A connection writes the time of its deadline into an attribute and goes on; nothing is started or cancelled per
command. A sweep looks at every connection of the worker a few times a second. Deadlines are minutes, so a sweep's
period late is nothing; early is never (a connection counts for 5 s after QUIT, not for 4.7).
"""

import asyncio
import math
from typing import Protocol

import msgspec

from mta.model.clock import Clock

NEVER_S = math.inf
SWEEP_PERIOD_S = 0.5  # 10,000 connections cost about a millisecond a sweep


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds that a peer may take, per phase (RFC 5321 4.5.3.2)."""

    connect_s: float = 30.0
    greeting_s: float = 300.0
    ehlo_s: float = 300.0
    starttls_s: float = 120.0
    handshake_s: float = 60.0
    """The whole TLS handshake, however many pieces it comes in."""
    mail_s: float = 300.0
    rcpt_s: float = 300.0
    data_s: float = 120.0
    content_block_s: float = 180.0
    """A peer that takes nothing of what we write."""
    content_end_s: float = 600.0
    """From the final dot to its reply."""
    quit_s: float = 5.0
    """From QUIT until we close what the peer did not close; until then the connection counts."""


class Timed(Protocol):
    """Something with a deadline."""

    deadline_s: float
    """Monotonic seconds; NEVER_S for none. Set to NEVER_S when the deadline is told."""

    def deadline_passed(self) -> None:
        """Called once, from a sweep."""
        ...


class Sweeper:
    """Watches deadlines: `sweep` by hand, or `start` and it does so by itself."""

    __slots__ = ("_clock", "_loop", "_period_s", "_timed", "_timer", "now_s")

    def __init__(self, clock: Clock, period_s: float = SWEEP_PERIOD_S) -> None:
        self._clock = clock
        self._period_s = period_s
        self._timed: dict[Timed, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.now_s = clock.monotonic_s()
        """Monotonic seconds at the last sweep: a clock that costs nothing to read."""

    def __len__(self) -> int:
        return len(self._timed)

    def add(self, timed: Timed) -> None:
        """Watches `timed` from now on; adding it twice is the same as once."""
        self._timed[timed] = None

    def discard(self, timed: Timed) -> None:
        """Does not watch it any more, if it ever did."""
        self._timed.pop(timed, None)

    def sweep(self) -> None:
        """Tells everything whose deadline has passed. `now_s` lags behind the clock by up to a period while deadlines
        are set, so one is only called passed a period later."""
        now_s = self.now_s = self._clock.monotonic_s()
        limit_s = now_s - self._period_s
        overdue = [timed for timed in self._timed if timed.deadline_s <= limit_s]
        for timed in overdue:
            if timed.deadline_s <= limit_s:  # may have been changed by one that was told before it
                timed.deadline_s = NEVER_S
                timed.deadline_passed()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sweeps every period until `stop`."""
        self._loop = loop
        self.now_s = self._clock.monotonic_s()
        self._timer = loop.call_later(self._period_s, self._tick)

    def stop(self) -> None:
        """Sweeps no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self._period_s, self._tick)  # first: a sweep that raises is not the last
        self.sweep()
