"""The workers' answers, put together."""

from random import Random
from typing import Any

import msgspec
import pytest

from mta.admin import gathering
from mta.reporting.questions import Acted, Failed
from mta.reporting.waiting import Listed, RecipientRow, Shown, SiteRow, Summarized
from mta.reporting.worker_counts import WorkerCounts

encode = msgspec.json.encode


def row(message_id: str, recipient: str = "a@x.test") -> RecipientRow:
    return RecipientRow(message_id, recipient, "s@shop.test", "x.test", "ready")


def ids(rows: list[RecipientRow]) -> list[str]:
    return [each.id for each in rows]


def test_workers_that_do_not_answer_are_named() -> None:
    """One that is down, one in trouble and one that talks nonsense each get a sentence; the others count."""
    raws = [None, encode(Acted(3, 2, 1)), encode(Failed("its disk is gone")), b"{", b'{"rows":3}', encode(Acted(4, 4))]

    page = gathering.acted(raws)

    assert (page.touched, page.messages, page.sending) == (7, 6, 1)
    assert page.problems[0] == "worker 0 does not answer"
    assert page.problems[1] == "worker 2: its disk is gone"
    assert page.problems[2].startswith("worker 3: its answer is not understood")
    assert page.problems[3].startswith("worker 4: its answer is not understood")
    assert len(page.problems) == 4


def test_a_long_trouble_is_cut() -> None:
    """A sentence stays one."""
    _, problems = gathering.read([encode(Failed("x" * 10_000))], Acted)

    assert len(problems[0]) < 600


def test_counts_keep_their_numbers() -> None:
    """The counters of worker 2 stay worker 2's where worker 1 told none, and the sentence names the right one."""
    raws = [encode(WorkerCounts(0, 1.0)), encode(Failed("it reads worker 0's log")), encode(WorkerCounts(2, 1.0)), None]

    counts, problems = gathering.counts_of(raws)

    assert [each and each.worker for each in counts] == [0, None, 2, None]
    assert problems == ["worker 1: it reads worker 0's log", "worker 3 does not answer"]


def test_a_summary_adds_up_by_site() -> None:
    """A site whose mail two workers have is one row; the largest row is the first."""
    one = SiteRow("big", "mx.big.test", 3, 10, 1, 0, 2, 1, 50.0, 200.0, 2, "", "451 later")
    other = SiteRow("big", "mx.big.test", 3, 5, 0, 4, 0, 1, 40.0, 0.0, 1, "the rate of 5/s", "452 full")
    small = SiteRow("default", "mx.small.test", 1, 1)

    page = gathering.summary([encode(Summarized([small, one], 12)), encode(Summarized([other], 9))])

    both = SiteRow("big", "mx.big.test", 3, 15, 1, 4, 2, 2, 40.0, 200.0, 3, "the rate of 5/s", "451 later")
    assert page.rows == [both, small]
    assert page.messages == 21
    assert page.problems == []


def test_domains_without_a_site_are_different_ones() -> None:
    """Each worker looks up its own, so they add up; the domains of a site are the same at all its owners."""
    unknown = SiteRow("default", "", 2, 4)

    page = gathering.summary([encode(Summarized([unknown])), encode(Summarized([unknown]))])

    assert (page.rows[0].domains, page.rows[0].ready) == (4, 8)


def test_times_that_are_not_known_are_not_the_earliest() -> None:
    """0 stands for "none"."""
    rows = [SiteRow("p", "s", 1, 1, oldest_s=0.0, next_s=0.0), SiteRow("p", "s", 1, 1, oldest_s=7.0, next_s=9.0)]

    page = gathering.summary([encode(Summarized([each])) for each in rows])

    assert (page.rows[0].oldest_s, page.rows[0].next_s) == (7.0, 9.0)


def test_lists_are_merged_by_id() -> None:
    """Recipients of one message stand together, whichever worker has them."""
    first = Listed([row("1"), row("3", "b@x.test")])
    second = Listed([row("2"), row("3", "a@x.test")])

    page = gathering.listed([encode(first), encode(second)], 100)

    assert [(each.id, each.recipient[0]) for each in page.rows] == [("1", "a"), ("2", "a"), ("3", "a"), ("3", "b")]
    assert not page.more


def test_a_page_ends_where_a_worker_has_said_all_it_says() -> None:
    """What lies behind the last id of a worker with more must wait for the next page: it may have ids before that."""
    first = Listed([row("1"), row("2")], more=True)
    second = Listed([row("3"), row("4")])

    page = gathering.listed([encode(first), encode(second)], 100)

    assert ids(page.rows) == ["1", "2"]
    assert page.more


def test_a_page_has_whole_messages() -> None:
    """The limit is passed rather than a message torn, because the next page begins behind its id."""
    rows = [row("1"), *(row("2", f"{number}@x.test") for number in range(5)), row("3")]

    page = gathering.listed([encode(Listed(rows))], 3)

    assert ids(page.rows) == ["1", "2", "2", "2", "2", "2"]
    assert page.more


def test_a_worker_that_says_more_and_lists_nothing_does_not_stop_the_others() -> None:
    """Nobody asks for the same page for ever."""
    page = gathering.listed([encode(Listed([], more=True)), encode(Listed([row("1")]))], 10)

    assert ids(page.rows) == ["1"]
    assert not page.more


@pytest.mark.parametrize("seed", range(20))
def test_pages_together_are_everything_once(seed: int) -> None:
    """Whatever lies at which worker, page after page gives every recipient once and in order."""
    random = Random(seed)
    queues: list[list[RecipientRow]] = [[], [], []]
    for number in range(60):
        for recipient in range(random.choice([1, 1, 1, 2, 7])):
            random.choice(queues).append(row(f"{number:03}", f"{recipient}@x.test"))
    limit = random.randrange(1, 12)

    seen: list[RecipientRow] = []
    after, more = "", True
    while more:
        page = gathering.listed([encode(_ask(queue, limit, after)) for queue in queues], limit)
        assert page.rows
        seen += page.rows
        after, more = page.rows[-1].id, page.more

    everything = sorted((each for queue in queues for each in queue), key=lambda each: (each.id, each.recipient))
    assert seen == everything


def _ask(queue: list[RecipientRow], limit: int, after: str) -> Listed:
    """A worker's page, of whole messages."""
    left = [each for each in queue if each.id > after]
    end = min(limit, len(left))
    while 0 < end < len(left) and left[end].id == left[end - 1].id:
        end += 1
    return Listed(left[:end], end < len(left))


def test_a_message_is_gathered_from_all_its_owners() -> None:
    """Recipients of all, and what is known of it by whoever knows it."""
    raws = [
        encode(Shown([])),
        encode(Shown([row("1", "b@x.test")], "<m@shop.test>", "shop.test", "")),
        encode(Shown([row("1", "a@x.test")], "<m@shop.test>", "shop.test", "192.0.2.1")),
        None,
    ]

    page = gathering.message(raws, "1")

    assert [each.recipient for each in page.rows] == ["a@x.test", "b@x.test"]
    assert (page.message_id, page.from_domain, page.client) == ("<m@shop.test>", "shop.test", "192.0.2.1")
    assert page.problems == ["worker 3 does not answer"]


@pytest.mark.parametrize("gather", [gathering.summary, gathering.acted, lambda raws: gathering.listed(raws, 5)])
def test_nothing_of_nobody(gather: Any) -> None:
    """No answer at all is an empty page with a sentence for each worker."""
    assert len(gather([None, None]).problems) == 2
