"""The whole engine by seed: workers, disk, network, providers, admins, accidents, clocks, and then the reckoning."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mta.delivery.connection import Connection
from mta.delivery.job import Job, Signature
from mta.delivery.signatures import Told
from mta.delivery.targets import Targets
from mta.model.outcome import Reply
from mta.smtp.outgoing import Outgoing
from mta.testing.engine_scenario import BIG, SMALL, Scenario, Size, run
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_worker import SimulatedWorker
from mta_policies.allotments import Accounts
from mta_policies.limits import Share
from mta_policies.restraint import Restraint
from mta_policies.schema import Limits

SEEDS_FOR_A_FAULT = 12
DAYS = 3
BUSY = Size(messages=60, accidents=1, acts=10, crowds=1.0, rules=0.0, quotas=0.0)
RULED = Size(messages=60, accidents=1, acts=2, crowds=1.0, rules=1.0, owners=(2, 3))
SLOWED = Size(messages=60, accidents=0, acts=0, crowds=1.0, rules=1.0, owners=(1, 2))
QUOTED = Size(messages=60, accidents=0, acts=0, crowds=1.0, rules=0.0, quotas=1.0, owners=(2, 3))


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


def test_mail_in_clear_is_found(monkeypatch: pytest.MonkeyPatch):
    """Where a policy says that it must not be."""
    monkeypatch.setattr(Targets, "tls_mode", lambda targets, target, now_s: "none")

    assert "MAIL in clear" in _found()


def _found(fault: Callable[[SimulatedWorker], None] = lambda worker: None, size: Size = BUSY) -> str:
    """The story of the first seed that fails, "" where none does."""
    for seed in range(SEEDS_FOR_A_FAULT):
        try:
            run(seed, size, fault)
        except AssertionError as error:
            return str(error)
    return ""


def test_the_simulation_gets_around():
    """The seeds reach what they are for: TLS, both families, several sources, signatures, mail that waits, rules."""
    scenarios = [run(seed, Size(crowds=1.0, rules=0.6)) for seed in range(12)]
    ledgers = [scenario.ledger for scenario in scenarios]
    taken = [taken for ledger in ledgers for each in ledger.recipients.values() for taken in each.taken]

    assert {taken.transaction.tls for taken in taken} >= {"none", "good"}
    assert {len(scenario.world.sources) for scenario in scenarios} == {0, 1, 2}
    assert {":" in taken.transaction.address for taken in taken} == {False, True}
    assert sum(ledger.signed.verified for ledger in ledgers) > 50
    assert sum(ledger.turns.compared for ledger in ledgers) > 20
    fired = {pair for ledger in ledgers for pair in ledger.restrained.seen}
    assert {action for action, _ in fired} == {"suspend", "slow", "probe", "alert"}
    assert len({scope for _, scope in fired}) > 6
    assert sum(ledger.restrained.kept for ledger in ledgers) > 20
