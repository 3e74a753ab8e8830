"""Sound: what is wrong with a policy although each of its values is right, and what is right but looks like a slip.

Takes what was read and adds problems and warnings, each at its file and line.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from zoneinfo import ZoneInfo

from mta_policies.bounces import CATEGORIES
from mta_policies.located import Keys, Problem, meant, nearest
from mta_policies.policy import Policy
from mta_policies.reader import Reader
from mta_policies.rulebook import When, check_rules
from mta_policies.schema import Limits, PolicyFile, Retry
from mta_policies.tenants import TenantFile, check_scopes
from mta_policies.tree import Tree, is_list_of_tables

LIMITS = ("limits", "source_limits", "provider_limits")
"""The tables of a policy that hold limits."""

_SHARED_KEYS = frozenset({"connections", "connection_rate", "rate", "quota", "window"})
"""What can be kept over all sites: the other limits are of one connection or one transaction."""

_SOURCE_KEYS = ("limits", "source_limits", "retry")

EVERY_REPLY = "rule {} has no `when`, so it takes every reply and no rule below it is asked"


def check(reader: Reader, policy: Policy, file: PolicyFile) -> None:
    """A policy, with what it says for some sources."""
    _check_retry(reader, file.retry)
    for table in LIMITS:
        limits: Limits = getattr(file, table)
        _check_share(reader, (table,), limits, policy.owners, policy.files)
        _check_zones(reader, (table,), limits)
    _check_levels(reader)
    check_rules(reader, file.rules)
    _check_every_reply(reader, policy)
    _check_owners_of_slow(reader, policy)
    _check_adapt(reader, file)
    for pattern in policy.source_patterns:
        if reader.is_good("sources", pattern):
            _check_source(reader, policy, pattern)
    _check_tenants(reader, policy)


def _check_source(reader: Reader, policy: Policy, pattern: str) -> None:
    """What `[sources."..."]` makes of the whole."""
    table = reader.tree.get(("sources", pattern))
    given = [key for key in _SOURCE_KEYS if isinstance(table, dict) and key in table]
    whole_reader = Reader(policy.tree_with([pattern]))
    whole = whole_reader.read(PolicyFile)
    del whole_reader.problems[:], whole_reader.warnings[:]  # told already: what counts here is the whole
    if "retry" in given:
        _check_retry(whole_reader, whole.retry)
    for key, limits in (("limits", whole.limits), ("source_limits", whole.source_limits)):
        if key in given:
            _check_share(whole_reader, (key,), limits, policy.owners, policy.files)
            _check_zones(whole_reader, (key,), limits)
    reader.problems += whole_reader.problems
    reader.warnings += whole_reader.warnings


def _check_levels(reader: Reader) -> None:
    """Limits of one connection that stand where nothing keeps them."""
    sources = reader.tree.get(("sources",))
    tables: list[Keys] = [("source_limits",), ("provider_limits",)]
    tables += [("sources", name, "source_limits") for name in (sources if isinstance(sources, dict) else ())]
    for path in tables:
        given = reader.tree.get(path)
        for key in given if isinstance(given, dict) else ():
            if key not in _SHARED_KEYS and reader.is_good(*path, key):
                reader.warn((*path, key), f"{key} has no effect in [{path[-1]}]; write it in [limits]")


def check_tenant(reader: Reader, file: TenantFile) -> None:
    """A tenant's file by itself."""
    _check_retry(reader, file.retry)
    _check_zones(reader, ("limits",), file.limits.as_limits())
    check_rules(reader, file.rules)
    check_scopes(reader, file.rules)


def _check_adapt(reader: Reader, file: PolicyFile) -> None:
    """What lowers a rate must be there, and the rate too."""
    adapt = file.adapt
    known = {rule.name for rule in file.rules} | CATEGORIES.keys()
    for i, name in enumerate(adapt.on):
        if name not in known:
            text = f"on: {name} is neither a rule of this policy nor a category{nearest(name, known)}"
            reader.fail(("adapt", "on", i), text)
    if adapt.on and not (adapt.ceiling or file.limits.rate):
        reader.fail(("adapt",), "adapt: from which rate down? write ceiling, or a rate in [limits]")
    floor, ceiling = (min((rate.per_second for rate in rates), default=0.0) for rates in (adapt.floor, adapt.ceiling))
    places = [reader.tree.place(("adapt", key)).file for key in ("floor", "ceiling")]
    if adapt.ceiling and floor > ceiling and places[0] == places[1]:  # else one is default's, and the ceiling holds
        reader.warn(("adapt", "floor"), "floor: higher than the ceiling, so the rate never changes")


def _check_tenants(reader: Reader, policy: Policy) -> None:
    """Tenants' limits too are divided among owners."""
    if policy.owners == 1:
        return
    for tree in policy.tenant_trees.values():
        tenant_reader = Reader(tree)
        limits = tenant_reader.read(TenantFile).limits.as_limits()
        del tenant_reader.problems[:], tenant_reader.warnings[:]
        _check_share(tenant_reader, ("limits",), limits, policy.owners)
        reader.problems += tenant_reader.problems
        reader.warnings += tenant_reader.warnings


def _check_retry(reader: Reader, retry: Retry) -> None:
    """What only shows together in [retry]."""
    if reader.is_good("retry", "schedule") and (not retry.schedule or min(retry.schedule) < 1.0):
        reader.fail(("retry", "schedule"), "schedule: at least one time, and none under a second")
    if len({minute for window in retry.avoid for minute in window.minutes()}) == 60:
        reader.fail(("retry", "avoid"), "avoid: nothing is left of the hour")


def _check_share(reader: Reader, path: Keys, limits: Limits, owners: int, files: Sequence[str] = ()) -> None:
    """Each owner has its share of a limit: less than one connection or message would be none. `files`: where a slow
    rate is warned of; those of default were written for everybody."""
    if owners == 1:
        return
    if 0 < limits.connections < owners:
        text = f"connections = {limits.connections} cannot be shared by owners = {owners}: each needs at least one"
        reader.fail((*path, "connections"), text)
    for key, rates in (("connection_rate", limits.connection_rate), ("rate", limits.rate)):
        for rate in rates:
            if rate.count < owners:
                text = f'{key} = "{rate}" cannot be shared by owners = {owners}: each needs at least one'
                reader.fail((*path, key), text)
            elif rate.per_second < owners and (not files or reader.tree.place((*path, key)).file in files):
                text = (
                    f'{key} = "{rate}" is less than one a second for each of owners = {owners}: '
                    "after a pause each may begin with one at the same moment"
                )
                reader.warn((*path, key), text)


def _check_every_reply(reader: Reader, policy: Policy) -> None:
    """A rule without a condition, before others: these are never asked about what the other side says."""
    names = [rule.name for rule in policy.rulebook]
    for i, rule in enumerate(policy.rulebook[:-1]):
        if rule.when == When() and reader.tree.place(("rule", i)).file in policy.files:
            reader.warn(("rule", i), EVERY_REPLY.format(rule.name) + meant(rule.name, sorted(names[i + 1 :])))
    for tree in policy.tenant_trees.values():
        rules = tree.data.get("rule")
        for i, table in enumerate(rules if is_list_of_tables(rules) else []):
            if not table.get("when") and table.get("name") not in names:
                reader.warnings.append(tree.problem(("rule", i), EVERY_REPLY.format(table.get("name"))))


def _check_owners_of_slow(reader: Reader, policy: Policy) -> None:
    """A rule's slow is divided among owners too; where it leaves fewer connections, some owners have none. Of rules
    that are default's nobody is told: they are for everybody, and nobody wrote them here."""
    for i, rule in enumerate(policy.rulebook):
        few = [action.connections for action in rule.then if 0 < action.connections < policy.owners]
        if few and reader.tree.place(("rule", i)).file in policy.files:
            text = f"connections = {few[0]} is less than owners = {policy.owners}: meanwhile only so many workers send"
            reader.warn(("rule", i), text)


def _check_zones(reader: Reader, path: Keys, limits: Limits) -> None:
    """Time zones that this machine does not know."""
    named = [("window", window.zone) for window in limits.window]
    named += [("quota", limits.quota.zone)] if limits.quota is not None else []
    for key, zone in named:
        if not is_zone(zone):
            reader.fail((*path, key), f'{key}: there is no time zone "{zone}"; write "Asia/Tokyo" or "UTC"')


@lru_cache(maxsize=256)
def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # not found, not a name, a folder of the database
        return False
    return True


def twice_named(tree: Tree) -> list[Problem]:
    """Rules of one file that have one name: only one of them would be meant."""
    rules = tree.data.get("rule")
    seen: dict[object, int] = {}
    problems = []
    for i, rule in enumerate(rules if is_list_of_tables(rules) else []):
        name = rule.get("name")
        if isinstance(name, str) and seen.setdefault(name, i) != i:
            at = tree.place(("rule", seen[name]))
            problems.append(tree.problem(("rule", i), f"rule {name} is also at {at}; give it a name of its own"))
    return problems


def ties(policies: Mapping[str, Policy]) -> list[Problem]:
    """The same pattern in two policies: which one wins would be a matter of names."""
    warnings = []
    for key in ("domains", "mx"):
        seen: dict[str, str] = {}
        for name, policy in policies.items():
            patterns = policy.match.domains if key == "domains" else policy.match.mx
            for pattern in dict.fromkeys(patterns):
                first = seen.setdefault(pattern, name)
                if first != name:
                    at = policies[first].tree.place(("match", key))
                    text = f"{pattern} is also in {at}: a tie, and policy {first} wins by its name"
                    warnings.append(policy.tree.problem(("match", key), text))
    return warnings
