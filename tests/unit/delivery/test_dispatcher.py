"""The dispatcher over real loopback sockets: mail goes out, every recipient has one fate, nothing is forgotten."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.sink import Profile, Sink
from bench.temper import Verdict
from mta.delivery.job import LOADING, Job
from mta.delivery.pool import Pool
from mta.delivery.registry import HELD_S
from mta.model.outcome import Outcome, Reply
from mta.reporting.events import Fate, Way, encode_note
from mta.resolve.errors import ResolveError, all_prohibited, no_answer, no_domain
from mta.testing.delivery_rig import PLAIN, DeliveryRig, names
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue.store import Loaded


@swiftly
async def test_mail_goes_out(loop: SwiftLoop, tmp_path: Path):
    """A hundred messages to two sites arrive once each, and nothing is left in memory or queue."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.domain("b.test", "mx.b.test", address=sink.profiles["b"].address)

        for number in range(50):
            rig.send(f"r{number}@a.test", f"r{number}@b.test")
        await rig.settled()
        await rig.stop()

    for name in "ab":
        assert sink.profiles[name].by_recipient() == {f"r{n}@{name}.test": 1 for n in range(50)}
    delivered = rig.events("delivered")
    assert len(delivered) == 100
    assert {(line["site"], line["host"], line["policy"], line["attempt"]) for line in delivered} == {
        ("mx.a.test", "mx.a.test", "default", 1),
        ("mx.b.test", "mx.b.test", "default", 1),
    }


@swiftly
async def test_recipients_of_one_site_share_a_transaction(loop: SwiftLoop, tmp_path: Path):
    """Also those of several domains that the same hosts serve, once the domains are known."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        for domain in ("a.test", "b.test"):
            rig.domain(domain, "mx.a.test", address=sink.profiles["a"].address)
        rig.send("warm@a.test", "up@b.test")
        await rig.settled()

        rig.send("x@a.test", "y@a.test", "z@b.test")
        await rig.settled()
        await rig.stop()

    assert sorted(sink.profiles["a"].deliveries[-1].recipients) == ["x@a.test", "y@a.test", "z@b.test"]


@swiftly
async def test_domains_are_not_mixed_where_the_policy_says_so(loop: SwiftLoop, tmp_path: Path):
    """mix_domains = false: a transaction for each."""
    default = PLAIN.replace("[retry]", "mix_domains = false\n[retry]")
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        for domain in ("a.test", "b.test"):
            rig.domain(domain, "mx.a.test", address=sink.profiles["a"].address)
        rig.send("warm@a.test", "up@b.test")
        await rig.settled()

        rig.send("x@a.test", "y@a.test", "z@b.test")
        await rig.settled()
        await rig.stop()

    assert {each.recipients for each in sink.profiles["a"].deliveries[2:]} == {("x@a.test", "y@a.test"), ("z@b.test",)}


@swiftly
async def test_each_recipient_has_its_own_fate(loop: SwiftLoop, tmp_path: Path):
    """Accepted, refused and deferred ones of one transaction; the deferred one comes again when the schedule says."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        rig.send("good@a.test", "unknown@a.test", "tempfail.1@a.test")
        await rig.settled()
        await rig.stop()

    assert {
        line["recipient"]: (line["event"], line["attempt"]) for line in rig.lines if line["event"] != "deferred"
    } == {
        "good@a.test": ("delivered", 1),
        "unknown@a.test": ("bounced", 1),
        "tempfail.1@a.test": ("delivered", 2),
    }
    [deferred] = rig.events("deferred")
    assert deferred["next_attempt"] - deferred["time"] == pytest.approx(300, abs=1)


@swiftly
async def test_more_recipients_than_a_transaction_takes(loop: SwiftLoop, tmp_path: Path):
    """They go in parts, and each content is counted and let go."""
    default = PLAIN.replace("[retry]", "recipients_per_transaction = 7\n[retry]")
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        rig.send(*names(100, "a.test"))
        await rig.settled()
        await rig.stop()

    assert sink.profiles["a"].recipients_max == 7
    assert sink.profiles["a"].mails == 15


@swiftly
async def test_recipients_per_connection(loop: SwiftLoop, tmp_path: Path):
    """No connection carries more, also where one message has more."""
    default = PLAIN.replace("[retry]", "recipients_per_connection = 10\n[retry]")
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        for size in (25, 4, 4, 4, 10, 1, 1):
            rig.send(*[f"{size}-{rig.count}-{number}@a.test" for number in range(size)])
        await rig.settled()
        await rig.stop()

    by_connection: dict[int, int] = {}
    for each in sink.profiles["a"].deliveries:
        by_connection[each.connection] = by_connection.get(each.connection, 0) + len(each.recipients)
    assert max(by_connection.values()) <= 10
    assert sum(by_connection.values()) == 49


@swiftly
async def test_messages_per_connection(loop: SwiftLoop, tmp_path: Path):
    """A connection that carried its number leaves, the next one carries on."""
    default = PLAIN.replace("[retry]", "messages_per_connection = 5\n[retry]").replace("= 10", "= 2")
    async with Sink([Profile(name="a", messages_per_connection=5)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=default)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        for name in names(52, "a.test"):
            rig.send(name)
        await rig.settled(60.0)
        await rig.stop()

    assert sink.profiles["a"].mails_over == 0
    assert max(sink.profiles["a"].messages_per_connection) == 5
    assert sink.profiles["a"].connections_max == 2


@swiftly
async def test_a_peer_that_takes_fewer_messages_a_connection_than_we_think(loop: SwiftLoop, tmp_path: Path):
    """Its 421 to a later MAIL is no attempt: the message goes over the next connection within a moment."""
    async with Sink([Profile(name="a", messages_per_connection=3)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace("= 10", "= 1"))
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        for name in names(12, "a.test"):
            rig.send(name)
        await rig.settled(60.0)
        await rig.stop()

    assert {line["attempt"] for line in rig.events("delivered")} == {1}
    assert sink.profiles["a"].connections_total <= 5


@swiftly
async def test_too_many_recipients_go_again_at_once(loop: SwiftLoop, tmp_path: Path):
    """452 4.5.3 to some while others were taken is no deferral."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        provider = sink.profiles["a"]
        plain_rcpt, plain_mail = provider.rcpt, provider.mail
        seen: list[str] = []

        def mail(connection_number: int, address: str = "") -> str:
            seen.clear()
            return plain_mail(connection_number, address)

        def rcpt(client: str, sender: str, recipient: str) -> Verdict:
            verdict = plain_rcpt(client, sender, recipient)
            seen.append(recipient)
            return verdict if len(seen) <= 5 else verdict._replace(reply=b"452 4.5.3 Too many recipients\r\n")

        provider.mail, provider.rcpt = mail, rcpt

        rig.send(*names(12, "a.test"))
        await rig.settled(10.0)
        await rig.stop()

    assert rig.events("deferred") == []
    assert sorted(provider.by_recipient().values()) == [1] * 12


@swiftly
async def test_a_full_mailbox_is_not_asked_again_at_once(loop: SwiftLoop, tmp_path: Path):
    """452 4.2.2 beside a delivered recipient is an attempt."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)

        rig.send("good@a.test", "full@a.test")
        await rig.until(lambda: bool(rig.events("deferred")))
        await rig.until(lambda: loop.time() > 1060)

        assert sink.profiles["a"].attempts["full@a.test"] == 1
        assert rig.events("deferred")[0]["attempt"] == 1
        await rig.stop()


# ---- time


@swiftly
async def test_mail_for_later_waits_and_gets_its_date(loop: SwiftLoop, tmp_path: Path):
    """Not before send_at, with a Date of that time where it had none, and expiry counts from then."""
    async with Sink([Profile(name="a", keep="contents")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        due_s = loop.wall_s() + 100_000.0  # more than the policy's expire

        rig.send("b@a.test", send_at_s=due_s, date_missing=True)
        loop.jump_s = 99_990.0
        await rig.until(lambda: loop.wall_s() > due_s - 1)
        early = len(sink.profiles["a"].deliveries)
        await rig.settled(60.0)
        await rig.stop()

    assert early == 0
    [delivery] = sink.profiles["a"].deliveries
    assert delivery.content.startswith(b"Date: Mon, 16 Jun 2025 19:10:00 +0000\r\n")


@swiftly
async def test_expiry_behind_a_site_that_is_down(loop: SwiftLoop, tmp_path: Path):
    """Mail that waits expires in time, each with its event; what a sender asked for holds too."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(30, "a.test"):
            rig.send(name)
        soon = rig.send("soon@a.test", expire_s=120.0)
        await rig.until(lambda: bool(rig.events("expired")))
        first = rig.events("expired")

        loop.jump_s = 86_400.0
        await rig.settled(30.0)
        await rig.stop()

    assert [(line["id"], line["queued_s"] < 125) for line in first] == [(soon, True)]
    assert len(rig.events("expired")) == 31


@swiftly
async def test_expiry_behind_a_domain_that_cannot_be_resolved(loop: SwiftLoop, tmp_path: Path):
    """Mail that comes while a look-up is put off is not given up before its time."""
    rig = DeliveryRig(loop, tmp_path, port=2525)
    rig.resolver.found["a.test"] = no_answer("a.test", "time-out")
    rig.send("b@a.test")
    await rig.until(lambda: rig.resolver.asked["a.test"] >= 5)
    rig.send("c@a.test")
    await rig.until(lambda: rig.resolver.asked["a.test"] >= 7)
    assert rig.events("expired") == []

    loop.jump_s = 86_400.0
    await rig.settled(30.0)
    await rig.stop()

    assert len(rig.events("expired")) == 2
    assert {line["recipient"] for line in rig.events("deferred")} == {"b@a.test"}


@swiftly
async def test_a_domain_is_found_at_last(loop: SwiftLoop, tmp_path: Path):
    """Everything that waited for it goes out."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.resolver.found["a.test"] = no_answer("a.test", "time-out")
        for name in names(20, "a.test"):
            rig.send(name)
        await rig.until(lambda: rig.resolver.asked["a.test"] >= 4)

        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        await rig.settled(30.0)
        await rig.stop()

    assert sink.messages == 20


@pytest.mark.parametrize(
    ("found", "address", "code"),
    [
        (no_domain("a.test"), "", 550),
        (None, all_prohibited("mx.a.test", "10.0.0.1", "10.0.0.0/8"), 550),
    ],
    ids=["no domain", "all prohibited"],
)
def test_what_can_never_be_sent_is_bounced(
    found: ResolveError | None, address: ResolveError | str, code: int, tmp_path: Path
):
    """At once, all that waits for it."""

    @swiftly
    async def main(loop: SwiftLoop) -> None:
        rig = DeliveryRig(loop, tmp_path, port=2525)
        rig.domain("a.test", "mx.a.test", address=address)
        if found is not None:
            rig.resolver.found["a.test"] = found
        rig.send("b@a.test")
        rig.send("c@a.test", "d@a.test")
        await rig.settled(5.0)
        await rig.stop()
        assert [(line["code"], line["stage"], line["attempt"]) for line in rig.events("bounced")] == [
            (code, "dns", 0)
        ] * 3

    main()


# ---- memory


@swiftly
async def test_what_waits_leaves_memory_and_comes_back(loop: SwiftLoop, tmp_path: Path):
    """Behind a site that is down nothing stays resident, with priorities kept when it is back."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        provider = sink.profiles["a"]
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace("= 10", "= 1"))
        rig.domain("a.test", "mx.a.test", address=provider.address)
        for number in range(100):
            rig.send(f"p{number % 10}-{number}@a.test", priority=number % 10)
        await rig.until(lambda: loop.time() > 1010)
        resident = rig.dispatcher.memory.resident_bytes
        rig.disk.is_cached = False

        await provider.set_down(False)
        await rig.settled(200.0)
        await rig.stop()

    order = [int(each.recipients[0][1]) for each in provider.deliveries]
    assert resident == 0
    assert order[1:] == sorted(order[1:], reverse=True)


@swiftly
async def test_memory_is_bounded(loop: SwiftLoop, tmp_path: Path):
    """Ten times as much as may be resident goes through, in order and whole."""
    async with Sink([Profile(name="a", latency_s=0.1, keep="contents")]) as sink:
        rig = DeliveryRig(
            loop, tmp_path, port=sink.port, memory_bytes_max=200_000, default=PLAIN.replace("= 10", "= 2")
        )
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        most = 0

        for number in range(100):
            rig.send(f"r{number}@a.test", content=b"Message-ID: <%d>\r\n\r\n" % number + b"x" * 20_000 + b"\r\n")
        for finals in range(100):
            most = max(most, rig.dispatcher.memory.resident_bytes)
            await rig.until(lambda finals=finals: rig.finals > finals)
        await rig.settled()
        await rig.stop()

    assert most <= 200_000 + 2 * 20_100
    assert set(sink.profiles["a"].ids().values()) == {1}
    assert all(len(each.content) > 20_000 for each in sink.profiles["a"].deliveries)


@swiftly
async def test_a_message_that_cannot_be_read_back_stops_nobody(loop: SwiftLoop, tmp_path: Path):
    """The store sets it aside; all others arrive."""
    async with Sink([Profile(name="a", down=True)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(20, "a.test"):
            rig.send(name)
        await rig.until(lambda: loop.time() > 1010)
        path = rig.disk.paths()[0]
        at = rig.disk.contents(path).find(b"Message-ID: <m7>")
        rig.disk.change(path, at, b"XXXX")
        at = rig.disk.contents(path).find(b"r8@a.test")
        rig.disk.change(path, at, b"X")

        await sink.profiles["a"].set_down(False)
        await rig.until(lambda: len(rig.fates()) == 18)
        await rig.until(lambda: rig.dispatcher.jobs == 0)
        rig.is_clean()
        await rig.stop()

    assert rig.store.quarantined == 2


@swiftly
async def test_an_error_of_ours_stops_only_its_message(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is set aside and tried again later; its site goes on."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        settle = rig.dispatcher.fates.settle
        broken = {2}

        def fail_once(pool: Pool, job: Job, outcomes: Sequence[Outcome], way: Way, was_used: bool) -> None:
            if job.seq % 10 in broken:
                broken.clear()
                raise RuntimeError("ours")
            settle(pool, job, outcomes, way, was_used)

        monkeypatch.setattr(rig.dispatcher.fates, "settle", fail_once)
        for name in names(10, "a.test"):
            rig.send(name)
        await rig.until(lambda: len(rig.fates()) == 9, 5.0)
        await rig.settled()
        await rig.stop()

    assert rig.dispatcher.errors == 1
    assert [str(each["exception"]) for each in loop.problems] == ["ours"]
    loop.problems.clear()


# ---- start and stop


@swiftly
async def test_what_waited_at_a_restart_goes_on(loop: SwiftLoop, tmp_path: Path):
    """Attempts, due times and fates already reached are as before."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        rig.send("good@a.test", "tempfail.2@a.test", "full@a.test")
        await rig.until(lambda: len(rig.events("deferred")) == 2)
        await rig.stop()

        (tmp_path / "2").mkdir()
        after = DeliveryRig(loop, tmp_path / "2", port=sink.port, disk=rig.disk)
        after.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for seq, parts in after.recovered.waiting:
            after.dispatcher.found(seq, parts)
        await after.until(lambda: bool(after.events("delivered")))
        await after.stop()

    assert [(line["recipient"], line["attempt"]) for line in after.events("delivered")] == [("tempfail.2@a.test", 3)]
    assert min(line["attempt"] for line in after.events("deferred")) == 2
    assert sink.profiles["a"].by_recipient() == {"good@a.test": 1, "tempfail.2@a.test": 1}


@swiftly
async def test_stopping_lets_transactions_end_and_begins_none(loop: SwiftLoop, tmp_path: Path):
    """What is under way is delivered, the rest stays in the queue, unharmed."""
    async with Sink([Profile(name="a", latency_s=1.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace("= 10", "= 3"))
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in names(30, "a.test"):
            rig.send(name)
        await rig.until(lambda: sink.profiles["a"].mails >= 6)

        mails = sink.profiles["a"].mails
        await rig.dispatcher.stop(25.0)
        await rig.until(lambda: rig.dispatcher.connections == 0, 60.0)

    assert sink.profiles["a"].mails <= mails + 3  # a MAIL that was on its way to the sink
    assert sink.profiles["a"].messages == len(rig.events("delivered"))
    assert rig.store.items == 30 - len(rig.events("delivered"))
    assert rig.events("deferred") == []


# ---- who is in hand


@swiftly
async def test_a_wheel_that_says_it_twice_sends_it_once(loop: SwiftLoop, tmp_path: Path):
    """Old entries for what waits, is being sent, was deferred to a later time or is done do nothing."""
    async with Sink([Profile(name="a", latency_s=3.0)]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        for name in ("x@a.test", "tempfail.2@a.test"):
            seq = rig.seqs[rig.send(name)]
            for later_s in range(0, 900, 10):
                rig.dispatcher.later(loop.wall_s() + later_s / 2, seq)
        await rig.settled()
        await asyncio.sleep(500)
        await rig.stop()

    assert sink.profiles["a"].by_recipient() == {"x@a.test": 1, "tempfail.2@a.test": 1}
    times = [line["time"] for line in rig.events() if line["recipient"] == "tempfail.2@a.test"]
    assert all(300 <= after - before <= 320 for before, after in pairwise(times))


@swiftly
async def test_held_mail_is_held_wherever_it_comes_from(loop: SwiftLoop, tmp_path: Path):
    """From another worker too, whose log has no worker any more; it is released like any other."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        rig.hand("x@a.test", due_s=HELD_S + loop.wall_s())
        await asyncio.sleep(600)
        assert rig.dispatcher.held == 1
        assert rig.events() == []

        released = await rig.act("release")
        await rig.until(lambda: rig.finals == 1)
        await rig.stop()

    assert released.touched == 1
    assert rig.dispatcher.held == 0


@swiftly
async def test_a_clock_that_is_set_back_loses_nothing(loop: SwiftLoop, tmp_path: Path):
    """What was due a moment ago and is not any more is due again when the clock has come as far."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domain("a.test", "mx.a.test", address=sink.profiles["a"].address)
        send_at_s = loop.wall_s() + 100
        rig.send("x@a.test", send_at_s=send_at_s)
        load_soon = rig.store.load_soon

        def set_back(seqs: Sequence[int], done: Callable[[list[Loaded]], None]) -> None:
            loop.jump_s = -50.0
            load_soon(seqs, done)

        rig.store.load_soon = set_back  # pyright: ignore[reportAttributeAccessIssue]
        await rig.settled()
        await rig.stop()

    assert rig.events("delivered")[0]["time"] >= send_at_s


@swiftly
async def test_a_retry_carries_the_signature_of_the_first_attempt(loop: SwiftLoop, tmp_path: Path):
    """It stands in the note of the deferral; all recipients of the message that have none yet share it."""
    async with Sink([Profile(name="a"), Profile(name="b")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port)
        rig.domains_of(sink.profiles)
        due_s = loop.wall_s() + 50
        seq = rig.seqs[rig.send("x@a.test", "y@b.test", send_at_s=due_s)]
        await asyncio.sleep(1)
        signed = b"DKIM-Signature: v=1; b=x\r\n"
        way = Way(site="mx.a.test", source="")
        fate = Fate("deferred", 0.0, Reply(451, "", "later"), "rcpt", 1, due_s, way, dkim="shop.test", signature=signed)
        rig.store.postpone(seq, (0,), due_s, encode_note(fate))

        await sink.profiles["a"].set_down(True)
        await sink.profiles["b"].set_down(True)
        await asyncio.sleep(60)
        jobs = rig.dispatcher.registry.jobs(seq)
        await sink.profiles["a"].set_down(False)
        await sink.profiles["b"].set_down(False)
        await rig.settled()
        await rig.stop()

    assert [job.signature and (job.signature.fields, job.signature.domains) for job in jobs] == [
        (signed, "shop.test"),
        (signed, "shop.test"),
    ]
    assert jobs[0].signature is jobs[1].signature


@swiftly
async def test_an_admin_may_take_what_is_being_given_up(
    loop: SwiftLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Held between the end of its time and the moment in which that is told: it is held, and not given up."""
    async with Sink([Profile(name="a")]) as sink:
        rig = DeliveryRig(loop, tmp_path, port=sink.port, default=PLAIN.replace('"1d"', '"1m"'))
        rig.domains_of(sink.profiles)
        await sink.profiles["a"].set_down(True)
        rig.send("x@a.test")
        await asyncio.sleep(30)
        load_envelopes = rig.dispatcher.memory.load_envelopes

        def late(*loads: Any) -> None:
            loop.call_later(10, load_envelopes, *loads)

        monkeypatch.setattr(rig.dispatcher.memory, "load_envelopes", late)
        await rig.until(lambda: any(job.state == LOADING for job in rig.dispatcher.registry.jobs(rig.seqs["m1"])))
        held = await rig.act("hold")
        await asyncio.sleep(60)
        assert rig.fates() == {}
        rig.is_clean()
        await rig.act("release")
        await rig.settled()
        await rig.stop()

    assert held.touched == 1
    assert len(rig.events("expired")) == 1
