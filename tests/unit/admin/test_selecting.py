"""What a request asks for."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.admin import selecting
from mta.model.selection import Selection


@pytest.mark.parametrize(
    ("query", "selection"),
    [
        ({}, Selection(all=True)),
        ({"domain": ""}, Selection(all=True)),
        ({"all": "false"}, Selection(all=True)),
        ({"all": "true"}, Selection(all=True)),
        ({"domain": "a.test"}, Selection(domain="a.test")),
        ({"domain": "a.test", "all": "1"}, Selection(domain="a.test")),
        ({"older_than": "2h"}, Selection(older_than_s=7200.0)),
        ({"older-than": "1h30m"}, Selection(older_than_s=5400.0)),
        ({"older_than_s": "12.5"}, Selection(older_than_s=12.5)),
        ({"sender": "*@shop.test", "tenant": "shop"}, Selection(sender="*@shop.test", tenant="shop")),
    ],
)
def test_queries_select(query: dict[str, str], selection: Selection) -> None:
    """Every criterion can be asked for; none means everything, because a query only looks."""
    assert selecting.selection_of(query) == selection


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"domian": "a.test"}, r'no criterion "domian"; did you mean domain\?'),
        ({"limit": "3"}, "no criterion"),
        ({"older_than": "soon"}, "not a duration"),
        ({"older_than_s": "soon"}, "not a number"),
        ({"older_than_s": "-1"}, "from 0 to ten years"),
        ({"older_than_s": "nan"}, "from 0 to ten years"),
        ({"older_than_s": "inf"}, "from 0 to ten years"),
        ({"all": "maybe"}, "not yes or no"),
        ({"sender": "x" * 1001}, "longer than 1000"),
        ({"sender": "*a" * 9}, 'more than 8 "\\*"'),
    ],
)
def test_wrong_queries_are_told(query: dict[str, str], sentence: str) -> None:
    """What cannot be meant is refused with a sentence."""
    with pytest.raises(ValueError, match=sentence):
        selecting.selection_of(query)


def test_what_belongs_to_the_page_is_no_criterion() -> None:
    """`limit` and `after` are left to the page that knows them."""
    selection = selecting.selection_of({"limit": "3", "after": "x", "id": "y"}, besides=("limit", "after"))

    assert selection == Selection(id="y")


def body(**values: Any) -> bytes:
    return json.dumps(values).encode()


def test_an_action_says_what_and_who() -> None:
    """The body is a selection and a name; without one it was "admin"."""
    named = selecting.acting_from(body(domain="a.test", by="kim"))
    unnamed = selecting.acting_from(body(all=True, by=""))

    assert (named.selection(), named.by) == (Selection(domain="a.test"), "kim")
    assert (unnamed.selection(), unnamed.by) == (Selection(all=True), "admin")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"{}", "nothing is selected"),
        (body(by="kim"), "nothing is selected"),
        (body(all=False), "nothing is selected"),
        (body(domain="a.test", dommain="b.test"), "unknown field `dommain`"),
        (body(domain=3), "Expected `str`"),
        (body(older_than_s=-5, domain="x"), "from 0 to ten years"),
        (body(all=True, by="x" * 101), "longer than 100"),
        (body(tenant="shop", domain=""), "domain is empty"),
        (body(all=True, sender=""), "sender is empty"),
        (b"", "not what is expected"),
        (b"[]", "not what is expected"),
        (b"\xff", "not what is expected"),
        (b'{"domain": "\\ud800"}', "not what is expected"),
    ],
)
def test_an_action_that_is_not_clear_is_refused(data: bytes, sentence: str) -> None:
    """Above all one that selects nothing: it does not mean everything."""
    with pytest.raises(ValueError, match=sentence):
        selecting.acting_from(data)


def test_every_criterion_of_a_selection_can_be_acted_on() -> None:
    """The body of an action has all fields that a selection has."""
    values: dict[str, Any] = dict.fromkeys(Selection.__struct_fields__, "x") | {"older_than_s": 5.0, "all": False}

    assert selecting.acting_from(body(**values)).selection() == Selection(**values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"selection": {}, "for_s": 5}, "nothing is selected"),
        ({"selection": {"tenant": "shop", "domain": ""}, "for_s": 5}, "domain is empty"),
        ({"selection": {"all": True}, "for_s": 0}, "over 0"),
        ({"selection": {"all": True}, "for_s": -3}, "over 0"),
        ({"selection": {"all": True}, "for_s": 1e9}, "a year"),
        ({"selection": {"all": True}}, "missing required field `for_s`"),
        ({"selection": {"all": True}, "for_s": 5, "until": 3}, "unknown field"),
        ({"selection": {"all": True}, "for_s": 5, "reason": "x" * 501}, "longer than 500"),
        ({"selection": {"all": True}, "for_s": 5, "by": "x" * 101}, "longer than 100"),
    ],
)
def test_a_suspension_that_cannot_be_meant_is_refused(values: dict[str, Any], sentence: str) -> None:
    """A suspension has a selection and an end within a year."""
    with pytest.raises(ValueError, match=sentence):
        selecting.wish_from(body(**values))


def test_a_suspension_is_read() -> None:
    """Selection, seconds, reason and who."""
    wish = selecting.wish_from(body(selection={"domain": "a.test", "all": True}, for_s=60, reason="why", by=""))

    assert (wish.selection, wish.for_s, wish.reason, wish.by) == (Selection(domain="a.test"), 60.0, "why", "admin")


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1e2", "9" * 5000])
def test_a_page_has_at_least_one_row_and_at_most_a_thousand(limit: str) -> None:
    """Any other limit is refused."""
    with pytest.raises(ValueError, match="from 1 to 1000"):
        selecting.paging_of({"limit": limit})


def test_pages_have_defaults() -> None:
    """A hundred from the beginning."""
    assert selecting.paging_of({}) == selecting.Paging(100, "")
    assert selecting.paging_of({"limit": "7", "after": "abc"}) == selecting.Paging(7, "abc")


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused(data: bytes) -> None:
    """No body leads to anything but a result or a sentence."""
    for read in (selecting.acting_from, selecting.wish_from):
        with contextlib.suppress(ValueError):
            assert read(data)


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(["domain", "older_than", "all"]), st.text(max_size=20)))
def test_any_query_is_read_or_refused(query: dict[str, str]) -> None:
    """No query leads to anything but a result or a sentence."""
    with contextlib.suppress(ValueError):
        assert not selecting.selection_of(query).is_empty
