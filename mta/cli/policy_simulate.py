"""`mta policy simulate`: how long will this campaign take, and what binds?

So many messages go to one provider by the policies of the configuration, and with `--policies` by those of another
folder as well, on a clock of its own. Nothing is sent, and no server need run.
"""

import argparse
import gc
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from mta.cli import (
    EXIT_DONE,
    EXIT_WRONG,
    Subparsers,
    rehearsal_options,
    rehearsal_page,
    rehearsal_report,
    tenant_sources,
    words,
)
from mta.cli.policy_values import print_json
from mta.cli.rehearsal_options import Policies, Watch
from mta.cli.rehearsal_origins import PolicyOrigins
from mta.cli.rehearsal_report import NEW, NOW, Run
from mta.config import Config
from mta_policies import units
from mta_policies.answers import SYSTEM_SOURCE
from mta_policies.capacity import capacity
from mta_policies.layers import DEFAULT
from mta_policies.located import nearest
from mta_policies.rehearsal.campaign import Campaign, simulate
from mta_policies.rehearsal.replay import Assumed, bin_of
from mta_policies.rehearsal.ways import Placed

MESSAGES_MAX = 1_000_000_000


class Asked(NamedTuple):
    """What is to be simulated."""

    campaign: Campaign
    provider: str
    assumed: Assumed


def add(actions: Subparsers, common: argparse.ArgumentParser) -> None:
    """Describes the action."""
    parser = actions.add_parser(
        "simulate",
        parents=[common],
        help="how long a campaign will take, and what binds",
        description="Lets a campaign to one provider go out on a clock of its own, by the policies of the configuration"
        " and by those of another folder beside them. Nothing is sent.",
    )
    parser.add_argument("--provider", metavar="NAME", required=True, help="a policy's name, or a domain that it names")
    parser.add_argument("--messages", metavar="N", type=_count, required=True, help="how many")
    parser.add_argument("--rate", metavar="RATE", default="", help="handed in at 100/s or 60000/h; all at once")
    parser.add_argument(
        "--source", metavar="NAME", action="append", help="from these, by the weights of their pool; those of the pool"
    )
    parser.add_argument(
        "--tenant", metavar="NAME", default="", help="whose mail it is: with the tenant's pool and limits"
    )
    parser.add_argument("--recipients", metavar="N", type=_count, default=1, help="of each message there; 1")
    parser.add_argument("--size", metavar="SIZE", default="", help="of each message, such as 100KB")
    parser.add_argument("--start", metavar="TIME", default="", help="such as 2026-12-01T08:00; now")
    parser.add_argument("--for", metavar="TIME", default="", dest="length", help="the simulation ends after so long")
    rehearsal_options.add_options(parser)
    rehearsal_options.add_model(parser, "otherwise they take all")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    """A number of things, written 1000000, 1_000_000 or 1,000,000."""
    digits = text.replace(",", "").replace("_", "")
    if not digits.isdecimal() or not 1 <= int(digits) <= MESSAGES_MAX:
        raise argparse.ArgumentTypeError(f"not a number from 1 to {MESSAGES_MAX:,}: {text}")
    return int(digits)


def run(args: argparse.Namespace) -> int:
    """Prints what comes of it; 1 where that cannot be said."""
    loaded = rehearsal_options.loaded_config(args.config)
    sets = rehearsal_options.policy_sets(loaded, args.policies)
    try:
        asked = _asked(args, loaded, sets)
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    gc.disable()  # a million objects come and go, none of them in a ring
    try:
        runs = _runs(asked, sets)
    finally:
        gc.enable()
    if args.json:
        print_json(_object(args, asked, runs))
    else:
        _print(args, asked, runs)
    if args.html:
        story = rehearsal_page.Story(
            title=f"{words.several(asked.campaign.messages, 'message')} to {asked.provider}",
            about=f"{_about(asked, args.rate)}. Nothing of this was sent: it is reckoned.",
            runs={NOW: "by the policies that you have", NEW: f"by those of {args.policies}"},
            taken=_taken(args, asked.assumed),
            is_clock=False,
        )
        return EXIT_DONE if rehearsal_options.write_page(args.html, rehearsal_page.page(story, runs)) else EXIT_WRONG
    return EXIT_DONE


def _asked(args: argparse.Namespace, loaded: Config | None, sets: list[Policies]) -> Asked:
    """What the arguments mean; ValueError where they mean nothing."""
    provider = _provider(args.provider, sets)
    match = sets[-1].policies.policies.get(provider, sets[0].policies.default).match
    domain = args.provider if args.provider != provider else next(iter(match.domains), provider)
    at_s = _moment_s(args.start) if args.start else float(round(words.now_s()))
    assumed = rehearsal_options.assumed(args)
    if args.length:
        assumed = assumed._replace(until_s=at_s + units.duration_s(args.length))
    campaign = Campaign(
        messages=args.messages,
        domain=domain.removeprefix("*."),
        weights=_weights(args, loaded),
        at_s=at_s,
        per_s=units.rate(args.rate).per_second if args.rate else 0.0,
        recipients=args.recipients,
        size=units.size_bytes(args.size) if args.size else 0,
        tenant=args.tenant,
    )
    return Asked(campaign, provider, assumed)


def _moment_s(text: str) -> float:
    """Unix seconds; ValueError where it is no date."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f'--start: not a date: {text}; write "2026-12-01T08:00" or "2026-12-01T08:00+09:00"') from None


def _provider(name: str, sets: list[Policies]) -> str:
    """The policy of this name, or the one that names this domain; ValueError where there is neither."""
    for each in sets:
        if name in each.policies.policies:
            return name
    for each in reversed(sets):
        policy = each.policies.by_domain(name.lower())
        if policy is not None:
            return policy.name
    known = {known for each in sets for known in each.policies.policies}
    raise ValueError(f"there is no policy {name}, and none names such a domain{nearest(name, known)}")


def _weights(args: argparse.Namespace, loaded: Config | None) -> Mapping[str, int]:
    """The sources that the mail leaves from, with their weights; ValueError where a name is none."""
    if loaded is None:
        return {SYSTEM_SOURCE: 1} if not args.source else dict.fromkeys(args.source, 1)
    return tenant_sources.weights(loaded, args.tenant, args.source or ())


def _runs(asked: Asked, sets: list[Policies]) -> list[Run]:
    """By the policies that there are, and by the others where there are any."""
    campaign = asked.campaign
    mail = campaign.messages * campaign.recipients
    watch = Watch(mail, [each.name for each in sets])
    places = [_placed(asked.provider, each) for each in sets]
    bin_s = bin_of(max(_least_s(asked, placed) for placed in places))
    runs = []
    for (name, policies), placed in zip(sets, places, strict=True):
        tally = simulate(campaign, placed, asked.assumed, ZoneInfo, bin_s, watch.of(name))
        runs.append(rehearsal_report.run_of(name, {asked.provider: tally}, PolicyOrigins(policies)))
    watch.clear()
    return runs


def _placed(provider: str, given: Policies) -> Placed:
    """Its mail by these policies: one that only the others have is `default` here."""
    policy = given.policies.policies.get(provider, given.policies.default)
    key = f"site:{provider}" if policy.name == DEFAULT else f"policy:{policy.name}"
    return Placed(key, policy, provider)


def _least_s(asked: Asked, placed: Placed) -> float:
    """So long it takes at least: as a measure for how fine the picture is."""
    campaign, assumed = asked.campaign, asked.assumed
    per_s = sum(
        capacity(placed.policy, source, assumed.delivery_s, assumed.connect_s).per_s for source in campaign.weights
    )
    return max(campaign.messages / per_s, campaign.messages / campaign.per_s if campaign.per_s else 0.0)


def _about(asked: Asked, rate: str) -> str:
    campaign = asked.campaign
    sources = [f"{name} (weight {weight})" if weight > 1 else name for name, weight in campaign.weights.items()]
    of = f" of {words.several(campaign.recipients, 'recipient')}" if campaign.recipients > 1 else ""
    pace = f"at {rate}" if rate else "all at once"
    return (
        f"{words.several(campaign.messages, 'message')}{of} to {asked.provider} from {', '.join(sources)}, handed in"
        f" {pace} from {words.moment(campaign.at_s)} on"
    )


def _taken(args: argparse.Namespace, assumed: Assumed) -> str:
    """What is taken for granted."""
    answers = f"answers as {args.provider_model}" if args.provider_model else "takes all"
    return f"{assumed.delivery_s:g} s a delivery; {assumed.connect_s:g} s a connection; the provider {answers}"


def _print(args: argparse.Namespace, asked: Asked, runs: list[Run]) -> None:
    start_s = asked.campaign.at_s
    print(_about(asked, args.rate))
    print(f"taken: {_taken(args, asked.assumed)}\n")
    print(*rehearsal_report.table(runs, is_of_one=True), sep="\n")
    for each in runs:
        found = each.providers[asked.provider]
        print(f"\n{each.name}: {rehearsal_report.outcome(found)}")
        for reason in rehearsal_report.reasons(found, lambda at_s: f"after {rehearsal_report.span(at_s - start_s)}"):
            print(f"  {reason}")
    if len(runs) > 1:
        now, new = (each.providers[asked.provider] for each in runs)
        print(f"\nnew against now: {rehearsal_report.difference(now, new)}")


def _object(args: argparse.Namespace, asked: Asked, runs: list[Run]) -> dict[str, object]:
    campaign, assumed = asked.campaign, asked.assumed
    return {
        "provider": asked.provider,
        "messages": campaign.messages,
        "recipients": campaign.recipients,
        "sources": dict(campaign.weights),
        "start": campaign.at_s,
        "rate_per_s": campaign.per_s,
        "delivery_s": assumed.delivery_s,
        "connect_s": assumed.connect_s,
        "provider_model": args.provider_model,
        **rehearsal_report.objects(runs)[0],
    }
