"""`mta policy`: which limits hold for whom, and where each of them is written.

`list` shows all policies, `show` every value and rule of one, `explain` what holds for mail to an address: the route or
policy that takes it and why, the site, the sources it may leave from, each limit with its file and line, and the
rules that could fire. `test` (policy_test.py) runs the tests that policy files bring along.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mta import config
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, policy_replay, policy_test, words
from mta.cli.policy_values import (
    Row,
    RuleRow,
    cells,
    cut,
    head_rows,
    objects,
    or_none,
    print_json,
    print_rules,
    print_table,
    rule_rows,
    shown_rate,
    value_rows,
)
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
from mta_policies.layers import DEFAULT, PolicySet
from mta_policies.located import nearest
from mta_policies.policy import Policy


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
    show.add_argument("--tenant", metavar="NAME", default="", help="as it holds for mail of this tenant")
    explain = actions.add_parser("explain", parents=[common], help="what holds for mail to an address, and why")
    explain.add_argument("address", metavar="ADDRESS", help="a recipient or a domain")
    explain.add_argument("--source", metavar="NAME", default="", help="for this source only")
    explain.add_argument("--tenant", metavar="NAME", default="", help="for mail of this tenant")
    explain.add_argument("--campaign", metavar="NAME", default="", help="for mail of this campaign")
    policy_test.add(actions, common)
    policy_replay.add(actions, common)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints what was asked for; 1 where the configuration is wrong or a name is unknown."""
    if args.action == "list":
        return _list(_policies(args.config), as_json=args.json)
    if args.action == "test":
        return policy_test.run(args)
    if args.action == "replay":
        return policy_replay.run(args)
    if args.action == "show":
        return _show(_policies(args.config), args.name, args.source, args.tenant, as_json=args.json)
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
            "rate": shown_rate(policy.limits),
            "files": list(policy.files),
        }
        for policy in policies.policies.values()
    ]
    if as_json:
        print_json(rows)
        return EXIT_DONE
    header = ["policy", "connections", "messages each", "rate", "tls", "for", "files"]
    table = [
        [
            str(row["name"]),
            or_none(row["connections"]),
            or_none(row["messages_per_connection"]),
            str(row["rate"]),
            str(row["tls"]),
            cut(_matches(policies.policies[str(row["name"])])),
            ", ".join(policies.policies[str(row["name"])].files),
        ]
        for row in rows
    ]
    print_table(header, table)
    return EXIT_DONE


def _matches(policy: Policy) -> str:
    if policy.name == DEFAULT:
        return "everything else"
    return (
        ", ".join([*policy.match.domains, *(f"MX {pattern}" for pattern in policy.match.mx)]) or "routes that name it"
    )


# -- show --


def _show(policies: PolicySet, name: str, source: str, tenant: str, *, as_json: bool) -> int:
    policy = policies.policies.get(name)
    if policy is None:
        print(f"there is no policy {name}{nearest(name, policies.policies)}", file=sys.stderr)
        return EXIT_WRONG
    rows = [*head_rows(policies, policy), *value_rows(policies, policy, source, tenant)]
    rules = rule_rows(policy, tenant)
    if as_json:
        head = {"name": policy.name, "title": policy.title, "files": policy.files}
        print_json({**head, "values": objects(rows), "rules": objects(rules)})
        return EXIT_DONE
    print(f"{policy.name}: {policy.title}\n")
    print_table(["key", "value", "from"], [cells(row) for row in rows])
    print_rules(rules)
    if policy.source_patterns and not source:
        print(f"\nother values for sources {', '.join(policy.source_patterns)}: see --source NAME")
    if policy.tenant_trees and not tenant:
        print(f"\nother values for tenants {cut(', '.join(policy.tenant_trees))}: see --tenant NAME")
    return EXIT_DONE


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
    answer = _answer(loaded, found, args.address, domain, sources, args.tenant)
    if args.json:
        print_json(answer)
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


def _answer(
    loaded: Config, found: Found, address: str, domain: str, sources: Sequence[str], tenant: str
) -> dict[str, object]:
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
            {"sources": names, "values": objects(value_rows(loaded.policy_set, destination.policy, names[0], tenant))}
            for names in _alike(destination.policy, sources)
        ]
        answer["rules"] = objects(rule_rows(destination.policy, tenant))
    return answer


def _alike(policy: Policy, sources: Iterable[str]) -> list[list[str]]:
    """The sources in groups for which the same values hold."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for source in sources:
        groups.setdefault(tuple(policy.patterns_for(source)), []).append(source)
    return list(groups.values())


def _print_answer(answer: dict[str, object]) -> None:
    lines: list[tuple[str, str]] = []
    for key in ("address", "domain", "route", "mx", "site", "trouble", "policy", "why", "owners", "tls"):
        value = answer.get(key)
        if key == "mx" and isinstance(value, list):
            shown = ", ".join(f"{preference} {host}" for preference, host in value)
            value = f"none; its own address: {value[0][1]}" if answer["implicit"] else shown
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value is not None:
            lines.append((key, str(value)))
    print(*words.pairs(lines), sep="\n")
    groups = answer.get("sources")
    for group in groups if isinstance(groups, list) else []:
        print(f"\nfor source {', '.join(group['sources'])}")
        print_table(["key", "value", "from"], [cells(Row(**row)) for row in group["values"]])
    rules = answer.get("rules")
    print_rules([RuleRow(**row) for row in rules] if isinstance(rules, list) else [])
