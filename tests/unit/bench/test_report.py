"""The report: those figures first that a scenario is there for, and ratios that say which way is better."""

import msgspec
import pytest

from bench import scenarios
from bench.figures import Figures
from bench.report import ROWS, comparison, line, order, report

FIGURES = Figures(
    scenario="relay", engine="mta", signed=False, messages=20_000, size=4_096, sessions=50, workers=2,
    durability="fsync", accepted_per_s=8_000.0, delivered_per_s=7_900.0, steady_per_s=7_950.0, latency_p50_ms=6.0,
    latency_p90_ms=9.0, latency_p99_ms=15.0, latency_max_ms=30.0, accept_p50_ms=5.0, accept_p90_ms=8.0,
    accept_p99_ms=14.0, accept_max_ms=29.0, cpu_us=150.0, memory_mb=120.0, memory_rss_mb=200.0, waiting_at_most=50,
    deferred=0, connections=40, messages_a_connection=500.0, missing=0, duplicates=0, strangers=0, refused=0,
    unsigned=0,
)  # fmt: skip


@pytest.mark.parametrize("name", scenarios.NAMES)
def test_a_scenario_is_told_by_what_it_is_there_for(name: str):
    """Its figures come first, every one is known, none comes twice."""
    scenario = scenarios.load(name)

    told = order(FIGURES, scenario)

    assert told[: len(scenario.look_at)] == list(scenario.look_at)
    assert len(told) == len(set(told))
    assert set(told) <= set(ROWS)


def test_every_row_is_a_figure():
    """The table names nothing that is not measured."""
    assert set(ROWS) <= set(Figures.__struct_fields__)


def test_a_report_says_what_was_run_and_that_all_is_well():
    """Title, table, and the sentence that counts."""
    text = report(FIGURES, scenarios.load("relay"))

    assert "relay, unsigned: 20,000 messages of 4,096 bytes, 50 sessions, 2 workers, fsync" in text
    assert "7,900/s (28.4 M an hour)" in text
    assert "150 us" in text
    assert text.endswith("20,000 accepted, each delivered exactly once.")
    assert "deferrals" not in text
    assert max(len(each) for each in text.splitlines()) <= 120


def test_an_open_load_is_named():
    """Then the rate is what was asked for, not the sessions."""
    steady = msgspec.structs.replace(FIGURES, rate_asked_per_s=1_000.0, signed=True, generator_late_p99_ms=1.2)
    text = report(steady, scenarios.load("latency"))

    assert "signed (RSA-2048): 20,000 messages of 4,096 bytes, 1,000/s asked for" in text
    assert "generator" in text


def test_the_signature_itself_stands_below_the_cpu():
    """Where it is known, before the processes; nowhere else."""
    signed = msgspec.structs.replace(
        FIGURES, signed=True, signature_us=61.4, cpu_us_by_process={"mta.worker 0": 100.0, "mta.worker 1": 50.0}
    )
    for name in scenarios.NAMES:
        scenario = scenarios.load(name)
        rows = [each.strip().split("  ")[0] for each in report(signed, scenario).splitlines()]
        at = rows.index("server CPU a message")

        assert rows[at : at + 4] == [
            "server CPU a message", "of which the signature itself", "mta.worker 0", "mta.worker 1"
        ]  # fmt: skip
        assert rows.count("of which the signature itself") == 1
        assert "signature_us" not in order(FIGURES, scenario)
    assert "61 us" in report(signed, scenarios.load("relay"))


def test_a_comparison_tells_how_many_times_better():
    """More messages a second are better, more CPU a message is worse."""
    other = msgspec.structs.replace(FIGURES, engine="baseline", delivered_per_s=790.0, cpu_us=1_500.0)
    table = comparison(FIGURES, other, scenarios.load("relay")).splitlines()
    rows = {each.split("  ")[1]: each for each in table if each}

    assert rows["delivered, until the last"].endswith("10.00")
    assert rows["server CPU a message"].endswith("10.00")
    assert rows["250 after, p50"].endswith("1.00")
    assert rows["connections"].rstrip().endswith("40")


def test_a_round_is_a_line():
    """The engine, and what matters most."""
    assert line(FIGURES, scenarios.load("relay")) == (
        "mta: delivered, until the last 7,900/s (28.4 M an hour), server CPU a message 150 us, 250 after, p50 5.0 ms"
    )
