"""What rules cost: a delivery that is told and one that is not, and an answer that is judged, by shipped policies.

    python -m bench.rules [--save]

`judged, told before`: the same reply again and again, as in a storm; `judged, new`: each reply with words of its own,
so that nothing remembered helps. `loading`: all shipped policies, as at a start or a reload. The second table has all
policy work together, as part of a message's delivery (bench/policed.py).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count

from bench import policed
from bench.results_file import save
from bench.table import render
from mta_policies import layers
from mta_policies.answers import Answer, Subject
from mta_policies.engine import Judge
from mta_policies.firings import Firings
from mta_policies.policy import Policy

TURNS, ROUNDS = 2_000, 7
NOW_S = 1_700_000_000.0
NAMES = ("default", "google", "yahoo", "docomo", "qq")
ANSWERS = (
    Answer(550, "5.1.1", "The email account that you tried to reach does not exist", "rcpt"),
    Answer(421, "4.7.28", "Gmail has detected an unusual rate of mail originating from your IP address", "content"),
    Answer(451, "", "please come back some other day", "content"),
)


def judge_of(policy: Policy) -> tuple[Judge, Subject]:
    """A fresh judge, and about whose mail it is asked."""
    numbers = count()
    subject = Subject(
        "out-1", "192.0.2.1", "mx.example", policy.name, "shop", "spring", "a@x.example", "shop.example", "shop.example"
    )
    return Judge(policy, Firings(), lambda: f"f{next(numbers)}"), subject


def delivered_us(policy: Policy, turns: int) -> float:
    """A delivered message, as delivery asks: told only where somebody listens."""
    judge, subject = judge_of(policy)

    def deliver(turn: int) -> None:
        if judge.listens:
            judge.delivered(subject, NOW_S + turn * 0.01)

    return _each_us(deliver, turns)


def judged_us(policy: Policy, turns: int, *, is_new: bool) -> float:
    """An answer, of three kinds in turn."""
    judge, subject = judge_of(policy)
    answers = [ANSWERS[turn % len(ANSWERS)] for turn in range(turns)]
    if is_new:
        answers = [answer._replace(text=f"{answer.text} ({turn})") for turn, answer in enumerate(answers)]
    return _each_us(lambda turn: judge.judge(answers[turn], subject, NOW_S + turn * 0.01), turns)


def _each_us(work: Callable[[int], object], turns: int) -> float:
    began_ns = time.process_time_ns()
    for turn in range(turns):
        work(turn)
    return (time.process_time_ns() - began_ns) / turns / 1_000


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m bench.rules`"""
    parser = argparse.ArgumentParser(prog="python -m bench.rules", description="What rules cost a message.")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"in a round; default: {TURNS:,}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--save", metavar="NAME", nargs="?", const="rules", help="write bench/results/NAME.json")
    args = parser.parse_args(argv)
    began_ns = time.process_time_ns()
    policies = layers.load(None).policies
    loading_ms = (time.process_time_ns() - began_ns) / 1e6
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in NAMES}
    for _ in range(args.rounds):
        for name in NAMES:
            policy = policies[name]
            again, new = (judged_us(policy, args.turns, is_new=is_new) for is_new in (False, True))
            found[name].append((delivered_us(policy, args.turns), again, new))
    rows = []
    for name, rounds in found.items():
        middle = [statistics.median(each) for each in zip(*rounds, strict=True)]
        rows.append([f"{name}, {len(policies[name].rulebook)} rules", *(f"{us:.1f} us" for us in middle)])
    print(render(["policy", "delivered", "judged, told before", "judged, new"], rows))
    print(f"\nloading {len(policies)} policies: {loading_ms:.0f} ms\n")
    whole = policed.costs(args.turns, args.rounds)
    told = [[each.what, *(f"{us:.1f} us" for us in (each.least_cpu_us, each.policies_cpu_us))] for each in whole]
    print(render(["a message, one of twenty judged", "delivery", "of it policies"], told))
    if args.save:
        print(f"  written to {save(args.save, whole)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
