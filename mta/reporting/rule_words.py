"""Words for what a rule set off: what it does, in a line. Pure."""

from mta_policies.adapting import RULE as ADAPT
from mta_policies.firing import Firing
from mta_policies.policy import Policy
from mta_policies.units import render_rates, render_share


def effect_of(firing: Firing) -> str:
    """What a firing does: "10/min, 1 connection"; a probe with how far it has come."""
    effect = firing.effect
    match firing.action:
        case "suspend":
            return "nothing goes"
        case "alert":
            return "told, nothing else"
        case "probe":
            connections = int(firing.state.get("connections", 0))
            return f"probing with {_connections(connections)}" if connections else "silence, then one connection"
    words: list[str] = []
    if effect.rate:
        words.append(_rates(effect.rate))
    if effect.connections:
        words.append(_connections(effect.connections))
    if effect.connection_rate:
        words.append(f"{_rates(effect.connection_rate)} new connections")
    if effect.messages_per_connection:
        words.append(f"{effect.messages_per_connection:,} messages a connection")
    if effect.recipients_per_transaction:
        words.append(f"{effect.recipients_per_transaction:,} recipients a transaction")
    if effect.factor:
        words.append(f"{render_share(effect.factor)} of what the policy allows")
    return ", ".join(words)


def rule_written(policy: Policy, rule: str) -> str:
    """The file and line of a rule of a policy, or of a tenant's own; "" where there is none."""
    if rule == ADAPT:
        return str(policy.tree.place(("adapt",)))
    return next(filter(None, (policy.rule_origin(rule, tenant) for tenant in ("", *policy.tenants_with_rules))), "")


def _connections(count: int) -> str:
    return f"{count:,} connection{'' if count == 1 else 's'}"


def _rates(rates: object) -> str:
    text = render_rates(rates)  # type: ignore[arg-type]
    return text if isinstance(text, str) else " and ".join(text)
