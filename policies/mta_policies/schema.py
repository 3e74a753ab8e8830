"""What a policy file may say: every table as a struct, every key with its text.

`mta policy`, the guide and the reader take names, texts and forms from here. A policy never stands alone:
`layers` lays the files over each other, reads the result into these structs and makes a `Policy` of it.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta, field

from mta_policies import match, units
from mta_policies.located import Place
from mta_policies.reader import Form, Reader, about, form, shown, text_form
from mta_policies.tree import Tree, overlay
from mta_policies.units import MinuteWindow, Rate

DURATION = text_form('a duration such as "5m"', units.duration_s, units.render_duration)
SIZE = text_form('a size such as "50MB"', units.size_bytes, units.render_size)
SHARE = text_form('a share such as "20%"', units.share, units.render_share)
MINUTES = text_form('minutes of the hour such as "*:58-*:04"', units.minute_window, str)


def _read_rates(value: object, place: Place) -> tuple[Rate, ...]:
    del place
    if isinstance(value, str):
        return units.rates(value)
    if isinstance(value, list):
        return tuple(units.rate(one) for one in _texts(value))
    raise ValueError(f'expected a rate such as "100/min", a list of rates or "none", got {shown(value)}')


def _read_texts(value: object, place: Place) -> tuple[str, ...]:
    del place
    return tuple(_texts([value] if isinstance(value, str) else value))


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"expected a text or a list of texts, got {shown(value)}")
    wrong = [one for one in value if not isinstance(one, str)]
    if wrong:
        raise ValueError(f"expected a text, got {shown(wrong[0])}")
    return value


def _write_texts(values: tuple[str, ...]) -> object:
    return values[0] if len(values) == 1 else list(values)


RATES = Form("rates", _read_rates, units.render_rates)
TEXTS = Form("texts", _read_texts, _write_texts)


def _domain_pattern(pattern: str) -> str:
    """Lower case, in A-labels as far as they are ASCII; a star only as the whole first label."""
    clean = pattern.strip().rstrip(".").lower()
    rest = clean.removeprefix("*.")
    if not rest or "*" in rest or ".." in rest or rest.startswith(".") or any(c.isspace() or c == "@" for c in rest):
        raise ValueError(f'not a domain or pattern: {shown(pattern)}; write "example.com" or "*.example.com"')
    if not rest.isascii():
        raise ValueError(f"write {shown(pattern)} in its ASCII form, xn--...: that is what mail is routed by")
    return clean


DOMAIN_PATTERN = text_form("a domain or a pattern", _domain_pattern, str)

Seconds = Annotated[float, form(DURATION)]
Bytes = Annotated[int, form(SIZE)]
Share = Annotated[float, form(SHARE)]
Rates = Annotated[tuple[Rate, ...], form(RATES)]
Texts = Annotated[tuple[str, ...], form(TEXTS)]
Minutes = Annotated[MinuteWindow, form(MINUTES)]
DomainPattern = Annotated[str, form(DOMAIN_PATTERN)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
TlsMode = Literal["none", "opportunistic", "required", "verify"]

RULES_NOT_YET = "rules have no effect yet: this version only checks how they are written"
QUOTA_NOT_YET = "quota has no effect yet: this version only checks how it is written"


class Match(msgspec.Struct, frozen=True):
    """Whose mail a policy is for."""

    mx: Annotated[
        tuple[DomainPattern, ...],
        about(
            'MX host names; "*.x" is any name under x; the policy holds only where every MX host of a domain matches.'
        ),
    ] = ()
    domains: Annotated[
        tuple[DomainPattern, ...],
        about('Recipient domains; "*.x" is any domain under x, not x itself. A match by domain wins over one by MX.'),
    ] = ()


class Quota(msgspec.Struct, frozen=True):
    """So many messages in a calendar day or hour of a time zone."""

    count: Annotated[Annotated[int, Meta(ge=1)], about("Messages.")]
    per: Annotated[Literal["hour", "day", "week", "month"], about("What the count is for.")] = "day"
    zone: Annotated[str, about('Where the day begins at midnight, such as "Asia/Tokyo".')] = "UTC"


class Limits(msgspec.Struct, frozen=True):
    """How much at once and how fast. Every key may say that there is no limit: counts with 0, rates with "none"."""

    connections: Annotated[Count, about("Connections open at once; 0: no limit.")] = 0
    connection_rate: Annotated[
        Rates, about('New connections, "60/min"; several rates hold at once: ["2/s", "60/min"]; "none": no limit.')
    ] = ()
    messages_per_connection: Annotated[Count, about("Transactions before QUIT; 0: no limit.")] = 0
    rate: Annotated[
        Rates, about('Transactions, counted at MAIL: "20/s", ["20/s", "40000/h"] (both hold); "none": no limit.')
    ] = ()
    recipients_per_transaction: Annotated[Count, about("RCPTs in one transaction; 0: no limit.")] = 0
    recipients_per_connection: Annotated[Count, about("RCPTs over all transactions of a connection; 0: no limit.")] = 0
    mix_domains: Annotated[bool, about("false: one transaction never has recipients of two domains.")] = True
    quota: Annotated[
        Quota | None,
        about(
            'Messages in a calendar day: { count = 300000, per = "day", zone = "Asia/Tokyo" }.', not_yet=QUOTA_NOT_YET
        ),
    ] = None


class Retry(msgspec.Struct, frozen=True):
    """When a deferred message is tried again, and when it is given up."""

    schedule: Annotated[
        tuple[Seconds, ...], about("Time from an attempt to the next: the first, the second ...; the last one repeats.")
    ] = (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    jitter: Annotated[Share, about("Every time is made longer or shorter by up to this share, by chance.")] = 0.2
    avoid: Annotated[
        tuple[Minutes, ...],
        about('Minutes of every hour in which no retry is planned, both ends included: ["*:58-*:04"]; []: none.'),
    ] = ()
    expire_s: Annotated[
        Seconds, about("Given up so long after acceptance, or after the time that delayed mail was due.")
    ] = field(default=432000.0, name="expire")


class SourceOverride(msgspec.Struct, frozen=True):
    """Other values for some sources only."""

    limits: Annotated[Limits, about("As [limits], for these sources.")] = Limits()
    source_limits: Annotated[Limits, about("As [source_limits], for these sources.")] = Limits()
    retry: Annotated[Retry, about("As [retry], for these sources.")] = Retry()


class When(msgspec.Struct, frozen=True):
    """What a reply must look like; all that is given must match, of a list any."""

    code: Annotated[Texts, about('Reply codes: "421", "45x".')] = ()
    enhanced: Annotated[Texts, about('Enhanced codes: "4.7.*".')] = ()
    text: Annotated[Texts, about("Regular expressions, searched for in the reply's text.")] = ()
    stage: Annotated[Texts, about("Where in the dialogue: connect, greeting, mail, rcpt, data, content ...")] = ()


class Trigger(msgspec.Struct, frozen=True):
    """How often before a rule acts; by default at every match."""

    count: Annotated[Count, about("Matches.")] = 0
    within_s: Annotated[Seconds, about("In how long.")] = field(default=0.0, name="in")
    share: Annotated[Share, about("Share of the replies that match.")] = 0.0
    of: Annotated[Count, about("Replies before a share is taken.")] = 0
    consecutive: Annotated[Count, about("Matches with no other reply between.")] = 0


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


class Action(msgspec.Struct, frozen=True):
    """What a rule does."""

    action: Annotated[ActionName, about("slow, suspend, probe, bounce, defer, category or alert.")]
    for_s: Annotated[Seconds, about("How long.")] = field(default=0.0, name="for")
    scope: Annotated[ScopeName, about("For whom.")] = "site"
    rate: Annotated[Rates, about("slow: at this rate.")] = ()
    connections: Annotated[Count, about("slow: with so many connections.")] = 0
    after_s: Annotated[Seconds, about("defer: tried again after.")] = field(default=0.0, name="after")
    category: Annotated[str, about("category: how it is classed.")] = ""


class Rule(msgspec.Struct, frozen=True):
    """What to do about a kind of reply."""

    name: Annotated[str, about("A name; one that a shipped rule has replaces it.")]
    when: Annotated[When, about("Which replies.")] = When()
    trigger: Annotated[Trigger, about("How often before it acts.")] = Trigger()
    then: Annotated[tuple[Action, ...], about("What is done.")] = ()


class PolicyFile(msgspec.Struct, frozen=True):
    """A policy, as its files together say it."""

    title: Annotated[str, about("What people call the provider.")] = ""
    replace: Annotated[bool, about("true: start afresh instead of adding to the shipped policy of this name.")] = False
    match: Annotated[Match, about("Whose mail it is for.")] = Match()
    owners: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        about("Workers that share this destination's mail; connections and rates are divided among them."),
    ] = 1
    tls: Annotated[
        TlsMode,
        about(
            "none: in clear; opportunistic: where it is offered; required: never in clear; verify: and the certificate"
            " must be right."
        ),
    ] = "opportunistic"
    limits: Annotated[
        Limits, about("Per source and site (all domains with the same MX hosts; for a route: the route).")
    ] = Limits()
    source_limits: Annotated[Limits, about("The same keys, per source over all the provider's sites.")] = Limits()
    provider_limits: Annotated[
        Limits, about("All sources together, machine-wide: the admin's own brake, empty in shipped files.")
    ] = Limits()
    sources: Annotated[dict[str, SourceOverride], about('For some sources only, by name: [sources."new-*"].')] = field(
        default_factory=dict
    )
    retry: Annotated[Retry, about("When again, when never.")] = Retry()
    rules: Annotated[tuple[Rule, ...], about("What to do about replies.", not_yet=RULES_NOT_YET)] = field(
        default=(), name="rule"
    )


class ForSource(NamedTuple):
    """What of a policy holds for one source."""

    limits: Limits
    source_limits: Limits
    retry: Retry


class Policy:
    """One policy in force: what its files say over what `default` says."""

    def __init__(self, name: str, file: PolicyFile, tree: Tree, files: Sequence[str]) -> None:
        self.name = name
        self.title = file.title or name
        self.match = file.match
        self.owners = file.owners
        self.tls: TlsMode = file.tls
        self.limits = file.limits
        self.source_limits = file.source_limits
        self.provider_limits = file.provider_limits
        self.retry = file.retry
        self.source_patterns = tuple(sorted(file.sources, key=lambda pattern: (len(pattern), pattern)))
        """The names in `[sources."..."]`, the strongest last."""
        self.tree = tree
        """Every value and where it was written."""
        self.files = tuple(files)
        """The files that make it, the strongest last, without `default`'s."""
        self._for_source: dict[str, ForSource] = {}

    def __repr__(self) -> str:
        return f"Policy({self.name!r})"

    def for_source(self, source_name: str) -> ForSource:
        """Limits and retry for this source: of several patterns that match, the longer's values stand."""
        known = self._for_source.get(source_name)
        if known is None:
            if self.patterns_for(source_name):
                file = Reader(self.source_tree(source_name)).read(PolicyFile)
                known = ForSource(file.limits, file.source_limits, file.retry)
            else:
                known = ForSource(self.limits, self.source_limits, self.retry)
            self._for_source[source_name] = known
        return known

    def patterns_for(self, source_name: str) -> list[str]:
        """The `[sources."..."]` that apply to this source, the strongest last."""
        return [pattern for pattern in self.source_patterns if match.name_matches(pattern, source_name)]

    def source_tree(self, source_name: str) -> Tree:
        """Every value as it holds for this source, and where it was written."""
        return self.tree_with(self.patterns_for(source_name))

    def tree_with(self, patterns: Sequence[str]) -> Tree:
        tree = self.tree
        for pattern in patterns:
            tree = overlay(tree, self.tree.branch(("sources", pattern)))
        return tree
