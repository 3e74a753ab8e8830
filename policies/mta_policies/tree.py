"""Trees: tables whose every value remembers its file and line, laid over each other or joined.

`overlay` is how policies are layered: the upper file's value stands, tables are merged. `join` is how
configuration files are included: tables add up, and a value given twice is a problem that names both places.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeGuard, cast

from mta_policies.located import Document, Keys, Place, Problem

Table = dict[str, object]

BUILT_IN = "built in"
"""In place of where a value was written, where no file says it."""


class Tree(NamedTuple):
    """Values and where each was written. Trees are never changed, only made from others."""

    data: Table
    places: dict[Keys, Place]

    def place(self, path: Keys) -> Place:
        """Where the value was written; for one that was not, where the nearest table around it was."""
        for end in range(len(path), -1, -1):
            if found := self.places.get(path[:end]):
                return found
        return Place("", 0)

    def origin(self, path: Keys) -> Place | None:
        """Where exactly this value was written; None where no file says it."""
        return self.places.get(path)

    def written(self, path: Keys) -> str:
        """The same in words: "mta.toml:12", or `BUILT_IN`."""
        place = self.origin(path)
        return str(place) if place else BUILT_IN

    def problem(self, path: Keys, message: str) -> Problem:
        return Problem(*self.place(path), message)

    def get(self, path: Keys) -> object:
        """The value at this path; None where there is none."""
        value: object = self.data
        for key in path:
            if isinstance(value, Mapping):
                value = cast("Mapping[object, object]", value).get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = cast("list[object]", value)[key]
            else:
                return None
        return value

    def branch(self, path: Keys) -> "Tree":
        """The table at this path as a tree of its own; an empty one where there is none."""
        table = self.get(path)
        if not isinstance(table, dict):
            return Tree({}, {(): self.place(path)})
        size = len(path)
        places = {keys[size:]: place for keys, place in self.places.items() if keys[:size] == path}
        places.setdefault((), self.place(path))
        return Tree(cast("Table", table), places)

    def without(self, *keys: str) -> "Tree":
        """The same tree without these keys of the outermost table."""
        data = {key: value for key, value in self.data.items() if key not in keys}
        return Tree(data, {path: place for path, place in self.places.items() if not path or path[0] not in keys})

    def only(self, key: str) -> "Tree":
        """The same tree with nothing but this key of the outermost table."""
        return self.without(*(one for one in self.data if one != key))

    def index_of(self, key: str, name: str) -> int | None:
        """Which table of this list of tables has this name; None where none has."""
        tables = self.data.get(key)
        names = [table.get("name") for table in tables] if is_list_of_tables(tables) else []
        return names.index(name) if name in names else None

    def with_below(self, key: str, lower: "Tree", kept: str) -> "Tree":
        """The same tree, in whose list of tables `key` the lower one's follow, but for those with a name of its own.

        A table of its own that says nothing of `kept` is the lower one of its name with other values: it has what that
        one says of it, and stands in its place.
        """
        own, below = self.data.get(key, []), lower.data.get(key)
        if not (isinstance(own, list) and is_list_of_tables(below)):
            return self
        named = {name: i for i, table in enumerate(own) if (name := _name(table))}
        same = {j: named[name] for j, table in enumerate(below) if (name := _name(table)) in named and table.get(kept)}
        same = {j: i for j, i in same.items() if not own[i].get(kept)}
        stays = [i for i in range(len(own)) if i not in same.values()]
        ours: dict[str | int, int] = {i: at for at, i in enumerate(stays)}
        theirs: dict[str | int, int] = {}
        tables: list[object] = [own[i] for i in stays]
        for j, table in enumerate(below):
            if j in same:
                ours[same[j]] = len(tables)
                tables.append({**own[same[j]], kept: table[kept]})
            elif _name(table) not in named:
                theirs[j] = len(tables)
                tables.append(table)
        places = dict(self.places) if not same else {_moved(keys, key, ours): at for keys, at in self.places.items()}
        for keys, place in lower.places.items():
            if len(keys) > 1 and keys[0] == key:
                if keys[1] in theirs:
                    places[key, theirs[keys[1]], *keys[2:]] = place
                elif keys[1] in same and keys[2:3] == (kept,):
                    places[key, ours[same[keys[1]]], *keys[2:]] = place
        return Tree({**self.data, key: tables}, places)

    def under(self, *keys: str) -> "Tree":
        """The same tree as a table in another one: `tree.under("limits")` holds it as `limits`."""
        data: Table = self.data
        for key in reversed(keys):
            data = {key: data}
        places = {keys[:end]: self.place(()) for end in range(len(keys))}
        return Tree(data, places | {(*keys, *path): place for path, place in self.places.items()})


def _name(table: object) -> str:
    """What a table is called; "" where it has no name."""
    name = table.get("name") if isinstance(table, dict) else None
    return name if isinstance(name, str) else ""


def _moved(keys: Keys, key: str, to: dict[str | int, int]) -> Keys:
    """The path to the same value, where the tables of the list `key` stand elsewhere."""
    return (key, to[keys[1]], *keys[2:]) if len(keys) > 1 and keys[0] == key else keys


def tree_of(document: Document) -> Tree:
    """A file as a tree."""
    return Tree(document.data, {path: Place(document.file, line) for path, line in document.lines.items()})


def overlay(lower: Tree, upper: Tree) -> Tree:
    """Both, merged table by table; where both have a value the upper one stands, a list as a whole."""
    merged: list[Keys] = [()]
    hidden: set[Keys] = set()
    data = _overlay(lower.data, upper.data, (), merged, hidden)
    places = {keys: place for keys, place in lower.places.items() if not _is_within(keys, hidden)} | upper.places
    for path in merged:
        places[path] = upper.place(path)
    return Tree(data, places)


def _overlay(below: Table, above: Table, path: Keys, merged: list[Keys], hidden: set[Keys]) -> Table:
    """`merged`: where both have a table; `hidden`: whose lower value does not count."""
    table = {**below, **above}
    for key in below.keys() & above.keys():
        here = (*path, key)
        low, high = below[key], above[key]
        if isinstance(low, dict) and isinstance(high, dict):
            merged.append(here)
            table[key] = _overlay(cast("Table", low), cast("Table", high), here, merged, hidden)
        else:
            hidden.add(here)
    return table


def _is_within(keys: Keys, paths: set[Keys]) -> bool:
    return bool(paths) and any(keys[:end] in paths for end in range(1, len(keys) + 1))


def join(first: Tree, second: Tree, problems: list[Problem]) -> Tree:
    """Both, as if one file followed the other: tables and lists of tables add up, anything else given in both
    is a problem."""
    places = dict(first.places)
    return Tree(_join(first.data, second.data, (), (), places, second, problems), places)


def _join(
    here: Table, there: Table, path: Keys, old: Keys, places: dict[Keys, Place], second: Tree, problems: list[Problem]
) -> Table:
    """Joins the table at `path`, which stood at `old` in the second tree."""
    merged = dict(here)
    for key, value in there.items():
        new_path, old_path = (*path, key), (*old, key)
        present = merged.get(key)
        if key not in merged:
            merged[key] = value
            _move_places(second, old_path, new_path, places)
        elif isinstance(present, dict) and isinstance(value, dict):
            tables = cast("Table", present), cast("Table", value)
            merged[key] = _join(*tables, new_path, old_path, places, second, problems)
        elif is_list_of_tables(present) and is_list_of_tables(value):
            earlier, later = cast("list[object]", present), cast("list[object]", value)
            merged[key] = [*earlier, *later]
            for i in range(len(later)):
                _move_places(second, (*old_path, i), (*new_path, len(earlier) + i), places)
        else:
            text = f"{key} is already given at {places.get(new_path, places[()])}; a value may be given only once"
            problems.append(second.problem(old_path, text))
    return merged


def is_list_of_tables(value: object) -> TypeGuard[list[Table]]:
    """`[[x]]` and nothing else: lists of plain values do not add up."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _move_places(source: Tree, old: Keys, new: Keys, places: dict[Keys, Place]) -> None:
    size = len(old)
    places.update(((*new, *keys[size:]), place) for keys, place in source.places.items() if keys[:size] == old)
