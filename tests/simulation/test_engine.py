"""The whole engine by seed: workers, disk, network, providers, admins, accidents, clocks, and then the reckoning."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from mta.delivery.allowance import Allowance
from mta.delivery.connection import Connection
from mta.delivery.job import Job, Signature
from mta.delivery.signatures import Told
from mta.delivery.targets import Targets
from mta.delivery.tenant_limits import TenantLimits
from mta.delivery.warming import Warm
from mta.model.outcome import Reply
from mta.smtp.outgoing import Outgoing
from mta.testing.engine_scenario import Scenario, run
from mta.testing.engine_size import BARE, BIG, SMALL, Size
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_worker import SimulatedWorker
from mta_policies import engine
from mta_policies.adapting import Law
from mta_policies.allotments import Accounts
from mta_policies.limits import Share
from mta_policies.restraint import Restraint
from mta_policies.schema import Limits
from mta_policies.windows import Hours

SEEDS_FOR_A_FAULT = 12
DAYS = 3
BUSY = replace(BARE, messages=60, accidents=1, acts=10, crowds=1.0)
RULED = replace(BARE, messages=60, accidents=1, acts=2, crowds=1.0, rules=1.0, owners=(2, 3))
CALM = replace(BARE, messages=60, accidents=0, acts=0, crowds=1.0, owners=(1, 2))
SLOWED = replace(CALM, rules=1.0)
QUOTED = replace(CALM, quotas=1.0, owners=(2, 3))
FEW = replace(CALM, messages=40, trouble_s=300.0)
LIMITED = replace(FEW, limits=1.0)
ADAPTED = replace(FEW, adapts=1.0)


def test_every_accepted_recipient_has_its_one_end(seed: int):
    """Whatever happens meanwhile, and no limit, hold, suspension or time is passed over on the way."""
    run(seed)


@pytest.mark.parametrize("day", range(DAYS))
def test_a_long_day_ends_well(day: int):
    """The same over a day, with ten times the mail and all kinds of trouble at once."""
    scenario = run(day, BIG)

    assert scenario.rig.time.now_s > BIG.trouble_s
    assert len(scenario.ledger.accepted) > BIG.messages // 2


def test_a_seed_tells_the_same_story_every_time(tmp_path: Path):
    """What failed once can be looked at again."""
    stories = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        scenario = Scenario(53, tmp_path / name, SMALL)
        with scenario.rig:
            scenario.run()
        stories.append([line for message in scenario.ledger.messages for line in message.story])

    assert stories[0] == stories[1]
    assert stories[0]


def _forgets_fates(worker: SimulatedWorker) -> None:
    """Every seventh fate is not written."""
    finish = worker.store.finish
    calls = 0

    def finishes(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 7:
            finish(*arguments)  # type: ignore[arg-type]

    worker.store.finish = finishes  # type: ignore[method-assign,assignment]


def _tells_too_little(worker: SimulatedWorker) -> None:
    """Every seventh line of a fate is not told."""
    tell = worker.events.fate
    calls = 0

    def tells(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 7:
            tell(*arguments)  # type: ignore[arg-type]

    worker.events.fate = tells  # type: ignore[method-assign,assignment]


def _is_ahead_of_time(worker: SimulatedWorker) -> None:
    """Delivery believes that it is ten minutes later than it is."""

    class Ahead(SimulatedClock):
        def wall_s(self) -> float:
            return super().wall_s() + 600.0

    ahead = Ahead(worker.rig.time)
    worker.dispatcher.clock = ahead


def _drops_at_reload(worker: SimulatedWorker) -> None:
    """A reload loses what waits in lanes."""
    dispatcher = worker.dispatcher
    reload = dispatcher.reload

    def reloads(*arguments: object) -> None:
        for site in dispatcher.domains.sites.values():
            site.take_jobs()
        reload(*arguments)  # type: ignore[arg-type]

    dispatcher.reload = reloads  # type: ignore[method-assign,assignment]


def _knows_no_suspension(worker: SimulatedWorker) -> None:
    """Nothing is ever suspended."""
    worker.dispatcher.suspensions.replace = lambda *arguments, **more: None  # type: ignore[method-assign]


def _spins(worker: SimulatedWorker) -> None:
    """A callback calls itself for ever."""

    def again() -> None:
        worker.loop.call_soon(again)

    worker.loop.call_later(600.0, again)


def _forgets_priorities(worker: SimulatedWorker) -> None:
    """First come, first served."""
    _changes_jobs(worker, lambda job: setattr(job, "priority", 5))


def _forgets_tenants(worker: SimulatedWorker) -> None:
    """All mail is one share."""
    _changes_jobs(worker, lambda job: (setattr(job, "tenant", ""), setattr(job, "campaign", "")))


def _changes_jobs(worker: SimulatedWorker, change: Callable[[Job], object]) -> None:
    intake = worker.dispatcher.intake
    begin = intake._begin

    def begins(job: Job, *arguments: object) -> None:
        change(job)
        begin(job, *arguments)  # type: ignore[arg-type]

    intake._begin = begins  # type: ignore[method-assign,assignment]


def _signs_not_all(worker: SimulatedWorker) -> None:
    """Every seventh message leaves as it came."""
    begin = worker.signatures.begin
    calls = 0

    def begins(job: Job, done: Told) -> Reply | None:
        nonlocal calls
        calls += 1
        if not calls % 7 and job.signature is None:
            job.signature = Signature(b"")
            return None
        return begin(job, done)

    worker.signatures.begin = begins  # type: ignore[method-assign]


def _signs_every_attempt(worker: SimulatedWorker) -> None:
    """What was signed before is signed anew when it comes back from the disk."""
    worker.dispatcher.intake._shared_signature = lambda seq: Signature()  # type: ignore[method-assign]


FAULTS = [_forgets_fates, _tells_too_little, _is_ahead_of_time, _drops_at_reload, _knows_no_suspension, _spins]
FAULTS += [_forgets_priorities, _forgets_tenants, _signs_not_all, _signs_every_attempt]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_fault_is_found(fault: Callable[[SimulatedWorker], None]):
    """Within a few seeds."""
    assert _found(fault)


def _obeys_no_rule(worker: SimulatedWorker) -> None:
    """Firings are made, told and kept, and have no effect."""
    worker.dispatcher.restraints._set = lambda *arguments: None  # type: ignore[method-assign]


def _keeps_its_rules_to_itself(worker: SimulatedWorker) -> None:
    """Nobody hears of what fires here, not even the worker's next life."""
    worker.dispatcher.restraints.report = lambda changes: None


@pytest.mark.parametrize(
    "fault", [_obeys_no_rule, _keeps_its_rules_to_itself], ids=lambda fault: fault.__name__.strip("_")
)
def test_a_fault_about_rules_is_found(fault: Callable[[SimulatedWorker], None]):
    """Mail that a firing is for goes out, here or at another worker."""
    found = _found(fault, RULED)

    assert " while r" in found or " faster than r" in found


def test_a_connection_too_many_is_found(monkeypatch: pytest.MonkeyPatch):
    """Providers count for themselves."""
    count = Share.count
    monkeypatch.setattr(Share, "count", lambda share, whole: count(share, whole) + 1)

    assert "connections" in _found()


def test_mail_that_is_said_late_is_found(monkeypatch: pytest.MonkeyPatch):
    """What a rate counts is the moment at which MAIL is written: others must not come closer to it than they may."""
    send = Connection.send
    calls = 0

    def sends(connection: Connection, outgoing: Outgoing) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            send(connection, outgoing)
        else:
            connection._loop.call_later(0.3, send, connection, outgoing)

    monkeypatch.setattr(Connection, "send", sends)

    assert "over the rate" in _found()


def test_a_rule_that_slows_too_little_is_found(monkeypatch: pytest.MonkeyPatch):
    """The rate that it says is kept over all that it is for."""
    monkeypatch.setattr(Restraint, "_limits", lambda restraint, wall_s: Limits())

    assert " faster than r" in _found(size=SLOWED)


def test_a_quota_that_is_passed_is_found(monkeypatch: pytest.MonkeyPatch):
    """Whoever draws gets all that he asks for."""
    monkeypatch.setattr(Accounts, "draw", lambda accounts, draw: max(0, draw.wanted))

    assert "in an hour" in _found(size=QUOTED)


def _obeys_no_limit(worker: SimulatedWorker) -> None:
    """Nothing is reserved before it goes."""
    worker.dispatcher.reserving.takes = lambda pool, job, channel: True  # type: ignore[method-assign]


def _lets_nothing_go(worker: SimulatedWorker) -> None:
    """What waits for a limit is not taken up again when there is room."""
    worker.dispatcher.reserving._release_from = lambda hold, now_s: None  # type: ignore[method-assign]


def test_a_limit_across_destinations_that_is_passed_is_found():
    """Its rate or its quota, over all workers together."""
    assert _found(_obeys_no_limit, LIMITED, " may go")
    assert _found(_obeys_no_limit, LIMITED, " are allowed")


def test_mail_that_waits_for_a_limit_for_ever_is_found():
    """Though there is room."""
    assert _found(_lets_nothing_go, LIMITED, "expired, though nothing")


def test_a_plan_that_is_passed_is_found(monkeypatch: pytest.MonkeyPatch):
    """A provider takes more from a new source than its day allows."""
    monkeypatch.setattr(Warm, "room", lambda warm: math.inf)

    assert _found(size=replace(FEW, plans=1.0), told=" in a day, ")


def test_mail_outside_of_its_hours_is_found(monkeypatch: pytest.MonkeyPatch):
    """At the levels of a policy, of a tenant and over all destinations."""
    monkeypatch.setattr(Hours, "wait_s", lambda hours, now_s: 0.0)

    assert _found(size=replace(FEW, hours=1.0), told="outside of its hours")


def test_a_rate_above_its_ceiling_is_found(monkeypatch: pytest.MonkeyPatch):
    """A complaint lowers it from twice as much."""
    of = Law.of
    monkeypatch.setattr(engine, "Law", SimpleNamespace(of=lambda *said: (law := of(*said)) and _doubled(law)))

    assert _found(size=ADAPTED, told=", and should be in ")


def _doubled(law: Law) -> Law:
    return law._replace(floor=2 * law.ceiling, ceiling=4 * law.ceiling)


def _sends_as_it_likes(worker: SimulatedWorker) -> None:
    """Rates of paths are told and not kept."""
    worker.dispatcher.restraints._set = lambda *arguments: None  # type: ignore[method-assign]


def test_a_path_that_is_too_fast_is_found():
    """The rate that the event log tells is the one that is kept."""
    assert _found(_sends_as_it_likes, ADAPTED, " messages at once for path ")


def test_tenants_limits_and_retries_that_are_not_kept_are_found(monkeypatch: pytest.MonkeyPatch):
    """What a tenant says holds for his mail."""
    tenanted = replace(FEW, tenants=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(TenantLimits, "takes", lambda limits, job: job)
        assert _found(size=tenanted, told=" by tenant ")
    monkeypatch.setattr(Allowance, "retry_for", lambda allowance, tenant: allowance.retry)
    assert _found(size=tenanted, told=" comes again in ")


def test_mail_in_clear_is_found(monkeypatch: pytest.MonkeyPatch):
    """Where a policy says that it must not be."""
    monkeypatch.setattr(Targets, "tls_mode", lambda targets, target, now_s: "none")

    assert "MAIL in clear" in _found()


def _found(fault: Callable[[SimulatedWorker], None] = lambda worker: None, size: Size = BUSY, told: str = "") -> str:
    """The story of the first seed that fails and tells this, "" where none does."""
    for seed in range(SEEDS_FOR_A_FAULT):
        try:
            run(seed, size, fault)
        except AssertionError as error:
            if told in str(error):
                return str(error)
    return ""


def test_the_simulation_gets_around():
    """The seeds reach what they are for: TLS, both families, several sources, signatures, mail that waits, rules."""
    scenarios = [run(seed, replace(BARE, crowds=1.0, rules=0.6, quotas=0.25)) for seed in range(12)]
    ledgers = [scenario.ledger for scenario in scenarios]
    taken = [taken for ledger in ledgers for each in ledger.recipients.values() for taken in each.taken]

    assert {taken.transaction.tls for taken in taken} >= {"none", "good"}
    assert {len(scenario.world.sources) for scenario in scenarios} == {0, 1, 2}
    assert {":" in taken.transaction.address for taken in taken} == {False, True}
    assert sum(ledger.signed.verified for ledger in ledgers) > 50
    assert sum(ledger.turns.compared for ledger in ledgers) > 30
    fired = {pair for ledger in ledgers for pair in ledger.restrained.seen}
    assert {action for action, _ in fired} == {"suspend", "slow", "probe", "alert"}
    assert len({scope for _, scope in fired}) > 6
    assert sum(ledger.restrained.kept for ledger in ledgers) > 20


def test_the_simulation_gets_to_limits_of_every_kind():
    """The seeds reach what they are for: limits across destinations, hours, plans, adapted rates, tenants' retries."""
    everything = replace(FEW, limits=1.0, hours=1.0, plans=1.0, adapts=1.0, tenants=1.0, trouble_s=1800.0)
    watchers = [run(seed, everything).watchers for seed in range(6)]

    assert sum(each.bounds.checked for each in watchers) > 500
    assert sum(each.warmed.full for each in watchers) > 3
    assert {turn for each in watchers for turn in each.warmed.turns} >= {"held", "warm"}
    assert {change for each in watchers for change in each.adapted.changes} >= {"fired", "stepped"}
    assert sum(each.adapted.sent for each in watchers) > 50
    assert sum(each.put_off.seen for each in watchers) > 10
