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
from mta.reporting.questions import Act, Acted, Answer, Suspension
from mta.reporting.waiting import List, Listed
from mta.testing.drawn_hours import LATER_S
from mta.testing.engine_rig import EngineRig
from mta.testing.engine_size import SMALL, Features, Size
from mta.testing.engine_traffic import SENDER_DOMAIN, Client, Habits, compose
from mta.testing.engine_world import TENANTS, World
from mta.testing.ledger import Ledger, Suspended
from mta.testing.promised_mail import Message, Recipient
from mta.testing.restrained import Restrained
from mta.testing.scripted_provider import Transaction
from mta.testing.signed_mail import OURS, PLAIN, Keys, SignedMail
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_worker import SimulatedWorker
from mta.testing.watchers import Watchers

UP_S = 30.0
LENIENT_S = 1500.0  # after a reload with lower limits what is under way may end: the longest a peer may take, and more
CALM_S = 3000.0  # the longest wait for a peer, and then the longest until the next attempt
YEAR_S = 365 * 86_400.0


class Scenario:
    """One seed's machine, and all that happens to it."""

    def __init__(self, seed: int, directory: Path, size: Size) -> None:
        self.size = size
        self.random = random = Random(seed * 7919 + 11)
        self.expire_s = float(random.choice([3600, 7200, 14400]))
        self.keys = Keys.draw(directory, random)
        self.features = Features.draw(seed, size)
        workers = random.choice([1, 2, 2, 3])
        self.world = world = World(random, self.expire_s, workers, self.keys, size.owners, self.features)
        self.rig = EngineRig(
            seed,
            directory,
            self._ledger,
            workers=world.workers,
            memory=random.choice(["200KB", "1MB", "8MB"]),
            tables=world.tables(),
            policies=world.policies(),
        )
        self.ledger = self.rig.ledger
        self.watchers = Watchers(
            self.rig.clock,
            self.features,
            max(size.owners),
            site_of=world.site_of,
            dkim_domain_of=self._dkim_domain,
            expires_s_of=lambda address: self.ledger.expires_s(self.ledger.recipients[address].message),
        )
        self.ledger.watchers = self.watchers.watching
        if self.features.tenants is not None:
            self.ledger.expires_s_by_tenant = self.features.tenants.expires_s
        self.watchers.configured(self.rig.config)
        world.build(self.rig, seed)
        self._note_limits()
        self.busy_s: list[float] = []
        """When clients come, in seconds from the beginning."""
        self.suspended = 0
        self._is_held = False

    def _ledger(self, clock: SimulatedClock) -> Ledger:
        world = self.world
        restrained = Restrained(
            clock,
            site_of=world.site_of,
            dkim_domain_of=self._dkim_domain,
            spf_domain_of=_spf_domain,
            silence_s_of=lambda policy, rule: world.silences_s.get((policy, rule), 0.0),
            owners_of=world.owners_of,
        )
        signed = SignedMail(self.keys, clock.wall_s)
        return Ledger(clock, expire_s=self.expire_s, wants_dsn=self._wants_dsn, signed=signed, restrained=restrained)

    def _dkim_domain(self, message: Message) -> str:
        return next(iter(self.keys.signs(message.from_domain)), "")

    def _wants_dsn(self, message: Message) -> bool:
        return bool(message.sender) and message.tenant != "news"

    def _note_limits(self) -> None:
        """What policies allowed at any time, for those who compare turns."""
        connections = self.ledger.turns.connections
        for number, allowed in enumerate(self.world.allowed):
            name = f"p{number}"
            connections[name] = max(connections.get(name, 0), allowed.connections)

    # what happens

    def plan(self) -> None:
        """Everything that will, and when.

        The wall clock may be set. An hour back: what waits for a time waits an hour more, and a suspension that is over
        stays over. A year forward: delayed mail is due, and what is left of the old year has expired. While it stands
        still nothing falls due; rates, connections and sites that were down go on by the monotonic clock.
        """
        random, rig, size = self.random, self.rig, self.size
        habits = Habits(self.world.domains, ["", *TENANTS], [OURS, OURS, PLAIN], delay_s_max=size.trouble_s)
        number = 0
        while number < size.messages:
            burst = random.choice([1, 2, 8])
            at_s = random.uniform(0.0, size.trouble_s)
            self.busy_s.append(at_s)
            rig.at(at_s, partial(self._hand_in, number, burst, habits))
            number += burst
        if random.random() < size.crowds:
            self._plan_crowd(number)
        for number in range(len(self.world.providers)):
            for _ in range(random.randint(1, 3)):
                rig.at(random.uniform(0.0, size.trouble_s), partial(self._change, number))
            self._change(number)
        for _ in range(random.randint(0, size.accidents)):
            rig.at(self._draw_time(), self._accident)
        happenings = [self._suspend, self._suspend, self._hold, self._cancel, self._retry, self._reload, self._reload]
        happenings += [self._move_domain, self._break_domain]
        for _ in range(random.randint(0, size.acts)):
            rig.at(self._draw_time(), random.choice(happenings))
        if self.features.rules is not None:
            for _ in range(self.features.rules.randint(0, size.acts)):
                rig.at(self._draw_time(), self._change_firing)
        if random.random() < 0.3:
            jump = random.choice([partial(rig.clock.jump, -3600.0), partial(rig.clock.jump, YEAR_S), self._freeze])
            rig.at(random.uniform(0.0, size.trouble_s), jump)
            rig.at(0.0, partial(self.ledger.happened, f"the clock will be set: {jump}"))

    def _plan_crowd(self, number: int) -> None:
        """A newsletter, at once or mail by mail, and then other mail for the same destination."""
        random = self.random
        domain = random.choice(self.world.slow_domains() or self.world.domains)
        plain = Habits([domain], ["shop"], [OURS], several=0.1, delayed=0.0, hurried=0.0, huge=0.0)
        mixed = msgspec.structs.replace(plain, tenants=["", *TENANTS])
        at_s, pause_s = random.uniform(0.0, self.size.trouble_s), random.choice([0.0, 0.0, 0.4, 2.0])
        for habits, clients in ((plain, 25), (mixed, 12)):
            for _ in range(clients):
                self.rig.at(at_s, partial(self._hand_in, number, 1, habits))
                number += 1
                at_s += pause_s
            at_s += random.choice([0.0, 1.0])

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

    def _change(self, number: int) -> None:
        provider = self.world.providers[number]
        provider.temper = self.world.draw_temper(number)
        said = {name: value for name, value in msgspec.structs.asdict(provider.temper).items() if value}
        self.ledger.happened(f"{provider.name} is like this now: {said}")

    def _refill(self) -> None:
        """A process forgets what it sent: it may begin with a burst, behind what is on its way."""
        for provider in self.world.providers:
            self.rig.at(provider.latency_s + 0.001, provider.refill)
        self.rig.at(max(provider.latency_s for provider in self.world.providers), self.ledger.restrained.refill)

    def _accident(self) -> None:
        kind = self.random.random()
        if self.rig.is_stopping:
            return
        if kind < 0.15:
            self.rig.fail_disk(self.random.choice([0.1, 1.5, 20.0]))
        elif kind < 0.25:
            self._trouble_signing()
        elif kind < 0.6:
            number = self.random.randrange(len(self.rig.workers))
            self.rig.kill(number)
            self.watchers.killed()
            self._refill()
            delay_s = self.random.choice([0.2, 0.5, 1.0, 7.0])
            self.rig.at(delay_s, partial(self.rig.start, number))
        elif kind < 0.85:
            self.rig.lose_power()
            self.watchers.all_gone()
            self._refill()
            self.rig.at(self.random.choice([1.0, 30.0]), self.rig.start_all)
        elif self.rig.are_all_up:
            self._restart()

    def _trouble_signing(self) -> None:
        """A helper hangs or dies; or the keys are gone, which is found out where they are looked for anew."""
        number, for_s = self.random.randrange(len(self.rig.helpers)), self.random.choice([0.5, 5.0, 60.0])
        helper = self.rig.helpers[number]
        if self.keys.kind == "directory" and self.random.random() < 0.5:
            self._reload()
            self.ledger.happened(f"the keys are gone for {for_s:g} s")
            self.keys.hide()
            self.rig.at(for_s, self.keys.show)
        elif helper is not None:
            is_hanging = helper.is_hanging = self.random.random() < 0.5
            self.ledger.happened(f"helper {number} {'hangs' if is_hanging else 'dies'} for {for_s:g} s")
            if not is_hanging:
                self.rig.kill_helper(number)
            self.rig.at(for_s, partial(self._mend_helper, number))

    def _mend_helper(self, number: int) -> None:
        self.ledger.happened(f"helper {number} begins a new life")
        if number < len(self.rig.helpers):
            self.rig.start_helper(number)

    def _restart(self) -> None:
        world = self.world
        world.workers = self.random.randint(max(1, world.workers - 1), world.workers)

        def begun() -> None:
            world.enforce()
            self.ledger.restrained.reloaded()
            self.watchers.configured(self.rig.config)
            self.watchers.all_gone()
            self._refill()

        self.rig.restart_with(world.workers, begun)

    def _selection(self) -> tuple[Selection, Callable[[Recipient, Transaction], bool]]:
        random, world = self.random, self.world
        domain, (provider, _) = random.choice(world.domains), world.draw_hosts()
        choices: list[tuple[Selection, Callable[[Recipient, Transaction], bool]]] = [
            (Selection(domain=domain), lambda recipient, to: recipient.address.endswith("@" + domain)),
            (Selection(tenant="shop"), lambda recipient, to: recipient.message.tenant == "shop"),
            (Selection(campaign="spring"), _is_of_spring),
            (Selection(policy=provider), lambda recipient, to: to.provider == provider),
            (Selection(all=True), lambda recipient, to: True),
        ]
        if world.sources:
            source = random.choice(world.sources).name
            choices.append((Selection(source=source), lambda recipient, to: to.source == source))
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

    def _change_firing(self) -> None:
        """An admin does not like what a rule did."""
        rig, random, restrained = self.rig, self.features.rules, self.ledger.restrained
        assert random is not None, "there are rules"
        supervisor = rig.supervisor
        firings = supervisor.rules.firings() if supervisor is not None else []
        if supervisor is None or rig.is_stopping or not firings:
            return
        firing, act = random.choice(firings), random.random()
        if act < 0.6:
            self.ledger.happened(f"cancelled: {firing.rule} for {firing.key}")
            restrained.ended(firing.identity)
            work = supervisor.rules.cancel(firing.id, "admin", "because")
        elif act < 0.8:
            for_s = random.choice([5.0, 600.0])
            self.ledger.happened(f"for {for_s:g} s from now: {firing.rule} for {firing.key}")
            restrained.shortened(firing.identity, for_s)
            work = supervisor.rules.extend(firing.id, for_s, "admin", "because")
        else:
            self.ledger.happened(f"muted: {firing.policy}/{firing.rule}")
            restrained.muted(firing.policy, firing.rule)
            self.watchers.muted(firing.policy, firing.rule)
            work = supervisor.rules.mute(f"{firing.policy}/{firing.rule}", 300.0, "admin", "because")
        rig.do(supervisor.loop, work, lambda done: None)

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
        if self.keys.is_hidden:
            return
        self.world.draw_limits()
        self._note_limits()
        if self.random.random() < 0.5:
            self.keys.renew()
        self._read_again()
        self.ledger.restrained.reloaded()

    def _read_again(self) -> None:
        self.rig.reload(self.world.policies(), self.world.tables())
        self.world.enforce(LENIENT_S)
        self.watchers.configured(self.rig.config)

    def _move_domain(self) -> None:
        domain, (provider, hosts) = self.random.choice(self.world.domains), self.world.draw_hosts()
        self.ledger.happened(f"{domain} moves to {provider}: {hosts[0]}")
        self.ledger.turns.troubled(domain)
        self.rig.dns.hosts[domain] = hosts

    def _break_domain(self) -> None:
        domain = self.random.choice(self.world.domains)
        self.ledger.happened(f"the nameservers of {domain} do not answer for a while")
        self.ledger.turns.troubled(domain)
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
        later_s = LATER_S if self.features.hours is not None else 0.0
        well_s = self.rig.time.now_s + CALM_S + later_s + self.rig.clock.lost_s
        self.ledger.well_s = self.watchers.bounds.well_s = well_s
        for number, provider in enumerate(self.world.providers):
            provider.temper = self.world.calm(number)
        self.rig.dns.broken.clear()
        self.keys.show()
        self.rig.start_all()
        if self.world.lift():
            self.rig.run(UP_S * 4, lambda: self.rig.are_all_up)
            self._read_again()

    def _is_over(self) -> bool:
        return self.rig.are_all_up and self.ledger.is_settled() and not self.rig.left_behind()


def _is_of_spring(recipient: Recipient, to: Transaction) -> bool:
    return recipient.message.campaign == "spring" and recipient.address != recipient.message.sender


def _spf_domain(recipient: Recipient, to: Transaction) -> str:
    """Of the null sender the name that we say in EHLO."""
    return SENDER_DOMAIN if recipient.message.sender else f"{to.source}.test" if to.source else "me.test"


def run(seed: int, size: Size = SMALL, built: Callable[[SimulatedWorker], None] = lambda worker: None) -> Scenario:
    """The scenario of a seed; AssertionError with the story of what went wrong. `built`: see `EngineRig.built`."""
    with tempfile.TemporaryDirectory() as directory:
        scenario = Scenario(seed, Path(directory), size)
        scenario.rig.built = built
        with scenario.rig:
            scenario.run()
        assert not scenario.ledger.violations, scenario.ledger.story()
    return scenario
