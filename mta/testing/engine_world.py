"""The world of a simulation, drawn from a seed: our sources, the providers with their hosts, and what policies say.

A provider has one or two sites, each with two mail hosts of some addresses, of which not all are there. The last
provider is the senders' own: notifications go to it.
"""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from mta.resolve.sites import site_name
from mta.testing.drawn_rules import PROVOKING, Rules
from mta.testing.engine_rig import EngineRig
from mta.testing.engine_size import Features
from mta.testing.engine_traffic import SENDER_DOMAIN
from mta.testing.memory_network import OWN_ADDRESS
from mta.testing.provider_session import ProviderSession
from mta.testing.scripted_provider import Allowed, Front, Level, ScriptedProvider, Temper, Transaction
from mta.testing.signed_mail import Keys

TENANTS = ["shop", "news"]
QUOTAS = (0, 8, 20, 60)
"""Transactions in an hour."""
_TENANTS = """
[[tenant]]
name = "shop"
senders = []
[[tenant]]
name = "news"
senders = []
dsn = "never"
pool = "news"
"""
_LEVELS: tuple[Level, ...] = ("limits", "source_limits", "provider_limits")


class Source(msgspec.Struct, frozen=True):
    """An identity to send from."""

    name: str
    ipv4: str = ""
    ipv6: str = ""

    @property
    def table(self) -> str:
        """As mta.toml has it."""
        ipv6 = f'ipv6 = "{self.ipv6}"\n' if self.ipv6 else ""
        return f'[[source]]\nname = "{self.name}"\nipv4 = "{self.ipv4}"\n{ipv6}ehlo = "{self.name}.test"\n'


SOURCES = (Source("out-1", "198.51.100.1"), Source("out-2", "198.51.100.2", "2001:db8:ff::2"))


class World:
    """Whom our mail goes to, and as whom it goes."""

    def __init__(
        self,
        random: Random,
        expire_s: float,
        workers: int,
        keys: Keys,
        owners: Sequence[int],
        features: Features,
    ) -> None:
        """`owners`: how many a policy may have, of which one is drawn; `features`: what policies and mta.toml say
        beside limits and retries."""
        self.random = random
        self.features = features
        self._owners = owners
        self.keys = keys
        self.expire_s = expire_s
        self.workers = workers
        self.providers: list[ScriptedProvider] = []
        self.sources = random.choice([(), (), SOURCES[:1], SOURCES[1:], SOURCES])
        count = random.randint(2, 4)
        self.levels: list[Level] = [random.choice(_LEVELS) for _ in range(count)]
        self.sites = [1 if level == "limits" else random.randint(1, 2) for level in self.levels]
        self.tls = [random.choice(["none", "none", "opportunistic", "required", "verify"]) for _ in range(count)]
        self.allowed = [self._draw_allowed(number) for number in range(count)]
        self.rules = [Rules(features.rules) if features.rules is not None else None for _ in range(count)]
        self.silences_s: dict[tuple[str, str], float] = {}
        """Of all rules that ever probed, the shortest: policy and name -> seconds."""
        self.domains: list[str] = []

    # what the configuration says

    def tables(self) -> str:
        """Of mta.toml, from now on."""
        pools = ""
        if self.sources:
            weights = ", ".join(
                f"{source.name} = {weight}" for source, weight in zip(self.sources, (3, 1), strict=False)
            )
            pools = f'[[pool]]\nname = "default"\nsources = {{ {weights} }}\n'
            pools += f'[[pool]]\nname = "news"\nsources = {{ {self.sources[-1].name} = 1 }}\n'
        tenants = _TENANTS if self.sources else _TENANTS.replace('pool = "news"\n', "")
        tables = tenants + "".join(source.table for source in self.sources) + pools + self.keys.tables
        names, limits, plans = [source.name for source in self.sources], self.features.limits, self.features.plans
        tables += limits.tables(names) if limits is not None else ""
        return tables + (plans.tables(names) if plans is not None else "")

    def _draw_allowed(self, number: int) -> Allowed:
        random = self.random
        connections = random.choice([1, 2, 4, 10])
        return Allowed(
            level=self.levels[number],
            connections=connections,
            rate=random.choice([0.0, 0.0, 0.5, 2.0, 10.0]),
            messages_per_connection=random.choice([0, 1, 3, 20]),
            recipients_per_transaction=random.choice([0, 1, 2]),
            owners=min(connections, random.choice(self._owners)),
            needs_tls=self.tls[number] in ("required", "verify"),
            needs_trust=self.tls[number] == "verify",
            quota=self.features.quotas.choice(QUOTAS) if self.features.quotas is not None else 0,
        )

    def lift(self) -> bool:
        """Nothing waits for another hour or day, with the next reload; -> whether there was such a thing."""
        features = self.features
        lifted = [each for each in (features.limits, features.plans, features.tenants) if each is not None]
        for each in lifted:
            each.lift()
        has_quotas, features.quotas = features.quotas is not None, None
        self.allowed = [msgspec.structs.replace(allowed, quota=0) for allowed in self.allowed]
        return has_quotas or bool(lifted)

    def policies(self) -> dict[str, str]:
        """One for every provider, whose limits stand at one of the levels; and those of tenants."""
        schedule = '["1m", "5m", "15m"]'
        retry = f'[retry]\nschedule = {schedule}\njitter = "20%"\nexpire = "{self.expire_s:.0f}s"\n'
        policies = {"default": f'tls = "opportunistic"\n{retry}'}
        features = self.features
        for number, allowed in enumerate(self.allowed):
            rate = f'rate = "{allowed.rate * 60:.0f}/min"\n' if allowed.rate else ""
            quota = f'quota = {{ count = {allowed.quota}, per = "hour" }}\n' if allowed.quota else ""
            policies[f"p{number}"] = (
                f'match = {{ mx = ["*.p{number}.test"] }}\nowners = {allowed.owners}\ntls = "{self.tls[number]}"\n'
                f"[{allowed.level}]\nconnections = {allowed.connections}\n{rate}{quota}{self._window(allowed.level)}"
                f"{'[limits]' if allowed.level != 'limits' else ''}\n"
                f"messages_per_connection = {allowed.messages_per_connection}\n"
                f"recipients_per_transaction = {allowed.recipients_per_transaction}\n"
                f"mix_domains = {str(self.random.random() < 0.5).lower()}\n"
            )
            if features.hours is not None:
                policies[f"p{number}"] += "".join(features.hours.for_source(source.name) for source in self.sources)
            if features.adapts is not None:
                policies[f"p{number}"] += features.adapts.text()
            if (rules := self.rules[number]) is not None:
                policies[f"p{number}"] += rules.text
                for rule, silence_s in rules.silences_s.items():
                    known_s = self.silences_s.get((f"p{number}", rule), silence_s)
                    self.silences_s[f"p{number}", rule] = min(known_s, silence_s)
        return policies | (features.tenants.files() if features.tenants is not None else {})

    def _window(self, level: Level) -> str:
        """At the level where a policy's limits stand, or at none."""
        hours = self.features.hours
        return f"window = {hours.value()}\n" if hours is not None and hours.stand_at(level) else ""

    def effective(self, number: int) -> Allowed:
        """Limits are divided among owners, of which there are no more than workers; one connection is one owner's."""
        allowed = self.allowed[number]
        return msgspec.structs.replace(allowed, owners=min(allowed.owners, self.workers))

    def draw_limits(self) -> None:
        """Some policies say something else from now on."""
        for number in range(len(self.allowed)):
            if self.random.random() < 0.5:
                self.allowed[number] = self._draw_allowed(number)
            if self.features.rules is not None and self.features.rules.random() < 0.3:
                self.rules[number] = Rules(self.features.rules)

    def enforce(self, lenient_s: float = 0.0) -> None:
        """Providers watch what policies allow now; what is under way may end in so many seconds."""
        for number, provider in enumerate(self.providers[:-1]):
            provider.allow(self.effective(number), lenient_s)

    # what there is

    def build(self, rig: EngineRig, seed: int) -> None:
        """Providers, hosts and domains."""
        random, count = self.random, len(self.allowed)
        addresses = dict.fromkeys(OWN_ADDRESS.values(), "") if not self.sources else {}
        for source in self.sources:
            addresses |= {address: source.name for address in (source.ipv4, source.ipv6) if address}
        for number in range(count + 1):
            latency_s = random.choice([0.001, 0.02, 0.15])
            provider = ScriptedProvider(rig.outside, f"p{number}", seed * 31 + number, latency_s, rig.ledger)
            provider.hour_of = lambda at_s: int(rig.clock.wall_at(at_s) // 3600)
            provider.sources = addresses
            provider.names = {"": "me.test", **{source.name: f"{source.name}.test" for source in self.sources}}
            self.providers.append(provider)
            for site in range(self.sites[number] if number < count else 1):
                front = Front(provider, f"s{site}", ProviderSession)
                for host in self.hosts(number, site):
                    rig.dns.addresses[host] = self._draw_addresses(rig, front)
        self.enforce()
        for number in range(count):
            for at in range(random.randint(1, 3)):
                domain = f"d{at}.p{number}.example"
                self.domains.append(domain)
                rig.dns.hosts[domain] = self.hosts(number, random.randrange(self.sites[number]))
        rig.dns.hosts[SENDER_DOMAIN] = self.hosts(count, 0)

    def _draw_addresses(self, rig: EngineRig, front: Front) -> list[str]:
        """One or several, of which nobody answers at some; IPv4 at least."""
        number = len(rig.network.peers)
        addresses = [f"11.0.{number}.{at}" for at in range(self.random.choice([1, 1, 2]))]
        addresses += [f"2001:db8:{number:x}::{at:x}" for at in range(self.random.choice([0, 1, 2]))]
        for at, address in enumerate(addresses):
            if at == 0 or self.random.random() < 0.8:
                rig.network.peers[address] = front
        self.random.shuffle(addresses)
        return addresses

    def hosts(self, number: int, site: int) -> list[str]:
        """The mail hosts of a provider's site."""
        return [f"mx{host + 1}-{site}.p{number}.test" for host in range(2)]

    def site_of(self, transaction: Transaction) -> str:
        """The name of the site that a transaction went to."""
        return site_name(self.hosts(int(transaction.provider[1:]), int(transaction.site[1:])))

    def owners_of(self, policy: str) -> int:
        """How many workers share it."""
        return self.effective(int(policy[1:])).owners

    def draw_hosts(self) -> tuple[str, list[str]]:
        """A provider's name and the hosts of one of its sites."""
        number = self.random.randrange(len(self.providers) - 1)
        return f"p{number}", self.hosts(number, self.random.randrange(self.sites[number]))

    def slow_domains(self) -> list[str]:
        """Those whose mail has to wait for its turn."""
        slow = [f".p{number}.example" for number, allowed in enumerate(self.allowed) if allowed.rate]
        return [domain for domain in self.domains if domain.endswith(tuple(slow))]

    # how providers are

    def calm(self, number: int) -> Temper:
        """Well in every way."""
        is_last = number == len(self.providers) - 1
        return Temper(tls="good" if is_last or self.tls[number] != "none" else "none")

    def draw_temper(self, number: int) -> Temper:
        """Some are well, some are not at all, most have a whim or two."""
        random = self.random
        temper = self.calm(number)
        temper.is_down, temper.is_lost = random.random() < 0.1, random.random() < 0.05
        whims: dict[str, Callable[[], object]] = {
            "refuses": lambda: 0.5,
            "greets_421": lambda: 0.4,
            "tls": lambda: random.choice(["none", "unknown", "refused", "broken"]),
            "mail_4xx": lambda: 0.3,
            "mail_421": lambda: 0.3,
            "rcpt_4xx": lambda: 0.4,
            "dot_4xx": lambda: 0.4,
            "dot_5xx": lambda: 0.2,
            "drops": lambda: 0.3,
            "drops_after_dot": lambda: 0.3,
            "is_grey": lambda: True,
            "slow_s": lambda: random.choice([0.5, 5.0, 40.0]),
            "stalls": lambda: 0.15,
            "lingers": lambda: 0.5,
            "recipients_max": lambda: random.choice([1, 2]),
            "size_max": lambda: 10_000,
            "keywords": lambda: random.choice([("SIZE",), ("PIPELINING",), ()]),
        }
        for name in random.sample(sorted(whims), random.randint(0, 3)):
            setattr(temper, name, whims[name]())
        if self.features.rules is not None and self.features.rules.random() < 0.6:
            setattr(temper, self.features.rules.choice(PROVOKING), 0.4)
        return temper
