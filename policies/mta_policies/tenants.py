"""Tenants: what holds for one tenant's mail towards a provider, over what holds for everybody's.

`tenants/TENANT/NAME.toml` in the admin's folder is laid over the policy NAME for that tenant's mail, and a
`default.toml` there over all policies. Its limits are kept beside the policy's own, by this tenant's mail alone; its
rules come before all others and act on nobody else's mail.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import field, structs

from mta_policies.forms import Bytes, Count, Rates, Windows
from mta_policies.reader import Reader, about
from mta_policies.rulebook import ACTION_KEYS, TENANT_DEFAULT_SCOPE, TENANT_SCOPES, Rule, TestCase, When
from mta_policies.rules import Rules
from mta_policies.schema import Limits, Quota, Retry
from mta_policies.tree import Table, Tree, is_list_of_tables


class TenantLimits(msgspec.Struct, frozen=True):
    """What can be kept for one tenant's mail alone, per source and site: it shares connections with others'."""

    connections: Annotated[Count, about("Transactions under way at once; 0: no limit.")] = 0
    rate: Annotated[Rates, about('Transactions, as in [limits]: "20/s"; "none": no limit.')] = ()
    recipients_per_transaction: Annotated[Count, about("RCPTs in one transaction; 0: no limit.")] = 0
    message_size_max: Annotated[Bytes, about('Larger messages are not tried and bounce: "3MB"; "0B": no limit.')] = 0
    quota: Annotated[Quota | None, about("Messages in a calendar hour, day, week or month, as in [limits].")] = None
    window: Annotated[Windows, about("When this tenant's mail may go, as in [limits].")] = ()

    def as_limits(self) -> Limits:
        """The same, where all else has no limit."""
        return Limits(**{name: getattr(self, name) for name in self.__struct_fields__})


class TenantFile(msgspec.Struct, frozen=True):
    """What `tenants/TENANT/NAME.toml` may say."""

    limits: Annotated[TenantLimits, about("Kept by this tenant's mail, beside the policy's own.")] = TenantLimits()
    retry: Annotated[Retry, about("Instead of the policy's, key by key.")] = Retry()
    rules: Annotated[tuple[Rule, ...], about("Tried before all others; they act on this tenant's mail alone.")] = field(
        default=(), name="rule"
    )
    tests: Annotated[tuple[TestCase, ...], about("As in a policy.")] = field(default=(), name="test")


class ForTenant(NamedTuple):
    """What of a policy holds for one tenant's mail."""

    limits: Limits
    """The tenant's own, to be kept beside the policy's; no limit at all for most."""
    rules: Rules
    retry_tree: Tree | None
    """What the tenant's files say of [retry]; None: nothing."""


NO_LIMITS = Limits()


def everybody(rules: Rules) -> ForTenant:
    """What holds for a tenant without files."""
    return ForTenant(NO_LIMITS, rules, None)


def for_tenant(tree: Tree, below: tuple[Rule, ...], rules: Rules) -> ForTenant:
    """What the files of one tenant, read before and found right, make of a policy with these rules."""
    file = Reader(tree).read(TenantFile)
    if file.rules:
        rules = Rules(tuple(_over(file.rules, below)))
    retry = tree.branch(("retry",))
    return ForTenant(file.limits.as_limits(), rules, retry.under("retry") if retry.data else None)


def _over(rules: Sequence[Rule], below: Sequence[Rule]) -> Iterator[Rule]:
    """A tenant's rules before those below, as `Tree.with_below` lays them: one without a condition is the rule of its
    name there with other actions."""
    named = {rule.name: rule for rule in rules}
    same = {
        rule.name: structs.replace(named[rule.name], when=rule.when)
        for rule in below
        if rule.name in named and rule.when != When() == named[rule.name].when
    }
    yield from (rule for rule in rules if rule.name not in same)
    yield from (same.get(rule.name, rule) for rule in below if rule.name in same or rule.name not in named)


def with_scopes(tree: Tree) -> Tree:
    """The tree of a tenant's file whose actions without a scope are for the tenant."""
    rules = tree.data.get("rule")
    if not is_list_of_tables(rules):
        return tree
    return Tree({**tree.data, "rule": [_with_scopes(rule) for rule in rules]}, tree.places)


def _with_scopes(rule: Table) -> Table:
    then = rule.get("then")
    if not is_list_of_tables(then):
        return rule
    return {**rule, "then": [_with_scope(action) for action in then]}


def _with_scope(action: Table) -> Table:
    takes = ACTION_KEYS.get(str(action.get("action")), frozenset())
    return {"scope": TENANT_DEFAULT_SCOPE, **action} if "scope" in takes else action


def check_scopes(reader: Reader, rules: tuple[Rule, ...]) -> None:
    """A tenant's rule that would hold back other tenants' mail is a problem."""
    for i, rule in enumerate(rules):
        for j, action in enumerate(rule.then):
            path = ("rule", i, "then", j, "scope")
            if reader.is_good(*path) and "scope" in ACTION_KEYS[action.action] and action.scope not in TENANT_SCOPES:
                text = f"scope {action.scope} is others' mail too; a tenant's rule takes tenant, campaign or recipient"
                reader.fail(path, text)
