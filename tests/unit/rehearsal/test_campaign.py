"""A campaign: how long it takes is what its limits come to, and a crowd fares as its messages one by one would."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mta.testing.rehearsal_rig import CONNECT_S, DELIVERY_S, START_S, Rig, Script
from mta_policies.answers import Answer
from mta_policies.provider_model import model
from mta_policies.rehearsal.campaign import NOTHING, Campaign, simulate
from mta_policies.rehearsal.fates import chance
from mta_policies.rehearsal.modelled import Modelled
from mta_policies.rehearsal.recorded import Provider, Recorded
from mta_policies.rehearsal.replay import Assumed
from mta_policies.rehearsal.tally import Tally
from mta_policies.rehearsal.traffic import Crowd, Mail

LIMITS = "[limits]\nconnections = 5\nmessages_per_connection = 10\n"
PROBE = '[[rule]]\nname = "too-much"\nwhen = { code = "421" }\nthen = [{ action = "probe", silence = "10m" }]\n'
ADAPT = '[adapt]\non = ["too-much"]\nceiling = "90/min"\nfloor = "10/min"\n'
RULES = f'{LIMITS}rate = "90/min"\nrecipients_per_transaction = 2\n[retry]\nschedule = ["1m", "5m"]\n{PROBE}'


def simulated(folder: Path, policy: str, campaign: Campaign, provider_model: str = "") -> Tally:
    rig = Rig(folder, acme=policy)
    placed = rig.place(rig.stream())
    assumed = Assumed(DELIVERY_S, CONNECT_S, model=model(provider_model) if provider_model else None)
    return simulate(campaign, placed, assumed, ZoneInfo, 60.0)


def test_connections_say_how_long_it_takes(tmp_path: Path):
    """100 messages on 5 connections of 10 each: two rounds of half a second and ten seconds; of two sources one."""
    both = {"out-1": 1, "out-2": 1}

    one, two = (
        simulated(tmp_path / str(number), LIMITS, Campaign(100, "acme.test", weights, START_S))
        for number, weights in enumerate(({"out-1": 1}, both))
    )

    assert (one.delivered, two.delivered) == (100, 100)
    assert one.drained_s == pytest.approx(2 * (CONNECT_S + 10 * DELIVERY_S))
    assert two.drained_s == pytest.approx(CONNECT_S + 10 * DELIVERY_S)
    assert list(one.bound_s) == ["limits.connections"]
    assert one.where["limits.connections"] == ("acme", "out-1")


def test_what_is_handed_in_slowly_waits_for_nothing(tmp_path: Path):
    """One a second: the last comes after 99 seconds, and takes its second."""
    tally = simulated(tmp_path, LIMITS, Campaign(100, "acme.test", {"out-1": 1}, START_S, per_s=1.0))

    assert tally.last_delivered_s - START_S == pytest.approx(99.0 + DELIVERY_S, abs=CONNECT_S)
    assert tally.backlog_max <= 2


def test_mail_is_spread_by_weights():
    """Three to one, over the same time; a source that gets nothing is left out."""
    traffic = Campaign(10, "acme.test", {"a": 3, "b": 1, "c": 0}, START_S, per_s=2.0).traffic()

    assert {crowd.stream.subject.source: crowd.messages for crowd in traffic.crowds} == {"a": 7, "b": 3}
    assert sorted(crowd.number for crowd in traffic.crowds) == [0, 7]
    assert all(crowd.messages * crowd.every_s == pytest.approx(5.0) for crowd in traffic.crowds)
    assert traffic.end_s == START_S + 5.0


def test_what_is_too_large_bounces_at_once(tmp_path: Path):
    """Every recipient of it, without an attempt, and the limit is named."""
    policy = '[limits]\nmessage_size_max = "3MB"\n'

    tally = simulated(tmp_path, policy, Campaign(50, "acme.test", {"": 1}, START_S, recipients=2, size=4_000_000))

    assert (tally.bounced, tally.attempts, tally.waiting) == (100, 0, 0)
    assert list(tally.where) == ["limits.message_size_max"]


def test_what_a_tenant_allows_itself_holds_too(tmp_path: Path):
    """One recipient a transaction, ten transactions a minute, nothing over 1 MB: for its mail alone."""
    rig = Rig(tmp_path / "shipped", acme="[limits]\nconnections = 5")
    own = tmp_path / "own" / "tenants" / "shop"
    own.mkdir(parents=True)
    limits = '[limits]\nrate = "10/min"\nrecipients_per_transaction = 1\nmessage_size_max = "1MB"\n'
    (own / "acme.toml").write_text(limits)
    rig.load(tmp_path / "own")
    placed = rig.place(rig.stream())

    shop, others, large = (
        simulate(Campaign(10, "acme.test", {"": 1}, START_S, 0.0, 3, size, tenant), placed, Assumed(), ZoneInfo, 60.0)
        for tenant, size in (("shop", 900_000), ("", 900_000), ("shop", 1_100_000))
    )

    assert (shop.delivered, shop.transactions) == (30, 30)
    assert shop.drained_s == pytest.approx(29 * 6.0, abs=5.0)
    assert list(shop.bound_s)[-1] == "tenant shop"
    assert (others.delivered, others.transactions) == (30, 10)
    assert others.drained_s < 10.0
    assert (large.bounced, large.attempts) == (30, 0)


def provider(name: str) -> Provider:
    """Fresh for each run."""
    if name == "google":
        return Modelled(model("google:per_minute=60,penalty=20m"), lambda stream: "acme", Recorded(NOTHING))
    later = Answer(451, "4.3.0", "later", "rcpt", "mx")

    def say(mail: Mail, tries: int, now_s: float) -> Answer | None:
        return later if chance(mail.message, 1) < 0.2 and now_s < START_S + 600.0 else None

    return Script(say)


@pytest.mark.parametrize("name", ["google", "script"])
@pytest.mark.parametrize("every_s", [0.0, 0.4])
@pytest.mark.parametrize(("recipients", "policy"), [(1, RULES), (3, RULES), (3, RULES + ADAPT)])
def test_a_crowd_is_what_its_messages_are(tmp_path: Path, name: str, every_s: float, recipients: int, policy: str):
    """To the last count and second, also where it is refused, probed, slowed and retried."""
    rig = Rig(tmp_path, acme=policy)
    crowd = Crowd(rig.stream(), 400, START_S, every_s, recipients)
    mails = [crowd.mail(number) for number in range(crowd.messages) for _ in range(recipients)]

    one_by_one = rig.drain(mails, provider(name)).of("acme")
    together = rig.drain((), provider(name), crowds=[crowd]).of("acme")

    assert one_by_one.delivered > 300
    assert one_by_one.deferred > 0
    assert vars(together) == vars(one_by_one)
