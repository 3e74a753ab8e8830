"""The plot: two charts in one SVG, a recovery minute by minute and an adapted rate.

Written by hand, for two charts need no library: the page shows it wherever pictures are shown.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bench.control_law.senders import FULL_PER_MINUTE, ProbeAndAdapt, send
from bench.control_law.sweep import LAW, PLAIN_LAW, RECOVERIES, SEVERITIES
from mta_policies.provider_model import Google

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 860, 250, 64, 20, 44, 84
COLORS = ("#0b6e4f", "#c1292e", "#235789", "#e8a33d")
RECOVERY_H = 5.0
RECOVERY_PENALTY_S = 5400.0
RATE_H = 24.0
RATE_PER_MINUTE = 30
SHOWN = ("probe", "suspend 1 h", "one a minute")
BIN_MIN = 5
Points = list[tuple[float, float]]


class Line(NamedTuple):
    name: str
    points: Points


class Chart(NamedTuple):
    title: str
    lines: Sequence[Line]
    hours: float
    most: float


def recovery_chart(severity: str) -> Chart:
    """What is delivered a minute after a block of an hour and a half."""
    lines = []
    for name in SHOWN:
        course = send(SEVERITIES[severity](RECOVERY_PENALTY_S), RECOVERIES[name](), RECOVERY_H * 3600)
        bins = [course.minutes[i : i + BIN_MIN] for i in range(0, len(course.minutes) - BIN_MIN + 1, BIN_MIN)]
        lines.append(Line(name, [((i + 0.5) * BIN_MIN / 60, sum(each) / BIN_MIN) for i, each in enumerate(bins)]))
    title = f"Blocked for an hour and a half by a {severity} provider: messages delivered a minute"
    return Chart(title, lines, RECOVERY_H, FULL_PER_MINUTE)


def rate_chart() -> Chart:
    """The rate that is allowed, beside a provider that takes half of what could be sent and blocks for ten minutes."""
    lines = []
    for name, law in (("with caution near the last complaint", LAW), ("plain additive increase", PLAIN_LAW)):
        sender = ProbeAndAdapt(law)
        send(Google(600.0, per_minute=RATE_PER_MINUTE), sender, RATE_H * 3600)
        lines.append(Line(name, _stairs(sender.adapt.rates)))
    lines.append(Line("what the provider takes", [(0.0, RATE_PER_MINUTE), (RATE_H, RATE_PER_MINUTE)]))
    return Chart("Blocked for ten minutes at more than 30 a minute: the rate allowed", lines, RATE_H, FULL_PER_MINUTE)


def _stairs(rates: list[tuple[float, float]]) -> Points:
    """What was allowed at every few minutes: more than that nobody can see."""
    points: Points = []
    at, rate = 0, FULL_PER_MINUTE
    for minute in range(0, int(RATE_H * 60) + 1, BIN_MIN):
        while at < len(rates) and rates[at][0] <= minute * 60:
            rate = rates[at][1]
            at += 1
        points.append((minute / 60, rate))
    return points


def svg(charts: Sequence[Chart]) -> str:
    """All charts, one below the other."""
    height = len(charts) * (HEIGHT + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for i, chart in enumerate(charts):
        parts += _chart(chart, i * (HEIGHT + GAP) + TOP)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart, top: float) -> list[str]:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP
    parts = [f'<text x="{LEFT}" y="{top - 24}" font-weight="bold" fill="#222222">{chart.title}</text>']
    for i in range(5):
        y = top + height * (1 - i / 4)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + width}" y2="{y:.1f}" stroke="#dddddd"/>')
        label = f"{chart.most * i / 4:g}"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{label}</text>')
    step = 1 if chart.hours <= 12 else 4
    for hour in range(0, int(chart.hours) + 1, step):
        x = LEFT + width * hour / chart.hours
        text = f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle" fill="#555555">{hour} h</text>'
        parts.append(text)
    for i, line in enumerate(chart.lines):
        places = " ".join(
            f"{LEFT + width * x / chart.hours:.1f},{top + height * (1 - min(y, chart.most) / chart.most):.1f}"
            for x, y in line.points
        )
        color = COLORS[i]
        parts.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>')
        x = LEFT + i * 260
        parts.append(f'<rect x="{x}" y="{top + height + 30}" width="14" height="4" fill="{color}"/>')
        parts.append(f'<text x="{x + 20}" y="{top + height + 36}" fill="#222222">{line.name}</text>')
    return parts
