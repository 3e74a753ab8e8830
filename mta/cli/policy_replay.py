"""`mta policy replay`: what would have become of recorded mail under these policies, and under others?

The mail of an event log goes through the policies of the configuration, and with `--policies` through those of another
folder as well, on a clock of its own. Nothing is sent, no DNS is asked and no server need run.
"""

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, rehearsal_options, rehearsal_page, rehearsal_report, words
from mta.cli.policy_values import print_json
from mta.cli.rehearsal_options import Policies, Watch
from mta.cli.rehearsal_origins import PolicyOrigins
from mta.cli.rehearsal_place import place_by
from mta.cli.rehearsal_report import NEW, NOW, RECORDED, Run
from mta.config import Config
from mta.reporting.log_reader import LogReader, parts_of
from mta_policies.rehearsal.recorder import Recorder
from mta_policies.rehearsal.replay import Assumed, Record, bin_of, delivery_times, recorded, replay

EVENTS_DEFAULT = "var/log/events.jsonl"


def add(actions: Subparsers, common: argparse.ArgumentParser) -> None:
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
    rehearsal_options.add_options(parser)
    rehearsal_options.add_model(parser, "otherwise as they did")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints what became of the mail; 1 where there is none."""
    loaded = rehearsal_options.loaded_config(args.config)
    try:
        assumed = rehearsal_options.assumed(args)
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    files = [part for name in args.events or [_events(loaded)] for part in parts_of(Path(name))]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        print(f"there is no file {missing}", file=sys.stderr)
        return EXIT_WRONG
    sets = rehearsal_options.policy_sets(loaded, args.policies)
    reader, recorder = LogReader(files), Recorder()
    gc.disable()  # a million objects that all stay: looking for garbage among them costs more than it finds
    try:
        for line in reader:
            recorder.hear(line)
        if not recorder.lines:
            _print_bad(reader)
            print(f"no mail in {words.several(len(files), 'file')}", file=sys.stderr)
            return EXIT_WRONG
        runs = _runs(recorder, loaded, sets, assumed)
    finally:
        gc.enable()
    if args.json:
        print_json(_object(runs, recorder, reader, assumed, args.provider_model))
    else:
        _print(runs, recorder, reader, assumed, args.provider_model)
    if args.html:
        story = rehearsal_page.Story(
            title="Rehearsal of recorded mail",
            about=_about(recorder),
            runs={RECORDED: "what happened", NOW: "by the policies that you have", NEW: f"by those of {args.policies}"},
            taken=_taken(assumed, args.provider_model),
        )
        return EXIT_DONE if rehearsal_options.write_page(args.html, rehearsal_page.page(story, runs)) else EXIT_WRONG
    return EXIT_DONE


def _events(loaded: Config | None) -> str:
    return str(loaded.log.events) if loaded is not None else EVENTS_DEFAULT


def _runs(recorder: Recorder, loaded: Config | None, sets: Sequence[Policies], assumed: Assumed) -> list[Run]:
    """The record, the policies that there are, and the others where there are any."""
    record = Record(recorder.traffic(), recorder.books(), recorder.rules)
    places = [place_by(each.policies, loaded) for each in sets]
    label = places[-1]
    bin_s = bin_of(record.traffic.end_s - record.traffic.start_s)
    delivery_s = delivery_times(record.books, places[0], assumed.delivery_s)
    watch = Watch(len(record.traffic.mails), [each.name for each in sets])
    runs = [rehearsal_report.run_of(RECORDED, recorded(record, label, bin_s), PolicyOrigins(sets[0].policies))]
    for (name, policies), place in zip(sets, places, strict=True):
        tallies = replay(record, place, label, delivery_s, assumed, ZoneInfo, bin_s, watch.of(name))
        runs.append(rehearsal_report.run_of(name, tallies, PolicyOrigins(policies)))
    watch.clear()
    return runs


def _about(recorder: Recorder) -> str:
    return (
        f"{words.several(recorder.lines, 'event')} from {words.moment(recorder.start_s)} to"
        f" {words.moment(recorder.end_s)}"
    )


def _taken(assumed: Assumed, model: str) -> str:
    """What is taken for granted."""
    taken = (
        f"{assumed.delivery_s:g} s a delivery, less where the record shows more; {assumed.connect_s:g} s a connection"
    )
    return f"{taken}; providers answer as {model if model else 'they did'}"


def _print(runs: Sequence[Run], recorder: Recorder, reader: LogReader, assumed: Assumed, model: str) -> None:
    print(_about(recorder))
    _print_bad(reader)
    print(f"taken: {_taken(assumed, model)}\n")
    print(*rehearsal_report.table(runs), sep="\n")
    for provider in rehearsal_report.providers(runs):
        found = {run.name: run.providers[provider] for run in runs[1:] if provider in run.providers}
        reasons = {
            name: rehearsal_report.reasons(each, lambda at_s: f"at {words.moment(at_s)}")
            for name, each in found.items()
        }
        is_same = NEW in reasons and reasons[NEW] == reasons.get(NOW)
        for name, told in ({f"{NOW} and {NEW}": reasons[NOW]} if is_same else reasons).items():
            if told:
                print(f"\n{provider}, {name}")
                print(*(f"  {reason}" for reason in told), sep="\n")
        if NOW in found and NEW in found:
            print(f"\n{provider}, new against now: {rehearsal_report.difference(found[NOW], found[NEW])}")


def _print_bad(reader: LogReader) -> None:
    """Lines that are no events, the first of them with their places."""
    if reader.bad:
        print(f"{words.several(reader.bad, 'line')} that are no events")
        print(*(f"  {words.printable(str(mistake))}" for mistake in reader.mistakes), sep="\n")


def _object(
    runs: Sequence[Run], recorder: Recorder, reader: LogReader, assumed: Assumed, model: str
) -> dict[str, object]:
    return {
        "events": recorder.lines,
        "bad_lines": reader.bad,
        "mistakes": [mistake._asdict() for mistake in reader.mistakes],
        "start": recorder.start_s,
        "end": recorder.end_s,
        "delivery_s": assumed.delivery_s,
        "connect_s": assumed.connect_s,
        "provider_model": model,
        "providers": rehearsal_report.objects(runs),
    }
