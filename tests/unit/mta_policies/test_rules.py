"""Which rule an answer finds: the first that matches, and all that is given must match."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies.answers import STAGES, Answer
from mta_policies.bounces import CATEGORIES, classify
from mta_policies.rulebook import Rule, When
from mta_policies.rules import PEER_STAGES, Rules, code_matches, enhanced_matches

REPLY = Answer(421, "4.7.28", "Gmail has detected an unusual rate of mail", "content", "mx1.google.example")


def _finds(when: When, answer: Answer = REPLY, category: str = "other") -> bool:
    return Rules([Rule("one", when)]).find(answer, category) is not None


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        (When(), True),
        (When(code=("421",)), True),
        (When(code=("450", "42x")), True),
        (When(code=("5xx",)), False),
        (When(enhanced=("4.7.28",)), True),
        (When(enhanced=("*.7.28",)), True),
        (When(enhanced=("4.7.2",)), False),
        (When(text=("UNUSUAL rate",)), True),
        (When(text=("^unusual", "detected an? ")), True),
        (When(text=("^unusual",)), False),
        (When(stage=("content", "data")), True),
        (When(stage=("rcpt",)), False),
        (When(host=("*.google.example",)), True),
        (When(host=("google.example",)), False),
        (When(category=("other", "spam-related")), True),
        (When(category=("spam-related",)), False),
        (When(code=("421",), enhanced=("4.7.*",), text=("rate",), stage=("content",), host=("*.example",)), True),
        (When(code=("421",), enhanced=("4.7.*",), text=("rate",), stage=("content",), host=("*.invalid",)), False),
    ],
)
def test_all_that_is_given_must_match_of_a_list_any(when: When, matches: bool) -> None:
    """What is left out says nothing."""
    assert _finds(when) is matches


def test_the_first_that_matches_wins() -> None:
    """Also where a later one says more."""
    rules = Rules(
        [
            Rule("other", When(code=("5xx",))),
            Rule("first", When(code=("421",))),
            Rule("closer", When(code=("421",), enhanced=("4.7.28",), text=("unusual rate",))),
        ]
    )

    found = rules.find(REPLY, "other")

    assert found is not None
    assert found.name == "first"


def test_a_text_may_come_where_it_will_in_any_rule() -> None:
    """The order is that of the rules, not that of the words in the reply."""
    rules = Rules([Rule("late", When(text=("of mail",))), Rule("early", When(text=("gmail",)))])

    found = rules.find(REPLY, "other")

    assert found is not None
    assert found.name == "late"


@pytest.mark.parametrize(
    ("stage", "from_peer", "named", "matches"),
    [
        ("content", True, (), True),
        ("content", False, (), False),
        ("connect", False, (), False),
        ("dns", False, (), False),
        ("greeting", True, (), True),
        ("content", False, ("content",), True),
        ("connect", False, ("connect", "greeting"), True),
        ("connect", True, ("connect",), True),
    ],
)
def test_our_own_words_match_only_rules_that_name_their_stage(
    stage: str, from_peer: bool, named: tuple[str, ...], matches: bool
) -> None:
    """A time-out is no reply of the provider's, unless a rule asks for what happens there."""
    answer = Answer(451, "4.4.2", "timed out", stage, "", from_peer)

    assert _finds(When(code=("4xx",), stage=named), answer) is matches


def test_our_own_words_and_a_peers_are_remembered_apart() -> None:
    """Whichever came first."""
    ours = Answer(451, "4.4.2", "timed out", "content", "", False)
    rules = Rules([Rule("any", When(code=("4xx",)))])

    found = [rules.find(answer, "other") is not None for answer in (ours, ours._replace(from_peer=True), ours)]

    assert found == [False, True, False]


def test_only_the_beginning_of_a_text_is_searched() -> None:
    """A hostile reply must not keep patterns busy."""
    assert not _finds(When(text=("needle",)), REPLY._replace(text="x" * 1_000 + "needle"))


@given(st.integers(200, 599))
def test_codes_match_by_their_digits(code: int) -> None:
    """x stands for any."""
    assert code_matches("4xx", code) == (400 <= code < 500)
    assert code_matches("42x", code) == (420 <= code < 430)
    assert code_matches("421", code) == (code == 421)


@pytest.mark.parametrize("enhanced", ["", "4.7", "4.7.28.1"])
def test_what_is_no_enhanced_code_matches_none(enhanced: str) -> None:
    """Not even one of stars alone."""
    assert not enhanced_matches("*.*.*", enhanced)


# -- the same by the plainest reading --

PATTERNS = ("rate", "spam|junk", "^busy", "later$", "unusual (rate|volume)", "[aj]unk mail", "(?i)busy", "t[^a]y", ".l")
TEXTS = (
    *("", "unusual RATE", "busy, try later", "spam", "junk mail: later", "unusual spam: VOLUME"),
    *("buſy, try later", "ſpam", "junK mail: later", "jun\u212a mail: later"),
)
WHENS = st.builds(
    When,
    code=st.lists(st.sampled_from(["421", "45x", "4xx", "550", "5xx"]), max_size=2).map(tuple),
    enhanced=st.lists(st.sampled_from(["4.7.*", "*.7.28", "5.1.1"]), max_size=2).map(tuple),
    text=st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple),
    stage=st.lists(st.sampled_from(STAGES[:-1]), max_size=3).map(tuple),
    host=st.lists(st.sampled_from(["*.example", "mx1.google.example", "*.invalid"]), max_size=1).map(tuple),
    category=st.lists(st.sampled_from(sorted(CATEGORIES)), max_size=5).map(tuple),
)
ANSWERS = st.builds(
    Answer,
    code=st.sampled_from([421, 450, 451, 550, 554]),
    enhanced=st.sampled_from(["", "4.7.28", "4.7.0", "5.7.28", "5.1.1"]),
    text=st.sampled_from(TEXTS),
    stage=st.sampled_from(STAGES),
    host=st.sampled_from(["", "mx1.google.example", "MX2.other.example."]),
    from_peer=st.booleans(),
)


def _plainly(when: When, answer: Answer, category: str) -> bool:
    host = answer.host.lower().rstrip(".")
    speaks = answer.stage in when.stage if when.stage else answer.from_peer and answer.stage in PEER_STAGES
    return speaks and all(
        [
            not when.code or any(re.fullmatch(one.replace("x", r"\d"), str(answer.code)) for one in when.code),
            not when.enhanced
            or any(re.fullmatch(re.escape(one).replace(r"\*", r"\d+"), answer.enhanced) for one in when.enhanced),
            not when.text or any(re.search(one, answer.text, re.IGNORECASE) for one in when.text),
            not when.host or any(host == one or (one[0] == "*" and host.endswith(one[1:])) for one in when.host),
            not when.category or category in when.category,
        ]
    )


@given(st.lists(WHENS, max_size=12), st.lists(ANSWERS, min_size=1, max_size=8))
def test_what_is_remembered_changes_nothing(whens: list[When], answers: list[Answer]) -> None:
    """Whatever was asked before, the rule is the first that matches by the plainest reading."""
    rules = Rules([Rule(str(i), when) for i, when in enumerate(whens)])
    for answer in answers:
        category = classify(answer).name

        found = rules.find(answer, category)

        expected = next((str(i) for i, when in enumerate(whens) if _plainly(when, answer, category)), None)
        assert (found.name if found else None) == expected


def test_a_peer_that_invents_codes_fills_no_memory() -> None:
    """What is remembered is bounded."""
    rules = Rules([Rule("any", When(text=("never",)))])

    for i in range(3_000):
        rules.find(REPLY._replace(enhanced=f"4.7.{i}"), "other")

    assert len(rules._remembered) <= 1_000
