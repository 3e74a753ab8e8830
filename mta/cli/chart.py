"""A chart: lines over time as SVG that stretches to any width, with axes as text that keeps its size. No library.

What it looks like, dark and light, is said in `rehearsal_style`.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from mta.cli.markup import Markup, element

WIDTH: Final = 1000.0
HEIGHT: Final = 220.0
TICKS: Final = 6
"""On the axis of time, at most."""

STEPS_S: Final = (1, 2, 5, 10, 15, 30, *(60 * n for n in (1, 2, 5, 10, 15, 30)), *(3600 * n for n in (1, 2, 3, 6, 12)))
DAY_S: Final = 86400
BAR_MIN: Final = 0.35  # per cent of the width: a moment is seen, too


class Line(NamedTuple):
    """One of a chart."""

    kind: str
    """What it looks like: handed-in, recorded, now or new."""
    name: str
    values: Sequence[float]
    """One for each slot of the axis."""


class Axis(NamedTuple):
    """Time, in equal slots."""

    start_s: float
    slot_s: float
    slots: int
    is_clock: bool
    """Times of day; else what has gone by."""

    @property
    def length_s(self) -> float:
        return self.slot_s * self.slots

    def percent(self, at_s: float) -> float:
        """How far to the right."""
        return 100.0 * min(1.0, max(0.0, (at_s - self.start_s) / self.length_s))


class Bar(NamedTuple):
    """A span of time."""

    since_s: float
    until_s: float
    about: str
    """Shown where somebody points at it."""


def chart(title: str, unit: str, lines: Sequence[Line], axis: Axis, marks: Sequence[float] = ()) -> Markup:
    """Lines over each other; `marks`: times at which something began."""
    most = nice_top(max((max(line.values, default=0.0) for line in lines), default=0.0))
    steps = [most * step / 4 for step in range(5)]
    label = f"{title}, {unit}: " + "; ".join(
        f"{line.name}: at most {number(max(line.values, default=0.0))}" for line in lines
    )
    drawing = element(
        "svg",
        *(_grid(HEIGHT - HEIGHT * step / most) for step in steps),
        *(_mark(axis.percent(at_s)) for at_s in marks),
        *(_line(line, most, axis.slots) for line in lines),
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    values = [element("span", number(step), style=f"bottom:{100.0 * step / most:.4g}%") for step in steps]
    return element(
        "figure",
        element("figcaption", element("b", title), f" {unit}"),
        element("div", element("div", *values, class_="y"), drawing, class_="plot"),
        times(axis),
        class_="chart",
    )


def times(axis: Axis) -> Markup:
    """The axis of time."""
    return element(
        "div",
        *(element("span", shown, style=f"left:{axis.percent(at_s):.4g}%") for at_s, shown in ticks(axis)),
        class_="x",
    )


def bars(kind: str, name: Markup, spans: Sequence[Bar], axis: Axis) -> Markup:
    """Spans of time in one row, under charts of the same axis."""
    drawn = []
    for bar in spans:
        left = axis.percent(bar.since_s)
        wide = max(BAR_MIN, axis.percent(bar.until_s) - left)
        drawn.append(element("i", title=bar.about, style=f"left:{min(left, 100 - wide):.4g}%;width:{wide:.4g}%"))
    return element("div", element("span", name), element("div", *drawn, class_="track"), class_=f"bars {kind}")


def _grid(y: float) -> Markup:
    return element("line", x1="0", x2=f"{WIDTH:g}", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")


def _mark(percent: float) -> Markup:
    x = f"{WIDTH * percent / 100:.1f}"
    return element("line", x1=x, x2=x, y1="0", y2=f"{HEIGHT:g}", class_="mark")


def _line(line: Line, most: float, slots: int) -> Markup:
    points = [
        f"{WIDTH * (at + 0.5) / slots:.1f} {HEIGHT - HEIGHT * value / most:.1f}" for at, value in enumerate(line.values)
    ]
    path = "M" + "L".join(points)
    if line.kind == "handed-in":
        path += f"L{WIDTH * (len(points) - 0.5) / slots:.1f} {HEIGHT:g}L{WIDTH * 0.5 / slots:.1f} {HEIGHT:g}Z"
    return element("path", d=path, class_=line.kind, vector_effect="non-scaling-stroke")


def nice_top(most: float) -> float:
    """The end of an axis: 1, 2, 4 or 8 times a power of ten (a quarter of it is a round number, too)."""
    if most <= 0.0:
        return 4.0
    power = 10.0 ** math.floor(math.log10(most))
    return next((step * power for step in (1, 2, 4, 8) if step * power >= most), 10 * power)


def number(value: float) -> str:
    """`1.2 m`, `12,000`, `2.5`"""
    if value >= 1_000_000:
        return f"{value / 1_000_000:.3g} m"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Round times on the axis, and how they are written."""
    step_s = next((step for step in STEPS_S if axis.length_s / step <= TICKS), 0)
    if not step_s:
        step_s = DAY_S * max(1, math.ceil(axis.length_s / DAY_S / TICKS))
    zero_s = axis.start_s
    if axis.is_clock:
        begin = datetime.fromtimestamp(axis.start_s).astimezone()
        zero_s -= axis.start_s + (begin.utcoffset() or begin - begin).total_seconds()
    first = math.ceil((axis.start_s - zero_s) / step_s)
    found = []
    at_s = zero_s + first * step_s
    while at_s <= axis.start_s + axis.length_s:
        found.append((at_s, _clock(at_s, step_s) if axis.is_clock else _elapsed(at_s - axis.start_s)))
        at_s += step_s
    return found


def _clock(at_s: float, step_s: float) -> str:
    """`08:30`, at midnight the day; with seconds where steps are short."""
    at = datetime.fromtimestamp(at_s).astimezone()
    if at.hour == at.minute == at.second == 0:
        return f"{at.day} {at:%b}"
    return f"{at:%H:%M:%S}" if step_s < 60 else f"{at:%H:%M}"


def _elapsed(after_s: float) -> str:
    """`0`, `30 s`, `1:30 min`, `6 h`, `2 d`"""
    whole = round(after_s)
    if not whole:
        return "0"
    if whole % DAY_S == 0:
        return f"{whole // DAY_S} d"
    for unit_s, name, part_s in ((3600, "h", 60), (60, "min", 1)):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s}:{rest:02} {name}" if rest else f"{whole // unit_s} {name}"
    return f"{whole} s"


def legend(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """Kind, name and meaning of every line."""
    return element(
        "ul",
        *(element("li", element("i", class_=kind), element("b", name), f" {about}") for kind, name, about in entries),
        class_="legend",
    )
