"""The tests that policy files bring along are run as the server would see their replies."""

from pathlib import Path

import pytest

from mta_policies import cases, layers
from mta_policies.answers import Answer
from mta_policies.cases import Mismatch, answer_of
from mta_policies.layers import PolicyError, PolicySet
from mta_policies.rulebook import TestCase

RULES = """\
[[rule]]
name = "busy"
when = { code = "421", text = "unusual rate" }
trigger = { count = 2, in = "1h" }
then = [{ action = "slow", rate = "1/min", scope = "source" }, { action = "category", category = "policy-related" }]
[[rule]]
name = "throttled"
when = { code = "550", text = "frequency" }
then = [{ action = "defer", after = "15m" }]
[[rule]]
name = "refused"
when = { stage = "connect" }
then = [{ action = "alert" }]
[[rule]]
name = "unknown"
when = { category = "bad-mailbox" }
trigger = { share = "20%", of = 10, in = "10m" }
then = [{ action = "slow", connections = 1, scope = "provider" }]
"""


def _load(root: Path, shipped: str, local: str = "", tenant: str = "") -> PolicySet:
    for folder in ("shipped", "local", "local/tenants", "local/tenants/shop"):
        (root / folder).mkdir()
    (root / "shipped" / "default.toml").write_text("")
    (root / "shipped" / "google.toml").write_text(shipped)
    for folder, text in (("local", local), ("local/tenants/shop", tenant)):
        if text:
            (root / folder / "google.toml").write_text(text)
    return layers.load(root / "local", shipped=root / "shipped")


def _mismatches(root: Path, test: str) -> list[Mismatch]:
    policies = _load(root, f"{RULES}[[test]]\n{test}\n")
    (result,) = cases.run(policies, policies.tests)
    assert result.is_good == (not result.mismatches)
    return list(result.mismatches)


@pytest.mark.parametrize(
    "test",
    [
        'reply = "421 4.7.28 unusual rate"\nrule = "busy"\naction = "category"\nscope = []',
        'reply = "421 4.7.28 unusual rate"\ncategory = "policy-related"',
        'reply = "421 unusual rate"\nrule = "busy"\ncount = 2\naction = ["slow", "category"]\nscope = "source"',
        'reply = "550 frequency limited"\nrule = "throttled"\naction = "defer"\nafter = "15m"\nhard = false',
        'reply = "550 5.1.1 No such user"\nstage = "rcpt"\nrule = "unknown"\naction = []\nhard = true',
        'reply = "550 No such user"\ndelivered = 8\ncount = 2\naction = "slow"\nscope = "provider"',
        'reply = "550 No such user"\ndelivered = 9\ncount = 2\naction = []',
        'reply = "451 4.4.1 connection refused"\nstage = "connect"\nrule = "refused"\ncategory = "no-answer-from-host"',
        'reply = "451 4.4.2 timed out"\nstage = "mail"\nfrom_peer = false\nrule = ""\ncategory = "bad-connection"',
        'reply = "250 whatever nobody expects anything of"',
    ],
)
def test_a_case_that_is_right(tmp_path: Path, test: str) -> None:
    """Nothing to tell."""
    assert _mismatches(tmp_path, test) == []


@pytest.mark.parametrize(
    ("test", "what", "expected", "came"),
    [
        ('rule = ""', "rule", "none", "throttled (shipped/google.toml:6)"),
        ('rule = "busy"', "rule", "busy", "throttled (shipped/google.toml:6)"),
        (
            'rule = "bsy"',
            "rule",
            "bsy (there is no such rule; did you mean busy?)",
            "throttled (shipped/google.toml:6)",
        ),
        ('action = ["defer", "alert"]', "action", "defer, alert", "defer"),
        ("action = []", "action", "none", "defer"),
        ('scope = "source"', "scope", "source", "none"),
        ('after = "1h"', "after", "1h", "15m"),
        ('category = "bad-mailbox"', "category", "bad-mailbox", "policy-related"),
        ("hard = true", "hard", "true", "false"),
    ],
)
def test_what_came_out_otherwise_is_told(tmp_path: Path, test: str, what: str, expected: str, came: str) -> None:
    """What was expected, and what came, with the rule's line."""
    (wrong,) = _mismatches(tmp_path, f'reply = "550 frequency limited"\n{test}')

    assert (wrong.what, wrong.expected, wrong.came.replace(f"{tmp_path}/", "")) == (what, expected, came)


@pytest.mark.parametrize(
    ("test", "came"), [("after = '1h'", "no defer"), ("after = '1h'\ncount = 2", "no defer"), ("rule = 'busy'", "none")]
)
def test_a_deferral_that_did_not_come_is_told(tmp_path: Path, test: str, came: str) -> None:
    """As is a rule that did not match."""
    (wrong,) = _mismatches(tmp_path, f'reply = "451 whatever"\n{test}')

    assert wrong.came == came


@pytest.mark.parametrize("reply", ["nonsense", "42 x", "", "421-a\\n422 b", "999 no"])
def test_what_is_no_reply_is_told(tmp_path: Path, reply: str) -> None:
    """A slip of who wrote the test."""
    assert [wrong.what for wrong in _mismatches(tmp_path, f'reply = "{reply}"')] == ["reply"]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("421 4.7.28 a rate", Answer(421, "4.7.28", "a rate", "content")),
        ("421-4.7.28 a\n421 4.7.28 rate", Answer(421, "4.7.28", "a rate", "content")),
        ("421-4.7.28 a\n421-\n421 4.7.0 rate", Answer(421, "4.7.28", "a 4.7.0 rate", "content")),
        ("550 4.7.28 other class", Answer(550, "", "4.7.28 other class", "content")),
        ("550 5.7.1: no code", Answer(550, "", "5.7.1: no code", "content")),
        ("550", Answer(550, "", "", "content")),
    ],
)
def test_a_reply_is_read_as_the_server_reads_replies(reply: str, answer: Answer) -> None:
    """RFC 2034 4: believed where the class is the code's, taken off every line that repeats it."""
    assert answer_of(TestCase(reply=reply)) == answer


def test_each_test_is_about_the_layers_up_to_its_own(tmp_path: Path) -> None:
    """A shipped test stays right when an admin writes other rules, and a tenant's is about the tenant."""
    other = '[[rule]]\nname = "own"\nwhen = { code = "550" }\n[[test]]\nreply = "550 frequency"\nrule = "own"\n'
    tenants = other.replace("own", "shops")
    policies = _load(tmp_path, f'{RULES}[[test]]\nreply = "550 frequency"\nrule = "throttled"\n', other, tenants)
    shipped = layers.load(None, shipped=tmp_path / "shipped")

    ours = cases.run(policies, [test for test in policies.tests if not test.is_shipped])

    assert [(test.tenant, test.is_shipped, test.place.line) for test in policies.tests] == [
        ("", True, 19),
        ("", False, 4),
        ("shop", False, 4),
    ]
    assert all(result.is_good for result in (*ours, *cases.run(shipped, shipped.tests)))
    assert not cases.run(policies, policies.tests)[0].is_good


def test_a_badly_written_test_is_a_problem_of_the_file(tmp_path: Path) -> None:
    """Told once, at its line, with all others."""
    with pytest.raises(PolicyError) as raised:
        _load(tmp_path, '[[test]]\nreply = "421 x"\nstag = "rcpt"\n')

    assert [problem.line for problem in raised.value.problems] == [3]
    assert "did you mean stage?" in str(raised.value)
