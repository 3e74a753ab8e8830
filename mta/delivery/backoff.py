"""Backoff: how a site that is down is left alone. Pure: the caller passes now_s and chance.

After a failure nothing is tried for a while; then one connection knocks. Only an answer about a message, not a
mere greeting, says that the site is well again: a peer that hangs up on every MAIL stays down.
"""

FIRST_WAIT_S = 1.0
WAIT_MAX_S = 120.0  # mail flows again two minutes after the site does; a dead site costs one SYN in that time
JITTER = 0.2  # sites that went down together are not knocked at together


class Backoff:
    """The health of one site, or of one source towards it."""

    __slots__ = ("failures", "is_probing", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.until_s = 0.0
        self.is_probing = False

    def failed(self, now_s: float, random_unit: float) -> None:
        """A connection failed. Failures while the wait still runs count once."""
        self.is_probing = False
        if self.failures and now_s < self.until_s:
            return
        self.failures += 1
        wait_s = min(WAIT_MAX_S, FIRST_WAIT_S * 2 ** min(self.failures - 1, 10))
        self.until_s = now_s + wait_s * (1 + JITTER * (2 * random_unit - 1))

    def answered(self) -> bool:
        """The peer answered about a message: well again. -> whether it had been down."""
        was_down = self.failures > 0
        self.failures = 0
        self.is_probing = False
        return was_down

    def wait_s(self, now_s: float) -> float:
        """0.0: go on (where it was down: as the one probe); else how long to wait; inf: a probe is on its way."""
        if not self.failures:
            return 0.0
        if self.is_probing:
            return float("inf")
        return max(0.0, self.until_s - now_s)
