"""Exported: what an export has goes from the server that it was made of, once it is safe elsewhere."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from mta.admin import gathering
from mta.admin.pages import ActedPage, RemoveWish
from mta.cli import words
from mta.cli.asking import Asking, who
from mta.cli.export_file import ExportFileError, ExportReader
from mta.reporting.moved_mail import ExportedItem

ITEMS_AT_ONCE = 500  # in one request


def remove_exported(server: Asking, path: Path) -> ActedPage:
    """Cancel silently what the file has and is held still; the whole file is read and found sound before.

    Raises ExportFileError with nothing done, and as `Asking.post`.
    """
    wanted = list(_contents(path))
    done = ActedPage()
    progress = words.Progress()
    asked = 0
    for worker, items in groupby(sorted(wanted), key=lambda each: each[0]):
        todo = [ExportedItem(seq, message_id, parts) for _, seq, message_id, parts in items]
        for at in range(0, len(todo), ITEMS_AT_ONCE):
            wish = RemoveWish(worker, todo[at : at + ITEMS_AT_ONCE], who())
            page = server.post("/queue/export/remove", ActedPage, wish)
            done.touched += page.touched
            done.messages += page.messages
            gathering.add_up(done.left, page.left)
            done.problems += [problem for problem in page.problems if problem not in done.problems]
            asked += len(wish.items)
            progress.show(f"{words.count(asked)} of {words.several(len(wanted), 'message')} removed")
    progress.clear()
    return done


def _contents(path: Path) -> Iterator[tuple[int, int, str, list[int]]]:
    reader = ExportReader(path)
    try:
        for item in reader.items():
            if not item.seq:
                raise ExportFileError(f"{path} is not of a running server: its queue is a directory to delete")
            yield item.worker, item.seq, item.id, [each.part for each in item.recipients]
    finally:
        reader.close()
