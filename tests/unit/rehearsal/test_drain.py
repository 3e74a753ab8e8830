"""A drain: what limits, hours, retries and sizes come to, computed by hand."""

from pathlib import Path

import pytest

from mta.testing.rehearsal_rig import CONNECT_S, DELIVERY_S, START_S, Rig, Script
from mta_policies.answers import Answer
from mta_policies.rehearsal.traffic import Mail

LATER = Answer(451, "4.3.0", "later", "mail")
UNKNOWN = Answer(550, "5.1.1", "unknown", "rcpt")
REFUSED = Answer(421, "4.3.2", "not now", "greeting")
DEAD = Answer(451, "4.4.1", "refused", "connect", "", False)
RETRY = '[retry]\nschedule = ["60s", "2m"]\njitter = "0%"\nexpire = "1h"\n'


def deferred(times: int) -> Script:
    """A provider that puts everything off so often."""
    return Script(lambda mail, tries, now_s: LATER if tries < times else None)


def test_connections_carry_what_their_speed_allows(tmp_path: Path):
    """100 messages on 5 connections of 10 each: two rounds of half a second and ten seconds."""
    rig = Rig(tmp_path, acme="[limits]\nconnections = 5\nmessages_per_connection = 10")
    provider = Script()

    tally = rig.drain(rig.mails(100), provider).of("acme")

    assert tally.drained_s == pytest.approx(2 * (CONNECT_S + 10 * DELIVERY_S))
    assert (tally.delivered, tally.transactions, tally.connections) == (100, 100, 10)
    assert list(tally.bound_s) == ["limits.connections"]
    assert provider.connections_max["", "out-1"] == 5


def test_a_rate_is_kept(tmp_path: Path):
    """Two a second: two at once when the first connection is open, then one every half second."""
    rig = Rig(tmp_path, acme='[limits]\nrate = "2/s"')

    tally = rig.drain(rig.mails(10), Script()).of("acme")

    assert tally.drained_s == pytest.approx(CONNECT_S + 8 * 0.5 + DELIVERY_S)
    assert "limits.rate" in tally.bound_s


def test_connections_are_opened_at_their_rate(tmp_path: Path):
    """One message each and one connection a second: ten messages take nine seconds longer than one."""
    rig = Rig(tmp_path, acme='[limits]\nmessages_per_connection = 1\nconnection_rate = "1/s"')

    tally = rig.drain(rig.mails(10), Script()).of("acme")

    assert tally.drained_s == pytest.approx(CONNECT_S + DELIVERY_S + 9.0)
    assert tally.connections == 10


def test_what_is_put_off_comes_by_the_schedule(tmp_path: Path):
    """After a minute, then after two; a connection that was idle for over a minute is opened again."""
    rig = Rig(tmp_path, acme=RETRY)

    tally = rig.drain(rig.mails(1), deferred(2)).of("acme")

    assert tally.drained_s == pytest.approx(CONNECT_S + 3 * DELIVERY_S + 60.0 + 120.0 + CONNECT_S)
    assert (tally.deferred, tally.attempts, tally.connections) == (2, 3, 2)


def test_what_is_put_off_for_ever_expires(tmp_path: Path):
    """An hour after it came, however often it was tried."""
    rig = Rig(tmp_path, acme=RETRY)

    tally = rig.drain(rig.mails(3), deferred(10_000)).of("acme")

    assert (tally.expired, tally.delivered, tally.waiting) == (3, 0, 0)
    assert tally.backlog()[-1][0] == pytest.approx(START_S + 3600.0, abs=1.0)


def test_what_is_refused_for_good_bounces(tmp_path: Path):
    """With one attempt."""
    rig = Rig(tmp_path, acme="")

    tally = rig.drain(rig.mails(2), Script(lambda mail, tries, now_s: UNKNOWN)).of("acme")

    assert (tally.bounced, tally.attempts) == (2, 2)
    assert tally.categories == {"bad-mailbox": 2}


def test_a_quota_is_for_the_hour_of_the_place(tmp_path: Path):
    """Three an hour: seven messages take two full hours more."""
    rig = Rig(tmp_path, acme='[limits]\nquota = { count = 3, per = "hour", zone = "UTC" }')

    tally = rig.drain(rig.mails(7), Script()).of("acme")

    assert tally.drained_s == pytest.approx(7200.0 + CONNECT_S + DELIVERY_S, abs=1.0)
    assert tally.bound_s["limits.quota"] == pytest.approx(7200.0, abs=2.0)


def test_mail_waits_for_its_window(tmp_path: Path):
    """08:00 in Tokyo is 23:00 in UTC: mail of midnight in UTC goes at once, that of 13:00 after ten hours."""
    rig = Rig(tmp_path, acme='[limits]\nwindow = "08:00-22:00 Asia/Tokyo"')

    tally = rig.drain(rig.mails(1) + rig.mails(1, at_s=13 * 3600.0), Script()).of("acme")

    assert tally.drained_s == pytest.approx(23 * 3600.0, abs=2.0)
    assert list(tally.bound_s) == ["limits.window"]


def test_recipients_of_one_message_go_together(tmp_path: Path):
    """As many as one transaction may have."""
    rig = Rig(tmp_path, acme="[limits]\nrecipients_per_transaction = 3")

    tally = rig.drain(rig.message([rig.stream()] * 7), Script()).of("acme")

    assert (tally.delivered, tally.transactions) == (7, 3)


def test_domains_are_kept_apart_where_the_policy_says_so(tmp_path: Path):
    """Two domains of one site are one transaction, or two."""
    rig = Rig(tmp_path, acme="[limits]\nmix_domains = false", other="")
    apart = [rig.stream(domain="a.test", site="mx.test"), rig.stream(domain="b.test", site="mx.test")]
    mixed = [rig.stream("other", domain="a.test", site="mx.t"), rig.stream("other", domain="b.test", site="mx.t")]

    done = rig.drain(rig.message(apart) + rig.message(mixed), Script())

    assert (done.of("acme").transactions, done.of("other").transactions) == (2, 1)


def test_what_is_too_large_is_not_tried(tmp_path: Path):
    """The policy's size, not the provider, refuses it."""
    rig = Rig(tmp_path, acme='[limits]\nmessage_size_max = "1MB"')
    small, large = rig.mails(2)
    small.size, large.size = 1_000_000, 1_000_001

    tally = rig.drain([small, large], Script()).of("acme")

    assert (tally.delivered, tally.bounced, tally.transactions) == (1, 1, 1)


def test_what_an_admin_took_out_is_gone_then(tmp_path: Path):
    """Mail that is behind a rate when it is cancelled is not sent."""
    rig = Rig(tmp_path, acme='[limits]\nrate = "1/min"')
    first, second, third = mails = rig.mails(3)
    second.ended, second.ended_s = "cancelled", START_S + 10.0
    third.ended, third.ended_s = "cancelled", START_S + 1e6

    tally = rig.drain(mails, Script()).of("acme")

    assert (tally.delivered, tally.cancelled, tally.waiting) == (2, 1, 0)
    assert first.ended == ""


def test_a_limit_of_a_source_holds_over_all_sites(tmp_path: Path):
    """Two sites share two connections, and both get their turn."""
    rig = Rig(tmp_path, acme="[source_limits]\nconnections = 2")
    one, other = rig.stream(domain="a.test"), rig.stream(domain="b.test")
    open_max = 0
    provider = Script()

    def watch(mail: Mail, tries: int, now_s: float) -> None:
        nonlocal open_max
        open_max = max(open_max, provider.connections.total())

    provider._say = watch
    tally = rig.drain(rig.mails(40, one) + rig.mails(40, other), provider).of("acme")

    assert (tally.delivered, open_max) == (80, 2)
    assert {mail.stream for _, mail in provider.answered[:40]} == {one, other}
    assert "source_limits.connections" in tally.bound_s


def test_a_rate_of_a_provider_holds_over_all_sources(tmp_path: Path):
    """Mail of two sources takes turns at one message a second."""
    rig = Rig(tmp_path, acme='[provider_limits]\nrate = "1/s"')
    provider = Script()

    tally = rig.drain(rig.mails(10) + rig.mails(10, rig.stream(source="out-2")), provider).of("acme")

    assert tally.drained_s == pytest.approx(CONNECT_S + DELIVERY_S + 19.0)
    assert {mail.stream.subject.source for _, mail in provider.answered[:4]} == {"out-1", "out-2"}


def test_a_site_that_is_down_is_probed_and_flows_again(tmp_path: Path):
    """No connection for five minutes: ever fewer are tried, and at most two minutes later all goes."""
    rig = Rig(tmp_path, acme="")
    provider = Script(opens=lambda now_s: DEAD if now_s < START_S + 300.0 else None)

    tally = rig.drain(rig.mails(100), provider).of("acme")

    assert tally.delivered == 100
    assert 300.0 < tally.drained_s < 300.0 + 150.0
    assert tally.failures == len([at_s for at_s in provider.opened_s if at_s < START_S + 300.0]) - 19 < 15
    assert max(tally.bound_s, key=tally.bound_s.__getitem__) == "a pause after a connection that failed"


def test_who_says_421_is_left_alone(tmp_path: Path):
    """The connection is over, and the next one waits: not one a message."""
    rig = Rig(tmp_path, acme="[limits]\nconnections = 1\n" + RETRY)
    busy = Answer(421, "4.3.2", "busy", "mail")
    provider = Script(lambda mail, tries, now_s: busy if now_s < START_S + 60.0 else None)

    tally = rig.drain(rig.mails(50), provider).of("acme")

    assert tally.delivered == 50
    assert tally.deferred < 8


def test_what_is_not_over_at_the_end_waits(tmp_path: Path):
    """One a minute: after two and a half minutes three are out."""
    rig = Rig(tmp_path, acme='[limits]\nrate = "1/min"')

    tally = rig.drain(rig.mails(10), Script(), until_s=150.0).of("acme")

    assert (tally.delivered, tally.waiting, tally.expired) == (3, 7, 0)


def test_mail_without_end_costs_no_more_than_its_steps(tmp_path: Path):
    """Two steps a message: it is due, and it is answered; one more for each connection."""
    rig = Rig(tmp_path, acme="[limits]\nconnections = 10\nmessages_per_connection = 100")

    done = rig.drain(rig.mails(10_000), Script())

    assert done.steps < 2 * 10_000 + 3 * done.of("acme").connections


def test_each_recipient_has_its_own_end(tmp_path: Path):
    """Of three recipients of one message one is taken out while it waits, one is taken, one is put off for ever."""
    rig = Rig(tmp_path, acme='[limits]\nrate = "1/min"\n' + RETRY)
    blocking, *mails = rig.mails(1) + rig.message([rig.stream()] * 3)
    mails[0].ended, mails[0].ended_s = "cancelled", START_S + 10.0
    provider = Script(lambda mail, tries, now_s: LATER if mail is mails[2] else None)

    tally = rig.drain([blocking, *mails], provider).of("acme")

    assert (tally.delivered, tally.cancelled, tally.expired, tally.waiting) == (2, 1, 1, 0)


def test_a_probe_without_mail_leaves(tmp_path: Path):
    """The mail that it was opened for is gone when it is there: others at the site do not wait for it."""
    rig = Rig(tmp_path, acme="")
    first, second = rig.mails(1) + rig.mails(1, rig.stream(source="out-2"))

    def opens(now_s: float) -> Answer | None:
        if now_s < START_S + 1.0:
            return DEAD
        if not first.ended:
            first.ended, first.ended_s = "cancelled", now_s
        return None

    tally = rig.drain([first, second], Script(opens=opens)).of("acme")

    assert (tally.delivered, tally.cancelled) == (1, 1)
    assert tally.drained_s < 10.0


def test_an_adapted_rate_falls_from_what_was_sent(tmp_path: Path):
    """Two a second go on two connections of the ten that are allowed: a complaint leaves half of that, not of ten."""
    policy = '[limits]\nconnections = 2\nrate = "10/s"\n[adapt]\non = ["policy-related"]\nfloor = "1/min"\n'
    rig = Rig(tmp_path, acme=policy)
    busy = Answer(451, "4.7.1", "rate limited", "mail", "mx")

    def say(mail: Mail, tries: int, now_s: float) -> Answer | None:
        return busy if START_S + 120.0 <= now_s < START_S + 121.0 else None

    provider = Script(say)
    rig.drain(rig.mails(600), provider)
    after = [at_s for at_s, _ in provider.answered if START_S + 125.0 <= at_s < START_S + 175.0]

    assert 45 <= len(after) <= 65
