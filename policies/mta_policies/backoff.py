"""Backoff: how a site that is down is left alone. Pure: the caller passes now_s and chance.

After a failure nothing is tried for a while; then one connection knocks, the probe. Only an answer about a message on a
connection that was begun after the failure, not a mere greeting and not what older connections hear, says that all is
well again: a peer that hangs up on every MAIL stays down, and one that takes no further connection is not knocked at
with every message that the others carry.
"""

import math

FIRST_WAIT_S = 1.0
WAIT_MAX_S = 120.0  # mail flows again two minutes after the site does; a dead site costs one SYN in that time
JITTER = 0.2  # sites that went down together are not knocked at together
DOUBLINGS_MAX = 10  # beyond it the wait is at its most anyway


class Backoff:
    """The health of one site, or of one source towards it."""

    __slots__ = ("_probe", "failed_s", "failures", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        """In a row; 0: it is well."""
        self.failed_s = -math.inf
        """When the latest of them was."""
        self.until_s = 0.0
        self._probe: object = None

    def failed(self, now_s: float, random_unit: float, begun_s: float = math.inf) -> bool:
        """Something failed that was begun at `begun_s`.

        -> False: that was before the latest failure and is the same trouble, nothing changes.
        """
        if self.failures and begun_s <= self.failed_s:
            return False
        self.failures += 1
        self.failed_s = now_s
        wait_s = min(WAIT_MAX_S, FIRST_WAIT_S * 2 ** min(self.failures - 1, DOUBLINGS_MAX))
        self.until_s = now_s + wait_s * (1 + JITTER * (2 * random_unit - 1))
        return True

    def answered(self, begun_s: float) -> bool:
        """The peer answered about a message on a connection begun then. -> True: it was down and is well now."""
        if not self.failures or begun_s <= self.failed_s:
            return False
        self.failures = 0
        self._probe = None
        return True

    def wait_s(self, now_s: float) -> float:
        """0.0: go on (where it was down: as the one probe); else how long to wait; inf: until the probe ends."""
        if not self.failures:
            return 0.0
        if self._probe is not None:
            return math.inf
        return max(0.0, self.until_s - now_s)

    def knock(self) -> None:
        """Somebody says that it is worth a try: the next connection is the probe, at once where there is none yet."""
        self.until_s = 0.0

    def begin(self, connection: object) -> None:
        """A connection is begun; where it was down this is the probe."""
        if self.failures:
            self._probe = connection

    def is_probe(self, connection: object) -> bool:
        """Whether others wait for the end of this one."""
        return self._probe is connection

    def end(self, connection: object) -> bool:
        """A connection failed or is closed. -> True: it was the probe, somebody else may try."""
        if self._probe is not connection:
            return False
        self._probe = None
        return True
