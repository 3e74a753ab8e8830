"""From tables to structs, with every problem at once.

A struct says all there is to say about its keys: name, type, default, text, and the form in which a value is
written ("5m" for a number of seconds). Where msgspec's own conversion stops at the first mistake, the reader
goes on: a bad value is replaced by its default, and the problem is told with file and line.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar, cast

import msgspec
from msgspec import inspect

from mta_policies.located import Keys, Place, Problem, nearest
from mta_policies.tree import Table, Tree

T = TypeVar("T")
Struct = TypeVar("Struct", bound=msgspec.Struct)


class Form(Generic[T]):
    """How a kind of value is written in TOML.

    `read` takes what TOML gives and the place where it was written, and raises ValueError; `write` is its
    opposite. `at_default`: the default is written text that must be read too (a path is relative to its file).
    """

    def __init__(
        self,
        name: str,
        read: Callable[[object, Place], T],
        write: Callable[[T], object],
        *,
        at_default: bool = False,
    ) -> None:
        self.name = name
        self.read = read
        self.write = write
        self.at_default = at_default


def text_form(name: str, read: Callable[[str], T], write: Callable[[T], object]) -> Form[T]:
    """A form that is written as a text."""

    def read_text(value: object, place: Place) -> T:
        if not isinstance(value, str):
            raise ValueError(f"expected {name}, got {shown(value)}")
        return read(value)

    return Form(name, read_text, write)


def form(one: Form[T]) -> msgspec.Meta:
    """Puts a form on a type: `Seconds = Annotated[float, form(DURATION)]`."""
    return msgspec.Meta(extra={"form": one})


def about(description: str) -> msgspec.Meta:
    """Puts its text on a field."""
    return msgspec.Meta(description=description)


class Key:
    """One key of a table as a struct's field describes it."""

    def __init__(self, field: inspect.Field) -> None:
        self.field_name = field.name
        self.name = field.encode_name
        self.required = field.required
        self.description = ""
        self.form: Form[object] | None = None
        self._field = field
        kind = field.type
        while isinstance(kind, inspect.Metadata):
            self.description = (kind.extra_json_schema or {}).get("description", self.description)
            self.form = (kind.extra or {}).get("form", self.form)
            kind = kind.type
        self.kind = kind
        item = kind.item_type if isinstance(kind, inspect.VarTupleType) else None
        self.item_form: Form[object] | None = (
            (item.extra or {}).get("form") if isinstance(item, inspect.Metadata) else None
        )

    @property
    def is_read_at_default(self) -> bool:
        """Its default is written text, or a table that may hold such."""
        return isinstance(self.kind, inspect.StructType) or bool(self.form and self.form.at_default)

    def default(self) -> object:
        """The default; for a required key something empty to go on with."""
        if self._field.default is not msgspec.NODEFAULT:
            return self._field.default
        if self._field.default_factory is not msgspec.NODEFAULT:
            return cast("Callable[[], object]", self._field.default_factory)()
        return _empty(self.kind)


def keys_of(struct: type[msgspec.Struct]) -> list[Key]:
    """The keys of a table, in the order in which they are written."""
    known = _KEYS.get(struct)
    if known is None:
        info = inspect.type_info(struct)
        assert isinstance(info, inspect.StructType)
        known = _KEYS[struct] = [Key(field) for field in info.fields]
    return known


_KEYS: dict[type[msgspec.Struct], list[Key]] = {}


class Known:
    """What was read of tables, by the table itself and not by what it holds."""

    def __init__(self, tables: Sequence[object], read: Sequence[object]) -> None:
        self._tables = list(tables)  # as long as they are there nothing else has their identity
        self._read = dict(zip(map(id, tables), read, strict=True))

    def get(self, table: object) -> object:
        """None: it is not known."""
        return self._read.get(id(table))


class Reader:
    """Reads one tree. `problems` and `warnings` gather; `bad` are the paths whose value was not taken.

    `known`: tables in lists that were read before and found right -> what came of them. Trees share these tables, as
    policies share `default`'s rules.
    """

    def __init__(self, tree: Tree, known: Known | None = None) -> None:
        self.tree = tree
        self._known = known
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.bad: set[Keys] = set()

    def read(self, struct: type[Struct], path: Keys = ()) -> Struct:
        """The struct for the table at this path; where there is none, all defaults."""
        table = self.tree.get(path)
        return self._table(struct, {} if table is None else table, path)

    def fail(self, path: Keys, message: str) -> None:
        """Notes a problem with the value at this path."""
        self.bad.add(path)
        self.problems.append(self.tree.problem(path, message))

    def warn(self, path: Keys, message: str) -> None:
        self.warnings.append(self.tree.problem(path, message))

    def is_good(self, *path: str | int) -> bool:
        """Neither this value nor anything in or around it had a problem: what hangs together may be looked at."""
        return not any(bad[: len(path)] == path[: len(bad)] for bad in self.bad)

    def _table(self, struct: type[Struct], table: object, path: Keys) -> Struct:
        if not isinstance(table, dict):
            self._refuse(path, f"expected a table, got {shown(table)}", lambda: None)
            return struct(**{key.field_name: self._default(key) for key in keys_of(struct)})
        given = cast("Table", table)
        keys = {key.name: key for key in keys_of(struct)}
        for name in given:
            if name not in keys:
                self.fail((*path, name), f"unknown key {name}{nearest(name, keys)}")
        values: dict[str, object] = {}
        for key in keys.values():
            here = (*path, key.name)
            if key.name in given:
                values[key.field_name] = self._value(
                    key.kind, key.form, given[key.name], here, partial(self._default, key)
                )
            elif key.required:
                self.fail(here, f"{key.name} is missing")
                values[key.field_name] = self._default(key)
            else:
                values[key.field_name] = self._default(key)
        return struct(**values)

    def _default(self, key: Key) -> object:
        """The default, with what in it must be read."""
        value = key.default()
        if key.form and key.form.at_default:
            return key.form.read(value, self.tree.place(()))
        if isinstance(value, msgspec.Struct) and isinstance(key.kind, inspect.StructType):
            inner = {one.field_name: self._default(one) for one in keys_of(type(value)) if one.is_read_at_default}
            return msgspec.structs.replace(value, **inner)
        return value

    def _value(
        self, kind: inspect.Type, how: Form[object] | None, raw: object, path: Keys, default: Callable[[], object]
    ) -> object:
        while isinstance(kind, inspect.Metadata):
            how = (kind.extra or {}).get("form", how)
            kind = kind.type
        if how:
            try:
                return how.read(raw, self.tree.place(path))
            except ValueError as error:
                return self._refuse(path, str(error), default)
        if isinstance(kind, inspect.StructType):
            return self._table(kind.cls, raw, path)
        if isinstance(kind, inspect.VarTupleType):
            return self._list(kind.item_type, raw, path, default)
        if isinstance(kind, inspect.DictType):
            return self._mapping(kind.value_type, raw, path, default)
        if isinstance(kind, inspect.UnionType):
            return self._value(kind.types[0], None, raw, path, default)  # only `X | None`: nobody writes a None
        if isinstance(kind, inspect.AnyType):
            return raw
        if wrong := _wrong(kind, raw):
            return self._refuse(path, wrong, default)
        return raw

    def _refuse(self, path: Keys, message: str, default: Callable[[], object]) -> object:
        names = [key for key in path if isinstance(key, str)]
        self.fail(path, f"{names[-1]}: {message}" if names else message)
        return default()

    def _list(self, item: inspect.Type, raw: object, path: Keys, default: Callable[[], object]) -> object:
        if not isinstance(raw, list):
            what = "a list of tables, [[...]]" if isinstance(item, inspect.StructType) else "a list"
            return self._refuse(path, f"expected {what}, got {shown(raw)}", default)
        items = cast("list[object]", raw)
        taken = [self._item(item, value, (*path, i)) for i, value in enumerate(items)]
        return tuple(value for value in taken if value is not None)

    def _item(self, item: inspect.Type, raw: object, path: Keys) -> object:
        known = None if self._known is None else self._known.get(raw)
        return self._value(item, None, raw, path, lambda: None) if known is None else known

    def _mapping(self, item: inspect.Type, raw: object, path: Keys, default: Callable[[], object]) -> object:
        if not isinstance(raw, dict):
            return self._refuse(path, f"expected a table, got {shown(raw)}", default)
        pairs = cast("Table", raw).items()
        taken = {name: self._value(item, None, value, (*path, name), lambda: None) for name, value in pairs}
        return {name: value for name, value in taken.items() if value is not None}


def _wrong(kind: inspect.Type, raw: object) -> str:
    """Why a plain value is not of its kind; "" where it is."""
    if isinstance(kind, inspect.LiteralType):
        if raw in kind.values:
            return ""
        hint = nearest(raw, [str(value) for value in kind.values]) if isinstance(raw, str) else ""
        return f"expected {' or '.join(shown(value) for value in kind.values)}, got {shown(raw)}{_only_guess(hint)}"
    if isinstance(kind, inspect.BoolType):
        return "" if isinstance(raw, bool) else f"expected true or false, got {shown(raw)}"
    if isinstance(kind, inspect.StrType):
        return "" if isinstance(raw, str) else f"expected a text, got {shown(raw)}"
    if isinstance(kind, inspect.IntType):
        if isinstance(raw, bool) or not isinstance(raw, int):
            return f"expected a whole number, got {shown(raw)}"
        if kind.ge is not None and raw < kind.ge:
            return f"expected at least {kind.ge}, got {raw}"
        if kind.le is not None and raw > kind.le:
            return f"expected at most {kind.le}, got {raw}"
        return ""
    raise AssertionError(f"no reader for {kind}")


def _only_guess(hint: str) -> str:
    """The values themselves are listed already."""
    return hint if "did you mean" in hint else ""


def _empty(kind: inspect.Type) -> object:
    if isinstance(kind, inspect.StrType):
        return ""
    if isinstance(kind, inspect.DictType):
        return {}
    return 0 if isinstance(kind, inspect.IntType) else ()


def shown(value: object) -> str:
    """A value as one would write it in TOML, short enough for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + (value if len(value) <= 60 else value[:57] + "...") + '"'
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, Sequence):
        return "a list"
    return str(value)
