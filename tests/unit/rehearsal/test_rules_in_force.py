"""What rules set off in a rehearsal: they slow, suspend and probe as in the server, and end when their time is over."""

from itertools import pairwise
from pathlib import Path

import pytest

from mta.testing.rehearsal_rig import CONNECT_S, DELIVERY_S, START_S, Rig, Script
from mta_policies.answers import Answer
from mta_policies.rehearsal.traffic import Mail

BUSY = Answer(451, "4.7.1", "rate limited", "mail", "mx")
BLOCKED = Answer(550, "5.7.1", "blocked for now", "mail", "mx")
RETRY = '[retry]\nschedule = ["60s"]\njitter = "0%"\nexpire = "1d"\n'


def rule(then: str, trigger: str = "", code: str = "451") -> str:
    trigger = f"trigger = {trigger}\n" if trigger else ""
    return f'[[rule]]\nname = "busy"\nwhen = {{ code = "{code}" }}\n{trigger}then = [{then}]\n'


def until(end_s: float, answer: Answer = BUSY) -> Script:
    """Refuses everything so long behind the start."""
    return Script(lambda mail, tries, now_s: answer if now_s < START_S + end_s else None)


def test_suspended_mail_waits(tmp_path: Path):
    """Two refusals, and nothing goes for ten minutes; then all goes at once."""
    policy = "[limits]\nconnections = 1\n" + RETRY
    policy += rule('{ action = "suspend", for = "10m" }', '{ count = 2, in = "1h" }')
    provider = until(60.0)

    tally = Rig(tmp_path, acme=policy)
    done = tally.drain(tally.mails(20), provider).of("acme")

    assert (done.delivered, done.deferred) == (20, 2)
    assert sorted(at_s - START_S for at_s, _ in provider.answered)[2] == pytest.approx(602.5 + CONNECT_S + DELIVERY_S)
    assert (done.rules["busy"].matches, done.rules["busy"].firings) == (2, 1)
    assert done.bound_s["rule busy (suspend)"] == pytest.approx(600.0)
    assert [(span.action, span.since_s, span.until_s) for span in done.spans] == [
        ("suspend", START_S + 2.5, START_S + 602.5)
    ]


def test_slowed_mail_goes_at_its_rate(tmp_path: Path):
    """One refusal, and a source sends one a minute for an hour; mail of another source does not wait."""
    rig = Rig(tmp_path, acme=RETRY + rule('{ action = "slow", rate = "1/min", for = "1h", scope = "source" }'))
    ours, others = rig.mails(30), rig.mails(30, rig.stream(source="out-2"), at_s=100.0)
    provider = Script(lambda mail, tries, now_s: BUSY if mail is ours[0] and not tries else None)

    rig.drain(ours[:1] + rig.mails(0) + others, provider)
    slowed = [at_s for at_s, mail in provider.answered if mail.stream is ours[0].stream]

    assert len(slowed) == 2
    assert slowed[1] - slowed[0] >= 60.0
    assert max(at_s for at_s, mail in provider.answered if mail in others) < START_S + 110.0


def test_a_refusal_for_good_may_be_put_off(tmp_path: Path):
    """`defer` makes a 550 a matter of a quarter of an hour."""
    rig = Rig(tmp_path, acme=rule('{ action = "defer", after = "15m" }', code="550"))

    tally = rig.drain(rig.mails(1), until(600.0, BLOCKED)).of("acme")

    assert (tally.bounced, tally.deferred, tally.delivered) == (0, 1, 1)
    assert tally.drained_s == pytest.approx(CONNECT_S + DELIVERY_S + 900.0 + CONNECT_S + DELIVERY_S)


def test_a_deferral_may_be_made_a_bounce(tmp_path: Path):
    """`bounce`, whatever the code says."""
    rig = Rig(tmp_path, acme=rule('{ action = "bounce" }'))

    tally = rig.drain(rig.mails(4), until(600.0)).of("acme")

    assert (tally.bounced, tally.deferred, tally.delivered) == (4, 0, 0)


def test_one_tenant_waits_and_others_do_not(tmp_path: Path):
    """A firing of a message's own scope parks that tenant's mail; the connections carry the others'."""
    rig = Rig(tmp_path, acme=RETRY + rule('{ action = "suspend", for = "30m", scope = "tenant" }'))
    loud, calm = rig.stream(tenant="loud"), rig.stream(tenant="calm")
    mails = rig.mails(10, loud, every_s=2.0) + rig.mails(10, calm, at_s=1.0, every_s=2.0)
    provider = Script(lambda mail, tries, now_s: BUSY if mail is mails[0] and not tries else None)

    tally = rig.drain(mails, provider).of("acme")
    times = {mail: at_s for at_s, mail in provider.answered}

    assert tally.delivered == 20
    assert all(times[mail] < START_S + 30.0 for mail in mails[10:])
    assert all(times[mail] > START_S + 1800.0 for mail in mails[:10])
    assert tally.bound_s["rule busy (suspend)"] == pytest.approx(1800.0, abs=2.0)


def test_one_domain_is_slowed(tmp_path: Path):
    """Messages signed by one domain go one at a time and ten a minute, those of others beside them."""
    slow = '{ action = "slow", rate = "10/min", connections = 1, for = "1d", scope = "dkim-domain" }'
    rig = Rig(tmp_path, acme="[limits]\nconnections = 5\n" + RETRY + rule(slow))
    ours, theirs = rig.stream(dkim_domain="ours.test"), rig.stream(dkim_domain="theirs.test")
    mails = [*rig.mails(1, ours), *rig.mails(30, ours, at_s=5.0), *rig.mails(30, theirs, at_s=5.0)]
    provider = Script(lambda mail, tries, now_s: BUSY if mail is mails[0] and not tries else None)

    rig.drain(mails, provider)
    slowed = sorted(at_s for at_s, mail in provider.answered if mail.stream is ours)

    assert len(slowed) == 32
    assert all(later - earlier > 5.99 for earlier, later in pairwise(slowed[1:]))
    assert max(at_s for at_s, mail in provider.answered if mail.stream is theirs) < START_S + 30.0


def test_a_probe_is_silence_and_then_one_connection(tmp_path: Path):
    """Ten minutes of nothing, one connection, and one more at a time until as many as the policy allows carry mail."""
    policy = "[limits]\nconnections = 4\n" + RETRY + rule('{ action = "probe", scope = "source" }', code="421")
    blocked = Answer(421, "4.7.28", "unusual rate", "mail", "mx")
    rig = Rig(tmp_path, acme=policy)
    provider = Script(lambda mail, tries, now_s: blocked if now_s < START_S + 30.0 else None)
    counts: list[tuple[float, int]] = []

    def say(mail: Mail, tries: int, now_s: float) -> Answer | None:
        counts.append((now_s - START_S, provider.connections.total()))
        return blocked if now_s < START_S + 30.0 else None

    provider._say = say
    tally = rig.drain(rig.mails(4_000), provider).of("acme")
    resumed = [(at_s, count) for at_s, count in counts if at_s > 30.0]

    assert tally.delivered == 4_000
    assert 600.0 < resumed[0][0] < 610.0
    assert all(count <= 1 + (at_s - resumed[0][0]) / 60.0 for at_s, count in resumed)
    assert resumed[-1][1] == 4
    assert tally.deferred <= 4
    (span,) = tally.spans
    assert span.action == "probe"
    assert span.until_s < START_S + 600.0 + 6 * 60.0


def test_a_tenant_keeps_its_own_limits(tmp_path: Path):
    """What its own file says holds for its mail alone."""
    own = tmp_path / "local" / "tenants" / "shop"
    own.mkdir(parents=True)
    (own / "acme.toml").write_text('[limits]\nrate = "1/min"\n')
    rig = Rig(tmp_path / "shipped", acme="[limits]\nconnections = 3")
    rig.load(tmp_path / "local")
    shop, rest = rig.stream(tenant="shop"), rig.stream(tenant="rest")
    provider = Script()

    tally = rig.drain(rig.mails(5, shop) + rig.mails(50, rest), provider).of("acme")

    assert max(at_s for at_s, mail in provider.answered if mail.stream is rest) < START_S + 30.0
    assert tally.drained_s == pytest.approx(4 * 60.0, abs=3.0)
    assert tally.bound_s["tenant shop"] > 200.0


def test_so_many_messages_of_a_campaign_are_under_way(tmp_path: Path):
    """`connections` of a slow whose scope is of messages counts transactions, whatever connections there are."""
    slow = '{ action = "slow", connections = 2, for = "1d", scope = "campaign" }'
    rig = Rig(tmp_path, acme="[limits]\nconnections = 9\n" + RETRY + rule(slow))
    ours = rig.stream(tenant="shop", campaign="spring")
    mails = [*rig.mails(1, ours), *rig.mails(40, ours, at_s=10.0)]
    provider = Script(lambda mail, tries, now_s: BUSY if mail is mails[0] and not tries else None)

    rig.drain(mails, provider)
    ends = [at_s for at_s, mail in provider.answered if at_s > START_S + 10.0]

    assert max(sum(at_s <= other < at_s + DELIVERY_S for other in ends) for at_s in ends) == 2


def test_who_waited_for_a_firing_goes_on_when_it_ends(tmp_path: Path):
    """One connection for all sites of a source, for five minutes; then each site opens its own."""
    slow = '{ action = "slow", connections = 1, for = "5m", scope = "source" }'
    rig = Rig(tmp_path, acme="[limits]\nconnections = 2\nmessages_per_connection = 10000\n" + RETRY + rule(slow))
    sites = [rig.stream(domain=f"{name}.test") for name in "abc"]
    mails = [mail for site in sites for mail in rig.mails(400, site)]
    provider = Script(lambda mail, tries, now_s: BUSY if mail is mails[0] and not tries else None)
    counts: dict[float, int] = {}

    def say(mail: Mail, tries: int, now_s: float) -> Answer | None:
        counts[now_s - START_S] = provider.connections.total()
        return BUSY if mail is mails[0] and not tries else None

    provider._say = say
    tally = rig.drain(mails, provider).of("acme")

    assert tally.delivered == 1200
    assert {count for at_s, count in counts.items() if 5.0 < at_s < 300.0} == {1}
    assert max(count for at_s, count in counts.items() if at_s > 302.0) == 6
