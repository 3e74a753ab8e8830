"""`mta queue verify` and `mta queue dump`: what is in the queue's files, with no server.

Both only read. DIRECTORY is `[queue] directory` with a log a worker in it, or one of those logs. `verify` reads every
byte and answers whether all of it is sound; `dump` shows the records as they were written. On a terminal `verify` tells
how far it has come when it takes its time.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mta.cli import EXIT_DONE, EXIT_USAGE, EXIT_WRONG, Subparsers
from mta.model import envelope
from mta.reporting.events import Fate, decode_note, fates_of
from mta_queue import index, inspection, record
from mta_queue.disk import Disk, OsDisk
from mta_queue.inspection import Met, Report
from mta_queue.record import CopiedState, Damage, FileHeader, Found, Record

PROGRESS_AFTER_S = 1.0  # a queue that is read faster needs no progress
PROGRESS_EVERY_S = 0.2
MEGABYTE = 1_000_000

RECIPIENTS_SHOWN_MAX = 3  # of an item, in the text: a line should stay one


def add(actions: Subparsers) -> None:
    """Describes `verify` and `dump` to argparse, as actions of `mta queue`."""
    for name, text in (
        ("verify", "read every byte of the queue's files and say whether they are sound"),
        ("dump", "show every record of the queue's files"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("directory", type=Path, metavar="DIRECTORY", help="the queue's directory or one log in it")
        action.add_argument("--json", action="store_true", help="JSON instead of text")
        action.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the action; 0: done, 1: something is wrong with the files, 2: there is no queue in that directory."""
    disk = OsDisk()
    try:
        logs = inspection.logs_in(disk, args.directory)
    except OSError as error:
        print(f"mta queue: {args.directory}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    if not logs:
        print(f"mta queue: {args.directory} holds no queue", file=sys.stderr)
        return EXIT_USAGE
    try:
        if args.action == "dump":
            return _dump(((log, met) for log in logs for met in inspection.records(disk, log)), args.json)
        return _verify(_reports(disk, logs), args.json)
    except OSError as error:
        print(f"mta queue: {error.filename or args.directory}: {error.strerror}", file=sys.stderr)
        return EXIT_WRONG


class _Progress:
    """A line on a terminal that is written over again and again, and wiped in the end."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._before_bytes = self._done_bytes = 0
        self._due_s = time.monotonic() + PROGRESS_AFTER_S
        self._is_shown = False

    def report(self, done_bytes: int) -> None:
        """So many bytes of this log have been read."""
        self._done_bytes = done_bytes
        now_s = time.monotonic()
        if now_s >= self._due_s and sys.stderr.isatty():
            self._due_s = now_s + PROGRESS_EVERY_S
            self._is_shown = True
            done = self._before_bytes + done_bytes
            share = min(100, 100 * done // max(self._total_bytes, 1))
            text = f"{done // MEGABYTE:,} of {self._total_bytes // MEGABYTE:,} MB ({share} %)"
            print(f"\r{text:40}", end="", file=sys.stderr, flush=True)

    def end_log(self) -> None:
        """What is reported from now on is of the next log."""
        self._before_bytes += self._done_bytes
        self._done_bytes = 0

    def wipe(self) -> None:
        """The line is empty again."""
        if self._is_shown:
            print(f"\r{'':40}\r", end="", file=sys.stderr, flush=True)


def _reports(disk: Disk, logs: Sequence[Path]) -> list[Report]:
    progress = _Progress(sum(inspection.size_bytes(disk, log) for log in logs))
    reports = []
    try:
        for log in logs:
            reports.append(inspection.verify(disk, log, progress.report))
            progress.end_log()
    finally:
        progress.wipe()
    return reports


def _verify(reports: Sequence[Report], as_json: bool) -> int:
    if as_json:
        print(json.dumps([_report_values(report) for report in reports], indent=2))
    else:
        print(f"{'log':24} {'segments':>8} {'bytes':>14} {'records':>10} {'items':>10} {'recipients':>10}  state")
        for report in reports:
            state = f"{len(report.problems)} problems" if report.problems else "sound"
            print(
                f"{report.directory!s:24} {report.segments:8} {report.file_bytes:14} {report.records:10} "
                f"{report.items:10} {report.parts:10}  {state}"
            )
        for report in reports:
            for problem in report.problems:
                print(f"{report.directory}/{_printable(problem)}")
            for missing in report.missing:
                print(f"{report.directory}: {missing}")
            for held in report.quarantine:
                for reason in held.reasons or ["nobody wrote down why"]:
                    print(f"{report.directory}/{held.name}: set aside: {_printable(reason)}")
    return EXIT_WRONG if any(report.problems for report in reports) else EXIT_DONE


def _report_values(report: Report) -> dict[str, object]:
    return {
        "log": str(report.directory),
        "segments": report.segments,
        "bytes": report.file_bytes,
        "records": report.records,
        "items": report.items,
        "recipients": report.parts,
        "arriving": report.arriving,
        "untold": report.untold,
        "missing": report.missing,
        "quarantine": [{"file": held.name, "reasons": held.reasons} for held in report.quarantine],
        "problems": report.problems,
    }


def _dump(found: Iterable[tuple[Path, Met]], as_json: bool) -> int:
    """One line a record, so that millions of them need no memory."""
    status = EXIT_DONE
    for log, met in found:
        values = {"log": str(log), "segment": met.name, **_values(met.what)}
        if values["kind"] in ("damage", "unreadable"):
            status = EXIT_WRONG
        print(json.dumps(values, ensure_ascii=False) if as_json else _line(values))
    return status


def _values(what: FileHeader | Found | Damage | str) -> dict[str, object]:
    if isinstance(what, FileHeader):
        return {
            "kind": "segment",
            "version": what.version,
            "number": what.segment,
            "first_number": what.first_number,
            "told": what.told,
        }
    if isinstance(what, Damage):
        return {"kind": "damage", "offset": what.offset, "bytes": what.length_bytes}
    if isinstance(what, Found):
        return {"kind": record.KIND_NAMES[what.record.kind], "offset": what.offset, **_record_values(what.record)}
    return {"kind": "unreadable", "reason": what}


def _record_values(found: Record) -> dict[str, object]:
    values: dict[str, object] = {"number": found.number}
    if found.kind == record.ITEM:
        values |= {"id": found.item_id(), "parts": found.parts, "bytes": found.content_bytes}
        origin = found.origin()
        if found.is_copy:
            values["item"] = found.seq
            values["copied"] = [_state_values(state) for state in found.copied_states()]
        if origin is not None:
            values["origin"] = {"log": origin.log, "number": origin.seq}
        values |= _envelope_values(found.meta())
    elif found.kind in record.FATE_KINDS:
        values["item"] = found.seq
        if found.parts:
            values["parts"] = list(found.listed_parts())
        if note := found.note():
            values |= _note_values(note, found.listed_parts())
    elif found.kind == record.TOLD:
        values = {"position": found.seq}
    elif found.kind == record.INDEX:
        values = {"records": index.rows_in(found)}
    if found.due_s:
        values["due"] = found.due_s
    return values


def _state_values(state: CopiedState) -> dict[str, object]:
    values: dict[str, object] = {"parts": list(state.parts), "due": state.due_s}
    return values | (_note_values(state.note, state.parts) if state.note else {})


def _envelope_values(meta: bytes) -> dict[str, object]:
    """Sender and recipients; nothing where the meta is not an envelope of this version."""
    try:
        decoded = envelope.decode(meta)
    except msgspec.DecodeError:
        return {}
    return {"sender": decoded.sender, "recipients": [recipient.address for recipient in decoded.recipients]}


def _note_values(note: bytes, parts: Sequence[int]) -> dict[str, object]:
    """What the server wrote down with a fate, or with several that ended together; the bytes where it is none of this
    version."""
    try:
        return _fate_values(decode_note(note))
    except msgspec.DecodeError:
        pass
    try:
        return {"fates": [{"part": part, **_fate_values(fate)} for part, fate in fates_of(note, parts)]}
    except msgspec.DecodeError:
        return {"note": note.decode("utf-8", "backslashreplace")}


def _fate_values(fate: Fate) -> dict[str, object]:
    values: dict[str, object] = {"fate": fate.event}
    if fate.way.host:
        values["host"] = fate.way.host
    values |= {"attempt": fate.attempt, "stage": fate.stage, "reply": str(fate.reply)}
    if fate.dkim:
        values["dkim"] = fate.dkim
    if fate.dsn:
        values["dsn"] = fate.dsn
    return values


def _line(values: dict[str, object]) -> str:
    head = f"{values['log']}/{values['segment']} {values.get('offset', '')!s:>9} {values['kind']}"
    rest = {key: value for key, value in values.items() if key not in ("log", "segment", "offset", "kind")}
    return " ".join([head, *_words(rest)])


def _words(values: dict[str, object]) -> Iterator[str]:
    for key, value in values.items():
        if key == "due" and isinstance(value, float):
            yield f"due={_time(value)}"
        elif key == "fates" and isinstance(value, list):
            yield "fates=" + ",".join(f"{each['part']}:{each['fate']}:{_printable(each['reply'])}" for each in value)
        elif key == "copied" and isinstance(value, list):
            yield "copied=" + ",".join(f"{'/'.join(map(str, each['parts']))}:{_time(each['due'])}" for each in value)
        elif isinstance(value, list):
            shown = ",".join(_printable(str(one)) for one in value[:RECIPIENTS_SHOWN_MAX])
            more = len(value) - RECIPIENTS_SHOWN_MAX
            yield f"{key}={shown}" + (f" and {more} more" if more > 0 else "")
        elif isinstance(value, dict):
            yield f"{key}=" + "/".join(map(str, value.values()))
        elif isinstance(value, str):
            yield f"{key}={_printable(value)}"
        else:
            yield f"{key}={value}"


def _printable(text: str) -> str:
    """What a sender wrote must not move the admin's cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _time(due_s: float) -> str:
    try:
        return datetime.fromtimestamp(due_s, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(due_s)
