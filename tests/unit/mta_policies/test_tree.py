"""Trees laid over each other and joined, with the origin of every value."""

from hypothesis import given
from hypothesis import strategies as st

from mta_policies.located import Place, Problem, parse
from mta_policies.tree import Table, Tree, join, overlay, tree_of


def _tree(text: str, file: str) -> Tree:
    return tree_of(parse(text, file))


LOWER = _tree('title = "low"\n[limits]\nrate = "1/s"\nlist = [1, 2]\n[limits.deep]\na = 1\n', "low.toml")
UPPER = _tree("[limits]\nlist = [3]\nnew = true\n[limits.deep]\nb = 2\n", "up.toml")


def test_the_upper_value_stands_and_tables_are_merged() -> None:
    """Key by key; a list is replaced as a whole."""
    tree = overlay(LOWER, UPPER)

    assert tree.data == {
        "title": "low",
        "limits": {"rate": "1/s", "list": [3], "deep": {"a": 1, "b": 2}, "new": True},
    }


def test_every_value_knows_the_file_that_it_came_from() -> None:
    """Also behind an overlay, and places inside a replaced value are gone."""
    tree = overlay(LOWER, UPPER)

    assert tree.origin(("limits", "rate")) == Place("low.toml", 3)
    assert tree.origin(("limits", "list")) == Place("up.toml", 2)
    assert tree.origin(("limits", "list", 1)) is None
    assert tree.origin(("limits", "deep", "a")) == Place("low.toml", 6)
    assert tree.origin(("limits", "deep", "b")) == Place("up.toml", 5)


def test_the_place_of_what_is_not_there_is_the_table_around_it() -> None:
    """So that a missing key can be complained of somewhere."""
    assert LOWER.place(("limits", "missing", "x")) == Place("low.toml", 2)
    assert LOWER.place(("nothing",)) == Place("low.toml", 1)


def test_a_branch_is_a_tree_of_its_own() -> None:
    """Paths are shortened, origins stay; a branch that is not there is empty."""
    branch = LOWER.branch(("limits",))

    assert branch.data == {"rate": "1/s", "list": [1, 2], "deep": {"a": 1}}
    assert branch.origin(("deep", "a")) == Place("low.toml", 6)
    assert LOWER.branch(("title",)).data == {}


def test_without_leaves_out_keys_and_their_places() -> None:
    """What a policy does not take from default is gone as if it were not written."""
    tree = LOWER.without("limits")

    assert tree.data == {"title": "low"}
    assert tree.origin(("limits", "rate")) is None


def test_joined_tables_and_lists_of_tables_add_up() -> None:
    """As if one file followed the other; indexes move along with their places."""
    first = _tree('[queue]\na = 1\n[[route]]\nname = "x"\n', "1.toml")
    second = _tree('[queue]\nb = 2\n[[route]]\nname = "y"\nhosts = ["h"]\n', "2.toml")
    problems: list[Problem] = []

    tree = join(first, second, problems)

    assert problems == []
    assert tree.data == {"queue": {"a": 1, "b": 2}, "route": [{"name": "x"}, {"name": "y", "hosts": ["h"]}]}
    assert tree.place(("route", 1, "hosts", 0)) == Place("2.toml", 5)
    assert tree.place(("route", 0)) == Place("1.toml", 3)


def test_a_value_given_twice_names_both_places() -> None:
    """Scalars and plain lists do not add up: which one would count?"""
    first = _tree("workers = 1\n[dns]\nnameservers = []\n", "1.toml")
    second = _tree("\nworkers = 1\n[dns]\nnameservers = []\n", "2.toml")
    problems: list[Problem] = []

    tree = join(first, second, problems)

    assert [(problem.file, problem.line) for problem in problems] == [("2.toml", 2), ("2.toml", 4)]
    assert "1.toml:1" in problems[0].message
    assert "1.toml:3" in problems[1].message
    assert tree.data == first.data


LEAVES = st.one_of(st.integers(), st.lists(st.integers(), max_size=2))
TABLES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(LEAVES, inner), max_size=3),
    max_leaves=6,
)


def _bare(data: Table) -> Tree:
    return Tree(data, {(): Place("x", 1)})


@given(TABLES, TABLES, TABLES)
def test_layers_may_be_merged_in_any_grouping(a: Table, b: Table, c: Table) -> None:
    """(a under b) under c is a under (b under c) wherever no plain value and table meet at one key."""
    left = overlay(overlay(_bare(a), _bare(b)), _bare(c)).data
    right = overlay(_bare(a), overlay(_bare(b), _bare(c))).data

    assert left == right or _kinds_meet(a, b, c)


def _kinds_meet(*tables: Table) -> bool:
    for key in {key for table in tables for key in table}:
        values = [table[key] for table in tables if key in table]
        inner = [value for value in values if isinstance(value, dict)]
        if inner and (len(inner) < len(values) or _kinds_meet(*inner)):
            return True
    return False


@given(TABLES, TABLES)
def test_overlay_changes_neither_of_its_trees(a: Table, b: Table) -> None:
    """Trees are values: what was merged is still what it was."""
    before = repr(a), repr(b)

    overlay(_bare(a), _bare(b))

    assert (repr(a), repr(b)) == before
