"""`mta queue export | import`: mail that waits goes on on another server.

An export of a running server holds what it takes, so that nothing is sent twice; `--remove`, or `mta queue cancel
--exported FILE` later, takes it out of that server when the file is on stable storage. An import hears of each message
when the server has it on stable storage; what it has already is left out.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zlib import crc32

import msgspec

from mta.admin import gathering
from mta.admin.pages import (
    ExportPage,
    ExportWish,
    ImportPage,
    ImportWish,
    KnownPage,
    KnownWish,
    PiecePage,
    UploadWish,
)
from mta.cli import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, EXIT_WRONG, Subparsers, words
from mta.cli.asking import COMMAND_QUEUE, FAILURES, Asking, failed, options, print_json, run_asked
from mta.cli.dead_queue import DeadQueue
from mta.cli.export_file import FORMAT, ExportFileError, ExportReader, ExportWriter, Header
from mta.cli.exported import remove_exported
from mta.cli.selected import add_select, must_select, selection_of
from mta.model import envelope as envelopes
from mta.model.selection import Selection
from mta.reporting.moved_mail import MovedItem
from mta_queue.store import LogFormatError, LogLockedError

PAGE_BYTES_MAX = 1 << 20
PAGE_ITEMS_MAX = 200
ITEM_OVERHEAD_BYTES = 512
_AWAY = ("site", "policy", "source")
"""Criteria that only a running server knows."""


def add(actions: Subparsers) -> None:
    """Describes the actions to argparse."""
    description = (__doc__ or "").split("\n\n")[1]
    export = actions.add_parser(
        "export",
        parents=[options()],
        help="write mail that waits to a file, for another server",
        description=description,
    )
    export.add_argument(
        "directory", nargs="?", type=Path, metavar="DIRECTORY", help="a queue whose server does not run"
    )
    export.add_argument("--to", metavar="FILE", type=Path, required=True, help="a new file (a tar archive)")
    export.add_argument("--remove", action="store_true", help="take it out of the server when the file is safe")
    add_select(export, all_is_asked=True)
    export.set_defaults(run=_export)
    bring = actions.add_parser("import", parents=[options()], help="take mail from an export", description=description)
    bring.add_argument("file", type=Path, metavar="FILE", help="what `mta queue export` wrote, also compressed")
    bring.set_defaults(run=partial(run_asked, _import))


# -- export --


class _Done(msgspec.Struct):
    """What `--json` prints of an export."""

    messages: int = 0
    recipients: int = 0
    file: str = ""
    left: dict[str, int] = {}
    removed: int = 0
    """Recipients that were taken out of the server."""
    problems: list[str] = []


def _export(args: argparse.Namespace) -> int:
    if args.directory is not None:
        return _export_dead(args)
    return run_asked(_export_live, args, _check)


def _check(args: argparse.Namespace) -> None:
    must_select(args, "export")


def _export_dead(args: argparse.Namespace) -> int:
    selection = selection_of(args)
    if args.remove or any(getattr(selection, name) for name in _AWAY):
        args.wrong_usage(
            "with DIRECTORY there is no server to remove from, and none that knows sites, policies, sources"
        )
    selection = Selection(all=True) if selection.is_empty else selection
    try:
        queue = DeadQueue(args.directory)
        with ExportWriter(args.to) as writer:
            writer.begin(Header(FORMAT, "", words.now_s(), str(selection)))
            asyncio.run(queue.each(selection, words.now_s(), writer.add))
            writer.finish(words.now_s())
    except LogLockedError:
        print(f"{COMMAND_QUEUE}: a server runs on {args.directory}: export from it, without DIRECTORY", file=sys.stderr)
        return EXIT_WRONG
    except ValueError as error:
        print(f"{COMMAND_QUEUE}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (LogFormatError, OSError) as error:
        return failed(COMMAND_QUEUE, error)
    return _told(args, _Done(writer.messages, writer.recipients, str(args.to), problems=queue.problems), is_held=False)


def _export_live(args: argparse.Namespace, server: Asking) -> int:
    done = _Done(file=str(args.to))
    progress = words.Progress()
    selection = must_select(args, "export")
    writer = ExportWriter(args.to)  # before anything is held
    try:
        with writer:
            first = server.post("/queue/export", ExportPage, ExportWish(selection))
            writer.begin(Header(FORMAT, first.hostname, words.now_s(), str(selection)))
            for page in _pages(server, selection, first):
                for item in page.items:
                    writer.add(_whole(server, item))
                gathering.add_up(done.left, page.left)
                progress.show(f"{words.several(writer.messages, 'message')} written")
            writer.finish(words.now_s())
    except (KeyboardInterrupt, *FAILURES) as error:
        progress.clear()
        print(f"{COMMAND_QUEUE}: broken off: what was exported so far stays held; `mta queue release` with the same "
              f"SELECT lets it go again, and another export finds it", file=sys.stderr)  # fmt: skip
        if isinstance(error, KeyboardInterrupt):
            return EXIT_INTERRUPTED
        return failed(COMMAND_QUEUE, error)
    progress.clear()
    done.messages, done.recipients = writer.messages, writer.recipients
    if args.remove and done.messages:
        try:
            page = remove_exported(server, args.to)
        except ExportFileError as error:
            print(f"{COMMAND_QUEUE}: nothing is removed: {words.printable(str(error))}", file=sys.stderr)
            return EXIT_WRONG
        done.removed = page.touched
        gathering.add_up(done.left, page.left)
        done.problems += page.problems
    return _told(args, done, is_held=not args.remove)


def _pages(server: Asking, selection: Selection, first: ExportPage) -> Iterator[ExportPage]:
    """Every worker's, one after the other."""
    page = first
    for worker in range(first.workers):
        if worker:
            page = server.post("/queue/export", ExportPage, ExportWish(selection, worker))
        yield page
        while page.next:
            page = server.post("/queue/export", ExportPage, ExportWish(selection, worker, page.next))
            yield page


def _whole(server: Asking, item: MovedItem) -> MovedItem:
    """The item with all of its content."""
    if len(item.content) == item.size:
        return item
    content = bytearray(item.content)
    while len(content) < item.size:
        path = f"/queue/export/{item.worker}/{item.seq}"
        piece = server.get(path, PiecePage, {"offset": len(content)}).data
        if not piece:
            raise ValueError(f"the content of {item.id} is shorter than it should be")
        content += piece
    return msgspec.structs.replace(item, content=bytes(content))


def _told(args: argparse.Namespace, done: _Done, *, is_held: bool) -> int:
    if args.json:
        print_json(done)
    else:
        what = f"{words.several(done.recipients, 'recipient')} of {words.several(done.messages, 'message')}"
        print(f"exported {what} to {done.file}" if done.messages else "nothing matched")
        if done.removed:
            print(f"removed {words.several(done.removed, 'recipient')} from the server")
        elif is_held and done.messages:
            print(f"they are held here; once they are imported: mta queue cancel --exported {done.file}")
        if done.left:
            print(
                "left alone: " + ", ".join(f"{words.count(number)} {why}" for why, number in sorted(done.left.items()))
            )
    for problem in done.problems:
        print(f"{COMMAND_QUEUE}: {words.printable(problem)}", file=sys.stderr)
    return EXIT_DONE if done.messages and not done.problems else EXIT_WRONG


# -- import --


class _Brought(msgspec.Struct):
    """What `--json` prints of an import."""

    messages: int = 0
    recipients: int = 0
    known: int = 0
    """Recipients that the server has already."""
    problems: list[str] = []


def _import(args: argparse.Namespace, server: Asking) -> int:
    brought = _Brought()
    progress = words.Progress()
    status = EXIT_DONE
    try:
        reader = ExportReader(args.file)
        try:
            for batch in _batches(reader.items()):
                _bring(server, batch, brought)
                progress.show(f"{words.several(brought.messages, 'message')} imported")
        finally:
            reader.close()
    except ExportFileError as error:
        brought.problems.append(str(error))
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
        brought.problems.append("broken off; run it again to go on: what is imported is recognised")
    except FAILURES as error:
        status = failed(COMMAND_QUEUE, error)
        brought.problems.append("run it again to go on: what is imported is recognised")
    progress.clear()
    if args.json:
        print_json(brought)
    else:
        what = f"{words.several(brought.recipients, 'recipient')} of {words.several(brought.messages, 'message')}"
        known = f"; {words.several(brought.known, 'recipient')} were here already" if brought.known else ""
        print(f"imported {what}{known}")
    for problem in brought.problems:
        print(f"{COMMAND_QUEUE}: {words.printable(problem)}", file=sys.stderr)
    return status or (EXIT_WRONG if brought.problems else EXIT_DONE)


def _batches(items: Iterator[MovedItem]) -> Iterator[list[MovedItem]]:
    """As many as one request carries; what comes before damage is still handed on."""
    batch: list[MovedItem] = []
    used_bytes = 0
    try:
        for item in items:
            cost = min(item.size, PAGE_BYTES_MAX) + ITEM_OVERHEAD_BYTES + len(item.envelope)
            if batch and (used_bytes + cost > PAGE_BYTES_MAX or len(batch) >= PAGE_ITEMS_MAX):
                yield batch
                batch, used_bytes = [], 0
            batch.append(item)
            used_bytes += cost
    except ExportFileError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _bring(server: Asking, batch: list[MovedItem], brought: _Brought) -> None:
    pairs = [(item.id, each.address) for item in batch for each in item.recipients]
    page = server.post("/queue/import/known", KnownPage, KnownWish(pairs))
    known = {pairs[number] for number in page.numbers}
    brought.known += len(page.numbers)
    by_worker: dict[int, list[MovedItem]] = {}
    for item in batch:
        if any((item.id, each.address) not in known for each in item.recipients):
            worker = crc32(item.id.encode()) % page.workers  # the same every time, so that two imports meet there
            by_worker.setdefault(worker, []).append(_without(item, known))
    for worker, items in by_worker.items():
        carried: list[MovedItem] = []
        for item in items:
            if item.size <= PAGE_BYTES_MAX:
                carried.append(item)
                continue
            for offset in range(0, item.size, PAGE_BYTES_MAX):
                piece = UploadWish(worker, item.id, offset, item.content[offset : offset + PAGE_BYTES_MAX])
                server.post("/queue/import/piece", ImportPage, piece)
            carried.append(msgspec.structs.replace(item, content=b""))
        done = server.post("/queue/import", ImportPage, ImportWish(worker, carried))
        brought.messages += done.messages
        brought.recipients += done.recipients


def _without(item: MovedItem, known: set[tuple[str, str]]) -> MovedItem:
    """The item with those recipients that the server does not have."""
    rest = [each for each in item.recipients if (item.id, each.address) not in known]
    if len(rest) == len(item.recipients):
        return item
    envelope = envelopes.decode(item.envelope)
    wanted = {each.address for each in rest}
    envelope.recipients = [each for each in envelope.recipients if each.address in wanted]
    return msgspec.structs.replace(item, recipients=rest, envelope=envelopes.encode(envelope))
