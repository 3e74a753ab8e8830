"""The picture of a rehearsal: one HTML file with all in it, to look at with a browser or to send to somebody.

It loads nothing and runs nothing, and its policy of content (CSP) says so to the browser. Names come from policies and
from an event log, where strangers write: `markup` makes text of all of them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mta.cli import chart, words
from mta.cli.chart import Axis, Bar, Line
from mta.cli.markup import Markup, element, joined
from mta.cli.rehearsal_report import NEW, RECORDED, Run, bound_words, difference, most_bound, outcome, providers, span
from mta.cli.rehearsal_style import STYLE
from mta_policies.rehearsal import curves
from mta_policies.rehearsal.figures import Figures, RuleFigures
from mta_policies.rehearsal.tally import Span, Tally

SECTIONS_MAX = 40  # providers with charts of their own; the table has all
ROWS_MAX = 8  # of firings under a chart
MARKS_MAX = 12  # more lines across a chart hide it
RULES_MAX = 12
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
HANDED_IN = "handed-in"


class Story(NamedTuple):
    """What the page is about."""

    title: str
    about: str
    runs: Mapping[str, str]
    """What each run is, by its name."""
    taken: str
    """What was taken for granted."""
    is_clock: bool = True
    """Times are those of a day; else what has gone by since the start."""


class Measure(NamedTuple):
    """A row of the table of differences."""

    name: str
    values: Sequence[float]
    is_time: bool
    better: int
    """1: more is better, -1: less is, 0: neither."""


def page(story: Story, runs: Sequence[Run]) -> str:
    """The whole file."""
    names = providers(runs)
    shown = [run for run in runs if run.name in story.runs]
    sections = [
        _section(f"p{number}", name, story, [run for run in shown if name in run.providers])
        for number, name in enumerate(names[:SECTIONS_MAX])
    ]
    overview = [_overview(names, shown)] if len(names) > 1 else []
    kinds = [
        (HANDED_IN, "handed in", "mail that became due"),
        *((run.name, run.name, story.runs[run.name]) for run in shown),
    ]
    body = element(
        "main",
        element("h1", story.title),
        element("p", story.about, class_="about"),
        *_answers(names, shown),
        chart.legend(kinds),
        *overview,
        *sections,
        element(
            "footer",
            element("p", "Taken for granted: ", story.taken, "."),
            element("p", "Mail that waits is mail that is due and not yet taken. A rehearsal sends nothing."),
        ),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="referrer", content="no-referrer"),
        element("title", story.title),
        element("style", Markup(STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _answers(names: Sequence[str], runs: Sequence[Run]) -> list[Markup]:
    """What one wants to know first: of one provider what comes of it, of several what the new policies change."""
    if len(names) == 1:
        found = {run.name: run.providers[names[0]] for run in runs}
        return [
            element("p", element("b", f"{name}: "), outcome(each), class_=f"answer {name}")
            for name, each in found.items()
        ]
    if NEW not in {run.name for run in runs}:
        return []
    changed = []
    for number, name in enumerate(names):
        now, new = (run.providers.get(name) for run in runs[-2:])
        if now is not None and new is not None and _differs(now, new):
            to = element("a", name, href=f"#p{number}") if number < SECTIONS_MAX else element("b", name)
            changed.append(element("p", to, ": ", difference(now, new)))
    if not changed:
        return [element("p", "The new policies change nothing that matters.", class_="answer new")]
    return [
        element(
            "div",
            element("p", element("b", "The new policies, against those that you have")),
            *changed,
            class_="answer new",
        )
    ]


def _differs(now: Figures, new: Figures) -> bool:
    return difference(now, new) != difference(now, now)


def _overview(names: Sequence[str], runs: Sequence[Run]) -> Markup:
    """All providers, one line each."""
    heads = [element("th", "provider"), element("th", "mail")]
    heads += [
        element("th", f"{what}, {run.name}", class_=_age(run))
        for what in ("drained after", "deferrals")
        for run in runs
    ]
    rows = []
    for number, name in enumerate(names):
        found = [(run, run.providers.get(name)) for run in runs]
        mail = max(each.mail for _, each in found if each is not None)
        cells = [element("td", words.count(mail))]
        for value in (lambda each: span(each.drained_s), lambda each: words.count(each.deferred)):
            cells += [element("td", value(each) if each is not None else "", class_=_age(run)) for run, each in found]
        to = element("a", name, href=f"#p{number}") if number < SECTIONS_MAX else name
        rows.append(element("tr", element("td", to), *cells))
    return _table(heads, rows)


def _table(heads: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    """As wide as it must be: what does not fit is scrolled to."""
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows))
    return element("div", table, class_="wide")


def _age(run: Run) -> str:
    """What a narrow screen leaves out."""
    return "old" if run.name == RECORDED else ""


def _section(at: str, name: str, story: Story, runs: Sequence[Run]) -> Markup:
    """One provider."""
    found = [run.providers[name] for run in runs]
    tallies = [(run.name, run.tallies[name]) for run in runs]
    over = curves.slots(tally for _, tally in tallies)
    said = f"{words.several(max(each.mail for each in found), 'recipient')}"
    if len(runs) > 1 and runs[-1].name == NEW:
        said += f". New against now: {difference(found[-2], found[-1])}."
    return element(
        "section",
        element("h2", name),
        element("p", said, class_="about"),
        _charts(tallies, over, story) if over is not None else "",
        _differences(runs, found),
        _causes(runs, found, story, over),
        id=at,
    )


def _charts(tallies: Sequence[tuple[str, Tally]], over: curves.Slots, story: Story) -> Markup:
    axis = Axis(over.start_s, over.length_s, over.number, story.is_clock)
    marks = sorted({fired.since_s for _, tally in tallies for fired in tally.spans})
    marks = [at_s for at_s in marks if at_s < over.end_s]
    given = Line(HANDED_IN, "handed in", curves.per_minute(tallies[0][1], "arrived", over))
    rates = [Line(name, name, curves.per_minute(tally, "delivered", over)) for name, tally in tallies]
    # Mail that is handed in at a stroke would press all else to the ground.
    most = max((max(line.values) for line in rates), default=0.0)
    if most and max(given.values) > 4 * most:
        given = given._replace(values=[min(value, 1.25 * most) for value in given.values])
    waiting = [Line(name, name, curves.waiting(tally, over)) for name, tally in tallies]
    drawn = marks if len(marks) <= MARKS_MAX else ()
    later = [(name, count) for name, tally in tallies if (count := curves.after(tally, over))]
    note = "; ".join(f"{name}: {words.count(count)}" for name, count in later)
    return joined(
        chart.chart("Delivered", "a minute", [given, *rates], axis, drawn),
        chart.chart("Waiting", "recipients", waiting, axis, drawn),
        _force(tallies, axis, over.end_s),
        element("p", f"Later than the picture shows came to their end: {note}.", class_="note") if later else "",
    )


def _force(tallies: Sequence[tuple[str, Tally]], axis: Axis, end_s: float) -> Markup:
    """When which rule was in force."""
    rows: dict[tuple[str, str, str], list[Span]] = {}
    for name, tally in tallies:
        for fired in tally.spans:
            if fired.since_s < end_s:
                rows.setdefault((name, fired.rule, fired.action), []).append(fired)
    if not rows:
        return Markup("")
    drawn = []
    for (name, rule, action), spans in list(rows.items())[:ROWS_MAX]:
        label = joined(element("b", name), f" {rule} ({action}), ", words.several(len(spans), "time"))
        about = [
            Bar(each.since_s, each.until_s, f"{each.key}, for {span(each.until_s - each.since_s)}") for each in spans
        ]
        drawn.append(chart.bars(name, label, about, axis))
    more = len(rows) - ROWS_MAX
    left = [element("p", f"and {words.several(more, 'rule')} more", class_="note")] if more > 0 else []
    return element("div", element("h3", "Rules in force"), *drawn, *left, class_="force")


def _differences(runs: Sequence[Run], found: Sequence[Figures]) -> Markup:
    """What each run comes to; with new policies what they change."""
    measures = [
        Measure("delivered", [each.delivered for each in found], False, 1),
        Measure("deferrals earned", [each.deferred for each in found], False, -1),
        Measure("bounced", [each.bounced for each in found], False, -1),
        Measure("expired", [each.expired for each in found], False, -1),
        Measure("still waiting", [each.waiting for each in found], False, -1),
        Measure("attempts", [each.attempts for each in found], False, 0),
        Measure("last delivered after", [each.drained_s for each in found], True, -1),
        Measure("half delivered within", [each.wait_median_s for each in found], True, -1),
        Measure("95 % delivered within", [each.wait_95_s for each in found], True, -1),
        Measure("most waiting at once", [each.backlog_max for each in found], False, -1),
    ]
    compares = len(runs) > 1 and runs[-1].name == NEW
    ages = [_age(run) if compares else "" for run in runs]
    heads = [element("th", ""), *(element("th", run.name, class_=age) for run, age in zip(runs, ages, strict=True))]
    heads += [element("th", "difference")] if compares else []
    rows = []
    for measure in measures:
        if not any(measure.values) and measure.name not in ("delivered", "deferrals earned"):
            continue
        values = zip(measure.values, ages, strict=True)
        cells = [element("td", _value(value, measure), class_=age) for value, age in values]
        if compares:
            cells.append(_change(measure))
        rows.append(element("tr", element("td", measure.name), *cells))
    return _table(heads, rows)


def _value(value: float, measure: Measure) -> str:
    return span(value) if measure.is_time else words.count(round(value))


def _change(measure: Measure) -> Markup:
    """New against now."""
    by = measure.values[-1] - measure.values[-2]
    if not by or (measure.is_time and abs(by) < 1.0):
        return element("td", "same", class_="about")
    kind = "" if not measure.better else "good" if by * measure.better > 0 else "bad"
    return element("td", f"{'+' if by > 0 else '−'}{_value(abs(by), measure)}", class_=kind)


def _causes(runs: Sequence[Run], found: Sequence[Figures], story: Story, over: curves.Slots | None) -> Markup:
    """Why mail waited, and which rules matched, run by run."""
    waits = [
        element(
            "div",
            element("p", element("b", run.name), class_="whose"),
            element("ul", *map(_cause, _shares(each)), class_="causes"),
            class_=run.name,
        )
        for run, each in zip(runs, found, strict=True)
        if each.bound
    ]
    rules = [(run.name, rule) for run, each in zip(runs, found, strict=True) for rule in each.rules[:RULES_MAX]]
    parts = []
    if waits:
        parts += [element("h3", "What mail that was due waited for"), element("div", *waits, class_="two")]
    if rules:
        parts += [element("h3", "Rules that matched"), _rules(rules, story, over)]
    return joined(*parts)


def _shares(found: Figures) -> list[tuple[str, float]]:
    return [(bound_words(each), each.share) for each in most_bound(found)]


def _cause(cause: tuple[str, float]) -> Markup:
    told, share = cause
    return element("li", told, element("span", element("i", style=f"width:{100 * share:.3g}%"), class_="part"))


def _rules(rules: Sequence[tuple[str, RuleFigures]], story: Story, over: curves.Slots | None) -> Markup:
    heads = [
        element("th", each, class_="left" if number < 2 else "")
        for number, each in enumerate(("run", "rule", "matched", "fired", "first"))
    ]
    rows = []
    for name, rule in rules:
        said = element("td", rule.rule, " ", element("small", rule.origin), class_="left")
        counts = (element("td", words.count(rule.matches)), element("td", words.count(rule.firings)))
        rows.append(
            element(
                "tr",
                element("td", element("b", name), class_=name),
                said,
                *counts,
                element("td", _first(rule, story, over)),
            )
        )
    return _table(heads, rows)


def _first(rule: RuleFigures, story: Story, over: curves.Slots | None) -> str:
    if not rule.first:
        return ""
    if story.is_clock or over is None:
        return words.moment(rule.first)
    return f"after {span(rule.first - over.start_s)}"
