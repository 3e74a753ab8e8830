"""`mta policy explain`: what holds for mail to an address, and what the next message to it would wait for.

From the configuration: the route or policy that takes it and why, the site, the sources it may leave from, each limit
with its file and line, and the rules that could fire. From the running server: what rules have set off that is in force
for it, and what the next message would wait for, which value that is, and until when.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from mta import config
from mta.admin.pages import EXPLAINED_SOURCES_MAX, ExplainPage
from mta.cli import EXIT_DONE, EXIT_WRONG, Subparsers, reason_words, rule, tenant_sources, words
from mta.cli.asking import FAILURES, asking, options
from mta.cli.policy_values import (
    Row,
    RuleRow,
    cells,
    objects,
    print_json,
    print_rules,
    print_table,
    rule_rows,
    value_rows,
)
from mta.clock import SystemClock
from mta.config import Config
from mta.config.forms import Endpoint
from mta.handoff.placement import Destination, Placement
from mta.handoff.placement import Route as PlacementRoute
from mta.reporting.waiting import Outlook
from mta.resolve.errors import ResolveError
from mta.resolve.resolver import Resolver
from mta.resolve.sites import MailHosts, site_name
from mta.smtp.grammar import routing_domain
from mta_policies.layers import DEFAULT
from mta_policies.policy import Policy


def add(actions: Subparsers) -> None:
    """Describes the action to argparse."""
    explain = actions.add_parser("explain", parents=[options()], help="what holds for mail to an address, and why")
    explain.add_argument("address", metavar="ADDRESS", help="a recipient or a domain")
    explain.add_argument("--source", metavar="NAME", default="", help="for this source only")
    explain.add_argument("--tenant", metavar="NAME", default="", help="for mail of this tenant")
    explain.add_argument("--campaign", metavar="NAME", default="", help="for mail of this campaign")
    explain.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints what holds; 1 where the configuration or the question is wrong, or nobody knows where such mail goes."""
    loaded = config.load(args.config)
    try:
        sources = list(tenant_sources.weights(loaded, args.tenant, [args.source] if args.source else ()))
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    try:
        domain = routing_domain(args.address.rpartition("@")[2])
    except ValueError:
        print(f"{args.address or 'an empty address'} has no domain that mail could go to", file=sys.stderr)
        return EXIT_WRONG
    found = _find(loaded, domain)
    answer = _answer(loaded, found, args.address, domain, sources, args.tenant)
    now = _now(args, sources)
    if args.json:
        print_json(answer | ({"now_unknown": now} if isinstance(now, str) else {"now": msgspec.to_builtins(now)}))
    else:
        _print_answer(answer)
        print("", *map(words.printable, _now_lines(now, words.now_s())), sep="\n")
    return EXIT_DONE if found.destination else EXIT_WRONG


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


# -- the running server --


def _now(args: argparse.Namespace, sources: Sequence[str]) -> ExplainPage | str:
    """What the server says, or why it says nothing."""
    query = {"address": args.address, "tenant": args.tenant, "campaign": args.campaign}
    given = [(key, value) for key, value in query.items() if value]
    pages: list[ExplainPage] = []
    try:
        server = asking(args)
        names = sources or [""]
        for first in range(0, len(names), EXPLAINED_SOURCES_MAX):
            some = [("source", name) for name in names[first : first + EXPLAINED_SOURCES_MAX]]
            pages.append(server.get(f"/explain?{urlencode(given + some)}", ExplainPage))
    except FAILURES as error:
        return str(error)
    firings = {row.id: row for page in pages for row in page.firings}
    problems = dict.fromkeys(problem for page in pages for problem in page.problems)
    return ExplainPage([each for page in pages for each in page.outlooks], list(firings.values()), list(problems))


def _now_lines(now: ExplainPage | str, now_s: float) -> Iterator[str]:
    if isinstance(now, str):
        yield f"what is in force at this moment, and what the next message would wait for, is not known: {now}"
        return
    if now.firings:
        yield "in force for it now, by rules"
        yield from rule.table(now.firings, now_s)
    else:
        yield "no rule is in force for it"
    yield ""
    yield "the next message"
    for outlook in now.outlooks:
        yield from _outlook_lines(outlook, now_s)
    for problem in now.problems:
        yield f"  {problem}: what it knows is missing here"
    if not now.outlooks:
        yield "  no worker that answers has such mail"


def _outlook_lines(outlook: Outlook, now_s: float) -> Iterator[str]:
    whence = f"from {outlook.source}" if outlook.source else "from the system's own address"
    behind = f", behind {words.several(outlook.waiting, 'message')}" if outlook.waiting else ""
    if not outlook.waits:
        yield f"  {whence} goes {'when its turn comes' if behind else 'at once'}{behind} (worker {outlook.worker})"
        return
    for wait in outlook.waits:
        yield f"  {whence} waits for {wait.words}{behind} (worker {outlook.worker})"
        for sentence in reason_words.cause(wait.reason, outlook.policy):
            yield f"    {sentence}"
        if wait.reason.next_s:
            yield f"    Until {words.moment(wait.reason.next_s)}, {words.until(wait.reason.next_s, now_s)}."
        if remedy := reason_words.remedy(wait.reason):
            yield f"    {remedy}"
