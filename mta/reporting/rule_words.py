"""Words for what a rule set off: what it does, in a line. Pure."""

from mta_policies import wording
from mta_policies.adapting import RULE as ADAPT
from mta_policies.firing import Firing
from mta_policies.policy import Policy


def effect_of(firing: Firing) -> str:
    """What a firing does: "10/min, 1 connection"; a probe with how far it has come."""
    match firing.action:
        case "suspend":
            return "nothing goes"
        case "alert":
            return "told, nothing else"
        case "probe":
            connections = int(firing.state.get("connections", 0))
            told = wording.several(connections, "connection")
            return f"probing with {told}" if connections else "silence, then one connection"
    return ", ".join(wording.slower(firing.effect))


def rule_written(policy: Policy, rule: str) -> str:
    """The file and line of a rule of a policy, or of a tenant's own; "" where there is none."""
    if rule == ADAPT:
        return str(policy.tree.place(("adapt",)))
    return next(filter(None, (policy.rule_origin(rule, tenant) for tenant in ("", *policy.tenants_with_rules))), "")
