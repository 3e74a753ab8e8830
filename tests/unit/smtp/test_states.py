"""States: the table has exactly one row for everything that can happen."""

import itertools

import pytest

from mta.smtp import states
from mta.smtp.states import COMMAND_STATES, INPUT, TABLE, VERBS, Action, Input, State


def test_every_state_and_verb_has_exactly_one_step():
    """No pair is missing and none is there that cannot happen."""
    assert set(TABLE) == set(itertools.product(COMMAND_STATES, VERBS))
    assert len(TABLE) == 4 * 14


def test_every_state_says_what_becomes_of_its_input():
    """Commands are read in those states that the table has columns for, and in no other."""
    assert set(INPUT) == set(State)
    assert {state for state, what in INPUT.items() if what is Input.COMMANDS} == set(COMMAND_STATES)


@pytest.mark.parametrize("step", TABLE.items(), ids=lambda step: f"{step[0][0].name}-{step[0][1].decode()}")
def test_a_step_is_an_action_or_a_refusal(step):
    """A refusal is a permanent reply: the same command would be refused again."""
    _, what = step

    assert isinstance(what, Action) or what.startswith(b"5")


def test_every_action_can_happen():
    """No action stands in the code without a way to it."""
    assert {step for step in TABLE.values() if isinstance(step, Action)} == set(Action)


def test_the_order_of_a_transaction():
    """MAIL only without a transaction, RCPT only within one, DATA only with a recipient (RFC 5321 3.3)."""
    allowed = {verb: [state for state in COMMAND_STATES if isinstance(TABLE[state, verb], Action)] for verb in VERBS}

    assert allowed[b"MAIL"] == [State.READY]
    assert allowed[b"RCPT"] == [State.SENDER, State.RECIPIENTS]
    assert allowed[b"DATA"] == [State.RECIPIENTS]


def test_commands_that_may_come_at_any_time():
    """RFC 5321 4.1.4: NOOP, HELP, VRFY, RSET and QUIT without a greeting; EHLO and HELO again and again."""
    free = {verb for verb in VERBS if all(isinstance(TABLE[state, verb], Action) for state in COMMAND_STATES)}

    assert free == {b"EHLO", b"HELO", b"RSET", b"NOOP", b"VRFY", b"HELP", b"QUIT"}


def test_what_is_not_offered_has_its_place():
    """STARTTLS, AUTH and BDAT are known and refused with 502 until they come."""
    refused = {TABLE[state, verb] for state in COMMAND_STATES for verb in (b"STARTTLS", b"AUTH", b"BDAT", b"EXPN")}

    assert refused == {b"502 5.5.1 Command not offered here\r\n"}


def test_commands_behind_which_nothing_may_follow():
    """RFC 2920 3.1."""
    enders = {verb for verb, facts in VERBS.items() if facts.ends_group}

    assert enders >= {b"EHLO", b"DATA", b"STARTTLS", b"AUTH", b"QUIT"}
    assert not enders & {b"MAIL", b"RCPT", b"RSET"}


def test_line_limits():
    """RFC 5321 4.5.3.1.4, RFC 4954 4."""
    assert VERBS[b"NOOP"].line_bytes_max == 512
    assert VERBS[b"AUTH"].line_bytes_max == 12_288
    assert max(facts.line_bytes_max for facts in VERBS.values()) == states.LINE_BYTES_MAX
