"""`mta policy`: which limits hold for whom, and where each of them is written.

`list` shows all policies, `show` every value and rule of one, `explain` (policy_explain.py) what holds for mail to an
address, `test` (policy_test.py) runs the tests that policy files bring along. Each other action has a file of its own
beside these.
"""

import argparse
import sys

from mta import config
from mta.cli import (
    EXIT_DONE,
    EXIT_WRONG,
    Subparsers,
    policy_explain,
    policy_reload,
    policy_replay,
    policy_simulate,
    policy_test,
    policy_warmup,
)
from mta.cli.policy_values import (
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
from mta.cli.rehearsal_options import loaded_config, policy_sets
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
    action = actions.add_parser("list", parents=[common], help="all policies")
    action.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[common], help="every value of a policy and where it is written")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--source", metavar="NAME", default="", help="as it holds for this source")
    show.add_argument("--tenant", metavar="NAME", default="", help="as it holds for mail of this tenant")
    show.set_defaults(run=_show)
    policy_explain.add(actions)
    policy_test.add(actions, common)
    policy_reload.add(actions)
    policy_warmup.add(actions)
    policy_replay.add(actions, common)
    policy_simulate.add(actions, common)


def _policies(file: str | None) -> PolicySet:
    """The policies of the configuration; where there is none and none was asked for, the shipped ones."""
    return policy_sets(loaded_config(file), None)[0].policies


# -- list --


def _list(args: argparse.Namespace) -> int:
    policies = _policies(args.config)
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
    if args.json:
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


def _show(args: argparse.Namespace) -> int:
    policies = _policies(args.config)
    policy = policies.policies.get(args.name)
    if policy is None:
        print(f"there is no policy {args.name}{nearest(args.name, policies.policies)}", file=sys.stderr)
        return EXIT_WRONG
    rows = [*head_rows(policies, policy), *value_rows(policies, policy, args.source, args.tenant)]
    rules = rule_rows(policy, args.tenant)
    if args.json:
        head = {"name": policy.name, "title": policy.title, "files": policy.files}
        print_json({**head, "values": objects(rows), "rules": objects(rules)})
        return EXIT_DONE
    print(f"{policy.name}: {policy.title}\n")
    print_table(["key", "value", "from"], [cells(row) for row in rows])
    print_rules(rules)
    if policy.source_patterns and not args.source:
        print(f"\nother values for sources {', '.join(policy.source_patterns)}: see --source NAME")
    if policy.tenant_trees and not args.tenant:
        print(f"\nother values for tenants {cut(', '.join(policy.tenant_trees))}: see --tenant NAME")
    return EXIT_DONE
