"""Needles rule a pattern out only where it is not in the text."""

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import layers
from mta_policies.answers import Answer
from mta_policies.bounces import FAINT, TELLING, classify
from mta_policies.needles import ODD_LETTERS, is_plain, needles


@pytest.mark.parametrize(
    ("pattern", "needed"),
    [
        ("unusual rate.*netblock", {"unusual rate"}),
        ("gr[ae]y-?list", {"gray", "grey"}),
        ("Spamhaus|spamcop", {"spamhaus", "spamcop"}),
        (r"\b(?:spf|dkim)\b", {"spf", "dkim"}),
        ("(user|mailbox).{0,80}receiv(ing|ed)", {"receiv"}),
        ("try (again )?later", {"try "}),
        (r"\S+(?:over ?quota){1,2}", {"over"}),
        (r"csi\.cloudmark", {"csi.cloudmark"}),
        ("(?P<what>daily) limit", {"daily limit"}),
        ("boîte.*pleine", {"pleine"}),
        ("abc{2}def", {"def"}),
        # of these nothing is known
        ("(?i)spam", set()),
        ("(?:spam)*", set()),
        ("spam|.*", set()),
        (r"(spam)\1", set()),
        ("(?x) s p a m", set()),
        ("ab", set()),
        ("", set()),
    ],
)
def test_what_a_pattern_needs(pattern: str, needed: set[str]) -> None:
    """The least that tells most."""
    assert set(needles([pattern])) == needed


def test_of_several_patterns_one_is_enough() -> None:
    """And one of which nothing is known stands for all texts."""
    assert needles(["spam", "anti-spam", "junk"]) == ("junk", "spam")
    assert needles(["spam", "[a-z]+"]) == ()


# -- pattern and text, made together --

Pair = tuple[str, str]
CHARS = st.sampled_from("abisk -.ſ")
LEAVES = st.one_of(
    st.text(CHARS, min_size=1, max_size=5).map(lambda text: (re.escape(text), text)),
    st.sampled_from([("[ai]", "a"), ("[ai]", "I"), ("[^x]", "k"), (r"[a\]-c]", "]"), (".", "s"), (r"\w", "b")]),
    st.sampled_from([(r"\b", ""), ("^", ""), ("$", ""), ("(?!q)", ""), ("(?=)", ""), (r"\s?", " "), ("(?i:a)", "A")]),
)


def _grown(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    several = st.lists(inner, min_size=2, max_size=4)
    return st.one_of(
        several.map(lambda pairs: ("".join(p for p, _ in pairs), "".join(t for _, t in pairs))),
        several.map(lambda pairs: (f"(?:{'|'.join(p for p, _ in pairs)})", pairs[-1][1])),
        inner.map(lambda pair: (f"({pair[0]})?", "")),
        inner.map(lambda pair: (f"(?P<n>{pair[0]})" if "(?P" not in pair[0] else pair[0], pair[1])),
        st.tuples(inner, st.sampled_from(["*", "+", "+?", "{2}", "{1,}", "{0,3}", "{,3}"])).map(
            lambda made: (f"(?:{made[0][0]}){made[1]}", made[0][1] * 2)
        ),
    )


@given(st.recursive(LEAVES, _grown, max_leaves=12), st.text(CHARS, max_size=3), st.booleans(), st.integers(0, 3))
def test_whatever_is_found_has_a_needle(pair: Pair, around: str, is_upper: bool, odd: int) -> None:
    """In a text for which needles hold; whatever the case."""
    pattern, text = pair
    text = around + (text.upper() if is_upper else text).replace("s", "sſ"[odd == 1]).replace("k", "k\u212a"[odd == 2])
    try:
        found = re.search(pattern, text, re.IGNORECASE)
    except re.error:
        return
    needed = needles([pattern])

    assert not (found and needed and is_plain(text)) or any(needle in text.lower() for needle in needed)


def test_letters_that_are_no_ascii_and_match_it() -> None:
    """All of Unicode: those that `str.lower` does not make ASCII are the odd ones."""
    others = "".join(map(chr, range(128, sys.maxunicode + 1)))

    found = set(re.findall("[a-z]", others, re.IGNORECASE))

    assert {char for char in found if not char.lower().isascii()} == ODD_LETTERS
    assert {char.lower() for char in found - ODD_LETTERS} == {"k"}


# -- those that are used --


def _shipped() -> list[str]:
    policies = layers.load(None).policies.values()
    return sorted({text for policy in policies for rule in policy.rulebook for text in rule.when.text})


def test_shipped_patterns_have_needles() -> None:
    """Else each refusal would pay for them. A number behind two letters is all that one of them needs."""
    assert [pattern for pattern in _shipped() if not needles([pattern])] == [r"\b(BL|ES)\d{6}\b"]
    assert [row.label for row in (*TELLING, *FAINT) if not row.needles] == []


WORDS = sorted({word for row in (*TELLING, *FAINT) for word in re.findall("[a-zîöã]{2,}", row.pattern.pattern)})
TEXTS = st.lists(st.sampled_from([*WORDS, "<a@b.example>", "'s", "-", "to", "5.1.0", "#"]), max_size=9).map(" ".join)


@given(TEXTS, st.sampled_from([421, 450, 550, 554]), st.sampled_from(["", "4.7.0", "5.0.0"]))
def test_replies_are_classed_as_without_needles(text: str, code: int, enhanced: str) -> None:
    """The first row whose pattern is found, by the plainest reading."""
    category = classify(Answer(code, enhanced, text, "rcpt")).name

    rows = [*TELLING, *FAINT]
    first = next((row for row in rows if str(code)[0] in row.codes and row.pattern.search(text.lower())), None)
    if first is not None:
        assert category == first.category


@given(TEXTS)
def test_no_row_is_ruled_out_that_is_found(text: str) -> None:
    """Whichever row comes first."""
    for row in (*TELLING, *FAINT):
        assert not row.pattern.search(text) or any(needle in text for needle in row.needles)
