"""Selections: which of the waiting recipients an admin means."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.model.selection import Criteria, Facts, Selection, matches

FACTS = Facts(
    id="1m80zd",
    domain="mail.shop.test",
    site="mx.shop.test",
    policy="google",
    source="out-1",
    tenant="shop",
    campaign="autumn",
    sender="news@shop.test",
    recipient="Ann@mail.shop.test",
    age_s=7200.0,
)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(all=True),
        Selection(id="1m80zd"),
        Selection(domain="mail.shop.test"),
        Selection(domain="*.shop.test"),
        Selection(site="MX.shop.test", policy="google"),
        Selection(recipient="ann@*"),
        Selection(sender="*@shop.test", campaign="a*n", tenant="*"),
        Selection(older_than_s=7200.0),
    ],
)
def test_what_fits(selection: Selection) -> None:
    """Names without regard to case, a star for anything, an age that is reached."""
    assert matches(selection, FACTS)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(id="1m80z*"),
        Selection(domain="shop.test"),
        Selection(domain="mail.shopXtest"),
        Selection(site="mx.shop.test", policy="yahoo"),
        Selection(older_than_s=7201.0),
        Selection(tenant="shop", campaign="spring"),
    ],
)
def test_what_does_not_fit(selection: Selection) -> None:
    """Every criterion must hold; an id is no pattern; a dot is a dot; nothing said means nothing."""
    assert not matches(selection, FACTS)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_stars_mean_anything(pattern: str, name: str) -> None:
    """The linear matcher says what the plain reading of the pattern says."""
    plain = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    facts = FACTS._replace(campaign=name)

    assert matches(Selection(campaign=pattern, policy="google"), facts) == (plain or not pattern)


def test_many_stars_are_no_trap() -> None:
    """A pattern that backtracks in other matchers for longer than the sun shines is answered at once."""
    facts = FACTS._replace(campaign="a" * 5_000)

    assert not matches(Selection(campaign="*a" * 8 + "b"), facts)


def test_what_needs_the_envelope() -> None:
    """Domain, site, policy and source are known of every job; the rest is in the envelope."""
    assert not Selection(domain="a", site="b", policy="c", source="d").needs_envelope
    assert not Selection(all=True).needs_envelope
    needy = [Selection(id="x"), Selection(tenant="x"), Selection(campaign="x"), Selection(sender="x")]
    assert all(selection.needs_envelope for selection in [*needy, Selection(recipient="x")])
    assert Selection(older_than_s=1.0).needs_envelope


def test_it_is_told_as_it_is_typed() -> None:
    """For the event log and for lists."""
    assert str(Selection(all=True)) == "--all"
    assert str(Selection(domain="a.test", tenant="shop", older_than_s=90.0)) == (
        "--domain a.test --tenant shop --older-than 90s"
    )


def test_the_null_sender_can_be_named() -> None:
    """Notifications come from nobody: `<>` means them, a pattern of addresses does not."""
    notification = FACTS._replace(sender="")

    assert matches(Selection(sender="<>"), notification)
    assert not matches(Selection(sender="<>"), FACTS)
    assert not matches(Selection(sender="*@*"), notification)


def test_a_clock_that_was_set_back_hides_nothing() -> None:
    """Where no age is asked for none is looked at, negative or not."""
    future = FACTS._replace(age_s=-3600.0)

    assert matches(Selection(all=True), future)
    assert matches(Selection(tenant="shop"), future)
    assert not matches(Selection(older_than_s=1.0), future)


WORDS = st.sampled_from(["", "a", "A", "b", "*", "a*", "<>"])
NAMES = st.sampled_from(["", "a", "ab", "b"])


@given(st.builds(Selection, **dict.fromkeys(FACTS._fields[:-1], WORDS), older_than_s=st.sampled_from([0.0, 5.0])),
       st.builds(Facts, *[NAMES] * 9, st.sampled_from([-1.0, 0.0, 9.0])))  # fmt: skip
def test_taken_apart_it_means_the_same(selection: Selection, facts: Facts) -> None:
    """Whoever asks step by step and stops at the first no hears what `matches` says."""
    if selection.is_empty:
        return
    criteria = Criteria(selection)
    answer = (
        criteria.may_be(facts.id)
        and criteria.has_message(facts.tenant, facts.campaign, facts.sender, facts.age_s)
        and criteria.has_recipient(facts.domain, facts.recipient)
        and criteria.has_place(facts.site, facts.policy, facts.source)
    )
    assert answer == matches(selection, facts)
    assert not criteria.is_everything
