"""A day in the life of the engine, by seed: providers, traffic, accidents and admins, and what must hold at the end.

Everything is drawn from the seed: what the policies say, how providers behave and when that changes, when workers die
and the power fails, how the clock is set. After the trouble all is well, and everything must come to its end.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from mta.model.selection import Selection
from mta.reporting.questions import Act, Acted, Answer, List, Listed, Suspension
from mta.testing.engine_rig import EngineRig, SimulatedWorker
from mta.testing.engine_traffic import SENDER_DOMAIN, Client, Habits, compose
from mta.testing.ledger import Ledger, Message, Recipient, Suspended
from mta.testing.scripted_provider import Allowed, ScriptedProvider, Temper

UP_S = 30.0
LENIENT_S = 1500.0  # after a reload with lower limits what is under way may end: the longest a peer may take, and more
CALM_S = 3000.0  # the longest wait for a peer, and then the longest until the next attempt
YEAR_S = 365 * 86_400.0
TENANTS = ["shop", "news"]
_TENANTS = """
[[tenant]]
name = "shop"
senders = []
[[tenant]]
name = "news"
senders = []
dsn = "never"
"""


class Size(msgspec.Struct, frozen=True):
    """How much happens."""

    messages: int = 24
    trouble_s: float = 3600.0
    accidents: int = 2
    """Crashes, power failures and restarts."""
    acts: int = 4
    """Of admins: suspensions, holds, cancellations, reloads."""


SMALL = Size()
BIG = Size(messages=250, trouble_s=20 * 3600.0, accidents=6, acts=8)


class Scenario:
    """One seed's machine, and all that happens to it."""

    def __init__(self, seed: int, directory: Path, size: Size) -> None:
        self.seed = seed
        self.size = size
        self.random = random = Random(seed * 7919 + 11)
        self.expire_s = float(random.choice([3600, 7200, 14400]))
        self.providers: list[ScriptedProvider] = []
        self.workers = random.choice([1, 2, 2, 3])
        count = random.randint(2, 4)
        self.allowed = [self._draw_allowed() for _ in range(count)]
        self.by_site = [random.random() < 0.5 for _ in range(count)]
        self.rig = EngineRig(
            seed,
            directory,
            lambda clock: Ledger(clock, expire_s=self.expire_s, wants_dsn=self._wants_dsn),
            workers=self.workers,
            memory=random.choice(["200KB", "1MB", "8MB"]),
            tables=_TENANTS,
            policies=self._policies(),
        )
        self.ledger = self.rig.ledger
        self._make_providers(count)
        self.domains = self._make_domains()
        self.busy_s: list[float] = []
        """When clients come, in seconds from the beginning."""
        self.suspended = 0
        self._is_held = False

    def _wants_dsn(self, message: Message) -> bool:
        return bool(message.sender) and message.tenant != "news"

    # what there is

    def _draw_allowed(self) -> Allowed:
        random = self.random
        connections = random.choice([1, 2, 4, 10])
        return Allowed(
            connections=connections,
            rate=random.choice([0.0, 0.0, 0.5, 2.0, 10.0]),
            messages_per_connection=random.choice([0, 1, 3, 20]),
            recipients_per_transaction=random.choice([0, 1, 2]),
            owners=min(connections, random.choice([1, 1, 2])),
        )

    def _policies(self) -> dict[str, str]:
        """One for every provider, whose limits stand at the one or the other level."""
        schedule = '["1m", "5m", "15m"]'
        default = f'tls = "none"\n[retry]\nschedule = {schedule}\njitter = "20%"\nexpire = "{self.expire_s:.0f}s"\n'
        policies = {"default": default}
        for number, allowed in enumerate(self.allowed):
            level = "limits" if self.by_site[number] else "provider_limits"
            rate = f'rate = "{allowed.rate * 60:.0f}/min"\n' if allowed.rate else ""
            policies[f"p{number}"] = (
                f'match = {{ mx = ["*.p{number}.test"] }}\nowners = {allowed.owners}\n'
                f"[{level}]\nconnections = {allowed.connections}\n{rate}"
                f"{'[limits]' if level != 'limits' else ''}\n"
                f"messages_per_connection = {allowed.messages_per_connection}\n"
                f"recipients_per_transaction = {allowed.recipients_per_transaction}\n"
                f"mix_domains = {str(self.random.random() < 0.5).lower()}\n"
            )
        return policies

    def _make_providers(self, count: int) -> None:
        rig, random = self.rig, self.random
        for number in range(count + 1):  # the last one is the senders'
            latency_s = random.choice([0.001, 0.02, 0.15])
            provider = ScriptedProvider(rig.outside, f"p{number}", self.seed * 31 + number, latency_s, self.ledger)
            if number < count:
                provider.allow(self._effective(number))
            self.providers.append(provider)
            self.ledger.latency_s[provider.name] = latency_s
            for host in range(2):
                address = f"11.0.{number}.{host + 1}"
                rig.dns.addresses[f"mx{host + 1}.p{number}.test"] = address
                rig.network.peers[address] = provider

    def _effective(self, number: int) -> Allowed:
        """Limits are divided among owners, of which there are no more than workers; one connection is one owner's."""
        allowed = self.allowed[number]
        return msgspec.structs.replace(allowed, owners=min(allowed.owners, self.workers))

    def _hosts(self, number: int) -> list[str]:
        return [f"mx1.p{number}.test", f"mx2.p{number}.test"]

    def _make_domains(self) -> list[str]:
        domains = []
        for number in range(len(self.providers) - 1):
            for at in range(self.random.randint(1, 3)):
                domain = f"d{at}.p{number}.example"
                domains.append(domain)
                self.rig.dns.hosts[domain] = self._hosts(number)
        self.rig.dns.hosts[SENDER_DOMAIN] = self._hosts(len(self.providers) - 1)
        return domains

    def _draw_temper(self) -> Temper:
        """Some are well, some are not at all, most have a whim or two."""
        random = self.random
        temper = Temper(is_down=random.random() < 0.1, is_lost=random.random() < 0.05)
        whims: dict[str, Callable[[], object]] = {
            "refuses": lambda: 0.5,
            "greets_421": lambda: 0.4,
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
        return temper

    # what happens

    def plan(self) -> None:
        """Everything that will, and when.

        The wall clock may be set. An hour back: what waits for a time waits an hour more, and a suspension that is over
        stays over. A year forward: delayed mail is due, and what is left of the old year has expired. While it stands
        still nothing falls due; rates, connections and sites that were down go on by the monotonic clock.
        """
        random, rig, size = self.random, self.rig, self.size
        habits = Habits(self.domains, ["", *TENANTS], delay_s_max=size.trouble_s)
        number = 0
        while number < size.messages:
            burst = random.choice([1, 2, 8])
            at_s = random.uniform(0.0, size.trouble_s)
            self.busy_s.append(at_s)
            rig.at(at_s, partial(self._hand_in, number, burst, habits))
            number += burst
        for provider in self.providers:
            for _ in range(random.randint(1, 3)):
                rig.at(random.uniform(0.0, size.trouble_s), partial(self._change, provider))
            provider.temper = self._draw_temper()
        for _ in range(random.randint(0, size.accidents)):
            rig.at(self._draw_time(), self._accident)
        happenings = [self._suspend, self._suspend, self._hold, self._cancel, self._retry, self._reload, self._reload]
        happenings += [self._move_domain, self._break_domain]
        for _ in range(random.randint(0, size.acts)):
            rig.at(self._draw_time(), random.choice(happenings))
        if random.random() < 0.3:
            jump = random.choice([partial(rig.clock.jump, -3600.0), partial(rig.clock.jump, YEAR_S), self._freeze])
            rig.at(random.uniform(0.0, size.trouble_s), jump)
            rig.at(0.0, partial(self.ledger.happened, f"the clock will be set: {jump}"))

    def _draw_time(self) -> float:
        """Some time, most often one when a lot is going on."""
        if self.random.random() < 0.25:
            return self.random.uniform(0.0, self.size.trouble_s)
        return self.random.choice(self.busy_s) + self.random.choice([0.03, 0.3, 2.0]) * self.random.random()

    def _hand_in(self, number: int, count: int, habits: Habits) -> None:
        wall_s = self.rig.clock.wall_s()
        messages = [compose(self.random, number + at, habits, wall_s) for at in range(count)]
        door = self.random.randrange(len(self.rig.workers))
        if not self.rig.connect(door, Client(self.rig, door, messages)):
            self.rig.at(5.0, partial(self._hand_in, number, count, habits))

    def _change(self, provider: ScriptedProvider) -> None:
        provider.temper = self._draw_temper()
        said = {name: value for name, value in msgspec.structs.asdict(provider.temper).items() if value}
        self.ledger.happened(f"{provider.name} is like this now: {said}")

    def _refill(self) -> None:
        """A process forgets what it sent: it may begin with a burst, behind what is on its way."""
        for provider in self.providers:
            self.rig.at(provider.latency_s + 0.001, provider.refill)

    def _accident(self) -> None:
        kind = self.random.random()
        if self.rig.is_stopping:
            return
        if kind < 0.15:
            self.rig.fail_disk(self.random.choice([0.1, 1.5, 20.0]))
        elif kind < 0.6:
            number = self.random.randrange(len(self.rig.workers))
            self.rig.kill(number)
            self._refill()
            delay_s = self.random.choice([0.2, 0.5, 1.0, 7.0])
            self.rig.at(delay_s, partial(self.rig.start, number))
        elif kind < 0.85:
            self.rig.lose_power()
            self._refill()
            self.rig.at(self.random.choice([1.0, 30.0]), self.rig.start_all)
        elif self.rig.are_all_up:
            self._restart()

    def _restart(self) -> None:
        self.workers = self.random.randint(max(1, self.workers - 1), self.workers)
        self._refill()

        def begun() -> None:
            for number, provider in enumerate(self.providers[:-1]):
                provider.allow(self._effective(number))

        self.rig.restart_with(self.workers, begun)

    def _selection(self) -> tuple[Selection, Callable[[Recipient, str], bool]]:
        random = self.random
        domain, provider = random.choice(self.domains), random.choice(self.providers[:-1])
        choices: list[tuple[Selection, Callable[[Recipient, str], bool]]] = [
            (Selection(domain=domain), lambda recipient, at: recipient.address.endswith("@" + domain)),
            (Selection(tenant="shop"), lambda recipient, at: recipient.message.tenant == "shop"),
            (Selection(campaign="spring"), _is_of_spring),
            (Selection(policy=provider.name), lambda recipient, at: at == provider.name),
            (Selection(all=True), lambda recipient, at: True),
        ]
        return random.choice(choices)

    def _suspend(self) -> None:
        rig, clock = self.rig, self.rig.clock
        selection, means = self._selection()
        self.suspended += 1
        now_s, for_s = clock.wall_s(), self.random.choice([60.0, 900.0])
        suspension = Suspension(f"s{self.suspended}", selection, now_s, now_s + for_s, "because")
        held = Suspended(means, float("inf"), suspension.until_s)
        self.ledger.suspended.append(held)
        self.ledger.happened(f"suspended for {for_s:g} s: {selection}")
        rig.suspend([*rig.suspensions, suspension], lambda: setattr(held, "from_s", rig.time.now_s))
        if self.random.random() < 0.3:
            rig.at(self.random.uniform(0.0, for_s), partial(self._resume, suspension, held))

    def _resume(self, suspension: Suspension, held: Suspended) -> None:
        held.is_over = True
        self.ledger.happened(f"resumed: {suspension.selection}")
        self.rig.suspend([each for each in self.rig.suspensions if each is not suspension])

    def _hold(self) -> None:
        if self._is_held:
            return
        self._is_held = True
        selection, _ = self._selection()
        self.ledger.happened(f"held: {selection}")
        self.rig.ask(Act("hold", selection), lambda answers: self.rig.ask(List(selection, 1000), self._note_held))
        self.rig.at(self.random.choice([60.0, 1800.0]), self._release)

    def _note_held(self, answers: list[Answer]) -> None:
        if not self._is_held:
            return
        for answer in answers:
            for row in answer.rows if isinstance(answer, Listed) else ():
                if row.state == "held" and row.recipient in self.ledger.recipients:
                    self.ledger.recipients[row.recipient].is_held = row.sender != ""

    def _release(self) -> None:
        self._is_held = False
        self.ledger.happened("all that is held is released")
        for recipient in self.ledger.recipients.values():
            recipient.is_held = False
        if all(worker.clerk.is_open for worker in self.rig.living()) and self.rig.are_all_up:
            self.rig.ask(Act("release", Selection(all=True)), self._released)
        else:
            self.rig.at(1.0, self._release)

    def _released(self, answers: list[Answer]) -> None:
        if not all(isinstance(answer, Acted) for answer in answers):
            self.rig.at(1.0, self._release)

    def _cancel(self) -> None:
        selection, _ = self._selection()
        if not selection.all:
            self.ledger.happened(f"cancelled: {selection}")
            self.rig.ask(Act("cancel", selection))

    def _retry(self) -> None:
        self.ledger.happened("an admin has everything tried again")
        self.ledger.retried()
        self.rig.ask(Act("retry", Selection(all=True)), lambda answers: self.ledger.retried())

    def _reload(self) -> None:
        for number in range(len(self.allowed)):
            if self.random.random() < 0.5:
                self.allowed[number] = self._draw_allowed()
        self.rig.reload(self._policies())
        for number, provider in enumerate(self.providers[:-1]):
            provider.allow(self._effective(number), LENIENT_S)

    def _move_domain(self) -> None:
        domain, number = self.random.choice(self.domains), self.random.randrange(len(self.providers) - 1)
        self.ledger.happened(f"{domain} moves to p{number}")
        self.rig.dns.hosts[domain] = self._hosts(number)

    def _break_domain(self) -> None:
        domain = self.random.choice(self.domains)
        self.ledger.happened(f"the nameservers of {domain} do not answer for a while")
        self.rig.dns.broken.add(domain)
        self.rig.at(self.random.uniform(10.0, 2000.0), lambda: self.rig.dns.broken.discard(domain))

    def _freeze(self) -> None:
        self.ledger.happened("the clock stands still")
        self.rig.clock.freeze()
        self.rig.at(600.0, self.rig.clock.thaw)

    # the whole

    def run(self) -> None:
        """Trouble, then peace, then the reckoning."""
        rig = self.rig
        rig.start_all()
        rig.run(UP_S, lambda: rig.are_all_up)
        self.plan()
        rig.run(self.size.trouble_s + 10.0)
        self._make_peace()
        rig.run(UP_S * 4, lambda: rig.are_all_up)
        rig.run(3 * self.expire_s + 4 * self.size.trouble_s, self._is_over)
        rig.run(120.0)
        self.ledger.check()
        for left in rig.left_behind():
            self.ledger.violated(left)

    def _make_peace(self) -> None:
        """Everybody is well from now on."""
        self.ledger.happened("peace")
        self.ledger.well_s = self.rig.time.now_s + CALM_S + self.rig.clock.lost_s
        for provider in self.providers:
            provider.temper = Temper()
        self.rig.dns.broken.clear()
        self.rig.start_all()

    def _is_over(self) -> bool:
        return self.rig.are_all_up and self.ledger.is_settled() and not self.rig.left_behind()


def _is_of_spring(recipient: Recipient, at: str) -> bool:
    return recipient.message.campaign == "spring" and recipient.address != recipient.message.sender


def run(seed: int, size: Size = SMALL, built: Callable[[SimulatedWorker], None] = lambda worker: None) -> Scenario:
    """The scenario of a seed; AssertionError with the story of what went wrong. `built`: see `EngineRig.built`."""
    with tempfile.TemporaryDirectory() as directory:
        scenario = Scenario(seed, Path(directory), size)
        scenario.rig.built = built
        with scenario.rig:
            scenario.run()
        assert not scenario.ledger.violations, scenario.ledger.story()
    return scenario
