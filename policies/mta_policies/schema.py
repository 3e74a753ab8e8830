"""What a policy file may say: every table as a struct, every key with its text. Rules and tests are in `rulebook`.

`mta policy`, the guide and the reader take names, texts and forms from here. A policy never stands alone:
`layers` lays the files over each other, reads the result into these structs and makes a `Policy` of it.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from mta_policies.forms import Bytes, Count, DomainPattern, Minutes, Rates, Seconds, Share, Texts, Windows
from mta_policies.reader import about
from mta_policies.rulebook import Rule, TestCase
from mta_policies.units import Rate

TlsMode = Literal["none", "opportunistic", "required", "verify"]


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
    """So many messages in a calendar hour, day, week (from Monday) or month of a time zone."""

    count: Annotated[Annotated[int, Meta(ge=1)], about("Messages.")]
    per: Annotated[Literal["hour", "day", "week", "month"], about("hour, day, week or month.")] = "day"
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
    message_size_max: Annotated[Bytes, about('Larger messages are not tried and bounce: "3MB"; "0B": no limit.')] = 0
    mix_domains: Annotated[bool, about("false: one transaction never has recipients of two domains.")] = True
    quota: Annotated[
        Quota | None,
        about(
            'Transactions in a calendar hour, day, week or month, counted at MAIL: { count = 300000, per = "day",'
            ' zone = "Asia/Tokyo" }; what was used outlives a restart, whoever sends, and owners share it as they'
            " need it."
        ),
    ] = None
    window: Annotated[
        Windows,
        about(
            'When mail may go: "08:00-22:00 Asia/Tokyo", "Mon-Fri 22:00-06:00 UTC"; of several any is enough;'
            " left out: always. Outside no transaction is begun, what is under way is finished.",
        ),
    ] = ()


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


class Adapt(msgspec.Struct, frozen=True):
    """A rate that falls at once when the provider complains and rises slowly while it does not; for each source, DKIM
    domain and site by itself."""

    on: Annotated[
        Texts, about("Names of rules, or categories: an answer that has one of them lowers the rate; []: nothing does.")
    ] = ()
    floor: Annotated[
        Rates, about('Never slower than this, but for a ceiling that is lower; of several the slowest: "10/min".')
    ] = (Rate(1, 60),)
    ceiling: Annotated[
        Rates, about("Never faster than this, nor than the rate of [limits]; one of the two must be there.")
    ] = ()
    decrease: Annotated[Share, about("What a complaint takes off.")] = 0.5
    increase: Annotated[
        Share,
        about(
            "The share of the rate that was complained of last that comes on in every minute that used half of what was"
            " allowed."
        ),
    ] = 0.01


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
    adapt: Annotated[Adapt, about("Down at once, up slowly.")] = Adapt()
    rules: Annotated[
        tuple[Rule, ...],
        about("What to do about replies; the first that matches wins. default's come after all others."),
    ] = field(default=(), name="rule")
    tests: Annotated[
        tuple[TestCase, ...], about("Replies and what must come of them; for `mta policy test` alone.")
    ] = field(default=(), name="test")
