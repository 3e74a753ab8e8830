"""`mta policy replay`: what would have become of recorded mail under these policies, and under others?

The mail of an event log goes through the policies of the configuration, and with `--policies` through those of another
folder as well, on a clock of its own. Nothing is sent, no DNS is asked and no server need run.
"""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from mta import config
from mta.cli import EXIT_DONE, EXIT_WRONG, words
from mta.cli.rehearsal_place import place_by
from mta.cli.words import Column
from mta.config import Config
from mta.reporting.log_reader import LogReader, parts_of
from mta_policies import layers, provider_model, units
from mta_policies.capacity import CONNECT_S, DELIVERY_S
from mta_policies.rehearsal.figures import Figures, figures
from mta_policies.rehearsal.recorder import Recorder
from mta_policies.rehearsal.replay import Assumed, Record, bin_of, delivery_times, recorded, replay

EVENTS_DEFAULT = "var/log/events.jsonl"
BOUND_SHOWN = 3  # what mail waited for: more than that is noise
RULES_SHOWN = 5

COLUMNS = (
    Column("provider"),
    Column("run"),
    Column("mail", right=True),
    Column("delivered", right=True),
    Column("deferrals", right=True),
    Column("bounced", right=True),
    Column("expired", right=True),
    Column("attempts", right=True),
    Column("drained after", right=True),
    Column("half within", right=True),
    Column("95 % within", right=True),
    Column("most waiting", right=True),
)


class Run(NamedTuple):
    """What became of the mail, by provider."""

    name: str
    """recorded, now or new."""
    providers: dict[str, Figures]


def add(actions: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser) -> None:
    """Describes the action."""
    parser = actions.add_parser(
        "replay",
        parents=[common],
        help="what would have become of recorded mail under other policies",
        description="Lets the mail of an event log go out again on a clock of its own: by the policies of the"
        " configuration, and by those of another folder beside them. Nothing is sent.",
    )
    parser.add_argument(
        "--events", metavar="FILE", action="append", help="an event log, with what was rotated away from it"
    )
    parser.add_argument("--policies", metavar="FOLDER", help="try these in the place of your own policies folder")
    parser.add_argument("--delivery-time", metavar="TIME", default="", help="of one message on a connection; 1s")
    parser.add_argument("--connect-time", metavar="TIME", default="", help="until a connection carries mail; 500ms")
    parser.add_argument(
        "--provider-model",
        metavar="MODEL",
        default="",
        help="providers answer as google:per_minute=1200,penalty=1h, throttle:per_minute=600 or steady would, not as"
        " they did",
    )


def run(args: argparse.Namespace) -> int:
    """Prints what became of the mail; 1 where there is none."""
    loaded = _loaded(args.config)
    try:
        assumed = Assumed(
            _seconds(args.delivery_time, DELIVERY_S),
            _seconds(args.connect_time, CONNECT_S),
            model=provider_model.model(args.provider_model) if args.provider_model else None,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    files = [part for name in args.events or [_events(loaded)] for part in parts_of(Path(name))]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        print(f"there is no file {missing}", file=sys.stderr)
        return EXIT_WRONG
    reader, recorder = LogReader(files), Recorder()
    gc.disable()  # a million objects that all stay: looking for garbage among them costs more than it finds
    try:
        for line in reader:
            recorder.hear(line)
        if not recorder.lines:
            print(f"no mail in {words.several(len(files), 'file')}", file=sys.stderr)
            return EXIT_WRONG
        runs = _runs(recorder, loaded, Path(args.policies) if args.policies else None, assumed)
    finally:
        gc.enable()
    if args.json:
        print(json.dumps(_object(runs, recorder, reader, assumed, args.provider_model), ensure_ascii=False))
    else:
        _print(runs, recorder, reader, assumed, args.provider_model)
    return EXIT_DONE


def _loaded(file: str | None) -> Config | None:
    if file is None and not Path(config.DEFAULT_FILE).exists():
        print(f"no {config.DEFAULT_FILE} here: the shipped policies", file=sys.stderr)
        return None
    return config.load(file or config.DEFAULT_FILE)


def _events(loaded: Config | None) -> str:
    return str(loaded.log.events) if loaded is not None else EVENTS_DEFAULT


def _seconds(text: str, default_s: float) -> float:
    return max(0.001, units.duration_s(text)) if text else default_s


def _runs(recorder: Recorder, loaded: Config | None, folder: Path | None, assumed: Assumed) -> list[Run]:
    """The record, the policies that there are, and the others where there are any."""
    record = Record(recorder.traffic(), recorder.books(), recorder.rules)
    now = loaded.policy_set if loaded is not None else layers.load(None)
    places = [("now", place_by(now, loaded))]
    if folder is not None:
        disabled = loaded.policies.disabled if loaded is not None else ()
        places.append(("new", place_by(layers.load(folder, disabled), loaded)))
    label = places[-1][1]
    bin_s = bin_of(record.traffic.end_s - record.traffic.start_s)
    delivery_s = delivery_times(record.books, places[0][1], assumed.delivery_s)
    tallies = [("recorded", recorded(record, label, bin_s))]
    for name, place in places:
        tallies.append((name, replay(record, place, label, delivery_s, assumed, ZoneInfo, bin_s)))
    return [Run(name, {label: figures(tally) for label, tally in of.items()}) for name, of in tallies]


def _providers(runs: Sequence[Run]) -> list[str]:
    """Most mail first."""
    mail = {name: found.mail for run in runs for name, found in run.providers.items()}
    return sorted(mail, key=lambda name: (-mail[name], name))


def _print(runs: Sequence[Run], recorder: Recorder, reader: LogReader, assumed: Assumed, model: str) -> None:
    print(
        f"{words.several(recorder.lines, 'event')} from {words.moment(recorder.start_s)} to"
        f" {words.moment(recorder.end_s)}"
    )
    if reader.bad:
        print(f"{words.several(reader.bad, 'line')} that are no events")
    taken = (
        f"{assumed.delivery_s:g} s a delivery, less where the record shows more; {assumed.connect_s:g} s a connection"
    )
    print(f"taken: {taken}{f'; providers answer as {model}' if model else ''}")
    rows = [
        _row(provider if run is runs[0] else "", run.name, run.providers[provider])
        for provider in _providers(runs)
        for run in runs
        if provider in run.providers
    ]
    print()
    for line in words.table(COLUMNS, rows, words.terminal_columns()):
        print(line)
    for provider in _providers(runs):
        for run in runs[1:]:
            if provider in run.providers:
                _print_why(provider, run.name, run.providers[provider])


def _row(provider: str, name: str, found: Figures) -> list[str]:
    counts = (found.mail, found.delivered, found.deferred, found.bounced, found.expired, found.attempts)
    spans = (found.drained_s, found.wait_median_s, found.wait_95_s)
    return [provider, name, *map(words.count, counts), *map(_span, spans), words.count(found.backlog_max)]


def _span(seconds: float) -> str:
    """`42 s`, `3 h 39 min`, `2 d 5 h`: two policies may differ by minutes of hours."""
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            whole, rest = divmod(round(seconds / smaller), size // smaller)
            return f"{whole} {unit} {rest} {name}"
    return words.span(seconds)


def _print_why(provider: str, name: str, found: Figures) -> None:
    """What the mail waited for, and which rules matched."""
    if not (found.bound or found.rules):
        return
    print(f"\n{provider}, {name}")
    for bound in found.bound[:BOUND_SHOWN]:
        print(f"  waited for {words.printable(bound.limit)}: {_span(bound.for_s)}, {bound.share:.0%} of all waiting")
    for rule in found.rules[:RULES_SHOWN]:
        first = f", first at {words.moment(rule.first)}" if rule.first else ""
        fired = f", fired {words.several(rule.firings, 'time')}" if rule.firings else ""
        print(f"  rule {words.printable(rule.rule)} matched {words.several(rule.matches, 'time')}{fired}{first}")


def _object(
    runs: Sequence[Run], recorder: Recorder, reader: LogReader, assumed: Assumed, model: str
) -> dict[str, object]:
    return {
        "events": recorder.lines,
        "bad_lines": reader.bad,
        "start": recorder.start_s,
        "end": recorder.end_s,
        "delivery_s": assumed.delivery_s,
        "connect_s": assumed.connect_s,
        "provider_model": model,
        "providers": [
            {
                "name": provider,
                **{run.name: msgspec.to_builtins(run.providers[provider]) for run in runs if provider in run.providers},
            }
            for provider in _providers(runs)
        ],
    }
