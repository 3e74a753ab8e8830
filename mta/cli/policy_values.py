"""The values of a policy as `mta policy` shows them: a row for each key and each rule, with the place it comes from."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from mta.cli import words
from mta.cli.words import Column
from mta_policies import wording
from mta_policies.layers import DEFAULT, PolicySet
from mta_policies.policy import Policy
from mta_policies.reader import Key, keys_of
from mta_policies.schema import Adapt, Limits, Retry
from mta_policies.tenants import TenantLimits
from mta_policies.tree import BUILT_IN
from mta_policies.units import NO_RATE, render_size

CELL_CHARS_MAX = 60  # a longer list of domains would push the rest of the table out of sight

_TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("limits", Limits),
    ("source_limits", Limits),
    ("provider_limits", Limits),
    ("retry", Retry),
    ("adapt", Adapt),
)
_UNSAID = frozenset({"quota", "window", "message_size_max"})
"""Keys of [limits] that are shown only where they are written: most policies have none of them."""

_NO_LIMIT = (0, NO_RATE, render_size(0))


_RULE_COLUMNS = (Column("rule"), Column("about", cut=True), Column("does", cut=True), Column("from"))


class Row(NamedTuple):
    """One value in force."""

    key: str
    value: object
    """As TOML would hold it."""
    origin: str


class RuleRow(NamedTuple):
    """One rule that may fire."""

    name: str
    about: str
    does: list[str]
    origin: str


def head_rows(policies: PolicySet, policy: Policy) -> list[Row]:
    """Whose mail it is for, and what holds for all of it."""
    origin = policies.origin
    rows = (
        []
        if policy.name == DEFAULT
        else [
            Row("match.domains", list(policy.match.domains), origin(policy.name, ("match", "domains"))),
            Row("match.mx", list(policy.match.mx), origin(policy.name, ("match", "mx"))),
        ]
    )
    rows.append(Row("owners", policy.owners, origin(policy.name, ("owners",))))
    rows.append(Row("tls", policy.tls, origin(policy.name, ("tls",))))
    return rows


def value_rows(policies: PolicySet, policy: Policy, source: str, tenant: str = "") -> list[Row]:
    """Limits, retry and [adapt] as they hold for a source and a tenant ("": for any), each with its origin; what nobody
    limits is left out of source_limits and provider_limits. A tenant's own limits are kept beside the others."""
    limits, source_limits, _ = policy.for_source(source)
    values: dict[str, msgspec.Struct] = {
        "limits": limits,
        "source_limits": source_limits,
        "provider_limits": policy.provider_limits,
        "retry": policy.retry_for(tenant, source),
        "adapt": policy.adapt,
    }
    rows = []
    for table, struct in _TABLES:
        whose = tenant if table == "retry" else ""
        for key in keys_of(struct):
            origin = policies.origin(policy.name, (table, key.name), source, whose)
            is_told = table == "retry" or (table == "limits" and key.name not in _UNSAID)
            is_told = is_told or (table == "adapt" and bool(policy.adapt.on))
            if origin != BUILT_IN or is_told:
                rows.append(Row(f"{table}.{key.name}", _written(key, getattr(values[table], key.field_name)), origin))
    return rows + list(_tenant_rows(policy, tenant))


def _tenant_rows(policy: Policy, tenant: str) -> Iterator[Row]:
    """What a tenant's files limit."""
    tree = policy.tenant_trees.get(tenant)
    if tree is None:
        return
    own = policy.for_tenant(tenant).limits
    for key in keys_of(TenantLimits):
        if place := tree.origin(("limits", key.name)):
            yield Row(f"tenant {tenant}: limits.{key.name}", _written(key, getattr(own, key.field_name)), str(place))


def rule_rows(policy: Policy, tenant: str = "") -> list[RuleRow]:
    """The rules for a tenant's mail ("": for any), in the order in which they are tried."""
    return [
        RuleRow(rule.name, wording.condition(rule.when), wording.deeds(rule), policy.rule_origin(rule.name, tenant))
        for rule in policy.for_tenant(tenant).rules.in_order
    ]


def _written(key: Key, value: object) -> object:
    """A value as one writes it in a policy file."""
    if isinstance(value, msgspec.Struct):
        return {one.name: _written(one, getattr(value, one.field_name)) for one in keys_of(type(value))}
    if key.form:
        return key.form.write(value)
    if isinstance(value, tuple):
        return [key.item_form.write(item) if key.item_form else item for item in value]
    return value


# -- for people and for programs --


def objects(rows: Iterable[Row] | Iterable[RuleRow]) -> list[dict[str, object]]:
    return [row._asdict() for row in rows]


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))


def cells(row: Row) -> list[str]:
    """A value's line of a table."""
    return [row.key, _shown(row), row.origin]


def print_rules(rows: Sequence[RuleRow]) -> None:
    """A table under a heading; nothing where there are no rules."""
    if rows:
        print("\nrules, in the order in which they are tried")
        table = [[row.name, words.printable(row.about), "; ".join(row.does), row.origin] for row in rows]
        print(*words.table(_RULE_COLUMNS, table), sep="\n")


def _shown(row: Row) -> str:
    value = row.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return cut(", ".join(map(str, value))) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {one}" for key, one in value.items())
    return "no limit" if value in _NO_LIMIT else str(value)


def shown_rate(limits: Limits) -> str:
    return ", ".join(map(str, limits.rate)) or "no limit"


def or_none(count: object) -> str:
    return str(count) if count else "no limit"


def cut(text: str) -> str:
    """Short enough for a cell."""
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 3] + "..."


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Whole, also on a terminal that is narrower."""
    print(*words.table([Column(heading) for heading in header], rows), sep="\n")
