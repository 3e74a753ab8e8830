"""Every key of mta.toml: its name, its default, its text. `render` writes the root mta.toml from here.

A field's Python name ends in its unit (`idle_timeout_s`); the key that admins write does not, for there the
value itself says it ("60s"). Tables that may come several times have plural names here.
"""

from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, field

from mta.config import forms
from mta.config.forms import Endpoint
from mta.resolve.prohibited import SPECIAL_PURPOSE_NETWORKS
from mta_policies.cross_limit import CrossLimit
from mta_policies.forms import Bytes, Count, Seconds
from mta_policies.local_time import unix_s
from mta_policies.reader import about
from mta_policies.warmth import Plan

Addresses = Literal["strict", "japan"]
LongLines = Literal["refuse", "pass"]
ListenerTls = Literal["none", "starttls", "implicit"]
ListenerAuth = Literal["none", "optional", "required"]
PlanMessages = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Listener(msgspec.Struct, frozen=True):
    """A door for applications."""

    address: Annotated[
        forms.ListenAddress, about('Where to listen; "[::1]:587" for IPv6, "0.0.0.0:587" for every IPv4 address.')
    ] = Endpoint("127.0.0.1", 2525)
    tls: Annotated[
        ListenerTls,
        about(
            "none | starttls | implicit, with certificate and key. In this version only none: another listener is"
            " refused, so that nobody speaks in clear who believes in TLS."
        ),
    ] = "none"
    certificate: Annotated[forms.OptionalPath, about("File with the certificate and its chain, PEM.")] = None
    key: Annotated[forms.OptionalPath, about("File with the certificate's private key, PEM.")] = None
    auth: Annotated[
        ListenerAuth, about("none | optional | required. AUTH is not offered in this version, and required is refused.")
    ] = "optional"
    trusted: Annotated[tuple[forms.Network, ...], about("Networks that may relay without AUTH; nobody else may.")] = (
        "127.0.0.0/8",
        "::1/128",
    )
    addresses: Annotated[
        Addresses,
        about(
            "strict | japan: also takes a..b@docomo.ne.jp and a.@ezweb.ne.jp (in use since before 2009) and sends"
            " them quoted."
        ),
    ] = "strict"
    tenant: Annotated[str, about("What comes in here belongs to this tenant.")] = ""
    long_lines: Annotated[LongLines, about("Text lines over 998 bytes: refuse (550 5.6.0) | pass.")] = "refuse"
    hide_client: Annotated[
        bool, about("true: the Received header names neither the client's address nor what it calls itself.")
    ] = False


class Queue(msgspec.Struct, frozen=True):
    """Where accepted mail is kept until its fate is known."""

    directory: Annotated[forms.FilePath, about("One folder a worker is made in it. On a local disk, not on NFS.")] = (
        Path("var/queue")
    )
    durability: Annotated[
        Literal["fsync", "os"], about("fsync: 250 means it is on stable storage | os: written, not synced.")
    ] = "fsync"
    message_size_max_bytes: Annotated[Bytes, about("Larger messages are refused; told in the SIZE of EHLO.")] = field(
        default=50_000_000, name="message_size_max"
    )
    recipients_max: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)], about("Recipients of one message; more get 452 4.5.3.")
    ] = 1000
    disk_free_min_bytes: Annotated[
        Bytes, about("With less free space new mail gets 452 4.3.1; mail already accepted goes on.")
    ] = field(default=500_000_000, name="disk_free_min")
    memory_max_bytes: Annotated[
        Bytes,
        about(
            "Bodies about to go out, all workers together; one that waits over a second is dropped from memory and"
            " read back from disk."
        ),
    ] = field(default=256_000_000, name="memory_max")


class Delivery(msgspec.Struct, frozen=True):
    """How mail goes out."""

    port: Annotated[Annotated[int, Meta(ge=1, le=forms.PORT_MAX)], about("Where MX hosts are spoken to.")] = (
        forms.SMTP_PORT
    )
    prohibited_networks: Annotated[
        tuple[forms.Network, ...],
        about("An MX that points there is refused. Default: every special-purpose range of IANA's registries."),
    ] = SPECIAL_PURPOSE_NETWORKS
    idle_timeout_s: Annotated[
        Seconds, about("A kept-open connection with nothing to send is closed after this time.")
    ] = field(default=60.0, name="idle_timeout")


class Dns(msgspec.Struct, frozen=True):
    """Who is asked for MX and addresses."""

    nameservers: Annotated[
        tuple[forms.NameServer, ...], about('["127.0.0.1:5353"], port 53 if none is given; empty: the system\'s.')
    ] = ()


class Route(msgspec.Struct, frozen=True):
    """Domains that go to hosts of the admin's choice instead of their MX; the first route that matches wins."""

    domains: Annotated[
        tuple[forms.RouteDomain, ...], about('Recipient domains; "*.x" for all under x, "*" for everything.')
    ]
    hosts: Annotated[
        tuple[forms.RouteHost, ...],
        about("Tried in order; without a port that of [delivery]; prohibited_networks does not apply."),
    ]
    policy: Annotated[
        str, about("Whose limits hold for this route; left out: the policy that the recipient's domain matches.")
    ] = ""


class Source(msgspec.Struct, frozen=True):
    """An identity to send from."""

    name: Annotated[forms.Name, about("What pools, policies and events call it.")]
    ipv4: Annotated[forms.Ipv4, about("Local address; empty: the system's choice.")] = ""
    ipv6: Annotated[
        forms.Ipv6,
        about("IPv6 is used only by sources that name an address (one without PTR is refused by Google)."),
    ] = ""
    ehlo: Annotated[forms.HostName, about("Name told in EHLO; empty: `hostname`.")] = ""


class Pool(msgspec.Struct, frozen=True):
    """Sources that share the mail of who uses the pool."""

    name: Annotated[forms.Name, about("What tenants and X-MTA-Pool call it; `default` for all who name none.")]
    sources: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]],
        about("Sources and their weights: { out-1 = 3, out-2 = 1 }; 0: it takes no new mail."),
    ]


class Tenant(msgspec.Struct, frozen=True):
    """On whose behalf mail is sent."""

    name: Annotated[forms.Name, about("What events and commands call it.")]
    senders: Annotated[
        tuple[forms.SenderPattern, ...],
        about('Whose mail this is, unless listener, user or header says: "*@shop.example".'),
    ] = ()
    pool: Annotated[str, about("Pool of sources that its mail leaves from.")] = "default"
    dsn: Annotated[
        Literal["sender", "never"],
        about("sender | never: who is told of bounced and expired mail by a delivery status notification."),
    ] = "sender"


class Warmup(msgspec.Struct, frozen=True):
    """A new source that sends a little more every day."""

    source: Annotated[forms.Name, about("The source that is new.")]
    plan: Annotated[
        tuple[PlanMessages, ...],
        about(
            "Recipients at one provider on the first day, the second ...; a day counts where most of it was really"
            " sent; afterwards there is no limit."
        ),
    ]
    start: Annotated[
        forms.OptionalDate, about('Nothing goes from it before this day: "2026-12-01"; left out: it begins at once.')
    ] = None
    providers: Annotated[
        dict[str, tuple[PlanMessages, ...]],
        about("Another plan for some providers, by the policy's name: { google = [20, 40, 80] }."),
    ] = {}
    zone: Annotated[str, about('Where the day begins at midnight, such as "Asia/Tokyo".')] = "UTC"
    overflow_pool: Annotated[
        str, about("Pool whose sources take what is over the plan; left out: that waits for the next day.")
    ] = ""

    def as_plan(self) -> Plan:
        """The same as the server keeps it."""
        midnight = None if self.start is None else datetime.combine(self.start, time())
        start_s = 0.0 if midnight is None else unix_s(midnight, ZoneInfo(self.zone))
        return Plan(self.source, self.plan, self.providers, start_s, self.zone, self.overflow_pool)


class Dkim(msgspec.Struct, frozen=True):
    """A key to sign with; several that fit a message all sign it."""

    domain: Annotated[forms.HostName, about("The domain that signs.")]
    selector: Annotated[forms.HostName, about("Where in the DNS the public key is: SELECTOR._domainkey.DOMAIN.")]
    key: Annotated[forms.FilePath, about("Private key, PEM: RSA or Ed25519; the algorithm follows from the key.")]
    sign: Annotated[
        Literal["from", "always"],
        about(
            "from: when this is the From domain or its nearest parent with a key | always: every message (an ESP's own"
            " signature)."
        ),
    ] = "from"


class Signing(msgspec.Struct, frozen=True):
    """Signing as a whole."""

    directory: Annotated[
        forms.OptionalPath,
        about("Keys by name: DOMAIN/SELECTOR.pem, read when first needed, reloaded with SIGHUP."),
    ] = None
    unsigned: Annotated[
        Literal["send", "refuse"], about("send | refuse (550 5.7.20): mail whose From domain has no key.")
    ] = "send"


class Policies(msgspec.Struct, frozen=True):
    """Limits and retries, one file a mailbox provider."""

    directory: Annotated[
        forms.FilePath,
        about(
            "Your own files, laid over the shipped ones; as long as it is this default, the folder need not be there."
        ),
    ] = Path("policies")
    disabled: Annotated[tuple[str, ...], about("Shipped policies not wanted, by name.")] = ()


class Rotate(msgspec.Struct, frozen=True):
    """When the event log is put aside and a new one is begun."""

    size_bytes: Annotated[Bytes, about("At this size.")] = field(default=1_000_000_000, name="size")
    keep: Annotated[Count, about("So many old ones are kept.")] = 10
    compress: Annotated[bool, about("Old ones are compressed.")] = True


class Log(msgspec.Struct, frozen=True):
    """What became of every message."""

    events: Annotated[
        forms.EventsPath, about('One JSON object a line; "-" for standard output; reopened on SIGHUP.')
    ] = "var/log/events.jsonl"
    rotate: Annotated[Rotate, about("At `size` it is put aside and compressed; the last `keep` are kept.")] = Rotate()


class Admin(msgspec.Struct, frozen=True):
    """The HTTP face of a running server: what commands ask, metrics, health."""

    address: Annotated[forms.AdminAddress, about('HTTP; or "unix:var/admin.sock".')] = "127.0.0.1:8025"
    token: Annotated[
        forms.Secret,
        about(
            'Required unless the address is loopback or a unix socket. { env = "NAME" } or { file = "path" } keeps it'
            " out of this file."
        ),
    ] = ""


class Settings(msgspec.Struct, frozen=True):
    """mta.toml as a whole."""

    include: Annotated[
        tuple[str, ...],
        about("More of the same, merged in name order; tables add up, a scalar given twice is an error."),
    ] = ("conf.d/*.toml",)
    hostname: Annotated[forms.HostName, about("Greeting, EHLO, Received; default: the machine's FQDN.")] = ""
    workers: Annotated[Annotated[int, Meta(ge=0, le=1024)], about("Worker processes; 0: one per CPU core.")] = 0
    listeners: Annotated[tuple[Listener, ...], about("Doors for applications; without any, this one.")] = field(
        default=(Listener(),), name="listener"
    )
    queue: Annotated[Queue, about("Where accepted mail is kept.")] = Queue()
    delivery: Annotated[Delivery, about("How mail goes out.")] = Delivery()
    dns: Annotated[Dns, about("Who is asked for MX and addresses.")] = Dns()
    routes: Annotated[tuple[Route, ...], about("Before MX; the first match wins.")] = field(default=(), name="route")
    sources: Annotated[
        tuple[Source, ...], about("Identities to send from; none: the system's address and `hostname`.")
    ] = field(default=(), name="source")
    pools: Annotated[
        tuple[Pool, ...], about("Sources with weights; no pool `default`: every source with the same weight.")
    ] = field(default=(), name="pool")
    tenants: Annotated[tuple[Tenant, ...], about("On whose behalf mail is sent.")] = field(default=(), name="tenant")
    limits: Annotated[
        tuple[CrossLimit, ...],
        about("What a tenant, a campaign, a sender domain or a source may send to all destinations together."),
    ] = field(default=(), name="limit")
    warmups: Annotated[
        tuple[Warmup, ...], about("Sources that are new: they send a little more on every day that they really sent.")
    ] = field(default=(), name="warmup")
    dkim: Annotated[tuple[Dkim, ...], about("Keys to sign with.")] = ()
    signing: Annotated[Signing, about("Signing as a whole.")] = Signing()
    policies: Annotated[Policies, about("Limits and retries.")] = Policies()
    log: Annotated[Log, about("What became of every message.")] = Log()
    admin: Annotated[Admin, about("The HTTP face of a running server.")] = Admin()
