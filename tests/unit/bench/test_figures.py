"""Figures: counted by id, timed by one clock, and loud about what must not be."""

import math

import msgspec
import pytest

from bench.figures import Figures, Seen, Shape, figures, medians, most_waiting, rate, steady_rate
from bench.load import Result
from bench.processes import Memory
from bench.rig import SinkCounts
from bench.sink import Arrivals

SHAPE = Shape(
    scenario="relay", engine="mta", signed=True, messages=4, size=4_096, sessions=2, workers=2, durability="fsync"
)


def result(**changes: object) -> Result:
    """Four messages, begun at 100, 101, 102 and 103 and accepted half a second later."""
    done = Result(4)
    for number in range(4):
        done.starts_s[number] = 100.0 + number
        done.accepted.append(f"load-{number}")
        done.latencies_s.append(0.5)
    for name, value in changes.items():
        setattr(done, name, value)
    return done


def counts(**changes: object) -> SinkCounts:
    fields = {
        "address": "127.0.0.2", "port": 1, "connections_max": 2, "connections_over": 0, "mails_over": 0, "messages": 5,
        "recipients": 5, "duplicates": 0, "replies": {}, "connections_total": 2, "signed": 5,
    } | changes  # fmt: skip
    return msgspec.convert(fields, SinkCounts)


def seen(**changes: object) -> Seen:
    """One message of the warm-up, then the four, each a second after it was begun."""
    everything = Seen(
        result=result(),
        warm_ids=frozenset({"warm-0"}),
        arrivals=Arrivals(["warm-0", *(f"load-{number}" for number in range(4))], [90.0, 101.0, 102.0, 103.0, 105.0]),
        counts={"sink": counts()},
        cpu_s=0.002,
        memory=Memory(rss=120_000_000, pss=80_000_000),
    )
    return everything._replace(**changes)


def test_rates_and_latencies_are_of_the_ids():
    """From the first MAIL to the last 250, and to the last arrival; the warm-up does not count."""
    found = figures(SHAPE, seen())

    assert found.accepted_per_s == pytest.approx(4 / 3.5, abs=0.1)
    assert found.delivered_per_s == 0.8
    assert (found.latency_p50_ms, found.latency_p90_ms, found.latency_max_ms) == (1000.0, 2000.0, 2000.0)
    assert (found.accept_p50_ms, found.accept_max_ms) == (500.0, 500.0)
    assert found.cpu_us == 500.0
    assert (found.memory_mb, found.memory_rss_mb) == (80.0, 120.0)
    assert (found.connections, found.messages_a_connection) == (2, 2.5)


def test_what_the_signatures_themselves_cost():
    """Of the CPU a message, where the engine counts it."""
    assert figures(SHAPE, seen(signature_cpu_s=0.001)).signature_us == 250.0
    assert figures(SHAPE, seen()).signature_us == 0.0


def test_figures_from_before_there_was_one_can_be_read():
    """A figure that is new is 0 in what was measured before."""
    told = msgspec.to_builtins(figures(SHAPE, seen(signature_cpu_s=0.001)))
    del told["signature_us"]

    assert msgspec.convert(told, Figures) == figures(SHAPE, seen())


def test_nothing_to_complain_about():
    """Where each was accepted, arrived once and is signed."""
    assert figures(SHAPE, seen()).complaints() == []


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"arrivals": Arrivals(["load-0", "load-1", "load-2"], [101.0, 102.0, 103.0])}, "missing", "did not arrive"),
        (
            {"arrivals": Arrivals(["load-0", "load-1", "load-2", "load-3", "load-2"], [101.0] * 5)},
            "duplicates",
            "more than once",
        ),
        (
            {"arrivals": Arrivals(["load-0", "load-1", "load-2", "load-3", "x"], [101.0] * 5)},
            "strangers",
            "had not been accepted",
        ),
        ({"result": result(accepted=["load-0"], latencies_s=[0.5])}, "refused", "were not accepted"),
        ({"counts": {"sink": counts(signed=4)}}, "unsigned", "without a signature"),
    ],
)
def test_what_must_not_be_is_told(changes: dict[str, object], field: str, words: str):
    """Lost, doubled, strange, refused, unsigned: each is a number and a sentence."""
    found = figures(SHAPE, seen(**changes))

    assert getattr(found, field) > 0
    assert any(words in complaint for complaint in found.complaints())


def test_a_message_of_the_warm_up_that_comes_twice_is_a_duplicate():
    """It was accepted too."""
    arrivals = Arrivals(["warm-0", "warm-0", *(f"load-{number}" for number in range(4))], [1.0] * 6)

    assert figures(SHAPE, seen(arrivals=arrivals)).duplicates == 1


def test_what_was_left_in_doubt_is_no_stranger():
    """Its content was sent when the connection broke: it may arrive, and it may not."""
    arrivals = Arrivals([f"load-{number}" for number in range(4)], [101.0] * 4)
    doubtful = result(accepted=["load-0", "load-1", "load-2"], latencies_s=[0.5] * 3, uncertain=["load-3"])

    found = figures(SHAPE, seen(arrivals=arrivals, result=doubtful))

    assert (found.strangers, found.missing) == (0, 0)


def test_signatures_are_not_asked_for_where_nothing_is_signed():
    """An unsigned run has no unsigned messages to complain about."""
    unsigned = msgspec.structs.replace(SHAPE, signed=False)

    assert figures(unsigned, seen(counts={"sink": counts(signed=0)})).unsigned == 0


def test_deferrals_are_counted_whatever_they_were_said_to():
    """4xx to a greeting, a MAIL, a RCPT or a dot; nothing else."""
    replies = {"RCPT 451": 3, "CONNECT 421": 2, "DOT 452": 1, "RCPT 550": 7, "RCPT silence": 9}

    found = figures(SHAPE, seen(counts={"a": counts(replies=replies), "b": counts(messages=0, signed=0)}))

    assert found.deferred == 6
    assert (found.providers["a"].deferred, found.providers["b"].deferred) == (6, 0)


def test_a_run_without_anything_has_figures_too():
    """Nothing is divided by nothing."""
    nothing = Seen(Result(4), frozenset(), Arrivals([], []), {}, 0.0, Memory())

    found = figures(SHAPE, nothing)

    assert (found.delivered_per_s, found.latency_p99_ms, found.refused) == (0.0, 0.0, 4)
    assert all(math.isfinite(value) for value in msgspec.structs.astuple(found) if isinstance(value, float))


@pytest.mark.parametrize(
    ("came", "went", "most"),
    [
        ([], [], 0),
        ([1.0, 2.0, 3.0], [1.5, 2.5, 3.5], 1),
        ([3.0, 1.0, 2.0], [4.0, 5.0, 6.0], 3),
        ([1.0, 2.0], [0.5, 0.6], 0),
        ([1.0, 2.0, 3.0, 4.0], [2.5, 2.6, 9.0, 9.0], 2),
    ],
)
def test_how_many_waited_at_most(came: list[float], went: list[float], most: int):
    """Accepted and not yet there, at the worst moment; one may be there before its 250 is heard."""
    assert most_waiting(came, went) == most


def test_the_steady_rate_leaves_out_beginning_and_end():
    """A hundred a second, with one that comes a minute late."""
    times_s = [number / 100 for number in range(1_000)] + [70.0]

    assert steady_rate(times_s) == pytest.approx(100.0)
    assert steady_rate([]) == steady_rate([1.0]) == 0.0
    assert rate(10, 5.0, 5.0) == 0.0


def test_medians_take_the_middle_and_the_worst():
    """The middle of what varies, the most of what must be 0, and what was run."""
    first = figures(SHAPE, seen())
    rounds = [
        msgspec.structs.replace(first, cpu_us=value, missing=missing, waiting_at_most=waiting)
        for value, missing, waiting in ((100.0, 0, 5), (300.0, 2, 7), (120.0, 0, 9))
    ]

    middle = medians(rounds)

    assert (middle.cpu_us, middle.missing, middle.waiting_at_most) == (120.0, 2, 7)
    assert (middle.scenario, middle.signed, middle.messages) == ("relay", True, 4)
    assert middle.providers == first.providers


def test_figures_can_be_written_and_read():
    """As JSON, field by field."""
    found = figures(SHAPE, seen())

    assert msgspec.json.decode(msgspec.json.encode(found), type=Figures) == found
