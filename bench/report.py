"""The report: figures as a person reads them, those first that the scenario is there for."""

from collections.abc import Callable
from typing import NamedTuple

from bench.figures import Figures
from bench.scenarios import Scenario
from bench.table import count_text, duration_text, render

SECONDS_AN_HOUR = 3_600


class Row(NamedTuple):
    """A figure: what it is called, and how it is written."""

    label: str
    text: Callable[[float], str]
    more_is_better: bool | None = None
    """None: neither; no ratio is told."""


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s ({per_s * SECONDS_AN_HOUR / 1e6:.1f} M an hour)"


def _milliseconds(ms: float) -> str:
    return duration_text(ms / 1000)


ROWS: dict[str, Row] = {
    "accepted_per_s": Row("accepted", _rate, True),
    "delivered_per_s": Row("delivered, until the last", _rate, True),
    "steady_per_s": Row("delivered, the middle 80 %", _rate, True),
    "cpu_us": Row("server CPU a message", lambda us: f"{us:,.0f} us", False),
    "signature_us": Row("of which the signature itself", lambda us: f"{us:,.0f} us"),
    "latency_p50_ms": Row("submission to delivery, p50", _milliseconds, False),
    "latency_p90_ms": Row("submission to delivery, p90", _milliseconds, False),
    "latency_p99_ms": Row("submission to delivery, p99", _milliseconds, False),
    "latency_max_ms": Row("submission to delivery, max", _milliseconds, False),
    "accept_p50_ms": Row("250 after, p50", _milliseconds, False),
    "accept_p90_ms": Row("250 after, p90", _milliseconds, False),
    "accept_p99_ms": Row("250 after, p99", _milliseconds, False),
    "accept_max_ms": Row("250 after, max", _milliseconds, False),
    "memory_mb": Row("memory at most, all processes", lambda mb: f"{mb:,.0f} MB", False),
    "waiting_at_most": Row("waiting at most", lambda count: count_text(int(count))),
    "deferred": Row("deferrals", lambda count: count_text(int(count))),
    "connections": Row("connections", lambda count: count_text(int(count))),
    "messages_a_connection": Row("messages a connection", lambda count: f"{count:,.1f}"),
    "generator_late_p99_ms": Row("of that the generator's own, p99", _milliseconds),
    "verified": Row("signatures verified", lambda count: count_text(int(count))),
}


def title(figures: Figures) -> str:
    """What was run, in a line."""
    how = f"{figures.rate_asked_per_s:,.0f}/s asked for" if figures.rate_asked_per_s else f"{figures.sessions} sessions"
    signed = "signed (RSA-2048)" if figures.signed else "unsigned"
    return (
        f"{figures.scenario}, {signed}: {figures.messages:,} messages of {figures.size:,} bytes, {how},"
        f" {figures.workers} workers, {figures.durability}"
    )


def line(figures: Figures, scenario: Scenario) -> str:
    """A round, as it ends: the figures that matter most."""
    told = [f"{ROWS[name].label} {ROWS[name].text(getattr(figures, name))}" for name in scenario.look_at[:3]]
    return f"{figures.engine}: {', '.join(told)}"


def report(figures: Figures, scenario: Scenario) -> str:
    """A table of everything; each message arrived exactly once, or there would be no figures."""
    rows = []
    for name in order(figures, scenario):
        rows.append([ROWS[name].label, ROWS[name].text(getattr(figures, name))])
        if name == ("signature_us" if figures.signature_us else "cpu_us") and len(figures.cpu_us_by_process) > 1:
            rows += [[f"  {each}", f"{us:,.0f} us"] for each, us in sorted(figures.cpu_us_by_process.items())]
    table = render(["", figures.engine], rows)
    return f"  {title(figures)}\n\n{table}\n\n  {count_text(figures.messages)} accepted, each delivered exactly once."


def comparison(one: Figures, other: Figures, scenario: Scenario) -> str:
    """Two engines beside each other, and how many times better the first is."""
    rows = []
    for name in order(one, scenario):
        row, mine, others = ROWS[name], getattr(one, name), getattr(other, name)
        rows.append([row.label, row.text(mine), row.text(others), _ratio(row, mine, others)])
    table = render(["", one.engine, other.engine, "ratio"], rows)
    return f"  {title(one)}\n\n{table}\n\n  A ratio above 1: {one.engine} is so many times better."


def order(figures: Figures, scenario: Scenario) -> list[str]:
    """The figures to tell: first those that the scenario is there for, then the others that say something."""
    silent = {name for name in ("deferred", "generator_late_p99_ms", "verified") if not getattr(figures, name)}
    first = [each for name in scenario.look_at for each in _with_parts(name, figures)]
    others = [each for name in ROWS if name not in ("signature_us", *silent) for each in _with_parts(name, figures)]
    return [*first, *(name for name in others if name not in first)]


def _with_parts(name: str, figures: Figures) -> list[str]:
    """A figure, and the one below it that says how much of it is what."""
    return [name, "signature_us"] if name == "cpu_us" and figures.signature_us else [name]


def _ratio(row: Row, mine: float, others: float) -> str:
    if row.more_is_better is None or not mine or not others:
        return ""
    return f"{mine / others if row.more_is_better else others / mine:.2f}"
