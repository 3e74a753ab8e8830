"""Who plays in the demo: a shop that writes to its customers, and five mailbox providers of different temper.

Each provider is three things that must fit together: its temper in the sink, the policy that the server keeps to, and
what a person is told of it. The shop is a sixth mail host: there arrive the notifications of what could not be
delivered.
"""

from typing import NamedTuple

from bench.mailing import Domain, Maker, Plan
from bench.temper import Profile

SHOP = "shop"
SHOP_DOMAIN = "shop.test"
SENDER = f"letters@{SHOP_DOMAIN}"
RUN = "demo"  # first part of every message's id
SLEEPS_S = 5.0  # the sleepy one opens so long after the first message
RATE_PER_S = 100.0  # of the strict one
SAMPLES = 20  # messages of each provider that are looked at
NOBODY = "unknown"  # how recipients begin who do not exist
SIZES = [1_500, 4_096, 12_000]
SESSIONS = 50

UNLIMITED = 'connection_rate = "none"\nmessages_per_connection = 0\nrate = "none"\n'
POLICY_DEFAULT = '[retry]\nschedule = ["2s", "3s", "5s"]\njitter = "20%"\navoid = []\n'


class Provider(NamedTuple):
    """One of the cast."""

    profile: Profile
    character: str
    """For a person, in a few words."""
    domains: tuple[str, ...]
    share: float
    """Of the mail."""
    connections: int
    """What its policy allows."""
    limits: str
    """The rest of the policy's [limits]."""
    unknown: float = 0.0
    """Share of its recipients that do not exist."""

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def policy(self) -> str:
        """The policy file: whoever is served by its mail host."""
        match = f'match = {{ mx = ["*.{self.name}-mail.test"] }}\n'
        return f"{match}\n[limits]\nconnections = {self.connections}\n{self.limits}"


PROVIDERS = (
    Provider(
        Profile(name="swift", times=False),
        "takes all that it is given",
        ("swift.test",),
        0.58,
        20,
        UNLIMITED,
    ),
    Provider(
        Profile(
            name="distant", latency_s=0.08, greeting_latency_s=0.08, messages_per_connection=20, times=False,
            messages_over="421 4.7.0 Max message per connection reached",
        ),
        "80 ms away, 20 messages a connection",
        ("distant.test",),
        0.14,
        50,
        'connection_rate = "none"\nmessages_per_connection = 20\nrate = "none"\n',
    ),
    Provider(
        Profile(
            name="moody", latency_s=0.025, greylist_s=1.5, greylist_percent=15.0, deferred_percent=8.0, times=False,
        ),
        "greylists 15 %, defers 8 %, does not know 3 %",
        ("moody.test",),
        0.11,
        12,
        'connection_rate = "none"\nmessages_per_connection = 100\nrate = "none"\n',
        unknown=0.03,
    ),
    Provider(
        Profile(name="sleepy", down=True, latency_s=0.005, times=False),
        f"cannot be reached for the first {SLEEPS_S:.0f} seconds",
        ("sleepy.test",),
        0.10,
        10,
        UNLIMITED,
    ),
    Provider(
        # It takes a little more than its policy sends: the two do not measure at the same place.
        Profile(
            name="strict", connections_max=3, rate_per_s=RATE_PER_S * 1.1, burst=120, messages_per_connection=50,
            latency_s=0.005, times=False,
        ),
        f"3 connections, {RATE_PER_S:.0f} messages a second, two domains",
        ("strict.test", "hosted.test"),
        0.07,
        3,
        f'connection_rate = "none"\nmessages_per_connection = 50\nrate = "{RATE_PER_S:.0f}/s"\n',
    ),
)  # fmt: skip


def profiles(messages: int) -> list[Profile]:
    """The sink's, the shop's last; of each a few messages are kept, from all over the run."""
    cast = [each.profile for each in PROVIDERS] + [Profile(name=SHOP, times=False)]
    for profile in cast:
        share = next((each.share for each in PROVIDERS if each.profile is profile), 0.003)
        profile.sample_every = max(1, round(messages * share / SAMPLES))
    return cast


def zone() -> dict[str, dict[str, object]]:
    """MX records as providers have them: one host for all the domains it serves."""
    records: dict[str, dict[str, object]] = {}
    domains_of = {each.name: each.domains for each in PROVIDERS} | {SHOP: (SHOP_DOMAIN,)}
    for number, (name, domains) in enumerate(domains_of.items(), start=2):
        host = f"mx.{name}-mail.test"
        records[host] = {"A": [f"127.0.0.{number}"]}
        records |= {domain: {"MX": [f"10 {host}."]} for domain in domains}
    return records


def policies() -> dict[str, str]:
    """The server's, by name."""
    return {"default": POLICY_DEFAULT} | {each.name: each.policy for each in PROVIDERS}


def provider_of() -> dict[str, str]:
    """Domain -> whose it is."""
    return {domain: each.name for each in PROVIDERS for domain in each.domains} | {SHOP_DOMAIN: SHOP}


class Mailing:
    """What is sent, and what must become of it."""

    def __init__(self, messages: int, port: int) -> None:
        self.plan = Plan(
            port=port,
            messages=messages,
            sessions=SESSIONS,
            sizes=SIZES,
            domains=[
                Domain(domain, each.share / len(each.domains), {NOBODY: each.unknown} if each.unknown else {})
                for each in PROVIDERS
                for domain in each.domains
            ],
            sender=SENDER,
            run_id=RUN,
        )
        self.messages = dict.fromkeys((each.name for each in PROVIDERS), 0)
        """How many go to each provider."""
        self.undeliverable = dict.fromkeys(self.messages, 0)
        """How many of them to recipients that do not exist."""
        maker, whose = Maker(self.plan), provider_of()
        for number in range(messages):
            recipient = maker.make(number, 0.0).envelope.partition(b"RCPT TO:<")[2].partition(b">")[0].decode()
            name = whose[recipient.rpartition("@")[2]]
            self.messages[name] += 1
            self.undeliverable[name] += recipient.startswith(NOBODY)

    @property
    def notifications(self) -> int:
        """How many must reach the shop."""
        return sum(self.undeliverable.values())

    @property
    def least_s(self) -> float:
        """It cannot be faster than this: the strict one's rate, the sleepy one's sleep."""
        return max(self.messages["strict"] / RATE_PER_S, SLEEPS_S)
