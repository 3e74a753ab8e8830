"""`mta policy`: which limits hold for whom, and where each of them is written.

`list` shows all policies, `show` every value of one, `explain` what holds for mail to an address: the route or
policy that takes it and why, the site, the sources it may leave from, and each limit with its file and line.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mta import config
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers
from mta.clock import SystemClock
from mta.config import Config
from mta.config.forms import Endpoint
from mta.handoff.placement import Destination, Placement
from mta.handoff.placement import Route as PlacementRoute
from mta.resolve.errors import ResolveError
from mta.resolve.resolver import Resolver
from mta.resolve.sites import MailHosts, site_name
from mta.smtp.grammar import routing_domain
from mta_policies import layers
from mta_policies.layers import BUILT_IN, DEFAULT, PolicySet
from mta_policies.located import nearest
from mta_policies.reader import Key, keys_of
from mta_policies.schema import Limits, Policy, Retry
from mta_policies.units import NO_RATE

CELL_CHARS_MAX = 60  # a longer list of domains would push the rest of the table out of sight

_TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("limits", Limits),
    ("source_limits", Limits),
    ("provider_limits", Limits),
    ("retry", Retry),
)


class Row(NamedTuple):
    """One value in force."""

    key: str
    value: object
    """As TOML would hold it."""
    origin: str


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "policy",
        help="show policies, and which one holds for an address",
        description="Shows the policies in force, shipped and your own, with the file and line of every value.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help=f"default: {config.DEFAULT_FILE}")
    common.add_argument("--json", action="store_true", help="print JSON")
    actions.add_parser("list", parents=[common], help="all policies")
    show = actions.add_parser("show", parents=[common], help="every value of a policy and where it is written")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--source", metavar="NAME", default="", help="as it holds for this source")
    explain = actions.add_parser("explain", parents=[common], help="what holds for mail to an address, and why")
    explain.add_argument("address", metavar="ADDRESS", help="a recipient or a domain")
    explain.add_argument("--source", metavar="NAME", default="", help="for this source only")
    explain.add_argument("--tenant", metavar="NAME", default="", help="for mail of this tenant")
    explain.add_argument("--campaign", metavar="NAME", default="", help="for mail of this campaign")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for; 1 where the configuration is wrong or a name is unknown."""
    if args.action == "list":
        return _list(_policies(args.config), as_json=args.json)
    if args.action == "show":
        return _show(_policies(args.config), args.name, args.source, as_json=args.json)
    return _explain(args)


def _policies(file: str | None) -> PolicySet:
    """The policies of the configuration; where there is none and none was asked for, the shipped ones."""
    if file is None and not Path(config.DEFAULT_FILE).exists():
        print(f"no {config.DEFAULT_FILE} here: the shipped policies", file=sys.stderr)
        return layers.load(None)
    return config.load(file or config.DEFAULT_FILE).policy_set


# -- list --


def _list(policies: PolicySet, *, as_json: bool) -> int:
    rows = [
        {
            "name": policy.name,
            "title": policy.title,
            "domains": list(policy.match.domains),
            "mx": list(policy.match.mx),
            "owners": policy.owners,
            "tls": policy.tls,
            "connections": policy.limits.connections,
            "messages_per_connection": policy.limits.messages_per_connection,
            "rate": _shown_rate(policy.limits),
            "files": list(policy.files),
        }
        for policy in policies.policies.values()
    ]
    if as_json:
        _print_json(rows)
        return EXIT_DONE
    header = ["policy", "connections", "messages each", "rate", "tls", "for", "files"]
    table = [
        [
            str(row["name"]),
            _or_none(row["connections"]),
            _or_none(row["messages_per_connection"]),
            str(row["rate"]),
            str(row["tls"]),
            _cut(_matches(policies.policies[str(row["name"])])),
            ", ".join(policies.policies[str(row["name"])].files),
        ]
        for row in rows
    ]
    _print_table(header, table)
    return EXIT_DONE


def _matches(policy: Policy) -> str:
    if policy.name == DEFAULT:
        return "everything else"
    return (
        ", ".join([*policy.match.domains, *(f"MX {pattern}" for pattern in policy.match.mx)]) or "routes that name it"
    )


# -- show --


def _show(policies: PolicySet, name: str, source: str, *, as_json: bool) -> int:
    policy = policies.policies.get(name)
    if policy is None:
        print(f"there is no policy {name}{nearest(name, policies.policies)}", file=sys.stderr)
        return EXIT_WRONG
    rows = [*_head_rows(policies, policy), *_rows(policies, policy, source)]
    if as_json:
        _print_json({"name": policy.name, "title": policy.title, "files": policy.files, "values": _objects(rows)})
        return EXIT_DONE
    print(f"{policy.name}: {policy.title}\n")
    _print_table(["key", "value", "from"], [_cells(row) for row in rows])
    if policy.source_patterns and not source:
        print(f"\nother values for sources {', '.join(policy.source_patterns)}: see --source NAME")
    return EXIT_DONE


def _head_rows(policies: PolicySet, policy: Policy) -> list[Row]:
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


def _rows(policies: PolicySet, policy: Policy, source: str) -> list[Row]:
    """Limits and retry as they hold for a source ("": for any), each with its origin; what nobody limits is left
    out of source_limits and provider_limits."""
    limits, source_limits, retry = policy.for_source(source)
    values = {
        "limits": limits,
        "source_limits": source_limits,
        "provider_limits": policy.provider_limits,
        "retry": retry,
    }
    rows = []
    for table, struct in _TABLES:
        for key in keys_of(struct):
            origin = policies.origin(policy.name, (table, key.name), source)
            if origin != BUILT_IN or (table in ("limits", "retry") and key.name != "quota"):
                rows.append(Row(f"{table}.{key.name}", _written(key, getattr(values[table], key.field_name)), origin))
    return rows


def _written(key: Key, value: object) -> object:
    """A value as one writes it in a policy file."""
    if isinstance(value, msgspec.Struct):
        return {one.name: _written(one, getattr(value, one.field_name)) for one in keys_of(type(value))}
    if key.form:
        return key.form.write(value)
    if isinstance(value, tuple):
        return [key.item_form.write(item) if key.item_form else item for item in value]
    return value


# -- explain --


def _explain(args: argparse.Namespace) -> int:
    loaded = config.load(args.config or config.DEFAULT_FILE)
    sources = _sources(loaded, args.tenant, args.source)
    if isinstance(sources, str):
        print(sources, file=sys.stderr)
        return EXIT_WRONG
    try:
        domain = routing_domain(args.address.rpartition("@")[2])
    except ValueError:
        print(f"{args.address or 'an empty address'} has no domain that mail could go to", file=sys.stderr)
        return EXIT_WRONG
    found = _find(loaded, domain)
    answer = _answer(loaded, found, args.address, domain, sources)
    if args.json:
        _print_json(answer)
    else:
        _print_answer(answer)
    return EXIT_DONE if found.destination else EXIT_WRONG


def _sources(loaded: Config, tenant: str, source: str) -> list[str] | str:
    """The sources that the mail may leave from, or what is wrong with the question."""
    names = [one.name for one in loaded.sources]
    tenants = {one.name: one for one in loaded.tenants}
    if source and source not in names:
        return f"there is no source {source}{nearest(source, names)}"
    if tenant and tenant not in tenants:
        return f"there is no tenant {tenant}{nearest(tenant, tenants)}"
    if source:
        return [source]
    pool_name = tenants[tenant].pool if tenant else config.DEFAULT_POOL
    pool = next(one for one in loaded.pools if one.name == pool_name)
    return [name for name, weight in pool.sources.items() if weight]


class Found(NamedTuple):
    """Where mail for a domain goes."""

    destination: Destination | None
    reason: str
    hosts: MailHosts | None
    trouble: str
    """Why there are no hosts."""


def _find(loaded: Config, domain: str) -> Found:
    policies = loaded.policy_set
    routes = [PlacementRoute(route.domains, route.hosts, route.policy) for route in loaded.routes]
    placement = Placement(policies, routes, workers=1, me=0)
    decided = placement.decided(domain)
    if decided and decided.route:
        number = routes.index(decided.route)
        reason = f"[[route]] at {loaded.origin('route', number, 'domains')} comes before any MX"
        return Found(decided, f"{reason}; {_route_policy(loaded, number, decided, domain)}", None, "")
    hosts, trouble = asyncio.run(_resolve(loaded, domain))
    if decided:
        at = policies.origin(decided.policy.name, ("match", "domains"))
        return Found(decided, f"{at} names the domain, which wins over its MX", hosts, trouble)
    if hosts is None:
        return Found(None, "no policy names the domain, and there are no MX hosts to match", None, trouble)
    destination = placement.by_mx(hosts.names, site_name(hosts.names))
    if destination.policy.name == DEFAULT:
        return Found(destination, "no policy matches the domain or all of its MX hosts", hosts, "")
    at = policies.origin(destination.policy.name, ("match", "mx"))
    return Found(destination, f"{at} matches every MX host of the domain", hosts, "")


def _route_policy(loaded: Config, number: int, decided: Destination, domain: str) -> str:
    if loaded.routes[number].policy:
        return f"its policy is named at {loaded.origin('route', number, 'policy')}"
    if loaded.policy_set.by_domain(domain):
        return f"{loaded.policy_set.origin(decided.policy.name, ('match', 'domains'))} names the domain"
    return "it names no policy, and none names the domain"


async def _resolve(loaded: Config, domain: str) -> tuple[MailHosts | None, str]:
    """The domain's mail hosts, or why they are not known."""
    resolver = make_resolver(loaded)
    try:
        return await resolver.mail_hosts(domain), ""
    except ResolveError as error:
        return None, str(error.reply)
    finally:
        await resolver.close()


def make_resolver(loaded: Config) -> Resolver:
    """As the workers have it; a test puts another in its place."""
    return Resolver(
        nameservers=[str(server) for server in loaded.dns.nameservers],
        clock=SystemClock(),
        prohibited=loaded.delivery.prohibited_networks,
    )


def _answer(loaded: Config, found: Found, address: str, domain: str, sources: Sequence[str]) -> dict[str, object]:
    answer: dict[str, object] = {"address": address, "domain": domain}
    destination = found.destination
    if destination and destination.route:
        answer["route"] = [str(Endpoint(*host)) for host in destination.route.hosts]
    if found.hosts:
        answer["mx"] = [[host.preference, host.name] for host in found.hosts.hosts]
        answer["implicit"] = found.hosts.implicit
        answer["site"] = site_name(found.hosts.names)
    if found.trouble:
        answer["trouble"] = found.trouble
    answer["policy"] = destination.policy.name if destination else None
    answer["why"] = found.reason
    if destination:
        answer["owners"] = destination.policy.owners
        answer["tls"] = destination.policy.tls
        answer["sources"] = [
            {"sources": names, "values": _objects(_rows(loaded.policy_set, destination.policy, names[0]))}
            for names in _alike(destination.policy, sources)
        ]
    return answer


def _alike(policy: Policy, sources: Iterable[str]) -> list[list[str]]:
    """The sources in groups for which the same values hold."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for source in sources:
        groups.setdefault(tuple(policy.patterns_for(source)), []).append(source)
    return list(groups.values())


def _print_answer(answer: dict[str, object]) -> None:
    lines = []
    for key in ("address", "domain", "route", "mx", "site", "trouble", "policy", "why", "owners", "tls"):
        value = answer.get(key)
        if key == "mx" and isinstance(value, list):
            shown = ", ".join(f"{preference} {host}" for preference, host in value)
            value = f"none; its own address: {value[0][1]}" if answer["implicit"] else shown
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value is not None:
            lines.append([key, str(value)])
    _print_table(None, lines)
    groups = answer.get("sources")
    for group in groups if isinstance(groups, list) else []:
        print(f"\nfor source {', '.join(group['sources'])}")
        _print_table(["key", "value", "from"], [_cells(Row(**row)) for row in group["values"]])


# -- tables --


def _cells(row: Row) -> list[str]:
    return [row.key, _shown(row), row.origin]


def _shown(row: Row) -> str:
    value = row.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return _cut(", ".join(map(str, value))) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {one}" for key, one in value.items())
    return "no limit" if value in (0, NO_RATE) else str(value)


def _shown_rate(limits: Limits) -> str:
    return ", ".join(map(str, limits.rate)) or "no limit"


def _or_none(count: object) -> str:
    return str(count) if count else "no limit"


def _cut(text: str) -> str:
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 3] + "..."


def _objects(rows: Iterable[Row]) -> list[dict[str, object]]:
    return [row._asdict() for row in rows]


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _print_table(header: list[str] | None, rows: list[list[str]]) -> None:
    """Columns as wide as they must be, two blanks apart."""
    lines = [header, *rows] if header else rows
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
