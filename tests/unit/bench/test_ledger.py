"""The ledger sees what is lost, doubled, unasked for or untold, recipient by recipient."""

import msgspec

from bench.ledger import Ledger, Mail, Village, WatchedLoad, bench_id
from bench.load import Domain, Plan
from bench.sink import Sink
from bench.temper import Delivery

PLAN = Plan(messages=3, recipients_per_message=2, domains=[Domain("d0.test")], run_id="run")


def delivery(message_id: str, *recipients: str) -> Delivery:
    return Delivery(message_id, "shop@load.test", recipients, 100, 0.0, 1, b"")


def event(kind: str, message_id: str, recipient: str) -> dict[str, object]:
    return {"event": kind, "message_id": f"<{message_id}@load.test>", "recipient": recipient}


async def ledger_of(plan: Plan = PLAN, accepted: int = 2) -> tuple[Ledger, Sink, WatchedLoad]:
    sink = Sink(Village(1).profiles())
    await sink.__aenter__()
    await sink.__aexit__()
    ledger, load = Ledger(sink), WatchedLoad(plan)
    ledger.follow(load)
    load.result.accepted += [f"run-{number}" for number in range(accepted)]
    return ledger, sink, load


async def test_what_was_accepted_is_missing_until_every_recipient_has_it() -> None:
    """Half of a message is not a message."""
    ledger, sink, _ = await ledger_of()
    sink.profiles["d0.test"].add(delivery("run-0", "user0@d0.test"))
    sink.profiles["d0.test"].add(delivery("run-1", "user1@d0.test", "user1.1@d0.test"))

    missing = ledger.missing()
    sink.profiles["d0.test"].add(delivery("run-0", "user0.1@d0.test"))

    assert missing == {Mail("run-0", "user0.1@d0.test")}
    assert ledger.missing() == set()
    assert ledger.twice() == {}


async def test_those_who_do_not_exist_are_not_missed() -> None:
    """An unknown recipient never gets anything, and is told as bounced instead."""
    plan = msgspec.structs.replace(PLAN, domains=[Domain("d0.test", words={"unknown": 1.0})])
    ledger, _, _ = await ledger_of(plan, accepted=1)
    received = event("received", "run-0", "") | {"recipients": ["unknown+0@d0.test", "unknown+0.1@d0.test"]}

    untold = ledger.untold([received, event("bounced", "run-0", "unknown+0@d0.test")])

    assert ledger.missing() == set()
    assert untold == [f"bounced {Mail('run-0', 'unknown+0.1@d0.test')}"]


async def test_a_second_copy_is_seen() -> None:
    """It counts by recipient: one of two may have come twice."""
    ledger, sink, _ = await ledger_of()
    sink.profiles["d0.test"].add(delivery("run-0", "user0@d0.test", "user0.1@d0.test"))
    sink.profiles["d0.test"].add(delivery("run-0", "user0.1@d0.test"))

    assert ledger.twice() == {Mail("run-0", "user0.1@d0.test"): 2}


async def test_what_nobody_promised_is_a_stranger() -> None:
    """A message in doubt may arrive, one that was refused or somebody else's recipient may not."""
    ledger, sink, load = await ledger_of()
    load.result.uncertain.append("run-2")
    sink.profiles["d0.test"].add(delivery("run-2", "user2@d0.test"))
    sink.profiles["d0.test"].add(delivery("run-9", "user9@d0.test"))
    sink.profiles["d0.test"].add(delivery("run-0", "user1@d0.test"))

    assert ledger.strangers() == {Mail("run-9", "user9@d0.test"), Mail("run-0", "user1@d0.test")}


async def test_what_the_event_log_lacks_is_named() -> None:
    """`received` must name all recipients, `delivered` each that has the message."""
    ledger, sink, _ = await ledger_of(accepted=1)
    sink.profiles["d0.test"].add(delivery("run-0", "user0@d0.test", "user0.1@d0.test"))
    half = event("received", "run-0", "") | {"recipients": ["user0@d0.test"]}
    whole = event("received", "run-0", "") | {"recipients": ["user0@d0.test", "user0.1@d0.test"]}
    first, second = (event("delivered", "run-0", each) for each in ("user0@d0.test", "user0.1@d0.test"))

    assert ledger.untold([half, first, second]) == ["received run-0"]
    assert ledger.untold([whole, first]) == [f"delivered {Mail('run-0', 'user0.1@d0.test')}"]
    assert ledger.untold([whole, first, second]) == []


async def test_a_watched_load_acts_at_the_exact_message() -> None:
    """The action runs once, when that many messages are accepted."""
    seen: list[int] = []
    load = WatchedLoad(PLAN, {2: lambda: seen.append(len(load.result.accepted))})

    for number in range(3):
        load.answered(load.maker.make(number, 0.0), b"250 2.0.0 queued", 0.001)

    assert seen == [2]


def test_a_village_has_a_site_for_every_domain() -> None:
    """Each domain has one MX host with an address of its own, in the order of the sink's providers."""
    village = Village(3)

    assert village.zone["d2.test"] == {"MX": ["10 mx.d2.test."]}
    assert village.zone["mx.d2.test"] == {"A": ["127.0.0.4"]}
    assert [profile.name for profile in village.profiles(down=True)] == village.names


def test_the_bench_id_of_an_event_comes_from_its_message_id() -> None:
    """Angle brackets and host are left out."""
    assert bench_id({"message_id": "<run-7@load.test>"}) == "run-7"
