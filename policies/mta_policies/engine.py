"""The engine: what an answer means, and what is done about it. One `Judge` for each destination.

An answer is classed, the first rule that matches is found, and what the rule says is done: about this message a
category, a bounce or a deferral, at every match; about other mail (slow, suspend, probe, alert) a firing, when the
rule's trigger is pulled. Pure: `now_s` is Unix seconds, the ids of firings come from `new_id`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from mta_policies.adapting import SCOPE as PATH
from mta_policies.adapting import Adapting, Law
from mta_policies.answers import MESSAGE_STAGES, Answer, Subject, scope_key
from mta_policies.bounces import HARD, classify
from mta_policies.firings import IN_FORCE, Change, Firing, Firings
from mta_policies.limits import WHOLE, Share
from mta_policies.policy import Policy
from mta_policies.restraint import POOL_SCOPES
from mta_policies.rulebook import Action, Rule, Trigger
from mta_policies.rules import Rules
from mta_policies.triggers import Table, Triggers

Disposition = Literal["", "bounce", "defer"]


class Verdict(NamedTuple):
    """What an answer means for its message, and what it set off."""

    rule: str
    """The rule that matched; "": none."""
    category: str
    """How it is classed; a rule's `category` wins over the table."""
    hard: bool
    """The address or domain will never take mail: it may be suppressed."""
    disposition: Disposition = ""
    """What becomes of the message: "" as its code says; else a rule says so."""
    after_s: float = 0.0
    """A deferral's next attempt, in so many seconds; 0.0: by the schedule."""
    done: tuple[Action, ...] = ()
    """What the rule did, in its order."""
    changes: tuple[Change, ...] = ()
    """What became of firings: to be told to everybody else and, where `is_event`, to the event log."""

    @property
    def firings(self) -> list[Firing]:
        """What the answer set off or kept in force."""
        return [change.firing for change in self.changes if change.firing is not None]


class Counts(NamedTuple):
    """What deliveries that go one way count for, looked up once; holds until the judge's `epoch` is another one."""

    epoch: object
    tables: tuple[tuple[Table, str], ...]
    """What is counted, and the scope key by which."""


def unknown_pace() -> float:
    """Nobody knows how fast was sent."""
    return 0.0


class Judge:
    """One destination's. Tell every reply once; of deliveries those where `listens` says so."""

    def __init__(self, policy: Policy, firings: Firings, new_id: Callable[[], str], share: Share = WHOLE) -> None:
        """`firings`: of the whole process; `new_id`: a name for a new one, never used before; `share`: the part of the
        destination that this owner has."""
        self._firings = firings
        self._new_id = new_id
        self._triggers = Triggers()
        self._adapting: Adapting | None = None
        self._share = share
        self.change(policy)

    def change(self, policy: Policy, share: Share | None = None) -> None:
        """Another version of the policy, perhaps another share. What rules that stay have counted is kept."""
        self.policy = policy
        self._share = share = share or self._share
        tables = [policy.rules, *(policy.for_tenant(tenant).rules for tenant in policy.tenants_with_rules)]
        self._triggers.keep(set().union(*(rules.triggers for rules in tables)))
        watches = [watch for rules in tables for watch in rules.watches]
        self._watches: dict[Rules, list[tuple[str, Table, str]]] = {}
        self.epoch = object()
        """Another one whenever `Counts` are to be asked for anew."""
        self._rows = [self._triggers.table(watch.rule, watch.trigger) for watch in watches if watch.trigger.consecutive]
        self._hears_shares = any(watch.trigger.share for watch in watches)
        self.hears_ways = False
        """Whether rules want to hear of every delivery; it changes with what was judged."""
        self._counts_messages = bool(policy.tenants_with_rules) or any(
            watch.scope not in POOL_SCOPES for watch in watches
        )
        law = Law.of(policy.adapt, policy.limits) if policy.adapt.on else None
        if law is None:
            self._adapting = None
        elif self._adapting is None:
            self._adapting = Adapting(policy.name, law, self._firings, self._new_id, share)
        else:
            self._adapting.law, self._adapting.share = law, share
        self._listen()

    @property
    def listens(self) -> bool:
        """Whether `delivered` is to be told; it changes with what was judged."""
        return self.hears_ways or (self._adapting is not None and self._adapting.listens)

    @property
    def hears_messages(self) -> bool:
        """Whether it is `delivered` that is to be told, with whose message it was; else `taken`, for all that go one
        way."""
        adapting = self._adapting
        return (self._counts_messages and self.hears_ways) or (adapting is not None and adapting.listens)

    def judge(
        self, answer: Answer, subject: Subject, now_s: float, pace: Callable[[], float] = unknown_pace
    ) -> Verdict:
        """What an answer that is not "delivered" means, and what is done about it. `pace`: messages a second that were
        really sent there lately, 0.0 where that is not known; it is asked only where a rate is adapted."""
        category = classify(answer).name
        rules = self.policy.for_tenant(subject.tenant).rules
        rule = None if rules.is_empty else rules.find(answer, category)
        if rules.watches and answer.stage in MESSAGE_STAGES:
            self._tell_others(rules, rule.name if rule is not None else "", subject, now_s)
        done = self._done(rule, subject, now_s) if rule is not None else []
        self._listen()
        verdict = self._verdict(rule, done, answer, category, now_s)
        on = self.policy.adapt.on
        if self._adapting is not None and (verdict.category in on or verdict.rule in on):
            hurt = self._adapting.hurt(scope_key(PATH, subject), answer, now_s, pace())
            if hurt is not None:
                return verdict._replace(changes=(*verdict.changes, hurt))
        return verdict

    def delivered(self, subject: Subject, now_s: float) -> tuple[Change, ...]:
        """A message was taken: it ends rows and counts in shares."""
        if self.hears_ways:
            self._tell_others(self.policy.for_tenant(subject.tenant).rules, "", subject, now_s)
            self._listen()
        if self._adapting is None or not self._adapting.listens:
            return ()
        eased = self._adapting.delivered(scope_key(PATH, subject), now_s)
        return (eased,) if eased is not None else ()

    def counts(self, subject: Subject) -> Counts:
        """What deliveries of this source to this site count for; to be asked where not `hears_messages`."""
        watched = self._watched(self.policy.for_tenant(subject.tenant).rules)
        keys = ((table, scope_key(scope, subject)) for _, table, scope in watched)
        return Counts(self.epoch, tuple((table, key) for table, key in keys if key))

    def taken(self, counts: Counts, now_s: float) -> bool:
        """As `delivered`, where not `hears_messages`; -> whether it still `hears_ways`."""
        for table, key in counts.tables:
            if table.is_share or table.cells:
                table.other(key, now_s)
        if self._rows:
            self._listen()
        return self.hears_ways

    def forget(self, rule: str, key: str) -> None:
        """Somebody cancelled what this rule did to this scope key: its count begins anew."""
        self._triggers.forget(rule, key)

    def _listen(self) -> None:
        """Rows that nobody is in need no telling."""
        self.hears_ways = self._hears_shares or bool([table for table in self._rows if table.cells])

    def _tell_others(self, rules: Rules, matched: str, subject: Subject, now_s: float) -> None:
        """An answer about a message is one that all but the rule that matched count as another's."""
        for rule, table, scope in self._watched(rules):
            if rule != matched and (table.is_share or table.cells) and (key := scope_key(scope, subject)):
                table.other(key, now_s)

    def _watched(self, rules: Rules) -> list[tuple[str, Table, str]]:
        """The rules that hear all answers, with what they have counted."""
        known = self._watches.get(rules)
        if known is None:
            known = [(rule, self._triggers.table(rule, trigger), scope) for rule, trigger, scope in rules.watches]
            self._watches[rules] = known
        return known

    def _done(self, rule: Rule, subject: Subject, now_s: float) -> list[tuple[Action, str]]:
        """The actions that are done now, each with its scope key. Actions that wait for one trigger on one key count
        as one."""
        done: list[tuple[Action, str]] = []
        pulled: dict[tuple[Trigger, str], bool] = {}
        for action in rule.then:
            trigger, key = rule.trigger_of(action), scope_key(action.scope, subject)
            if not trigger.is_every_match and key:
                if (trigger, key) not in pulled:
                    pulled[trigger, key] = self._triggers.hit(rule.name, trigger, key, now_s, True)
                acts = pulled[trigger, key]
            else:
                acts = trigger.is_every_match and bool(key or action.action not in IN_FORCE)
            if acts:
                done.append((action, key))
        return done

    def _verdict(
        self, rule: Rule | None, done: list[tuple[Action, str]], answer: Answer, category: str, now_s: float
    ) -> Verdict:
        if rule is None:
            return Verdict("", category, category in HARD and answer.code >= 500)
        is_hard: bool | None = None
        disposition: Disposition = ""
        after_s = 0.0
        changes: list[Change] = []
        for action, key in done:
            match action.action:
                case "category":
                    category, is_hard = action.category or category, action.hard
                case "bounce":
                    disposition = disposition or "bounce"
                case "defer":
                    disposition, after_s = (disposition, after_s) if disposition else ("defer", action.after_s)
                case "slow" | "suspend" | "probe" | "alert":
                    fire = self._firings.fire
                    name, new_id = self.policy.name, self._new_id()
                    changes.append(fire(name, rule.name, action, key, answer, now_s, new_id, scope=action.scope))
        is_permanent = disposition == "bounce" or (answer.code >= 500 and disposition != "defer")
        if is_hard is None:
            is_hard = category in HARD
        actions = tuple(action for action, _ in done)
        return Verdict(rule.name, category, is_hard and is_permanent, disposition, after_s, actions, tuple(changes))
