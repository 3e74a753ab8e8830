"""Rules in a few words."""

import pytest

from mta_policies import wording
from mta_policies.located import parse
from mta_policies.reader import Reader
from mta_policies.rulebook import Rule
from mta_policies.schema import PolicyFile
from mta_policies.tree import tree_of


def rule(text: str) -> Rule:
    """The one rule of a policy file."""
    reader = Reader(tree_of(parse(f'[[rule]]\nname = "x"\n{text}', "x.toml")))
    (found,) = reader.read(PolicyFile).rules
    assert reader.problems == []
    return found


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ('code = "421", enhanced = "4.7.28"', "421 4.7.28"),
        ('code = ["421", "45x"], stage = ["mail", "rcpt"], text = "a|b"', "421 or 45x at mail or rcpt, /a|b/"),
        ('text = ["a", "b"], host = "*.example"', "/a/ or /b/, from *.example"),
        ('category = "bad-mailbox"', "category bad-mailbox"),
        ("", "any reply"),
    ],
)
def test_a_condition_in_words(when: str, words: str) -> None:
    """Codes and stages first, then texts, hosts, categories."""
    assert wording.condition(rule(f"when = {{ {when} }}").when) == words


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ('count = 5, in = "1h"', "5 in 1h"),
        ('share = "3%", of = 200, in = "10m"', "3% of 200 in 10m"),
        ("consecutive = 5", "5 in a row"),
        ("", ""),
    ],
)
def test_a_trigger_in_words(trigger: str, words: str) -> None:
    """Every kind."""
    assert wording.waits_for(rule(f"trigger = {{ {trigger} }}").trigger) == words


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            'action = "slow", scope = "source", rate = "1/min", connections = 1, for = "1h"',
            "slow source: 1/min, 1 connection, for 1h",
        ),
        (
            'action = "slow", factor = "50%", connection_rate = "5/min", messages_per_connection = 1000,'
            " recipients_per_transaction = 1",
            "slow site: 50% of what is allowed, 5/min new connections, 1,000 messages a connection,"
            " 1 recipient a transaction",
        ),
        ('action = "suspend", for = "2h", scope = "tenant"', "suspend tenant for 2h"),
        ('action = "suspend"', "suspend site"),
        (
            'action = "probe", scope = "netblock", silence = "10m", growth = 2',
            "probe netblock: silence 10m, x 2 after each failure",
        ),
        ('action = "probe", scope = "source"', "probe source"),
        ('action = "defer", after = "1h"', "defer 1h"),
        ('action = "defer"', "defer"),
        ('action = "bounce"', "bounce"),
        ('action = "category", category = "bad-mailbox", hard = false', "bad-mailbox, never hard"),
        ('action = "category", hard = true', "as it is, hard"),
        ('action = "alert", scope = "provider"', "alert provider"),
    ],
)
def test_an_action_in_words(action: str, words: str) -> None:
    """Every action, with all that it may say."""
    (one,) = rule(f"then = [{{ {action} }}]").then

    assert wording.deed(one) == words


def test_what_a_rule_does_is_told_with_what_it_waits_for() -> None:
    """An action about the message does not wait; a trigger of its own counts."""
    told = rule(
        'trigger = { count = 5, in = "1h" }\n'
        'then = [{ action = "defer" }, { action = "suspend", for = "1h" },'
        ' { action = "alert", trigger = { consecutive = 2 } }]'
    )

    assert wording.deeds(told) == ["defer", "suspend site for 1h (after 5 in 1h)", "alert site (after 2 in a row)"]
    assert wording.deeds(rule("then = []")) == ["nothing"]
