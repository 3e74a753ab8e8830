"""Writes mta.toml: every key with its text and default, from the structs, so that the two cannot differ.

A line that begins with `# ` is text; one that begins with `#` and no blank is an example, which is not in force.
"""

import textwrap
from datetime import date
from pathlib import Path
from typing import cast

import msgspec
from msgspec import inspect

from mta.config.forms import Endpoint
from mta.config.settings import Dkim, Pool, Route, Settings, Source, Tenant, Warmup
from mta_policies.cross_limit import CrossLimit
from mta_policies.reader import Form, Key, keys_of
from mta_policies.schema import Quota
from mta_policies.units import Rate
from mta_policies.windows import window

COLUMNS = 110

HEADER = """\
# The configuration of mta, with every key at its default: an empty file starts the same server.
# Made by `mta.config.render()` from the texts in mta/config/settings.py; `mta check` checks a file of your own.
#
# Durations are "30s", "5m", "1h", "3d"; sizes "512KB", "50MB" (powers of 1000) or "64KiB" (powers of 1024).
# Secrets may be given as { env = "NAME" } or { file = "path" }. Relative paths are relative to the file that
# names them. Lines that begin with "# " are text; take away a "#" without a blank to put a line in force.
"""

EXAMPLES: dict[str, msgspec.Struct] = {
    "route": Route(domains=("*.corp.example", "example.net"), hosts=(Endpoint("10.0.0.5", 25),), policy="default"),
    "source": Source(name="out-1", ipv4="192.0.2.10", ehlo="out-1.example.com"),
    "pool": Pool(name="default", sources={"out-1": 3, "out-2": 1}),
    "tenant": Tenant(name="shop", senders=("*@shop.example",)),
    "limit": CrossLimit(
        per="tenant",
        rate=(Rate(100, 1),),
        quota=Quota(300_000, "day", "Asia/Tokyo"),
        window=(window("08:00-22:00 Asia/Tokyo"),),
    ),
    "warmup": Warmup(
        source="out-1",
        plan=(50, 100, 500, 1_000, 5_000, 10_000, 50_000),
        start=date(2026, 12, 1),
        providers={"google": (20, 40, 80, 160, 500, 2_000)},
        overflow_pool="default",
    ),
    "dkim": Dkim(domain="example.com", selector="s2026", key=Path("keys/example.com.pem")),
}
"""What is shown of tables that do not exist by default."""


def render() -> str:
    """The text of the root mta.toml."""
    settings = Settings()
    blocks = [HEADER]
    plain = [key for key in keys_of(Settings) if not _struct_of(key)]
    blocks.append(_lines(settings, plain, live=True))
    for key in keys_of(Settings):
        struct = _struct_of(key)
        if struct:
            blocks.append(_section(key, struct, getattr(settings, key.field_name)))
    return "\n".join(blocks)


def _section(key: Key, struct: type[msgspec.Struct], value: object) -> str:
    """One table: as it is by default, or as a commented example."""
    is_list = isinstance(value, tuple)
    shown = EXAMPLES.get(key.name) or (value[0] if isinstance(value, tuple) else value)
    live = key.name not in EXAMPLES
    header = f"[[{key.name}]]" if is_list else f"[{key.name}]"
    return f"{_text(key.description)}{'' if live else '#'}{header}\n{_lines(shown, keys_of(struct), live=live)}"


def _lines(struct: object, keys: list[Key], *, live: bool) -> str:
    out = []
    for key in keys:
        out.append(_text(key.description))
        lines = _assignment(key.name, _toml(_written(key, getattr(struct, key.field_name))))
        out += [f"{'' if live else '#'}{line}\n" for line in lines]
    return "".join(out)


def _text(text: str) -> str:
    return textwrap.fill(text, COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) + "\n"


def _assignment(name: str, value: str) -> list[str]:
    """`name = value`, a long list over several lines."""
    if len(name) + len(value) + 3 <= COLUMNS or not value.startswith("["):
        return [f"{name} = {value}"]
    items = textwrap.wrap(value[1:-1], COLUMNS - 4, break_long_words=False, break_on_hyphens=False)
    return [f"{name} = [", *(f"    {line}" for line in items), "]"]


def _struct_of(key: Key) -> type[msgspec.Struct] | None:
    """The struct of a key that is a table or a list of tables."""
    kind = key.kind
    if isinstance(kind, inspect.VarTupleType):
        kind = kind.item_type
    return kind.cls if isinstance(kind, inspect.StructType) and key.form is None else None


def _written(key: Key, value: object) -> object:
    """A value as TOML holds it."""
    return key.form.write(value) if key.form else _plain(value, key.item_form)


def _plain(value: object, form: Form[object] | None) -> object:
    if isinstance(value, msgspec.Struct):
        return {key.name: _written(key, getattr(value, key.field_name)) for key in keys_of(type(value))}
    if isinstance(value, dict):
        return {name: _plain(one, form) for name, one in cast("dict[str, object]", value).items()}
    if isinstance(value, tuple) and not isinstance(value, Endpoint):
        return [_plain(item, form) for item in cast("tuple[object, ...]", value)]
    return form.write(value) if form else value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
