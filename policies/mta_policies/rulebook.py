"""Rulebook: what `[[rule]]` and `[[test]]` of a policy may say, every key with its text.

A rule says what to do about a kind of reply; a test beside it says which rule a reply must find and what is then
done. `check_rule` tells what only shows when several keys are seen together.
"""

from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, field

from mta_policies.forms import (
    CategoryName,
    CategoryNames,
    Codes,
    Count,
    DomainPatterns,
    EnhancedCodes,
    Factor,
    Rates,
    RuleName,
    SearchPatterns,
    Seconds,
    Share,
    StageName,
    StageNames,
    one_of,
    texts_form,
)
from mta_policies.located import Keys
from mta_policies.reader import Reader, about, form, keys_of

TRIGGER_COUNT_MAX = 1_000  # the times of so many matches are kept for each key
TRIGGER_OF_MAX = 1_000_000

ActionName = Literal["slow", "suspend", "probe", "bounce", "defer", "category", "alert"]
ScopeName = Literal[
    "recipient",
    "tenant",
    "campaign",
    "dkim-domain",
    "spf-domain",
    "source",
    "netblock",
    "site",
    "provider",
]
SCOPES: Final[dict[str, str]] = {
    "recipient": "one mailbox",
    "tenant": "one tenant's mail",
    "campaign": "one campaign of a tenant",
    "dkim-domain": "mail whose first signature of ours is of one domain",
    "spf-domain": "mail whose MAIL FROM is of one domain; without one, the name of EHLO",
    "source": "one source, towards all of the provider's sites",
    "netblock": "sources in one /24 of IPv4 or /64 of IPv6",
    "site": "one site: all domains with the same MX hosts",
    "provider": "all mail to the provider",
}
"""For whom an action is, always towards this provider alone."""

TENANT_SCOPES: Final = frozenset({"recipient", "tenant", "campaign"})
"""What a tenant's own rules may act on: nobody else's mail."""

TENANT_DEFAULT_SCOPE: Final = "tenant"

RESERVED_NAMES: Final = frozenset({"adapt"})
"""Firings of [adapt] go by this name."""

AT_EVERY_MATCH: Final = frozenset({"bounce", "defer", "category"})
"""Actions about the message itself: they wait for a trigger only where they have one of their own."""

ActionNames = Annotated[tuple[str, ...], form(texts_form("actions", one_of("an action", get_args(ActionName))))]
ScopeNames = Annotated[tuple[str, ...], form(texts_form("scopes", one_of("a scope", tuple(SCOPES))))]


class When(msgspec.Struct, frozen=True):
    """What a reply must look like; all that is given must match, of a list any."""

    code: Annotated[Codes, about('Reply codes: "421", ["421", "45x"].')] = ()
    enhanced: Annotated[EnhancedCodes, about('Enhanced codes: "4.7.28", "4.7.*", "*.7.28".')] = ()
    text: Annotated[
        SearchPatterns, about("Regular expressions, searched for in the reply's text; upper or lower case is the same.")
    ] = ()
    stage: Annotated[
        StageNames,
        about(
            "Where in the dialogue: dns, connect, greeting, ehlo, starttls, mail, rcpt, data, content. Left out: what"
            " the other side said, wherever; named: also our own words for what happened there (a time-out)."
        ),
    ] = ()
    host: Annotated[DomainPatterns, about('Mail hosts: "mx1.example.com", "*.example.com".')] = ()
    category: Annotated[CategoryNames, about("Categories, as the reply is classed without any rule.")] = ()


class Trigger(msgspec.Struct, frozen=True):
    """How often a rule must match, for each scope key, before it acts; empty: every match."""

    count: Annotated[Annotated[int, Meta(ge=0, le=TRIGGER_COUNT_MAX)], about("So many matches ...")] = 0
    within_s: Annotated[Seconds, about("... in so long a time; also for share.")] = field(default=0.0, name="in")
    share: Annotated[Share, about('Such a share of the answers matches, delivered ones counted: "5%" ...')] = 0.0
    of: Annotated[
        Annotated[int, Meta(ge=0, le=TRIGGER_OF_MAX)], about("... of at least so many answers in that time.")
    ] = 0
    consecutive: Annotated[Count, about("So many matches with no other answer about a message between them.")] = 0

    @property
    def is_every_match(self) -> bool:
        return not (self.count or self.share or self.consecutive)

    @property
    def hears_all(self) -> bool:
        """Answers that do not match count too, delivered messages among them."""
        return bool(self.share or self.consecutive)


EVERY_MATCH: Final = Trigger()


class Action(msgspec.Struct, frozen=True):
    """What a rule does."""

    action: Annotated[
        ActionName,
        about(
            "slow: limits for a while; suspend: nothing for a while; probe: silence, then one connection, then one more"
            " at a time; bounce, defer: this message, whatever its code; category: how it is classed; alert: an event."
        ),
    ]
    for_s: Annotated[
        Seconds,
        about(
            "slow, suspend, alert: how long; left out: 1h. probe: at most so long after the last failure; left out: 1d."
        ),
    ] = field(default=0.0, name="for")
    scope: Annotated[
        ScopeName,
        about(
            "For whom: recipient, tenant, campaign, dkim-domain, spf-domain, source, netblock, site or provider; in a"
            " tenant's own file recipient, tenant (the default there) or campaign."
        ),
    ] = "site"
    rate: Annotated[Rates, about("slow: at this rate.")] = ()
    connections: Annotated[Count, about("slow: with so many connections.")] = 0
    connection_rate: Annotated[Rates, about("slow: new connections at this rate.")] = ()
    messages_per_connection: Annotated[Count, about("slow: so many transactions before QUIT.")] = 0
    recipients_per_transaction: Annotated[Count, about("slow: so many RCPTs in one transaction.")] = 0
    factor: Annotated[Share, about('slow: this share of the rates and connections that the policy allows: "50%".')] = (
        0.0
    )
    silence_s: Annotated[
        Seconds, about("probe: nothing goes for so long, and again after each failure; left out: 10m.")
    ] = field(default=0.0, name="silence")
    growth: Annotated[Factor, about("probe: each failure in a row makes the silence so many times as long.")] = 0.0
    after_s: Annotated[Seconds, about("defer: tried again after so long; left out: by the schedule.")] = field(
        default=0.0, name="after"
    )
    category: Annotated[CategoryName, about("category: one of the seventeen.")] = ""
    hard: Annotated[bool | None, about("category: false: never hard, true: hard where the code is permanent.")] = None
    trigger: Annotated[Trigger | None, about("Its own, instead of the rule's.")] = None


_LASTING = frozenset({"action", "for", "scope", "trigger"})
_ABOUT_MESSAGE = frozenset({"action", "scope", "trigger"})
_SLOWER = frozenset(
    {"rate", "connections", "connection_rate", "messages_per_connection", "recipients_per_transaction", "factor"}
)
ACTION_KEYS: Final[dict[str, frozenset[str]]] = {
    "slow": _LASTING | _SLOWER,
    "suspend": _LASTING,
    "probe": _LASTING | {"silence", "growth"},
    "alert": _LASTING,
    "bounce": _ABOUT_MESSAGE,
    "defer": _ABOUT_MESSAGE | {"after"},
    "category": frozenset({"action", "category", "hard"}),
}
"""Which keys mean something for which action."""

_OF_CONNECTIONS = ("connection_rate", "messages_per_connection", "recipients_per_transaction")
"""Limits of a slow that need connections of one's own to hold."""

_SCOPES_WITH_CONNECTIONS = frozenset({"source", "netblock", "site", "provider"})


class Rule(msgspec.Struct, frozen=True):
    """What to do about a kind of reply. The first that matches wins."""

    name: Annotated[
        RuleName,
        about(
            "A name. A shipped rule of this name is not tried; without a `when` this one has its condition, and stands"
            " in its place."
        ),
    ]
    when: Annotated[When, about("Which replies.")] = When()
    trigger: Annotated[
        Trigger,
        about(
            'When slow, suspend, probe and alert are done: { count = 2, in = "1h" } or { consecutive = 5 } or'
            ' { share = "5%", of = 200, in = "10m" }; default: at every match. bounce, defer and category do not wait.'
        ),
    ] = EVERY_MATCH
    then: Annotated[
        tuple[Action, ...],
        about("What is done; []: nothing, and no other rule is asked: so a shipped rule is switched off by its name."),
    ] = ()

    def trigger_of(self, action: Action) -> Trigger:
        """What this action waits for."""
        if action.trigger is not None:
            return action.trigger
        return EVERY_MATCH if action.action in AT_EVERY_MATCH else self.trigger


class TestCase(msgspec.Struct, frozen=True):
    """A reply, and what must come of it; checked by `mta policy test`. What is left out is not compared."""

    __test__ = False  # no class of tests

    reply: Annotated[str, about('As the provider says it: "421 4.7.28 ...".')]
    rule: Annotated[str | None, about('The rule that must match; "": none.')] = None
    stage: Annotated[StageName, about("Where in the dialogue it comes.")] = "content"
    from_peer: Annotated[
        bool | None, about("false: our own words for what happened; default: at dns and connect only.")
    ] = None
    host: Annotated[str, about("Which mail host says it.")] = ""
    delivered: Annotated[Annotated[int, Meta(ge=0, le=100_000)], about("So many messages are delivered before.")] = 0
    count: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)],
        about("The reply comes so many times, one second apart; what the last one does is compared."),
    ] = 1
    action: Annotated[ActionNames | None, about("The actions that must be done, in the order of `then`; []: none.")] = (
        None
    )
    scope: Annotated[ScopeNames | None, about("The scopes of slow, suspend, probe and alert among them.")] = None
    after_s: Annotated[Seconds | None, about("defer: after so long.")] = field(default=None, name="after")
    category: Annotated[CategoryName | None, about("How it is classed in the end.")] = None
    hard: Annotated[bool | None, about("Whether that is hard.")] = None


def check_rules(reader: Reader, rules: tuple[Rule, ...]) -> None:
    """Tells what is wrong with rules whose keys are right one by one. They stand at ("rule", i) of the reader's tree;
    one of which a key was wrong is left alone."""
    for i, rule in enumerate(rules):
        if not reader.is_good("rule", i):
            continue
        here: Keys = ("rule", i)
        if rule.name in RESERVED_NAMES:
            reader.fail((*here, "name"), f"the name {rule.name} is taken by what the server does by itself")
        _check_trigger(reader, (*here, "trigger"), rule.trigger)
        for j, action in enumerate(rule.then):
            _check_action(reader, (*here, "then", j), action)


def _check_trigger(reader: Reader, path: Keys, trigger: Trigger) -> None:
    kinds = [kind for kind in ("count", "share", "consecutive") if getattr(trigger, kind)]
    if len(kinds) > 1:
        reader.fail(path, f"trigger: {' and '.join(kinds)} at once; which one is meant?")
        return
    kind = kinds[0] if kinds else ""
    needs = {"count": ("in",), "share": ("of", "in")}.get(kind, ())
    values = {"in": trigger.within_s, "of": trigger.of}
    if missing := [key for key in needs if not values[key]]:
        reader.fail(path, f"trigger: {kind} needs {' and '.join(missing)}")
    elif extra := [key for key, value in values.items() if value and key not in needs]:
        told = f"has no meaning for {kind}" if kind else "needs count or share"
        reader.fail((*path, extra[0]), f"trigger: {extra[0]} {told}")


def _check_action(reader: Reader, path: Keys, action: Action) -> None:
    given = reader.tree.get(path)
    name, takes = action.action, ACTION_KEYS[action.action]
    for key in given if isinstance(given, dict) else ():
        if key not in takes:
            known = [one.name for one in keys_of(Action) if one.name in takes and one.name != "action"]
            reader.fail((*path, key), f"{key} has no meaning for {name}; it takes {', '.join(known)}")
    if name == "slow":
        _check_slow(reader, path, action)
    if name == "category" and not action.category and action.hard is None:
        reader.fail(path, "category: which one? write category = ...")
    if action.trigger is not None:
        _check_trigger(reader, (*path, "trigger"), action.trigger)


def _check_slow(reader: Reader, path: Keys, action: Action) -> None:
    if not any((action.rate, action.connections, action.factor, *(getattr(action, key) for key in _OF_CONNECTIONS))):
        reader.fail(path, "slow: to what? write rate, connections or factor")
    if action.scope not in _SCOPES_WITH_CONNECTIONS:
        for key in _OF_CONNECTIONS:
            if getattr(action, key):
                reader.fail((*path, key), f"{key} has no meaning for scope {action.scope}: its mail shares connections")
