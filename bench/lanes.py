"""What a turn in a lane costs: push and pop of the plain lane and of the fair one, with few shares and with many.

    python -m bench.lanes

Rounds of all kinds alternate; the table has the best and the middle one of each. Where mail waits, each push is
followed by a pop of what was there before; where the lane empties, by a pop of the same entry.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.table import render
from mta_queue.fair_lane import FairLane
from mta_queue.timetable import Lane

TURNS, ROUNDS = 100_000, 7
WAITING = 1_000  # in a lane that does not empty; more where there are more shares
PRIORITY = 5


@dataclass(slots=True)
class Entry:
    """Mail in a lane."""

    tenant: str
    campaign: str
    cost: int = 1


def entries(tenants: int, campaigns: int) -> list[Entry]:
    """One of each share."""
    return [Entry(f"tenant{t}", f"campaign{c}") for c in range(campaigns) for t in range(tenants)]


def turn_ns(make: Callable[[], Lane[Entry] | FairLane[Entry]], shares: list[Entry], waits: bool, turns: int) -> float:
    """A push and a pop together, in nanoseconds of CPU."""
    lane = make()
    work = [shares[at % len(shares)] for at in range(max(turns, WAITING, len(shares)))]
    for entry in work[: max(WAITING, len(shares))] if waits else ():
        lane.push(PRIORITY, entry)
    push, pop = lane.push, lane.pop
    began_ns = time.process_time_ns()
    for entry in work[:turns]:
        push(PRIORITY, entry)
        pop()
    return (time.process_time_ns() - began_ns) / turns


KINDS: dict[str, tuple[Callable[[], Lane[Entry] | FairLane[Entry]], list[Entry], bool]] = {
    "plain, mail waits": (Lane, entries(1, 1), True),
    "plain, empties each time": (Lane, entries(1, 1), False),
    "fair, one share, mail waits": (FairLane, entries(1, 1), True),
    "fair, one share, empties each time": (FairLane, entries(1, 1), False),
    "fair, 10 tenants": (FairLane, entries(10, 1), True),
    "fair, 1,000 tenants of 3 campaigns": (FairLane, entries(1_000, 3), True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m bench.lanes`"""
    parser = argparse.ArgumentParser(prog="python -m bench.lanes", description="What a turn in a lane costs.")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"in a round; default: {TURNS:,}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    args = parser.parse_args(argv)
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(args.rounds):
        for name, (make, shares, waits) in KINDS.items():
            found[name].append(turn_ns(make, shares, waits, args.turns))
    rows = [[name, f"{min(ns):,.0f} ns", f"{statistics.median(ns):,.0f} ns"] for name, ns in found.items()]
    print(render(["push and pop", "best", "middle"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
