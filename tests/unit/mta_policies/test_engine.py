"""What an answer means, and what is done about it: every action, scope and trigger."""

from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mta_policies import layers
from mta_policies.answers import Answer, Subject, scope_key
from mta_policies.engine import Counts, Judge, Verdict
from mta_policies.firings import Firings
from mta_policies.policy import Policy
from mta_policies.rulebook import SCOPES, Action, Rule, Trigger, When
from mta_policies.schema import Adapt, Limits, PolicyFile
from mta_policies.tree import Tree
from mta_policies.units import Rate

NOW_S = 1_700_000_000.0
SUBJECT = Subject(
    "out-1", "192.0.2.1", "mx.example", "google", "shop", "spring", "a@gmail.example", "shop.example", "shop.example"
)
BUSY = Answer(421, "4.7.28", "unusual rate of mail", "content")
UNKNOWN = Answer(550, "5.1.1", "user unknown", "rcpt")
LATER = Answer(451, "", "come back later", "content")
NO_CONNECTION = Answer(451, "4.4.1", "connection refused", "connect", "mx.example", False)


def _policy(*rules: Rule, adapt: Adapt | None = None) -> Policy:
    file = PolicyFile(rules=rules, adapt=adapt or Adapt(), limits=Limits(rate=(Rate(10, 1),)))
    return Policy("google", file, Tree({}, {}), [])


def _judge(*rules: Rule, adapt: Adapt | None = None) -> Judge:
    names = count()
    return Judge(_policy(*rules, adapt=adapt), Firings(), lambda: f"f{next(names)}")


def _on(answer: Answer, *then: Action, trigger: Trigger | None = None, name: str = "rule") -> Rule:
    when = When(code=(str(answer.code),), enhanced=(answer.enhanced,) if answer.enhanced else ())
    return Rule(name, when, trigger or Trigger(), then)


def _actions(verdict: Verdict) -> list[str]:
    return [action.action for action in verdict.done]


# -- about the message --


def test_without_a_rule_the_table_says_what_it_is() -> None:
    """And the code what becomes of it."""
    verdict = _judge().judge(UNKNOWN, SUBJECT, NOW_S)

    assert verdict == Verdict("", "bad-mailbox", True)
    assert verdict.disposition == ""


@pytest.mark.parametrize(
    ("then", "disposition", "after_s", "category", "hard"),
    [
        ([Action("category", category="policy-related")], "", 0.0, "policy-related", False),
        ([Action("category", category="bad-domain")], "", 0.0, "bad-domain", True),
        ([Action("category", hard=False)], "", 0.0, "bad-mailbox", False),
        ([Action("category", category="other", hard=True)], "", 0.0, "other", True),
        ([Action("defer", after_s=900.0)], "defer", 900.0, "bad-mailbox", False),
        ([Action("defer")], "defer", 0.0, "bad-mailbox", False),
        ([Action("bounce")], "bounce", 0.0, "bad-mailbox", True),
        ([Action("bounce"), Action("defer", after_s=9.0)], "bounce", 0.0, "bad-mailbox", True),
        ([Action("defer", after_s=9.0), Action("bounce")], "defer", 9.0, "bad-mailbox", False),
        ([], "", 0.0, "bad-mailbox", True),
    ],
)
def test_what_a_rule_makes_of_a_message(
    then: list[Action], disposition: str, after_s: float, category: str, hard: bool
) -> None:
    """A deferral is never hard; of bounce and defer the first stands."""
    verdict = _judge(_on(UNKNOWN, *then)).judge(UNKNOWN, SUBJECT, NOW_S)

    assert verdict.rule == "rule"
    assert (verdict.disposition, verdict.after_s) == (disposition, after_s)
    assert (verdict.category, verdict.hard) == (category, hard)


def test_a_temporary_answer_is_hard_only_where_a_rule_bounces_it() -> None:
    """Then it is final."""
    answer = UNKNOWN._replace(code=450, enhanced="4.1.1")

    plain = _judge().judge(answer, SUBJECT, NOW_S)
    bounced = _judge(_on(answer, Action("bounce"))).judge(answer, SUBJECT, NOW_S)

    assert (plain.category, plain.hard) == ("bad-mailbox", False)
    assert (bounced.category, bounced.hard) == ("bad-mailbox", True)


def test_what_is_about_the_message_does_not_wait_for_the_trigger() -> None:
    """Every 550 that is throttling is deferred, the fifth one stops the source."""
    judge = _judge(
        _on(
            UNKNOWN,
            Action("category", category="policy-related"),
            Action("defer", after_s=60.0),
            Action("suspend", scope="source"),
            Action("alert"),
            trigger=Trigger(count=3, within_s=3600.0),
        )
    )

    done = [_actions(judge.judge(UNKNOWN, SUBJECT, NOW_S + i)) for i in range(3)]

    assert done == [["category", "defer"], ["category", "defer"], ["category", "defer", "suspend", "alert"]]


def test_a_bounce_may_wait_for_a_trigger_of_its_own() -> None:
    """Three times later is never."""
    judge = _judge(_on(LATER, Action("bounce", scope="recipient", trigger=Trigger(consecutive=3))))

    dispositions = [judge.judge(LATER, SUBJECT, NOW_S).disposition for _ in range(3)]

    assert dispositions == ["", "", "bounce"]


def test_actions_may_wait_for_different_triggers() -> None:
    """Two slow, four stop."""
    judge = _judge(
        _on(
            BUSY,
            Action("slow", connections=1),
            Action("suspend", trigger=Trigger(count=4, within_s=60.0)),
            trigger=Trigger(count=2, within_s=60.0),
        )
    )

    done = [_actions(judge.judge(BUSY, SUBJECT, NOW_S)) for _ in range(4)]

    assert done == [[], ["slow"], ["slow"], ["slow", "suspend"]]


def test_two_actions_of_one_trigger_and_scope_count_an_answer_once() -> None:
    """Otherwise three matches would be six."""
    then = [Action("suspend", scope="source"), Action("alert", scope="source"), Action("alert", scope="provider")]
    judge = _judge(_on(BUSY, *then, trigger=Trigger(count=2, within_s=60.0)))

    done = [_actions(judge.judge(BUSY, SUBJECT, NOW_S)) for _ in range(2)]

    assert done == [[], ["suspend", "alert", "alert"]]


# -- about other mail --


@pytest.mark.parametrize("scope", list(SCOPES))
@pytest.mark.parametrize("action", ["slow", "suspend", "probe", "alert"])
def test_every_lasting_action_fires_for_every_scope(action: str, scope: str) -> None:
    """One firing, for whom the scope says."""
    judge = _judge(_on(BUSY, Action(action, scope=scope, for_s=600.0)))  # type: ignore[arg-type]

    verdict = judge.judge(BUSY, SUBJECT, NOW_S)

    (firing,) = verdict.firings
    assert (firing.rule, firing.action, firing.scope) == ("rule", action, scope)
    assert firing.key == scope_key(scope, SUBJECT)
    assert firing.until_s == NOW_S + 600.0
    assert firing.reply.text == BUSY.text


def test_what_is_in_force_is_extended_not_stacked() -> None:
    """A second match makes it longer."""
    judge = _judge(_on(BUSY, Action("suspend", for_s=600.0, scope="source")))
    first = judge.judge(BUSY, SUBJECT, NOW_S).firings[0]

    second = judge.judge(BUSY, SUBJECT, NOW_S + 300.0).firings[0]

    assert second.id == first.id
    assert second.until_s == NOW_S + 900.0


def test_nothing_fires_for_what_the_subject_does_not_have() -> None:
    """Mail without a tenant cannot slow one; what is about the message is done all the same."""
    judge = _judge(_on(BUSY, Action("slow", connections=1, scope="tenant"), Action("defer", after_s=60.0)))

    verdict = judge.judge(BUSY, SUBJECT._replace(tenant=""), NOW_S)

    assert _actions(verdict) == ["defer"]
    assert verdict.changes == ()


def test_scopes_are_counted_apart() -> None:
    """Two sources, one refusal each: for the provider it is the second."""
    then = [Action("slow", connections=1, scope="source"), Action("alert", scope="provider")]
    judge = _judge(_on(BUSY, *then, trigger=Trigger(count=2, within_s=60.0)))
    judge.judge(BUSY, SUBJECT, NOW_S)

    verdict = judge.judge(BUSY, SUBJECT._replace(source="out-2"), NOW_S)

    assert _actions(verdict) == ["alert"]


# -- what counts --


def test_deliveries_break_a_row() -> None:
    """They need telling only while there is one."""
    judge = _judge(_on(BUSY, Action("alert"), trigger=Trigger(consecutive=2)))
    heard = [judge.listens]
    judge.judge(BUSY, SUBJECT, NOW_S)
    heard.append(judge.listens)
    judge.delivered(SUBJECT, NOW_S)
    heard.append(judge.listens)

    verdict = judge.judge(BUSY, SUBJECT, NOW_S)

    assert heard == [False, True, False]
    assert _actions(verdict) == []


@pytest.mark.parametrize(("between", "acts"), [(LATER, []), (NO_CONNECTION, ["alert"])])
def test_another_answer_breaks_a_row_if_it_is_about_a_message(between: Answer, acts: list[str]) -> None:
    """A connection that failed says nothing of messages."""
    judge = _judge(_on(BUSY, Action("alert"), trigger=Trigger(consecutive=2)), _on(LATER, name="later"))
    judge.judge(BUSY, SUBJECT, NOW_S)
    judge.judge(between, SUBJECT, NOW_S)

    assert _actions(judge.judge(BUSY, SUBJECT, NOW_S)) == acts


def test_a_share_counts_deliveries_and_other_answers() -> None:
    """One of ten is a tenth, one of eleven is less."""
    trigger = Trigger(share=0.1, of=10, within_s=600.0)
    rules = [_on(UNKNOWN, Action("slow", connections=1), trigger=trigger)]
    enough, less = _judge(*rules), _judge(*rules)
    for judge, deliveries in ((enough, 8), (less, 9)):
        assert judge.listens
        for _ in range(deliveries):
            judge.delivered(SUBJECT, NOW_S)
        judge.judge(LATER, SUBJECT, NOW_S)

    assert _actions(enough.judge(UNKNOWN, SUBJECT, NOW_S)) == ["slow"]
    assert _actions(less.judge(UNKNOWN, SUBJECT, NOW_S)) == []


def test_a_rule_that_others_hide_counts_nothing() -> None:
    """Only the first that matches is asked."""
    judge = _judge(
        _on(BUSY, name="first"), _on(BUSY, Action("alert"), trigger=Trigger(count=2, within_s=9.0), name="second")
    )

    done = [judge.judge(BUSY, SUBJECT, NOW_S) for _ in range(3)]

    assert {(verdict.rule, verdict.done) for verdict in done} == {("first", ())}


def test_what_was_cancelled_counts_anew() -> None:
    """Otherwise the very next refusal would fire again."""
    judge = _judge(_on(BUSY, Action("suspend", scope="source"), trigger=Trigger(count=2, within_s=60.0)))
    judge.judge(BUSY, SUBJECT, NOW_S)
    firing = judge.judge(BUSY, SUBJECT, NOW_S).firings[0]

    judge.forget(firing.rule, firing.key)

    assert _actions(judge.judge(BUSY, SUBJECT, NOW_S)) == []


def test_a_reload_keeps_counts_of_rules_that_stay() -> None:
    """And takes the new ones at once."""
    stays = _on(BUSY, Action("alert"), trigger=Trigger(count=2, within_s=60.0))
    judge = _judge(stays)
    judge.judge(BUSY, SUBJECT, NOW_S)

    judge.change(_policy(stays, _on(LATER, Action("bounce"), name="new")))

    assert _actions(judge.judge(BUSY, SUBJECT, NOW_S)) == ["alert"]
    assert judge.judge(LATER, SUBJECT, NOW_S).disposition == "bounce"


def test_a_rule_that_was_away_counts_anew() -> None:
    """What it had counted went with it."""
    rule = _on(BUSY, Action("alert"), trigger=Trigger(count=2, within_s=60.0))
    judge = _judge(rule)
    judge.judge(BUSY, SUBJECT, NOW_S)

    judge.change(_policy())
    judge.change(_policy(rule))

    assert _actions(judge.judge(BUSY, SUBJECT, NOW_S)) == []


# -- a rate that adapts --


@pytest.mark.parametrize("on", ["rule", "policy-related"])
def test_an_answer_that_hurts_lowers_the_rate(on: str) -> None:
    """By the rule's name or by the category; then deliveries are listened to."""
    judge = _judge(_on(BUSY, Action("category", category="policy-related")), adapt=Adapt(on=(on,)))
    before = judge.listens

    verdict = judge.judge(BUSY, SUBJECT, NOW_S)

    (firing,) = verdict.firings
    assert (firing.rule, firing.key) == ("adapt", "path out-1 shop.example mx.example > google")
    assert firing.effect.rate[0].per_second == pytest.approx(5.0)
    assert (before, judge.listens) == (False, True)


@pytest.mark.parametrize(("pace", "allowed"), [(0.0, 5.0), (4.0, 2.0), (0.1, 0.5), (50.0, 5.0)])
def test_what_was_really_sent_is_lowered(pace: float, allowed: float) -> None:
    """Where it is known, down to a tenth of what was allowed; nobody is asked where nothing is adapted."""
    judge, asked = _judge(adapt=Adapt(on=("policy-related",))), []

    verdict = judge.judge(BUSY, SUBJECT, NOW_S, lambda: asked.append(1) or pace)
    judge.judge(UNKNOWN, SUBJECT, NOW_S, lambda: asked.append(2) or pace)

    (firing,) = verdict.firings
    assert firing.effect.rate[0].per_second == pytest.approx(allowed)
    assert asked == [1]


def test_other_answers_do_not_hurt() -> None:
    """Neither does anything where nothing is adapted."""
    adapting, plain = _judge(adapt=Adapt(on=("spam-related",))), _judge()

    for judge in (adapting, plain):
        assert judge.judge(BUSY, SUBJECT, NOW_S).changes == ()
        assert judge.delivered(SUBJECT, NOW_S) == ()


# -- for a tenant --


def _folders(root: Path, files: Iterable[tuple[str, str]]) -> Policy:
    (root / "shipped").mkdir()
    (root / "shipped" / "default.toml").write_text("")
    for name, text in files:
        path = root / "local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return layers.load(root / "local", shipped=root / "shipped").policies["google"]


def test_a_tenants_rules_are_for_its_mail_alone(tmp_path: Path) -> None:
    """And act on nobody else's."""
    rule = '[[rule]]\nname = "r"\nwhen = { code = "421" }\nthen = [{ action = '
    policy = _folders(
        tmp_path,
        [
            ("google.toml", rule + '"slow", connections = 1, scope = "source" }]'),
            ("tenants/shop/google.toml", rule + '"suspend", for = "1h" }]'),
        ],
    )
    judge = Judge(policy, Firings(), iter("ab").__next__)

    shop = judge.judge(BUSY, SUBJECT, NOW_S).firings
    bank = judge.judge(BUSY, SUBJECT._replace(tenant="bank"), NOW_S).firings

    assert [(firing.action, firing.key) for firing in shop] == [("suspend", "tenant shop > google")]
    assert [(firing.action, firing.key) for firing in bank] == [("slow", "source out-1 > google")]


# -- whatever comes --

RULES = st.lists(
    st.builds(
        Rule,
        name=st.sampled_from(["a", "b", "c", "d"]),
        when=st.builds(When, code=st.sampled_from([("421",), ("4xx",), ("5xx",), ()])),
        trigger=st.sampled_from([Trigger(), Trigger(count=2, within_s=60.0), Trigger(consecutive=2)]),
        then=st.lists(
            st.sampled_from(
                [
                    Action("slow", connections=1),
                    Action("suspend", scope="tenant"),
                    Action("defer", after_s=60.0),
                    Action("category", category="other"),
                    Action("alert", scope="source", trigger=Trigger(share=0.5, of=2, within_s=60.0)),
                ]
            ),
            max_size=3,
        ).map(tuple),
    ),
    max_size=4,
    unique_by=lambda rule: rule.name,
)
EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 100.0), st.sampled_from([BUSY, UNKNOWN, LATER, NO_CONNECTION, None]), st.sampled_from("xy")
    ),
    max_size=40,
)


def _of_pools(rules: list[Rule]) -> list[Rule]:
    """Those that count by what all mail of a source for a site has in common."""
    return [replace(rule, then=tuple(each for each in rule.then if each.scope != "tenant")) for rule in rules]


@given(RULES.map(_of_pools), EVENTS, st.integers(0, 40))
def test_deliveries_told_by_their_way_count_the_same(
    rules: list[Rule], events: list[tuple[float, Answer | None, str]], at: int
) -> None:
    """What they count for is looked up once, until the policy changes."""
    plain, cheap = _judge(*rules), _judge(*rules)
    known: dict[str, Counts] = {}
    now_s = NOW_S
    for i, (gap_s, answer, source) in enumerate(events):
        now_s += gap_s
        subject = SUBJECT._replace(source=source)
        if i == at:
            plain.change(_policy(*rules[1:]))
            cheap.change(_policy(*rules[1:]))
        if answer is not None:
            assert plain.judge(answer, subject, now_s) == cheap.judge(answer, subject, now_s)
        elif cheap.listens:
            assert not cheap.hears_messages
            if source not in known or known[source].epoch is not cheap.epoch:
                known[source] = cheap.counts(subject)
            plain.delivered(subject, now_s)
            cheap.taken(known[source], now_s)
        assert plain.listens == cheap.listens


@given(RULES, EVENTS, st.integers(0, 40))
def test_a_reload_of_the_same_policy_changes_nothing(
    rules: list[Rule], events: list[tuple[float, Answer | None, str]], at: int
) -> None:
    """Wherever it comes, the same answers set off the same; and deliveries that nobody listens to may stay untold."""
    told, reloaded = _judge(*rules), _judge(*rules)
    now_s = NOW_S
    for i, (gap_s, answer, source) in enumerate(events):
        now_s += gap_s
        subject = SUBJECT._replace(source=source)
        if i == at:
            reloaded.change(_policy(*rules))
        if answer is None:
            told.delivered(subject, now_s)
            if reloaded.listens:
                reloaded.delivered(subject, now_s)
        else:
            assert told.judge(answer, subject, now_s) == reloaded.judge(answer, subject, now_s)
