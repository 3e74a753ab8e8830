"""What both rehearsals are given: policies, what is assumed, and where the picture goes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mta import config
from mta.cli import words
from mta.cli.rehearsal_report import NEW, NOW
from mta.config import Config
from mta_policies import layers, provider_model, units
from mta_policies.capacity import CONNECT_S, DELIVERY_S
from mta_policies.layers import PolicyError, PolicySet
from mta_policies.located import Problem
from mta_policies.rehearsal.drain import Progress
from mta_policies.rehearsal.replay import Assumed

SECONDS_MIN = 0.001


class Policies(NamedTuple):
    """One set of them."""

    name: str
    """now or new."""
    policies: PolicySet


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describes them."""
    parser.add_argument("--policies", metavar="FOLDER", help="try these in the place of your own policies folder")
    parser.add_argument("--delivery-time", metavar="TIME", default="", help="of one message on a connection; 1s")
    parser.add_argument("--connect-time", metavar="TIME", default="", help="until a connection carries mail; 500ms")
    parser.add_argument("--html", metavar="FILE", help="draw it, too: one file to look at with a browser")


def add_model(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Describes the option for who answers; `otherwise`: who does without it."""
    parser.add_argument(
        "--provider-model",
        metavar="MODEL",
        default="",
        help="providers answer as google:per_minute=1200,penalty=1h, throttle:per_minute=600 or steady would; "
        + otherwise,
    )


def loaded_config(file: str | None) -> Config | None:
    """The configuration; None where there is none and none was asked for."""
    if file is None and not Path(config.DEFAULT_FILE).exists():
        print(f"no {config.DEFAULT_FILE} here: the shipped policies", file=sys.stderr)
        return None
    return config.load(file or config.DEFAULT_FILE)


def policy_sets(loaded: Config | None, folder: str | None) -> list[Policies]:
    """Those that there are, and with a folder the others."""
    sets = [Policies(NOW, loaded.policy_set if loaded is not None else layers.load(None))]
    if folder is not None:
        if not Path(folder).is_dir():
            raise PolicyError([Problem(folder, 0, "there is no such folder")])
        disabled = loaded.policies.disabled if loaded is not None else ()
        sets.append(Policies(NEW, layers.load(Path(folder), disabled)))
    return sets


def assumed(args: argparse.Namespace) -> Assumed:
    """What is taken for granted; ValueError where it cannot be read."""
    return Assumed(
        _seconds(args.delivery_time, DELIVERY_S),
        _seconds(args.connect_time, CONNECT_S),
        model=provider_model.model(args.provider_model) if args.provider_model else None,
    )


def _seconds(text: str, default_s: float) -> float:
    return max(SECONDS_MIN, units.duration_s(text)) if text else default_s


class Watch:
    """Shows on a terminal how far the runs are."""

    def __init__(self, mail: int, runs: Sequence[str]) -> None:
        self._mail = mail
        self._runs = runs
        self._progress = words.Progress()

    def of(self, run: str) -> Progress:
        """Of one of them."""
        place = f"{run} ({self._runs.index(run) + 1} of {len(self._runs)})"

        def show(now_s: float, ended: int) -> None:
            of = f"{words.count(ended)} of {words.several(self._mail, 'recipient')}"
            self._progress.show(f"{place}: {of}, at {words.moment(now_s)}")

        return show

    def clear(self) -> None:
        """All is done."""
        self._progress.clear()


def write_page(file: str, page: str) -> bool:
    """Writes the picture, and says so; False where that cannot be."""
    try:
        Path(file).write_text(page, "utf-8")
    except OSError as error:
        print(f"{file}: {error.strerror}", file=sys.stderr)
        return False
    print(f"written: {file}", file=sys.stderr)
    return True
