"""Cases: the `[[test]]`s of policy files, run through the engine.

A reply is given to a fresh judge as often as the case says, one second apart, after so many deliveries; what the last
one yields is compared with what the case expects. So a policy file shows what its rules are for, and a change that
breaks one of them is seen before it meets a provider.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mta_policies.answers import Answer, Subject
from mta_policies.engine import Judge, Verdict
from mta_policies.firings import IN_FORCE, Firings
from mta_policies.layers import LocatedTest, PolicySet
from mta_policies.located import nearest
from mta_policies.policy import Policy
from mta_policies.rulebook import TestCase
from mta_policies.units import render_duration

BEGIN_S = 1_700_000_000.0  # any time will do: nothing in a case depends on it
STEP_S = 1.0
SILENT_STAGES = frozenset({"dns", "connect"})
"""Where nobody has said anything yet, so that the words are ours."""

_REPLY = re.compile(r"([2-5]\d\d)(?:[ -]|$)(?:([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$))?\s*(.*)", re.ASCII | re.DOTALL)


class Mismatch(NamedTuple):
    """One thing that came out otherwise."""

    what: str
    expected: str
    came: str


class Result(NamedTuple):
    """What came of a case."""

    case: LocatedTest
    mismatches: tuple[Mismatch, ...]

    @property
    def is_good(self) -> bool:
        return not self.mismatches


def run(policies: PolicySet, cases: Iterable[LocatedTest]) -> list[Result]:
    """Runs cases against policies in force; none depends on another."""
    return [Result(case, mismatches(policies.policies[case.policy], case)) for case in cases]


def mismatches(policy: Policy, case: LocatedTest) -> tuple[Mismatch, ...]:
    """What of a case does not come out as it expects."""
    verdict = judged(policy, case)
    if verdict is None:
        return (Mismatch("reply", 'a reply such as "421 4.7.28 ..."', f'"{case.test.reply}"'),)
    return tuple(_compare(policy, case.tenant, case.test, verdict))


def judged(policy: Policy, case: LocatedTest) -> Verdict | None:
    """What the last answer of a case yields; None where its reply is none."""
    answer = answer_of(case.test)
    return None if answer is None else _judged(policy, case.test, answer, case.tenant)


def answer_of(test: TestCase) -> Answer | None:
    """The reply of a case as the server reads replies (RFC 2034 4): lines joined, the enhanced code taken off each of
    them and believed where its class is the code's. None where it is no reply."""
    code, enhanced, texts = 0, "", []
    for i, line in enumerate(test.reply.strip().splitlines()):
        found = _REPLY.fullmatch(line.strip())
        if found is None or (i and int(found[1]) != code):
            return None
        own = f"{found[2]}.{found[3]}.{found[4]}" if found[2] and found[2] == found[1][0] else ""
        if i == 0:
            code, enhanced = int(found[1]), own
        texts.append(found[5] if own and own == enhanced else line.strip()[4:])
    if not code:
        return None
    from_peer = test.stage not in SILENT_STAGES if test.from_peer is None else test.from_peer
    return Answer(code, enhanced, " ".join(filter(None, map(str.strip, texts))), test.stage, test.host, from_peer)


def _judged(policy: Policy, test: TestCase, answer: Answer, tenant: str) -> Verdict:
    names = iter(range(test.count * 100 + 100))
    judge = Judge(policy, Firings(), lambda: f"f{next(names)}")
    subject = Subject(
        source="out-1",
        source_address="192.0.2.1",
        site="mx.example",
        provider=policy.name,
        tenant=tenant or "tenant",
        campaign="campaign",
        recipient="someone@example.com",
        dkim_domain="example.com",
        spf_domain="example.com",
    )
    now_s = BEGIN_S
    for _ in range(test.delivered):
        judge.delivered(subject, now_s)
    for _ in range(test.count - 1):
        judge.judge(answer, subject, now_s)
        now_s += STEP_S
    return judge.judge(answer, subject, now_s)


def _compare(policy: Policy, tenant: str, test: TestCase, verdict: Verdict) -> Iterable[Mismatch]:
    if test.rule is not None and test.rule != verdict.rule:
        known = [rule.name for rule in policy.for_tenant(tenant).rules.in_order]
        hint = nearest(test.rule, known) if test.rule and test.rule not in known else ""
        yield Mismatch(
            "rule",
            (test.rule or "none") + (f" (there is no such rule{hint})" if hint else ""),
            _named(policy, tenant, verdict.rule),
        )
    done = [action.action for action in verdict.done]
    if test.action is not None and list(test.action) != done:
        yield Mismatch("action", _listed(test.action), _listed(done))
    scopes = [action.scope for action in verdict.done if action.action in IN_FORCE]
    if test.scope is not None and list(test.scope) != scopes:
        yield Mismatch("scope", _listed(test.scope), _listed(scopes))
    if test.after_s is not None and (verdict.disposition, verdict.after_s) != ("defer", test.after_s):
        came = render_duration(verdict.after_s) if verdict.after_s else "by the schedule"
        yield Mismatch("after", render_duration(test.after_s), came if verdict.disposition == "defer" else "no defer")
    if test.category is not None and test.category != verdict.category:
        yield Mismatch("category", test.category, verdict.category)
    if test.hard is not None and test.hard != verdict.hard:
        yield Mismatch("hard", *("true" if value else "false" for value in (test.hard, verdict.hard)))


def _named(policy: Policy, tenant: str, rule: str) -> str:
    return f"{rule} ({policy.rule_origin(rule, tenant)})" if rule else "none"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
