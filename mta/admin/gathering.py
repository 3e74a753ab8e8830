"""Gathering: the workers' answers to one question, put together. Pure.

A worker that is down, late or in trouble takes nothing away from what the others said: its part is missing, and a
sentence says so.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from mta.admin.pages import ActedPage, Cursor, ListPage, MessagePage, SummaryPage, WarmupPage
from mta.reporting.questions import Acted, Failed, WarmedUp, WarmupRow
from mta.reporting.waiting import Listed, RecipientRow, Shown, SiteRow, Summarized
from mta.reporting.worker_counts import WorkerCounts

ERROR_CHARS_MAX = 500  # of what a worker says about its own trouble

A = TypeVar("A")


def read(raws: Sequence[bytes | None], kind: type[A]) -> tuple[list[A], list[str]]:
    """The answers that are there, in the order of the workers, and a sentence about each that is not."""
    answers: list[A] = []
    problems: list[str] = []
    for worker, raw in enumerate(raws):
        if raw is None:
            problems.append(f"worker {worker} does not answer")
            continue
        try:
            answers.append(msgspec.json.decode(raw, type=kind))
        except msgspec.DecodeError as error:
            problems.append(f"worker {worker}: {_failure(raw) or f'its answer is not understood: {error}'}")
    return answers, problems


def counts_of(raws: Sequence[bytes | None]) -> tuple[list[WorkerCounts | None], list[str]]:
    """Every worker's counters by its number, None where it told none."""
    counts: list[WorkerCounts | None] = []
    problems: list[str] = []
    for worker, raw in enumerate(raws):
        found, trouble = read([raw], WorkerCounts)
        counts.append(found[0] if found else None)
        problems += [each.replace("worker 0", f"worker {worker}", 1) for each in trouble]
    return counts, problems


def _failure(raw: bytes) -> str:
    try:
        return msgspec.json.decode(raw, type=Failed).error[:ERROR_CHARS_MAX]
    except msgspec.DecodeError:
        return ""


def summary(raws: Sequence[bytes | None]) -> SummaryPage:
    """What waits, the largest first; a site whose mail several workers have is one row."""
    answers, problems = read(raws, Summarized)
    rows: dict[tuple[str, str], SiteRow] = {}
    for row in itertools.chain.from_iterable(answer.rows for answer in answers):
        known = rows.get((row.policy, row.site))
        rows[row.policy, row.site] = row if known is None else _together(known, row)
    ordered = sorted(rows.values(), key=lambda row: (-waiting(row), row.policy, row.site))
    return SummaryPage(ordered, sum(answer.messages for answer in answers), problems)


def waiting(row: SiteRow) -> int:
    """Recipients of a row."""
    return row.ready + row.scheduled + row.held + row.suspended + row.sending


def _together(one: SiteRow, other: SiteRow) -> SiteRow:
    # The owners of one site have the same domains; domains whose site is not known yet are each at one worker only.
    domains = max(one.domains, other.domains) if one.site else one.domains + other.domains
    return SiteRow(
        one.policy,
        one.site,
        domains,
        one.ready + other.ready,
        one.scheduled + other.scheduled,
        one.held + other.held,
        one.suspended + other.suspended,
        one.sending + other.sending,
        _earliest(one.oldest_s, other.oldest_s),
        _earliest(one.next_s, other.next_s),
        one.connections + other.connections,
        one.waits_for or other.waits_for,
        one.last_reply or other.last_reply,
    )


def _earliest(*times_s: float) -> float:
    return min((time_s for time_s in times_s if time_s), default=0.0)


def listed(raws: Sequence[bytes | None], limit: int) -> ListPage:
    """One page of all workers' pages, by message id; whole messages, so it may be longer than `limit`.

    A worker that has more says nothing about ids behind its last: until it is asked again the others' must wait too.
    """
    answers, problems = read(raws, Listed)
    rows = [row for answer in answers for row in answer.rows]
    horizon = min((answer.rows[-1].id for answer in answers if answer.more and answer.rows), default=None)
    if horizon is not None:
        rows = [row for row in rows if row.id <= horizon]
    rows.sort(key=lambda row: (row.id, row.recipient))
    end = _page_end(rows, limit)
    return ListPage(rows[:end], horizon is not None or end < len(rows), problems)


def _page_end(rows: Sequence[RecipientRow], limit: int) -> int:
    end = min(limit, len(rows))
    while 0 < end < len(rows) and rows[end].id == rows[end - 1].id:
        end += 1
    return end


def message(raws: Sequence[bytes | None], message_id: str) -> MessagePage:
    """What waits of one message, at whatever workers."""
    answers, problems = read(raws, Shown)
    rows = sorted((row for answer in answers for row in answer.rows), key=lambda row: row.recipient)
    return MessagePage(
        message_id,
        _first(answer.message_id for answer in answers),
        _first(answer.from_domain for answer in answers),
        _first(answer.client for answer in answers),
        rows,
        problems=problems,
    )


def _first(texts: Iterable[str]) -> str:
    return next(filter(None, texts), "")


def warmups(raws: Sequence[bytes | None]) -> WarmupPage:
    """How sources with a plan stand, by source and provider; what several owners count adds up."""
    answers, problems = read(raws, WarmedUp)
    newest: dict[tuple[str, str, int, int], WarmupRow] = {}
    for row in itertools.chain.from_iterable(answer.rows for answer in answers):
        key = row.source, row.provider, row.index, row.of
        known = newest.get(key)
        # Who had the destination before knows of it, too, but has counted less.
        if known is None or (row.last_sent_s, row.sent, row.held_s) > (known.last_sent_s, known.sent, known.held_s):
            newest[key] = row
    rows: dict[tuple[str, str], WarmupRow] = {}
    for row in sorted(newest.values(), key=lambda row: -row.last_sent_s):
        whole = rows.setdefault((row.source, row.provider), row)
        if whole is not row:
            whole.sent += row.sent
            whole.under_way += row.under_way
            whole.missing += row.missing if row.of == whole.of else 0
    return WarmupPage([rows[key] for key in sorted(rows)], problems)


def acted(raws: Sequence[bytes | None], asked: Sequence[int] = (), workers: int = 0) -> ActedPage:
    """What was done, everywhere together. `asked`: the numbers of those who were, by default all; `workers`: how many
    there are."""
    numbers = list(asked) or list(range(len(raws)))
    page = ActedPage(cursors=[Cursor()] * max(workers, len(raws)))
    for number, raw in zip(numbers, raws, strict=True):
        answers, problems = read([raw], Acted)
        page.problems += [each.replace("worker 0", f"worker {number}", 1) for each in problems]
        for answer in answers:
            page.workers += 1
            page.touched += answer.touched
            page.messages += answer.messages
            page.sending += answer.sending
            add_up(page.left, answer.left)
            page.cursors[number] = Cursor(answer.next, answer.until, answer.looked_at, answer.of)
    return page


def go_on(page: ActedPage, later: ActedPage) -> None:
    """Add what was done after a page; workers that were done keep their cursors."""
    page.touched += later.touched
    page.messages += later.messages
    page.sending += later.sending
    add_up(page.left, later.left)
    page.workers = max(page.workers, later.workers)
    page.problems += [problem for problem in later.problems if problem not in page.problems]
    page.cursors = [
        after if after.of or before.after else before for before, after in zip(page.cursors, later.cursors, strict=True)
    ]


def add_up(total: dict[str, int], more: dict[str, int]) -> None:
    """Counts by their reasons."""
    for why, count in more.items():
        total[why] = total.get(why, 0) + count
