"""Where the limits and rules that a rehearsal names are written: file and line, and the value."""

from mta.cli.policy_values import cells, value_rows
from mta.reporting.rule_words import rule_written
from mta_policies.adapting import RULE as ADAPT
from mta_policies.layers import PolicySet
from mta_policies.rehearsal.tally import Where


class PolicyOrigins:
    """Of one set of policies."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._values: dict[tuple[Where, str], dict[str, tuple[str, str]]] = {}

    def limit(self, cause: str, where: Where) -> tuple[str, str]:
        """Value and place; "" where nobody wrote it, as of a site that does not answer."""
        if where.policy not in self._policies.policies:
            return "", ""
        kind, _, rest = cause.partition(" ")
        if kind == "rule":
            return "", self.rule(rest.rpartition(" (")[0], where.policy)
        if kind == "tenant":
            own = self._of(where, rest)
            key = next((key for key in own if key.startswith(f"{cause}: ")), "")
            return own.get(key, ("", ""))
        values = self._of(where, "")
        return values.get(cause) or values.get(cause.replace(".connections", ".connection_rate"), ("", ""))

    def _of(self, where: Where, tenant: str) -> dict[str, tuple[str, str]]:
        """All values that hold there, by key."""
        values = self._values.get((where, tenant))
        if values is None:
            policy = self._policies.policies[where.policy]
            rows = map(cells, value_rows(self._policies, policy, where.source, tenant))
            values = self._values[where, tenant] = {key: (value, origin) for key, value, origin in rows}
        return values

    def rule(self, rule: str, policy: str) -> str:
        """Place of a rule, of everybody's or of a tenant's; "" where it is not there."""
        found = self._policies.policies.get(policy)
        if found is None:
            return ""
        if rule == ADAPT:
            return self._policies.origin(policy, ("adapt", "on"))
        return rule_written(found, rule)
