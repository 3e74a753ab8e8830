"""Rounds of crashes by seed: workers, helpers and the server die at failpoints and at random; every promise holds."""

from pathlib import Path

from bench.crash.__main__ import ROUNDS, Good, run
from bench.crash.round import NAMES

AT_ONCE = 4


async def test_every_promise_holds_through_crashes(tmp_path: Path) -> None:
    """Nothing accepted is lost, what comes twice is told, senders hear once, the queue ends empty and sound; and every
    failpoint has struck."""
    outcomes = await run(range(1, ROUNDS + 1), tmp_path, at_once=AT_ONCE)

    failures = [each for each in outcomes if not isinstance(each, Good)]
    assert not failures, "\n\n".join(failures)
    struck = set[str]().union(*(each.hits for each in outcomes if isinstance(each, Good)))
    assert struck == set(NAMES)
