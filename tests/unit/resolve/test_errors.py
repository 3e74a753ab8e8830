"""Verdicts: what the failures of several hosts amount to."""

import pytest

from mta.resolve import errors
from mta.resolve.errors import ResolveError, verdict

PERMANENT = errors.all_prohibited("mx1.test", "127.0.0.1", "127.0.0.0/8")
TEMPORARY = errors.no_answer("mx2.test", "the nameserver says SERVFAIL")
ALL = [
    errors.bad_name("a b"),
    errors.no_domain("x.test"),
    errors.no_mail("x.test"),
    errors.null_mx("x.test"),
    errors.bad_hosts("x.test"),
    errors.loops_back("x.test"),
    errors.no_address("x.test"),
    PERMANENT,
    TEMPORARY,
]


@pytest.mark.parametrize(
    ("failures", "decides"),
    [
        ([PERMANENT], PERMANENT),
        ([TEMPORARY], TEMPORARY),
        ([PERMANENT, TEMPORARY], TEMPORARY),
        ([TEMPORARY, PERMANENT], TEMPORARY),
        ([PERMANENT, errors.no_domain("x.test")], PERMANENT),
    ],
)
def test_one_temporary_failure_makes_all_temporary(failures: list[ResolveError], decides: ResolveError) -> None:
    """A domain is given up only when none of its hosts leaves any hope."""
    assert verdict(failures) is decides


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.reply.text[:20])
def test_replies_are_whole(error: ResolveError) -> None:
    """Every failure is a reply whose enhanced code begins with the class of its code, in one printable line."""
    reply = error.reply

    assert str(reply.code)[0] == reply.enhanced[0]
    assert reply.enhanced.count(".") == 2
    assert error.permanent == (reply.code >= 500) == reply.is_permanent
    assert reply.text.isprintable()
    assert str(error) == reply.text
