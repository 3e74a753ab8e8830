"""TOML with the line of every key."""

import string
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.located import Keys, Place, Problem, SyntaxProblem, nearest, parse

EXAMPLE = '''\
# a comment
title = "a"   # line 2

[limits]
rate = [
    "20/s",   # line 6
    "40000/h",
]
"quoted \\"key\\"" = """
many
lines"""
after = 1

[sources."new-*"]
limits = { connections = 2, deep = { rate = "2/s" } }
[[rule]]
name = 'one'
then = [
    { action = "slow" },
    { action = "suspend", for = [
      "1h"] }]
[[rule]]
name.sub = 2
[rule.when]
code = ["421"]
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("limits",), 4),
        (("limits", "rate"), 5),
        (("limits", "rate", 0), 6),
        (("limits", "rate", 1), 7),
        (("limits", 'quoted "key"'), 9),
        (("limits", "after"), 12),
        (("sources", "new-*"), 14),
        (("sources", "new-*", "limits", "connections"), 15),
        (("sources", "new-*", "limits", "deep", "rate"), 15),
        (("rule",), 16),
        (("rule", 0), 16),
        (("rule", 0, "name"), 17),
        (("rule", 0, "then", 0, "action"), 19),
        (("rule", 0, "then", 1, "action"), 20),
        (("rule", 0, "then", 1, "for", 0), 21),
        (("rule", 1), 22),
        (("rule", 1, "name", "sub"), 23),
        (("rule", 1, "when"), 24),
        (("rule", 1, "when", "code", 0), 25),
    ],
)
def test_every_key_knows_its_line(path: Keys, line: int) -> None:
    """Tables, lists, inline tables, quoted and dotted keys: each has the line on which it begins."""
    document = parse(EXAMPLE, "x.toml")

    assert document.lines[path] == line


def test_the_data_is_what_the_standard_library_reads() -> None:
    """The scanner only adds lines; what the text means is tomllib's."""
    assert parse(EXAMPLE, "x.toml").data == tomllib.loads(EXAMPLE)


def test_windows_line_ends_count_as_one_line() -> None:
    """CRLF is one line end."""
    assert parse("a = 1\r\n\r\nb = 2\r\n", "x.toml").lines[("b",)] == 3


def test_an_empty_text_is_an_empty_table() -> None:
    """Nothing is right TOML."""
    assert parse("", "x.toml").data == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[x\n", 1), ('a = 1\nb = "open', 2), ("a = 1\n\nb = [1,\n2,", 4)],
)
def test_a_syntax_error_names_its_line(text: str, line: int) -> None:
    """What is not TOML is refused with file and line."""
    with pytest.raises(SyntaxProblem) as raised:
        parse(text, "x.toml")

    assert raised.value.problem.file == "x.toml"
    assert raised.value.problem.line == line
    assert "at line" not in raised.value.problem.message


BARE = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=6)
ODD = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters='"\\\x7f'), max_size=6)
SCALARS = st.one_of(
    st.integers(-10, 10).map(str),
    st.sampled_from(["true", "1.5", "1979-05-27 07:32:00", "'it # is'", '"a, ] } # b"', '"""x\n"y""\n"""', "'''\n'''"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # c\n" + ",\n".join(items) + "\n]"),
        st.dictionaries(BARE, SCALARS.filter(lambda text: "\n" not in text), max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.one_of(BARE, ODD.map(lambda key: f'"{key}"')), VALUES, max_size=5), st.booleans())
def test_the_scanner_agrees_with_tomllib_on_any_text(table: dict[str, str], comments: bool) -> None:
    """Whatever tomllib takes, the scanner passes, and finds every key on the line where it was written."""
    text, expected = "", {}
    for key, value in table.items():
        name = next(iter(tomllib.loads(f"{key} = 0")))
        if name in expected:
            continue
        text += "# a = 1\n\n" if comments else ""
        expected[name] = text.count("\n") + 1
        text += f"{key} = {value}\n"

    document = parse(text, "x.toml")

    assert document.data == tomllib.loads(text)
    assert {path[0]: line for path, line in document.lines.items() if len(path) == 1} == expected


def test_a_problem_is_written_as_editors_read_it() -> None:
    """file:line: message; a problem with the file as a whole has no line."""
    assert str(Problem("a.toml", 3, "wrong")) == "a.toml:3: wrong"
    assert str(Problem("a.toml", 0, "not there")) == "a.toml: not there"
    assert str(Place("a.toml", 3)) == "a.toml:3"


def test_the_nearest_name_is_offered() -> None:
    """A slip of the finger is understood, and a part of one name; else all names are listed where they are few."""
    names = ["connections", "rate", "mix_domains"]

    assert nearest("conections", names) == "; did you mean connections?"
    assert nearest("Rate", names) == "; did you mean rate?"
    assert nearest("spam", ["content-related", "spam-related"]) == "; did you mean spam-related?"
    assert nearest("rel", ["content-related", "spam-related"]) == "; known: content-related, spam-related"
    assert nearest("x", names) == "; known: connections, mix_domains, rate"
    assert nearest("zzz", names) == "; known: connections, mix_domains, rate"
    assert nearest("zzz", [f"n{i}" for i in range(20)]) == ""
    assert nearest("zzz", []) == "; there is none"
