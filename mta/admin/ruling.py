"""Ruling: the pages about what rules have set off, and what an admin does to it."""

from collections.abc import Callable, Iterable
from typing import NoReturn

from aiohttp import web

from mta.admin import selecting
from mta.admin.pages import MutePage, MuteRow, MuteWish, RulePage, RuleRow, RulesPage, RuleWish
from mta.admin.replying import Wrong, fail, page_of
from mta.admin.rules_in_force import RulesInForce
from mta.model.outcome import Reply
from mta.reporting.rule_words import effect_of, rule_written
from mta_policies.adapting import RULE as ADAPT
from mta_policies.firing import Firing, Mute
from mta_policies.layers import PolicySet
from mta_policies.located import nearest

NAME_CHARS_SHOWN = 60  # of one that is none


class Ruling:
    """One handler a page. `policies`: those that hold now, None where nobody knows them."""

    def __init__(self, rules: RulesInForce, policies: Callable[[], PolicySet | None]) -> None:
        self._rules = rules
        self._policies = policies

    def routes(self) -> list[web.RouteDef]:
        """Every path that there is."""
        return [
            web.get("/rules", self._list),
            web.post("/rules/mute", self._mute),
            web.get("/rules/{id}", self._show),
            web.delete("/rules/{id}", self._cancel),
            web.post("/rules/{id}/extend", self._extend),
        ]

    def rows(self, ids: Iterable[str]) -> list[RuleRow]:
        """Those of these that are not over, each once."""
        firings = (self._rules.get(each) for each in dict.fromkeys(ids))
        return [self._row(firing) for firing in firings if firing is not None]

    async def _list(self, request: web.Request) -> web.Response:
        rows = [self._row(firing) for firing in self._rules.firings()]
        return page_of(RulesPage(rows, [_mute_row(mute) for mute in self._rules.mutes()]))

    async def _show(self, request: web.Request) -> web.Response:
        firing = self._rules.get(request.match_info["id"])
        if firing is None:
            _unknown(request)
        return page_of(RulePage(self._row(firing)))

    async def _cancel(self, request: web.Request) -> web.Response:
        with Wrong():
            by = selecting.who(request.query.get("by", ""))
            reason = selecting.reason(request.query.get("reason", ""))
        done = await self._rules.cancel(request.match_info["id"], by, reason)
        if done is None or done[0].firing is None:
            _unknown(request)
        return page_of(RulePage(self._row(done[0].firing), done[1]))

    async def _extend(self, request: web.Request) -> web.Response:
        with Wrong():
            wish = selecting.decoded(await request.read(), RuleWish)
            for_s = selecting.length_s(wish.for_s)
            by, reason = selecting.who(wish.by), selecting.reason(wish.reason)
        done = await self._rules.extend(request.match_info["id"], for_s, by, reason)
        if done is None or done[0].firing is None:
            _unknown(request)
        return page_of(RulePage(self._row(done[0].firing), done[1]))

    async def _mute(self, request: web.Request) -> web.Response:
        with Wrong():
            wish = selecting.decoded(await request.read(), MuteWish)
            for_s = selecting.length_s(wish.for_s) if wish.for_s else 0.0
            by, reason = selecting.who(wish.by), selecting.reason(wish.reason)
            self._check(wish.name)
        change, problems = await self._rules.mute(wish.name, for_s, by, reason)
        assert change.mute is not None, "that is what was done"
        return page_of(MutePage(_mute_row(change.mute), problems))

    def _check(self, name: str) -> None:
        """Raises ValueError where a name is neither a rule's nor that of something in force."""
        policies = self._policies()
        if policies is None or self._rules.get(name) is not None:
            return
        policy, _, rule = name.rpartition("/")
        if policy and policy not in policies.policies:
            raise ValueError(f"there is no policy {_shown(policy)}{nearest(policy, policies.policies)}")
        known = {*_names(policies, policy), ADAPT}
        if rule not in known and not any(
            rule_written(each, rule) for name, each in policies.policies.items() if policy in ("", name)
        ):
            raise ValueError(f"there is no rule {_shown(rule)}, and nothing of that id in force{nearest(rule, known)}")

    def _row(self, firing: Firing) -> RuleRow:
        policies, reply = self._policies(), firing.reply
        return RuleRow(
            id=firing.id,
            rule=firing.rule,
            policy=firing.policy,
            action=firing.action,
            scope=firing.scope,
            key=firing.key,
            does=effect_of(firing),
            since_s=firing.since_s,
            until_s=firing.until_s,
            reply=str(Reply(reply.code, reply.enhanced, reply.text)),
            stage=reply.stage,
            host=reply.host,
            hits=firing.hits,
            last_s=firing.last_s,
            by=firing.by,
            muted_until_s=firing.muted_until_s,
            written=_written(policies, firing),
            state=firing.state,
        )


def _names(policies: PolicySet, policy: str) -> Iterable[str]:
    """The rules of a policy, or ("") of all."""
    for name, each in policies.policies.items():
        if policy in ("", name):
            yield from (rule.name for rule in each.rulebook)


def _written(policies: PolicySet | None, firing: Firing) -> str:
    """The file and line of its rule, where the policies of now still have it."""
    policy = policies.policies.get(firing.policy) if policies is not None else None
    return rule_written(policy, firing.rule) if policy is not None else ""


def _mute_row(mute: Mute) -> MuteRow:
    return MuteRow(mute.rule, mute.policy, mute.key, mute.until_s, mute.by)


def _unknown(request: web.Request) -> NoReturn:
    shown = request.match_info["id"][:NAME_CHARS_SHOWN]
    fail(404, f'nothing of the id "{shown}" is in force; `mta rule list` shows what is')


def _shown(name: str) -> str:
    return f'"{name[:NAME_CHARS_SHOWN]}"'
