"""Wording: a rule in a few words, for tables: which replies it is about, what it does, and what that waits for."""

from collections.abc import Iterable, Iterator

from mta_policies.rulebook import Action, Rule, Trigger, When
from mta_policies.units import render_duration, render_share


def condition(when: When) -> str:
    """Which replies: "421 4.7.28 at mail, /unusual rate/"; "any reply" where nothing is asked for."""
    codes = " ".join(filter(None, (_any_of(when.code), _any_of(when.enhanced))))
    stages = f"at {_any_of(when.stage)}" if when.stage else ""
    parts = [
        " ".join(filter(None, (codes, stages))),
        _any_of(f"/{pattern}/" for pattern in when.text),
        f"from {_any_of(when.host)}" if when.host else "",
        f"category {_any_of(when.category)}" if when.category else "",
    ]
    return ", ".join(filter(None, parts)) or "any reply"


def waits_for(trigger: Trigger) -> str:
    """How often before it acts: "5 in 1h", "3% of 200 in 10m", "5 in a row"; "" at every match."""
    if trigger.share:
        return f"{render_share(trigger.share)} of {trigger.of} in {render_duration(trigger.within_s)}"
    if trigger.count:
        return f"{trigger.count} in {render_duration(trigger.within_s)}"
    return f"{trigger.consecutive} in a row" if trigger.consecutive else ""


def deed(action: Action) -> str:
    """What an action does: "slow source: 1/min, 1 connection, for 1h"."""
    match action.action:
        case "slow":
            return f"slow {action.scope}: {', '.join([*slower(action), *_lasting(action)])}"
        case "suspend":
            return " ".join(["suspend", action.scope, *_lasting(action)])
        case "probe":
            silence = [f"silence {render_duration(action.silence_s)}"] if action.silence_s else []
            growth = [f"x {action.growth:g} after each failure"] if action.growth else []
            return f"probe {action.scope}{': ' if silence or growth else ''}{', '.join([*silence, *growth])}"
        case "defer":
            return f"defer {render_duration(action.after_s)}" if action.after_s else "defer"
        case "category":
            hard = {None: "", True: "hard", False: "never hard"}[action.hard]
            return ", ".join(filter(None, (action.category or "as it is", hard)))
        case "alert":
            return f"alert {action.scope}"
        case _:
            return action.action


def deeds(rule: Rule) -> list[str]:
    """All that a rule does, with what it waits for; "nothing" where it only keeps others from being asked."""
    return list(_deeds(rule)) or ["nothing"]


def _deeds(rule: Rule) -> Iterator[str]:
    for action in rule.then:
        trigger = waits_for(rule.trigger_of(action))
        yield f"{deed(action)} (after {trigger})" if trigger else deed(action)


def _any_of(values: Iterable[str]) -> str:
    return " or ".join(values)


def slower(action: Action) -> Iterator[str]:
    """To what a slow slows: "1/min", "1 connection"."""
    yield from map(str, action.rate)
    if action.factor:
        yield f"{render_share(action.factor)} of what is allowed"
    if action.connections:
        yield several(action.connections, "connection")
    yield from (f"{rate} new connections" for rate in action.connection_rate)
    if action.messages_per_connection:
        yield f"{several(action.messages_per_connection, 'message')} a connection"
    if action.recipients_per_transaction:
        yield f"{several(action.recipients_per_transaction, 'recipient')} a transaction"


def _lasting(action: Action) -> list[str]:
    return [f"for {render_duration(action.for_s)}"] if action.for_s else []


def several(count: int, what: str) -> str:
    """`1 connection`, `1,204 connections`"""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
