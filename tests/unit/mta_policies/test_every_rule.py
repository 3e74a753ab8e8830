"""Every action, for every scope, behind every trigger, in every layer: what a policy file says is what is done."""

from itertools import count
from pathlib import Path

import pytest

from mta_policies import layers
from mta_policies.answers import Answer, Subject, scope_key
from mta_policies.engine import Judge, Verdict
from mta_policies.firings import IN_FORCE, Firings
from mta_policies.policy import Policy
from mta_policies.rulebook import AT_EVERY_MATCH, SCOPES, TENANT_SCOPES

NOW_S = 1_700_000_000.0
SUBJECT = Subject(
    "out-1", "192.0.2.1", "mx.example", "google", "shop", "spring", "a@gmail.example", "shop.example", "spf.example"
)
OTHER = Subject(
    "out-2", "198.51.100.1", "mx2.example", "google", "bank", "may", "b@gmail.example", "b.example", "b.example"
)
ACTIONS = {
    "slow": 'action = "slow", rate = "1/min", for = "10m"',
    "suspend": 'action = "suspend", for = "10m"',
    "probe": 'action = "probe", for = "10m"',
    "alert": 'action = "alert", for = "10m"',
    "bounce": 'action = "bounce"',
    "defer": 'action = "defer", after = "7m"',
    "category": 'action = "category", category = "virus-related"',
}
TRIGGERS = {
    "every match": ("", 1),
    "count": ('trigger = { count = 3, in = "1h" }', 3),
    "share": ('trigger = { share = "50%", of = 4, in = "1h" }', 2),
    "consecutive": ("trigger = { consecutive = 3 }", 3),
}
"""Of each what is written, and at which match it acts, behind two messages that were delivered."""
LAYERS = {"shipped": "shipped/google.toml", "admin": "local/google.toml", "tenant": "local/tenants/shop/google.toml"}


def _rules(scopes: list[str], trigger: str) -> str:
    rules = []
    for action, then in ACTIONS.items():
        for scope in scopes:
            whom = "" if action == "category" else f', scope = "{scope}"'
            rules.append(
                f'[[rule]]\nname = "{action}-{scope}"\nwhen = {{ text = "says {action} {scope} now" }}\n{trigger}\n'
                f"then = [{{ {then}{whom} }}]\n"
            )
    return "".join(rules)


def _policy(root: Path, layer: str, rules: str) -> Policy:
    files = {"shipped/default.toml": "", "shipped/google.toml": 'match = { domains = ["gmail.example"] }\n'}
    files[LAYERS[layer]] = files.get(LAYERS[layer], "") + rules
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "local").mkdir(exist_ok=True)
    return layers.load(root / "local", shipped=root / "shipped").policies["google"]


def _is_as_said(verdict: Verdict, action: str, scope: str) -> bool:
    """What the action does, and nothing else."""
    fired = [(each.action, each.scope, each.key, each.until_s - NOW_S) for each in verdict.firings]
    effect = (verdict.disposition, verdict.after_s, verdict.category == "virus-related", fired)
    return effect == {
        "bounce": ("bounce", 0.0, False, []),
        "defer": ("defer", 420.0, False, []),
        "category": ("", 0.0, True, []),
    }.get(action, ("", 0.0, False, [(action, scope, scope_key(scope, SUBJECT), 600.0)]))


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_done_as_it_is_written(layer: str, trigger: str, tmp_path: Path) -> None:
    """At the match that the trigger names, for whom the scope says, for nobody else; a tenant's rules for its own mail
    alone."""
    scopes = sorted(TENANT_SCOPES if layer == "tenant" else SCOPES)
    written, acts_at = TRIGGERS[trigger]
    policy = _policy(tmp_path, layer, _rules(scopes, written))

    for action in ACTIONS:
        for scope in scopes:
            names = count()
            judge = Judge(policy, Firings(), lambda names=names: f"f{next(names)}")
            answer = Answer(421, "4.7.0", f"it says {action} {scope} now", "content")
            for _ in range(2):
                judge.delivered(SUBJECT, NOW_S)
            verdicts = [judge.judge(answer, SUBJECT, NOW_S) for _ in range(acts_at)]
            other = judge.judge(answer, OTHER, NOW_S)

            waits = action not in AT_EVERY_MATCH
            assert all(verdict.rule == f"{action}-{scope}" for verdict in verdicts)
            assert all(not verdict.done for verdict in verdicts[:-1]) or not waits, (action, scope)
            assert _is_as_said(verdicts[-1], action, scope), (action, scope, verdicts[-1])
            if layer == "tenant":
                assert (other.rule, other.done) == ("", ())
            elif waits and scope != "provider" and acts_at > 1:  # counted apart: for him it is the first
                assert other.done == (), (action, scope)
            keys = {firing.key for verdict in verdicts for firing in verdict.firings}
            assert keys == ({scope_key(scope, SUBJECT)} if action in IN_FORCE else set())
