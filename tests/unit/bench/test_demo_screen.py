"""What a person sees: bars in place on a terminal, lines elsewhere, signs that the encoding has."""

import io
import time

import pytest

from bench.demo_screen import Bar, Screen


class Pipe(io.StringIO):
    """A pipe or a file that takes whatever is written."""

    encoding = "utf-8"


class Terminal(Pipe):
    """The same with somebody in front of it."""

    def isatty(self) -> bool:
        return True


class Latin(io.StringIO):
    encoding = "iso-8859-1"


@pytest.mark.parametrize(("done", "of", "full"), [(0, 10, 0), (5, 10, 17), (10, 10, 34), (0, 0, 0), (11, 10, 34)])
def test_a_bar_fills_with_the_count(done: int, of: int, full: int):
    """From empty to full, empty where there is nothing yet, and never longer than it is."""
    line = Screen(Pipe(), columns=80).bar(Bar("swift", done, of))

    assert (line.count("█"), line.count("░")) == (full, 34 - full)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_bars_fit_the_terminal(columns: int):
    """Also with the longest name, the largest numbers and a note."""
    line = Screen(Pipe(), columns=columns).bar(Bar("accepted", 20_000, 20_000, "9,999 deferred"))

    assert columns - 4 < len(line) < columns


def test_a_terminal_draws_the_bars_over_each_other():
    """The second time the cursor goes up as many lines as there are bars."""
    out = Terminal()
    screen = Screen(out, columns=80)
    bars = [Bar("accepted", 1, 2), Bar("swift", 1, 2)]

    screen.progress(time.monotonic(), bars)
    first = out.getvalue()
    screen.progress(time.monotonic(), bars)

    assert "\x1b[2F" not in first
    assert out.getvalue().removeprefix(first).startswith("\x1b[2F")


def test_a_pipe_gets_a_line_now_and_then():
    """One at the beginning, none at once after it, and the last one whenever it comes."""
    out = Pipe()
    screen = Screen(out, columns=80)
    began_s = time.monotonic()

    for _ in range(5):
        screen.progress(began_s, [Bar("accepted", 1, 2)])
    screen.progress(began_s, [Bar("accepted", 2, 2)], last=True)

    assert [line.split("  ")[-1] for line in out.getvalue().splitlines()] == ["accepted 1", "accepted 2"]


def test_a_terminal_that_is_too_narrow_gets_lines():
    """Bars that break could not be drawn over each other."""
    out = Terminal()

    Screen(out, columns=40).progress(time.monotonic(), [Bar("accepted", 1, 2)])

    assert "\x1b[2K" not in out.getvalue()
    assert "accepted 1" in out.getvalue()


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch):
    """Neither a pipe nor a terminal with NO_COLOR gets any."""
    texts = {}
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, out in {"terminal": Terminal(), "pipe": Pipe()}.items():
        Screen(out, columns=80).ticked("All is well.")
        texts[name] = out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(plain := Terminal(), columns=80).ticked("All is well.")

    assert "\x1b[32m" in texts["terminal"]
    assert texts["pipe"] == plain.getvalue() == "  ✓ All is well.\n"


def test_an_encoding_without_blocks_gets_ascii():
    """Bars and ticks can be written to any terminal."""
    out = Latin()
    screen = Screen(out, columns=80)

    screen.ticked("Well.")
    screen.ticked("Not well.", is_well=False)
    screen.say(screen.bar(Bar("swift", 1, 2)))

    assert out.getvalue().isascii()
    assert out.getvalue().startswith("  ok Well.\n  !! Not well.\n")


def test_long_sentences_are_folded():
    """Behind the tick, and as wide as the terminal."""
    out = Pipe()
    screen = Screen(out, columns=60)

    screen.ticked("word " * 20)
    screen.paragraph("word " * 20)

    lines = out.getvalue().splitlines()
    assert [line[:5] for line in lines] == ["  ✓ w", "    w", "  wor", "  wor"]
    assert max(map(len, lines)) < 60


@pytest.mark.parametrize(("columns", "lines"), [(70, 2), (60, 4)])
def test_hints_stand_beside_their_reasons_where_there_is_room(columns: int, lines: int):
    """Else the reason comes first, and below it what to look at."""
    out = Pipe()

    Screen(out, columns=columns).listed([("a" * 30, "the first one of " + "b" * 13), ("c", "d")])

    assert len(out.getvalue().splitlines()) == lines
