"""The shipped policies in one page: writes docs/guide/providers.md. `make docs` writes it, a test compares.

Shown is what each file says by itself; what it leaves open is `default`'s, whose rules are asked after its own.
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mta_policies import layers, wording
from mta_policies.layers import DEFAULT
from mta_policies.policy import Policy

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "policies"
LIST = ROOT / "docs" / "guide" / "providers.md"

HEAD = """\
# Providers

Written by `make docs` from the files in `policies/`; not by hand.

What the server knows of mailbox providers before you tell it anything: {count} policies. Beside every number its file
says who published it, and when that was seen; "ours" is a number that nobody publishes, chosen on the safe side.
`mta policy explain` shows which one holds for an address, [Policies](policies.md) how to lay values of your own over
them. What a policy leaves open is `default`'s.

| provider | recognised by | limits of its own | rules |
|---|---|---|---|"""

LIMITS = {
    "connections": "{} connections",
    "connection_rate": "{} new connections",
    "messages_per_connection": "{} messages a connection",
    "rate": "{} messages",
    "recipients_per_transaction": "{} recipients a transaction",
    "recipients_per_connection": "{} recipients a connection",
    "message_size_max": "{} a message",
}
"""Words for limits; their order is the page's. `mix_domains` is told where it is false."""


def render(folder: Path = FOLDER) -> str:
    """docs/guide/providers.md."""
    policies = layers.load(None, shipped=folder)
    names = [DEFAULT, *sorted(policies.policies.keys() - {DEFAULT}, key=lambda name: _key(policies.policies[name]))]
    files = {name: tomllib.loads((folder / f"{name}.toml").read_text("utf-8")) for name in names}
    out = [HEAD.format(count=len(names))]
    out += [_row(policies.policies[name], files[name]) for name in names]
    for name in names:
        if files[name].get("rule"):
            out += _rules(policies.policies[name], files[name])
    return "\n".join(out) + "\n"


def _key(policy: Policy) -> str:
    return policy.title.lstrip("@").casefold()


def _row(policy: Policy, file: dict[str, Any]) -> str:
    rules = len(file.get("rule", []))
    cells = [
        f"[{policy.title}](../../policies/{policy.name}.toml)",
        "; ".join(_recognised(policy)) or "nothing else matched",
        "; ".join(_limits(file)) or "none",
        f"[{rules}](#{policy.name})" if rules else "0",
    ]
    return f"| {' | '.join(cells)} |"


def _recognised(policy: Policy) -> Iterator[str]:
    if policy.match.mx:
        yield f"MX {_codes(policy.match.mx)}"
    if policy.match.domains:
        yield _codes(policy.match.domains)


def _limits(file: dict[str, Any]) -> Iterator[str]:
    own = list(_told(file.get("limits", {})))
    if own:
        yield ", ".join(own)
    over_all = list(_told(file.get("source_limits", {})))
    if over_all:
        yield f"over all its sites {', '.join(over_all)}"
    if file.get("tls") == "required":
        yield "TLS"
    if avoid := file.get("retry", {}).get("avoid"):
        yield f"no retries at {_codes(avoid)}"


def _told(limits: dict[str, Any]) -> Iterator[str]:
    for key, words in LIMITS.items():
        value = limits.get(key)
        if value:
            yield words.format(f"{value:,}" if isinstance(value, int) else value)
    if limits.get("mix_domains") is False:
        yield "one domain a transaction"


def _rules(policy: Policy, file: dict[str, Any]) -> Iterator[str]:
    own = {rule["name"] for rule in file["rule"]}
    yield from ("", f'<a id="{policy.name}"></a>', "", f"## {policy.title}", "")
    yield from ("| reply | rule | what is done |", "|---|---|---|")
    for rule in policy.rulebook:
        if rule.name in own:
            condition = wording.condition(rule.when).replace("|", "\\|")
            deeds = wording.deeds(rule) if rule.then or rule.name not in policy.adapt.on else []
            adapted = ["the rate falls, and rises again"] if rule.name in policy.adapt.on else []
            yield f"| `{condition}` | `{rule.name}` | {'; '.join([*deeds, *adapted])} |"


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def main() -> int:
    """Writes docs/guide/providers.md."""
    LIST.write_text(render(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
