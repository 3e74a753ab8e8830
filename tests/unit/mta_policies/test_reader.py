"""Tables to structs: every mistake is told at once, with its line, and the rest is read all the same."""

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, field

from mta_policies.forms import DURATION
from mta_policies.located import Place, parse
from mta_policies.reader import Form, Reader, about, form, keys_of, shown, text_form
from mta_policies.tree import tree_of

Seconds = Annotated[float, form(DURATION)]
Upper = Annotated[str, form(text_form("a word", str.upper, str.lower))]
Beside = Annotated[str, form(Form("a path", lambda raw, place: f"{place.file}/{raw}", str, at_default=True))]


class Inner(msgspec.Struct, frozen=True):
    name: Annotated[str, about("A name.")]
    words: Annotated[tuple[Upper, ...], about("Words.")] = ()


class Outer(msgspec.Struct, frozen=True):
    count: Annotated[Annotated[int, Meta(ge=0, le=9)], about("A count.")] = 3
    timeout_s: Annotated[Seconds, about("A time.")] = field(default=60.0, name="timeout")
    mode: Annotated[Literal["fast", "slow"], about("A mode.")] = "fast"
    is_on: Annotated[bool, about("A switch.")] = False
    inner: Annotated[Inner, about("A table.")] = Inner("x")
    many: Annotated[tuple[Inner, ...], about("Tables.")] = ()
    weights: Annotated[dict[str, int], about("Weights.")] = field(default_factory=dict)
    maybe: Annotated[Inner | None, about("A table or none.")] = None
    path: Annotated[Beside, about("A path.")] = "here"
    plain: Annotated[tuple[str, ...], about("Texts.")] = ("a",)


def _read(text: str) -> tuple[Outer, Reader]:
    reader = Reader(tree_of(parse(text, "x.toml")))
    return reader.read(Outer), reader


def test_an_empty_table_gives_the_defaults() -> None:
    """And a default that is written text is read too."""
    outer, reader = _read("")

    assert outer == Outer(path="x.toml/here")
    assert reader.problems == []


def test_defaults_in_tables_that_are_not_there_are_read_too() -> None:
    """A path in a section that nobody wrote is beside the file all the same."""

    class Section(msgspec.Struct, frozen=True):
        path: Annotated[Beside, about("A path.")] = "here"
        other: Annotated[int, about("A count.")] = 1

    class Whole(msgspec.Struct, frozen=True):
        section: Annotated[Section, about("A table.")] = Section(other=2)

    reader = Reader(tree_of(parse("", "x.toml")))

    assert reader.read(Whole) == Whole(section=Section("x.toml/here", 2))


def test_values_are_read_by_their_forms() -> None:
    """Names of keys are those of the file, values those of the program."""
    text = (
        'timeout = "5m"\nmode = "slow"\ncount = 9\npath = "p"\nplain = []\n'
        '[weights]\na = 1\n[maybe]\nname = "m"\n[[many]]\nname = "n"\nwords = ["u", "v"]\n'
    )

    outer, reader = _read(text)

    assert reader.problems == []
    assert outer == Outer(
        count=9,
        timeout_s=300.0,
        mode="slow",
        weights={"a": 1},
        maybe=Inner("m"),
        many=(Inner("n", ("U", "V")),),
        path="x.toml/p",
        plain=(),
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("cuont = 1", 1, "unknown key cuont; did you mean count?"),
        ('[inner]\nname = "x"\nword = []', 3, "unknown key word; did you mean words?"),
        ('[[many]]\nname = "a"\n[[many]]\nname = "b"\nnone = 1', 5, "unknown key none"),
        ('count = "five"', 1, 'count: expected a whole number, got "five"'),
        ("count = true", 1, "count: expected a whole number, got true"),
        ("count = 1.5", 1, "count: expected a whole number, got 1.5"),
        ("count = 10", 1, "count: expected at most 9, got 10"),
        ("count = -1", 1, "count: expected at least 0, got -1"),
        ('timeout = "5"', 1, "timeout: not a duration"),
        ("timeout = 5", 1, 'timeout: expected a duration such as "5m", got 5'),
        ('mode = "fasst"', 1, 'mode: expected "fast" or "slow", got "fasst"; did you mean fast?'),
        ("mode = 1", 1, 'mode: expected "fast" or "slow", got 1'),
        ("is_on = 1", 1, "is_on: expected true or false, got 1"),
        ("inner = 1", 1, "inner: expected a table, got 1"),
        ("[inner]\nwords = []", 1, "name is missing"),
        ("[many]", 1, "many: expected a list of tables, [[...]], got a table"),
        ("plain = 'a'", 1, 'plain: expected a list, got "a"'),
        ("plain = [\n'a',\n1]", 3, "plain: expected a text, got 1"),
        ("[weights]\na = 'x'", 2, 'a: expected a whole number, got "x"'),
        ("weights = 3", 1, "weights: expected a table, got 3"),
        ("[[many]]\nname = 'a'\nwords = [\n'x',\n3]", 5, "words: expected a word, got 3"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, message: str) -> None:
    """What was expected, what was found, and where."""
    _, reader = _read(text)

    assert [problem.line for problem in reader.problems] == [line]
    assert reader.problems[0].message.startswith(message)


def test_all_mistakes_are_told_at_once() -> None:
    """One look at the file is enough to mend it."""
    _, reader = _read("count = -1\nmode = 2\nnope = 3\n[inner]\nwords = [1]\n[[many]]\nname = 2\n")

    assert [problem.line for problem in reader.problems] == [3, 1, 2, 4, 5, 7]


def test_a_bad_value_is_replaced_by_its_default() -> None:
    """So that the rest can be looked at; what was not taken is remembered."""
    outer, reader = _read('count = -1\npath = 3\n[[many]]\nwords = ["u", 1]\n')

    assert outer.count == 3
    assert outer.many == (Inner("", ("U",)),)
    assert not reader.is_good("count")
    assert not reader.is_good("many", 0, "words")
    assert not reader.is_good("many")
    assert reader.is_good("mode")
    assert not reader.is_good("many", 0, "words", 1, "deeper")


def test_a_bad_path_is_the_default_path() -> None:
    """Also a default that must be read is read when it stands in."""

    def refuse_numbers(raw: object, place: Place) -> str:
        if not isinstance(raw, str):
            raise ValueError("not a path")
        return f"{place.file}/{raw}"

    class OnePath(msgspec.Struct, frozen=True):
        path: Annotated[str, form(Form("a path", refuse_numbers, str, at_default=True))] = "here"

    reader = Reader(tree_of(parse("path = 3", "x.toml")))

    assert reader.read(OnePath).path == "x.toml/here"
    assert len(reader.problems) == 1


def test_every_key_has_its_text() -> None:
    """Texts live on the fields, for whoever renders them."""
    assert [key.description for key in keys_of(Inner)] == ["A name.", "Words."]
    assert [key.name for key in keys_of(Outer)][:2] == ["count", "timeout"]


def test_values_are_shown_as_toml_writes_them() -> None:
    """Short enough for a message."""
    assert shown("a" * 100) == '"' + "a" * 57 + '..."'
    assert [shown(one) for one in (True, 1, 1.5, {}, [])] == ["true", "1", "1.5", "a table", "a list"]
