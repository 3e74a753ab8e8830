"""What a policy file may say, in one page: writes docs/guide/policy-reference.md from the tables of `mta_policies`.

`make docs` writes it, a test compares. Names, texts, defaults and forms are those that the reader checks by.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mta_policies.bounces import CATEGORIES, HARD
from mta_policies.reader import Key, keys_of
from mta_policies.rulebook import ACTION_KEYS, SCOPES, Action, Rule, TestCase, Trigger, When
from mta_policies.schema import Adapt, Limits, Match, PolicyFile, Quota, Retry, SourceOverride
from mta_policies.tenants import TenantFile, TenantLimits

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guide" / "policy-reference.md"

HEAD = """\
# What a policy may say

Written by `make docs` from the tables that policy files are checked by; not by hand. [Policies](policies.md) tells how
to use it, [Providers](providers.md) shows what the shipped ones say. The defaults are those of the server; the shipped
`default.toml` is under all policies and sets most of them.
"""

TABLES: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("The file", "", PolicyFile),
    ("`match`", "", Match),
    (
        "`[limits]`, `[source_limits]`, `[provider_limits]`",
        "The same keys in each; what bounds one connection, one transaction or one message has an effect in `[limits]`"
        " alone.",
        Limits,
    ),
    ("`quota`", "", Quota),
    ("`[retry]`", "", Retry),
    ("`[adapt]`", "", Adapt),
    ('`[sources."NAME"]`', "NAME may have stars; of several that match the longest stands.", SourceOverride),
    ("`[[rule]]`", "", Rule),
    ("`when`", "All that is given must match, of a list any.", When),
    ("`trigger`", "It counts for each scope key by itself.", Trigger),
    ("`then`", "A list of actions.", Action),
    ("`[[test]]`", "`mta policy test` compares what is given.", TestCase),
    ("`tenants/TENANT/NAME.toml`", "", TenantFile),
    ("`[limits]` of `tenants/TENANT/NAME.toml`", "", TenantLimits),
)


def render() -> str:
    """docs/guide/policy-reference.md."""
    out = [HEAD]
    for title, told, struct in TABLES:
        out += [f"## {title}", ""]
        out += [told, ""] if told else []
        out += [*_table("key", "default", "", rows=_keys(struct)), ""]
        if struct is Action:
            out += [*_table("action", "takes", rows=_actions()), "", *_table("scope", "is", rows=_quoted(SCOPES)), ""]
    out += ["## Categories", "", "Hard, with a permanent code: there is no use in trying again, ever.", ""]
    out += _table("category", "", rows=_quoted({name: _category(name, text) for name, text in CATEGORIES.items()}))
    return "\n".join(out) + "\n"


def _table(*heads: str, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _keys(struct: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    for key in keys_of(struct):
        yield f"`{key.name}`", _default(key), key.description.replace("|", "\\|")


def _default(key: Key) -> str:
    """As one would write it; "" for what is simply not there."""
    if key.required:
        return "required"
    value = key.default()
    if value is None or isinstance(value, msgspec.Struct) or value in ({}, "", ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if key.form is not None:
        written = key.form.write(value) if value else ""
        return f'`"{written}"`' if isinstance(written, str) and written else f"`{written}`" if written else ""
    if isinstance(value, tuple):
        items = [key.item_form.write(item) if key.item_form else item for item in value]
        return f"`{render_list(items)}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`" if value else ""


def render_list(items: Iterable[object]) -> str:
    """A list of texts as TOML has it."""
    return "[" + ", ".join(f'"{item}"' for item in items) + "]"


def _actions() -> Iterator[tuple[str, str]]:
    order = [key.name for key in keys_of(Action)]
    for action, keys in ACTION_KEYS.items():
        yield f"`{action}`", ", ".join(f"`{key}`" for key in order if key in keys and key != "action") or "nothing"


def _quoted(texts: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in texts.items():
        yield f"`{name}`", text


def _category(name: str, text: str) -> str:
    return f"{text} Hard." if name in HARD else text


def main() -> int:
    """Writes docs/guide/policy-reference.md."""
    PAGE.write_text(render(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
