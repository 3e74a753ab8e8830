"""What rules and tests may say, and what is told of those that cannot be meant so."""

from typing import get_args

import pytest

from mta_policies import forms
from mta_policies.located import parse
from mta_policies.reader import Reader, keys_of
from mta_policies.rulebook import ACTION_KEYS, SCOPES, Action, Rule, ScopeName, TestCase, check_rules
from mta_policies.schema import PolicyFile
from mta_policies.tree import tree_of


def _read(text: str) -> tuple[PolicyFile, Reader]:
    reader = Reader(tree_of(parse(text, "google.toml")))
    file = reader.read(PolicyFile)
    check_rules(reader, file.rules)
    return file, reader


def _problems(text: str) -> list[str]:
    return [f"{problem.line}: {problem.message}" for problem in _read(text)[1].problems]


FULL = """\
[[rule]]
name    = "google-unusual-rate"
when    = { code = ["421", "45x"], enhanced = "4.7.*", text = "unusual", stage = ["rcpt", "content"], host = "*.x" }
trigger = { count = 2, in = "1h" }
then    = [
    { action = "slow", rate = "10/min", connections = 1, factor = "50%", for = "30m", scope = "source" },
    { action = "probe", silence = "10m", growth = 1.5, for = "1d", scope = "dkim-domain" },
    { action = "suspend", for = "2h", trigger = { consecutive = 5 } },
    { action = "category", category = "policy-related", hard = false },
    { action = "defer", after = "1h" },
    { action = "bounce" },
    { action = "alert", trigger = { share = "5%", of = 200, in = "10m" } },
]
[[test]]
reply = "421 4.7.28 unusual rate"
stage = "rcpt"
rule = ""
count = 2
action = ["slow", "alert"]
scope = "source"
after = "1h"
category = "other"
hard = false
"""


def test_everything_that_a_rule_may_say() -> None:
    """Is read and found right."""
    file, reader = _read(FULL)

    assert reader.problems == []
    rule, test = file.rules[0], file.tests[0]
    assert rule.when.code == ("421", "45x")
    assert (rule.trigger.count, rule.trigger.within_s) == (2, 3600.0)
    slow, probe, suspend, category, defer, bounce, alert = rule.then
    assert (slow.factor, slow.for_s) == (0.5, 1800.0)
    assert (probe.silence_s, probe.growth) == (600.0, 1.5)
    assert (category.category, category.hard) == ("policy-related", False)
    assert rule.trigger_of(slow).count == 2
    assert rule.trigger_of(suspend).consecutive == 5
    assert all(rule.trigger_of(action).is_every_match for action in (category, defer, bounce))
    assert rule.trigger_of(alert).hears_all
    assert (test.rule, test.action, test.scope, test.after_s, test.hard) == (
        "",
        ("slow", "alert"),
        ("source",),
        3600.0,
        False,
    )


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('when = { code = "42" }', 'code: not a reply code: "42"; write "421", "45x" or "4xx"'),
        ('when = { code = "4x1" }', "code: not a reply code"),
        ('when = { enhanced = "4.7" }', 'enhanced: not an enhanced code: "4.7"'),
        ('when = { stage = "conect" }', 'stage: "conect" is not a stage; did you mean connect?'),
        ('when = { stage = "local" }', 'stage: "local" is not a stage'),
        (
            'when = { category = "spam-relate" }',
            'category: "spam-relate" is not a category; did you mean spam-related?',
        ),
        ('when = { text = "(" }', "text: not a regular expression"),
        ('when = { text = "" }', "text: an empty regular expression"),
        ('when = { txt = "x" }', "unknown key txt; did you mean text?"),
        ("trigger = { count = 2 }", "trigger: count needs in"),
        ('trigger = { share = "5%" }', "trigger: share needs of and in"),
        ('trigger = { in = "1h" }', "trigger: in needs count or share"),
        ('trigger = { consecutive = 2, in = "1h" }', "trigger: in has no meaning for consecutive"),
        ('trigger = { count = 2, consecutive = 2, in = "1h" }', "trigger: count and consecutive at once"),
        ('trigger = { count = 5000, in = "1h" }', "count: expected at most 1000, got 5000"),
        ('then = [{ action = "slow" }]', "slow: to what? write rate, connections or factor"),
        (
            'then = [{ action = "slow", rate = "1/s", after = "1h" }]',
            "after has no meaning for slow; it takes for, scope",
        ),
        (
            'then = [{ action = "suspend", rate = "1/s" }]',
            "rate has no meaning for suspend; it takes for, scope, trigger",
        ),
        ('then = [{ action = "category" }]', "category: which one?"),
        ('then = [{ action = "alert", trigger = { count = 2 } }]', "trigger: count needs in"),
        ('then = [{ action = "alert", scope = "tennant" }]', "did you mean tenant?"),
        ('then = [{ action = "probe", growth = 0.5 }]', "growth: expected a number from 1 to 100"),
        (
            'then = [{ action = "slow", connection_rate = "1/s", scope = "tenant" }]',
            "connection_rate has no meaning for scope tenant: its mail shares connections",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_at_its_line(rule: str, told: str) -> None:
    """One problem each."""
    (problem,) = _problems(f'\n[[rule]]\nname = "r"\n{rule}\n')

    assert problem.startswith(f"4: {told}") or (problem.startswith("4: ") and told in problem)


@pytest.mark.parametrize("name", ["", "two words", "a/b", "adapt"])
def test_a_rules_name_can_be_typed(name: str) -> None:
    """NAME or POLICY/NAME is what commands take."""
    assert [problem.partition(":")[0] for problem in _problems(f'[[rule]]\nname = "{name}"\n')] == ["2"]


def test_every_key_of_an_action_means_something_for_some_action() -> None:
    """And no action takes a key that there is not."""
    taken = frozenset().union(*ACTION_KEYS.values())

    assert {key.name for key in keys_of(Action)} == taken


def test_every_scope_is_explained() -> None:
    """All that a file may name, in the same order."""
    assert tuple(SCOPES) == get_args(ScopeName)


@pytest.mark.parametrize("struct", [Rule, Action, TestCase])
def test_every_key_has_its_text(struct: type) -> None:
    """The guide takes it from there."""
    assert all(key.description for key in keys_of(struct))


# -- patterns that a reply could keep busy --


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b",
        r"(?:\w*)*x",
        r"(a|aa)+$",
        r"(?:\d+){2,}",
        r"a.*b.*c",
        r"[^x]*a\S+c",
        r".{0,500}a.{0,101}",
        r"(?:a{1,60}b?){1,60}",
        r"(x(ab)+)*",
        r"(?:a{2,})+",
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused(pattern: str) -> None:
    """Whoever answers chooses the text."""
    with pytest.raises(ValueError, match="busy"):
        forms.search_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"unusual rate",
        r"\[?TSS0[45]\]?.*deferred",
        r"\d+\.\d+\.\d+\.\d+",
        r"(?:too many|rate limit) .* from .{0,60} at .{0,100}$",
        r"(a{2}){3}",
        r"(?:abc)+",
        r"your ip.*is filtered|too many.*hours",
        r"[.*+]+ x",
        r"\(\w+\)*",
        r"a(?=b+)c",
        r"(?P<name>IB\d+)",
    ],
)
def test_patterns_as_people_write_them_are_taken(pattern: str) -> None:
    """One endless repeat, and none of a repeat."""
    assert forms.search_pattern(pattern) == pattern
