"""`python -m bench.crash`: rounds of crashes, several at a time; exit 1 where one of them failed.

A round that failed keeps its folder and tells the story of the messages that it is about.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.crash.round import ROUNDS, play, script_of

AT_ONCE = 3  # servers; a round waits more than it computes
FOLDER = Path("var") / "crash"


class Good(NamedTuple):
    """What is kept of a round where all is well: hundreds of rounds would fill the memory."""

    messages: int
    """That were accepted."""
    told: int
    """Attempts that the event log tells as after a crash."""
    hits: set[str]
    """Failpoints that struck."""
    lives: int


async def run(
    seeds: Sequence[int], folder: Path, *, at_once: int = AT_ONCE, tell: Callable[[str], None] = lambda text: None
) -> list[Good | str]:
    """Play these rounds; -> what each has shown, or the story of the one that failed, which `tell` hears at once."""
    turns = asyncio.Semaphore(at_once)

    async def one(seed: int) -> Good | str:
        async with turns:
            outcome = await _one(seed, folder)
        if isinstance(outcome, str):
            tell(outcome)
        return outcome

    return await asyncio.gather(*map(one, seeds))


async def _one(seed: int, folder: Path) -> Good | str:
    script = script_of(seed)
    place = Path(tempfile.mkdtemp(prefix=f"{seed}-", dir=folder))
    try:
        outcome = await play(script, place)
    except Exception as error:  # noqa: BLE001 - whatever it was, the seed has to be told
        why = f"{type(error).__name__}: {error}\nplay it again: make crash SEED={seed}"
        return f"crash round {seed} broke off: {script}\nits files: {place}\n{why}"
    if outcome.problems:
        return outcome.story(place)
    shutil.rmtree(place)
    return Good(len(outcome.facts.accepted), outcome.told, outcome.hits, outcome.lives)


def summary(outcomes: Sequence[Good | str], seeds: Sequence[int]) -> str:
    """One line about all that went well, and one where failpoints of these rounds never struck."""
    good = [each for each in outcomes if isinstance(each, Good)]
    messages, told = sum(each.messages for each in good), sum(each.told for each in good)
    wanted = set[str]().union(*(script_of(seed).names for seed in seeds))
    missed = sorted(wanted.difference(*(each.hits for each in good)))
    text = f"{len(good)} of {len(outcomes)} rounds are good: {messages} messages, "
    text += f"{sum(each.lives for each in good)} lives, {sum(len(each.hits) for each in good)} failpoints struck, "
    text += f"{told} attempts told as after a crash"
    return text + (f"\nnever struck: {', '.join(missed)}" if missed else "")


def main(argv: Sequence[str] | None = None) -> int:
    """See the top of the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description="Kills the server under load.")
    parser.add_argument("--rounds", type=int, default=0, help=f"so many seeds; default: {ROUNDS}, or 1 with --seed")
    parser.add_argument("--seed", type=int, default=0, help="the first one; default: 1")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, metavar="SERVERS", help=f"default: {AT_ONCE}")
    args = parser.parse_args(argv)
    FOLDER.mkdir(parents=True, exist_ok=True)
    first = args.seed or 1
    seeds = range(first, first + (args.rounds or (1 if args.seed else ROUNDS)))
    outcomes = uvloop.run(
        run(seeds, FOLDER.resolve(), at_once=args.at_once, tell=lambda text: print(text, file=sys.stderr, flush=True))
    )
    print(summary(outcomes, seeds))
    return 0 if all(isinstance(each, Good) for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
