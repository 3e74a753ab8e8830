"""How commands write for people."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.cli import words
from mta.cli.words import Column

NOW_S = 1_750_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.9, "1 min"),
        (60, "1 min"),
        (89, "1 min"),
        (119, "2 min"),
        (3600, "60 min"),
        (7000, "117 min"),
        (7199, "2 h"),
        (7200, "2 h"),
        (86400, "24 h"),
        (2 * 86400 - 7200, "46 h"),
        (2 * 86400 - 1, "2 d"),
        (2 * 86400, "2 d"),
        (400 * 86400, "400 d"),
        (-5, "0 s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """The largest unit that leaves a number worth reading."""
    assert words.span(seconds) == text


def test_times_are_told_from_now() -> None:
    """Before, after, and never."""
    assert words.ago(NOW_S - 7300, NOW_S) == "2 h ago"
    assert words.ago(NOW_S, NOW_S) == words.ago(NOW_S + 900, NOW_S) == "just now"
    assert words.until(NOW_S + 245, NOW_S) == "in 4 min"
    assert words.until(NOW_S - 3, NOW_S) == "now"
    assert words.ago(0, NOW_S) == words.until(0, NOW_S) == ""


def test_moments_are_local_with_their_offset() -> None:
    """So that they can be laid beside any log; a number that is no date is shown as it is."""
    text = words.moment(NOW_S)

    assert datetime.fromisoformat(text.replace(" +", "+")).timestamp() == NOW_S
    assert words.moment(1e300) == "1e+300"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (4312, "4.3 KB"), (64_000, "64 KB"), (12_400_000, "12 MB")],
)
def test_sizes(number: int, text: str) -> None:
    """Powers of 1000, as in mta.toml."""
    assert words.size(number) == text


def test_numbers_and_nouns() -> None:
    """Thousands are set apart; one is singular."""
    assert words.count(1_234_567) == "1,234,567"
    assert [words.several(number, "recipient") for number in (0, 1, 1204)] == [
        "0 recipients",
        "1 recipient",
        "1,204 recipients",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\r\nlines\tand a tab", "two  lines and a tab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("日本語", "日本語"),
    ],
)
def test_what_strangers_wrote_moves_no_cursor(text: str, shown: str) -> None:
    """Line ends become blanks, the other controls can be seen."""
    assert words.printable(text) == shown


def test_wide_characters_are_counted_as_they_are_shown() -> None:
    """Japanese takes two columns a character, a combining accent none."""
    assert [words.width(text) for text in ("abc", "日本", "e\u0301", "")] == [3, 4, 1, 0]


@given(st.text(max_size=60), st.integers(min_value=1, max_value=50))
def test_what_is_shortened_fits(text: str, columns: int) -> None:
    """Never wider than asked for; what fits is left alone."""
    shown = words.shortened(text, columns)

    assert words.width(shown) <= columns
    assert words.width(text) > columns or shown == text


COLUMNS = [
    Column("name", cut=True),
    Column("count", right=True),
    Column("empty", optional=True),
    Column("text", cut=True),
]


def test_tables_are_aligned() -> None:
    """Names to the left, numbers to the right, nothing behind the last word, empty columns left out."""
    lines = words.table(COLUMNS, [["日本", "1,204", "", "x"], ["swift.test", "7", "", ""]])

    assert lines == ["name        count  text", "日本        1,204  x", "swift.test      7"]


def test_tables_fit_the_terminal() -> None:
    """The widest columns give way first, none below twelve; without a terminal nothing is cut."""
    rows = [["n" * 30, "1", "", "t" * 90]]

    for fit in (200, 80, 60, 40):
        lines = words.table(COLUMNS, rows, fit)
        assert max(map(words.width, lines)) <= fit
    whole = words.table(COLUMNS, rows)[1]

    assert whole == f"{'n' * 30}      1  {'t' * 90}"
    assert words.table(COLUMNS, rows, 10)[1] == f"{'n' * 11}…      1  {'t' * 11}…"


def test_a_column_that_is_not_to_be_cut_is_whole() -> None:
    """Ids are copied from the screen: they stay whole however narrow it is."""
    lines = words.table([Column("id"), Column("text", cut=True)], [["i" * 40, "t" * 40]], 30)

    assert lines[1].startswith("i" * 40)


def test_an_empty_table_is_its_headings() -> None:
    """Nothing else."""
    assert words.table([Column("a"), Column("b", optional=True)], []) == ["a"]


def test_pairs_leave_out_what_is_empty() -> None:
    """Names stand under each other."""
    assert words.pairs([("a", "1"), ("longer", "2"), ("none", "")]) == ["a       1", "longer  2"]
    assert words.pairs([]) == []


def test_a_table_may_come_in_parts() -> None:
    """Headings once; a column that was empty at first is there for what comes later, and grows with it."""
    table = words.Table(COLUMNS, is_whole=False)

    first = table.lines([["a", "1", "", "x"]])
    second = table.lines([["a longer name", "22", "now", "y"]])

    assert first == ["name  count  empty  text", "a         1         x"]
    assert second == ["a longer name     22  now    y"]


def test_parts_fit_the_terminal_as_well() -> None:
    """Each of them."""
    table = words.Table(COLUMNS, 40, is_whole=False)

    lines = [line for letter in "nm" for line in table.lines([[letter * 30, "1", "", "t" * 90]])]

    assert len(lines) == 3
    assert max(map(words.width, lines)) <= 40


def test_columns_to_spare_go_first_where_it_is_narrow() -> None:
    """The last of them first, and only as many as must."""
    columns = [
        Column("id"),
        Column("sender", cut=True, spare=True),
        Column("tried", spare=True),
        Column("why", cut=True),
    ]
    rows = [["1jzq8x5v0abcde00001", "news@shop.example", "3", "the other side does not take mail"]]

    lines = {fit: words.table(columns, rows, fit)[0].split() for fit in (80, 50, 40)}

    assert lines == {80: ["id", "sender", "tried", "why"], 50: ["id", "sender", "why"], 40: ["id", "why"]}
    assert all(words.width(line) <= fit for fit in (80, 50, 40) for line in words.table(columns, rows, fit))


@given(st.text(alphabet="ab 日", max_size=60), st.integers(20, 40))
def test_what_is_wrapped_keeps_every_word(text: str, columns: int) -> None:
    """Lines that follow stand further in; without a terminal there is one."""
    line = "  x" + text

    parts = words.wrapped(line, columns)

    assert "".join("".join(parts).split()) == "".join(line.split())
    assert all(len(part) <= columns for part in parts)
    assert all(part.startswith("    ") for part in parts[1:])
    assert words.wrapped(line, None) == [line]
