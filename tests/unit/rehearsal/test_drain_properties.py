"""A drain, whatever the policies and the provider: nothing is lost, no limit is passed, the same gives the same."""

import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from mta.testing.rehearsal_rig import CONNECT_S, DELIVERY_S, START_S, Done, Rig, Script
from mta_policies.answers import Answer
from mta_policies.rehearsal.fates import chance
from mta_policies.rehearsal.traffic import Mail

ROUNDING_S = 1e-4

ANSWERS = [
    None,
    None,
    None,
    Answer(451, "4.7.1", "rate limited", "mail", "mx"),
    Answer(450, "4.2.1", "later", "rcpt", "mx"),
    Answer(421, "4.7.28", "unusual rate", "content", "mx"),
    Answer(451, "4.4.2", "connection lost", "content", "mx", False),
    Answer(550, "5.1.1", "unknown", "rcpt", "mx"),
    Answer(550, "5.7.1", "blocked", "content", "mx"),
]
ACTIONS = [
    '{ action = "slow", rate = "20/min", for = "10m", scope = "source" }',
    '{ action = "slow", connections = 1, for = "5m", scope = "site" }',
    '{ action = "slow", factor = "50%", for = "5m", scope = "provider" }',
    '{ action = "slow", rate = "6/min", connections = 1, for = "5m", scope = "tenant" }',
    '{ action = "suspend", for = "3m", scope = "netblock" }',
    '{ action = "suspend", for = "3m", scope = "campaign" }',
    '{ action = "suspend", for = "2m", scope = "recipient" }',
    '{ action = "probe", silence = "2m", scope = "source" }',
    '{ action = "probe", silence = "1m", scope = "dkim-domain" }',
    '{ action = "bounce" }',
    '{ action = "defer", after = "4m" }',
    '{ action = "alert" }',
]
WHEN = ['code = "451"', 'code = "421"', 'enhanced = "4.2.1"', 'code = "5xx", text = "blocked"', 'stage = "connect"']
TRIGGERS = ["", '{ count = 2, in = "10m" }', "{ consecutive = 3 }", '{ share = "20%", of = 5, in = "10m" }']


class Given(NamedTuple):
    """A policy, mail, and how the provider answers."""

    policy: str
    connections: int
    source_connections: int
    per_minute: int
    messages: int
    adapts: bool
    mails: list[tuple[int, int, int]]
    """Stream, seconds behind the start, recipients."""
    answers: list[int]
    down: list[bool]
    """By minutes."""

    def limits(self) -> str:
        lines = [f"[limits]\nconnections = {self.connections}\nmessages_per_connection = {self.messages}"]
        if self.per_minute:
            lines.append(f'rate = "{self.per_minute}/min"')
        lines.append(f"[source_limits]\nconnections = {self.source_connections}")
        lines.append('[retry]\nschedule = ["1m", "5m"]\nexpire = "1h"')
        if self.adapts:
            lines.append('[adapt]\non = ["policy-related"]\nfloor = "2/min"\nceiling = "5/s"')
        return "\n".join([*lines, self.policy])


@st.composite
def rules(draw: st.DrawFn) -> str:
    text = ""
    for number in range(draw(st.integers(0, 3))):
        trigger = draw(st.sampled_from(TRIGGERS))
        then = ", ".join(draw(st.lists(st.sampled_from(ACTIONS), max_size=2)))
        text += f'[[rule]]\nname = "r{number}"\nwhen = {{ {draw(st.sampled_from(WHEN))} }}\nthen = [{then}]\n'
        text += f"trigger = {trigger}\n" if trigger else ""
    return text


GIVEN = st.builds(
    Given,
    policy=rules(),
    connections=st.integers(0, 4),
    source_connections=st.integers(0, 3),
    per_minute=st.sampled_from([0, 0, 30, 600]),
    messages=st.integers(0, 5),
    adapts=st.booleans(),
    mails=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1200), st.integers(1, 3)), min_size=1, max_size=60),
    answers=st.lists(st.integers(0, len(ANSWERS) - 1), min_size=1, max_size=20),
    down=st.lists(st.booleans(), max_size=10),
)


def streams(rig: Rig) -> list:
    return [
        rig.stream(
            source=f"out-{number % 2}",
            domain=f"d{number % 3}.test",
            source_address=f"192.0.2.{number % 2}",
            tenant="shop" if number % 2 else "",
            campaign="spring" if number == 3 else "",
            dkim_domain="signed.test" if number > 3 else "",
        )
        for number in range(6)
    ]


def run(given: Given, folder: Path, until_s: float = float("inf")) -> tuple[Done, Script, list[Mail]]:
    rig = Rig(folder, acme=given.limits())
    known = streams(rig)
    mails = [
        mail
        for stream, at_s, recipients in given.mails
        for mail in rig.message([known[stream]] * recipients, float(at_s))
    ]

    def say(mail: Mail, tries: int, now_s: float) -> Answer | None:
        return ANSWERS[given.answers[int(chance(mail.message, tries) * len(given.answers))]]

    def opens(now_s: float) -> Answer | None:
        minute = int((now_s - START_S) // 60.0)
        is_down = minute < len(given.down) and given.down[minute]
        return Answer(451, "4.4.1", "refused", "connect", "", False) if is_down else None

    provider = Script(say, opens)
    return rig.drain(mails, provider, until_s), provider, mails


@settings(max_examples=150)
@given(GIVEN, st.sampled_from([float("inf"), 60.0, 600.0]))
def test_nothing_is_lost_and_nothing_happens_twice(given: Given, until_s: float):
    """Every recipient that was due ends delivered, bounced, expired or left waiting, once."""
    with tempfile.TemporaryDirectory() as folder:
        done, provider, mails = run(given, Path(folder), until_s)
    tally = done.of("acme") if done.tallies else None
    taken = Counter(mail for _, mail in provider.answered)
    due = [mail for mail in mails if mail.due_s <= START_S + until_s]

    if tally is None:
        assert due == []
        return
    assert tally.arrived == len(due)
    assert tally.waiting >= 0
    assert until_s != float("inf") or tally.waiting == 0
    assert tally.attempts == sum(taken.values()) == tally.delivered + tally.deferred + tally.bounced
    assert sum(tally.series["ended"].values()) == tally.arrived - tally.waiting
    assert all(at_s <= mail.accepted_s + 3600.0 + DELIVERY_S for at_s, mail in provider.answered)


@settings(max_examples=150)
@given(GIVEN)
def test_no_limit_is_passed(given: Given):
    """Neither connections of a site and of a source, nor the rate, nor the messages of a connection."""
    with tempfile.TemporaryDirectory() as folder:
        done, provider, _ = run(given, Path(folder))
    tally = done.of("acme")
    begun: dict[tuple[str, str], list[float]] = {}
    for at_s, mail in provider.answered:
        begun.setdefault((mail.stream.site, mail.stream.subject.source), []).append(at_s - DELIVERY_S)

    for (site, _), count in provider.connections_max.items():
        most = given.connections if site else given.source_connections
        assert not most or count <= most
    if given.messages:
        assert tally.transactions <= given.messages * tally.connections
    if given.per_minute:
        for times in begun.values():
            burst = max(1.0, given.per_minute / 60.0)
            transactions = sorted(set(times))
            for first, last in itertools.combinations(range(len(transactions)), 2):
                allowed = burst + (transactions[last] - transactions[first] + ROUNDING_S) * given.per_minute / 60.0
                assert last - first + 1 <= allowed + 1e-3


@settings(max_examples=60)
@given(GIVEN)
def test_the_same_gives_the_same(given: Given):
    """To the last count and second."""
    with tempfile.TemporaryDirectory() as folder:
        first, seen, _ = run(given, Path(folder) / "a")
        second, seen_again, _ = run(given, Path(folder) / "b")

    assert [at_s for at_s, _ in seen.answered] == [at_s for at_s, _ in seen_again.answered]
    assert vars(first.of("acme")) == vars(second.of("acme"))


@settings(max_examples=100)
@given(GIVEN)
def test_a_provider_that_takes_all_gets_all(given: Given):
    """Where nothing is refused nothing is left behind, whatever the limits: nobody waits for what never comes."""
    with tempfile.TemporaryDirectory() as folder:
        calm = given._replace(answers=[0], down=[], per_minute=given.per_minute and 600)
        done, _, mails = run(calm, Path(folder))
    tally = done.of("acme")

    assert tally.delivered == len(mails)
    assert tally.drained_s < 1200.0 + 200 * (DELIVERY_S + CONNECT_S)


@settings(max_examples=150)
@given(GIVEN)
def test_what_rules_set_off_comes_to_an_end(given: Given):
    """Half an hour of trouble, then all is well: whatever was slowed, suspended or probed, nothing expires."""
    with tempfile.TemporaryDirectory() as folder:
        long = given._replace(policy=given.policy.replace("bounce", "alert"))
        rig = Rig(Path(folder), acme=long.limits().replace('expire = "1h"', 'expire = "2d"'))
        known = streams(rig)
        mails = [mail for stream, at_s, count in long.mails for mail in rig.message([known[stream]] * count, at_s)]

        def say(mail: Mail, tries: int, now_s: float) -> Answer | None:
            trouble = ANSWERS[long.answers[int(chance(mail.message, tries) * len(long.answers))]]
            return trouble if now_s < START_S + 1800.0 else None

        done = rig.drain(mails, Script(say)).of("acme")

    assert (done.expired, done.waiting) == (0, 0)
    assert done.delivered + done.bounced == len(mails)
    assert done.drained_s < 6 * 3600.0
