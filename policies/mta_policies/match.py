"""Matching: which policy a domain or a set of MX hosts belongs to.

A pattern is a name, or "*.x" for any name under x at any depth. The exact name wins, then the longest pattern;
of equal ones the policy that comes first by name (`layers` warns of it). A look-up walks the labels of the
name, not the patterns, so that a thousand policies cost what ten cost.
"""

from collections.abc import Iterable, Sequence


class Index:
    """Patterns of many policies. Add in the order of names: what is there first stays."""

    def __init__(self) -> None:
        self._exact: dict[str, list[str]] = {}
        self._under: dict[str, list[str]] = {}

    def add(self, policy_name: str, patterns: Iterable[str]) -> None:
        for pattern in patterns:
            table, key = (self._under, pattern[2:]) if pattern.startswith("*.") else (self._exact, pattern)
            names = table.setdefault(key, [])
            if policy_name not in names:
                names.append(policy_name)

    def find(self, name: str) -> str | None:
        """The policy with the strongest pattern for this name (lower case, no dot at the end)."""
        if found := self._exact.get(name):
            return found[0]
        dot = name.find(".")
        while dot >= 0:
            if found := self._under.get(name[dot + 1 :]):
                return found[0]
            dot = name.find(".", dot + 1)
        return None

    def find_all(self, names: Sequence[str]) -> str | None:
        """The policy that matches every one of these names; of several the one whose weakest match is strongest."""
        weakest: dict[str, int] = {}
        for i, name in enumerate(names):
            strengths = self._strengths(name.lower().rstrip("."))
            if i == 0:
                weakest = strengths
            else:
                weakest = {
                    policy: min(strengths[policy], old) for policy, old in weakest.items() if policy in strengths
                }
            if not weakest:
                return None
        return min(weakest, key=lambda policy: (-weakest[policy], policy)) if weakest else None

    def _strengths(self, name: str) -> dict[str, int]:
        """Every policy that matches the name, with the length of its strongest pattern."""
        strengths = {policy: len(name) + 2 for policy in self._exact.get(name, ())}
        dot = name.find(".")
        while dot >= 0:
            for policy in self._under.get(name[dot + 1 :], ()):
                strengths.setdefault(policy, len(name) - dot)
            dot = name.find(".", dot + 1)
        return strengths


def name_matches(pattern: str, name: str) -> bool:
    """Whether a source's name matches a pattern in which every star stands for anything: "new-*"."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    if not name.startswith(first) or len(name) < len(first) + len(rest[-1]) or not name.endswith(rest[-1]):
        return False
    at, end = len(first), len(name) - len(rest[-1])
    for part in rest[:-1]:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
