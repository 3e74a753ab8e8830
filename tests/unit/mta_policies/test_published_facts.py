"""What providers publish and operators share, against the shipped files: limits, and what is done about their replies,
with the number of each. The files' own tests say which rule a reply finds, not how long it lasts."""

from operator import attrgetter

import pytest

from mta_policies import cases, layers
from mta_policies.bounces import classify
from mta_policies.layers import PolicySet
from mta_policies.rulebook import TestCase
from mta_policies.units import Rate
from mta_policies.wording import deeds


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return layers.load(None)


LIMITS: list[tuple[str, dict[str, object]]] = [
    ("default", {"limits.connections": 10, "limits.messages_per_connection": 100, "limits.rate": (Rate(100, 1),)}),
    ("default", {"limits.connection_rate": (Rate(100, 60),)}),
    ("google", {"source_limits.connections": 5, "limits.messages_per_connection": 50, "limits.mix_domains": False}),
    ("google", {"tls": "required"}),
    ("yahoo", {"limits.messages_per_connection": 20}),
    ("yahoo-japan", {"limits.connections": 2, "limits.messages_per_connection": 20, "limits.rate": (Rate(10, 1),)}),
    ("outlook", {"source_limits.connections": 5, "limits.messages_per_connection": 50}),
    ("microsoft", {"source_limits.connections": 5, "limits.messages_per_connection": 50}),
    ("apple", {"source_limits.connections": 10, "limits.messages_per_connection": 5}),
    ("comcast", {"limits.connections": 25, "limits.messages_per_connection": 1000, "tls": "required"}),
    ("orange", {"limits.connections": 2, "source_limits.connections": 3, "limits.messages_per_connection": 100}),
    ("orange", {"limits.connection_rate": (Rate(1000, 3600),), "tls": "required"}),
    ("gmx", {"limits.connections": 4, "limits.messages_per_connection": 20, "tls": "required"}),
    ("mimecast", {"limits.connections": 10, "limits.messages_per_connection": 100}),
    ("barracuda", {"source_limits.connections": 10, "limits.messages_per_connection": 15}),
    ("kpn", {"limits.connections": 10, "limits.messages_per_connection": 10}),
    ("qq", {"limits.connections": 4, "limits.messages_per_connection": 8, "tls": "required"}),
    ("netease", {"limits.connections": 4, "limits.messages_per_connection": 7}),
    ("docomo", {"limits.recipients_per_transaction": 100, "limits.recipients_per_connection": 100}),
    ("au", {"limits.recipients_per_transaction": 100, "limits.message_size_max": 3_000_000}),
    ("softbank", {"limits.recipients_per_transaction": 100, "limits.message_size_max": 1_000_000}),
]


@pytest.mark.parametrize(("name", "values"), LIMITS, ids=[f"{name} {', '.join(values)}" for name, values in LIMITS])
def test_limits(policies: PolicySet, name: str, values: dict[str, object]) -> None:
    """Each as it holds in the end, with what `default` adds."""
    policy = policies.policies[name]

    assert {key: attrgetter(key)(policy) for key in values} == values


TOLD = "Gmail has detected an unusual rate of mail originating from your"
LOW = "This message is suspicious due to the very low reputation of the sending IP address."

GOOGLE = [
    (f"421 4.7.28 {TOLD} IP address", "content", ["probe source: silence 10m"]),
    (f"421 4.7.28 {TOLD} IP Netblock", "content", ["probe netblock: silence 10m"]),
    (f"421 4.7.28 {TOLD} DKIM domain", "content", ["probe dkim-domain: silence 10m"]),
    (f"421 4.7.28 {TOLD} SPF domain", "content", ["probe spf-domain: silence 10m"]),
    (
        "421 4.7.28 an unusual rate of mail",
        "content",
        [f"probe {scope}: silence 10m" for scope in ("source", "dkim-domain", "spf-domain")],
    ),
    (f"421 4.7.0 {LOW}", "content", ["suspend source for 1h (after 5 in 1h)", "alert source (after 5 in 1h)"]),
    ("421 4.7.0 Connection expired, try reconnecting.", "mail", ["defer"]),
    ("450 4.2.1 The user is receiving mail at a rate that ...", "rcpt", ["suspend recipient for 15m"]),
    ("451 4.7.26 ... temporary DNS failures prevent authentication.", "content", ["defer"]),
    *[(f"550 5.7.{detail} no PTR", "content", ["alert source"]) for detail in (23, 25)],
    *[(f"550 5.7.{detail} x", "content", ["alert spf-domain"]) for detail in (24, 26, 27, 29, 30, 32, 40)],
    *[(f"421 4.7.{detail} x", "content", ["defer 1h", "alert spf-domain"]) for detail in (24, 27, 29, 30, 32, 40)],
    ("550 5.7.1 likely unsolicited mail, this message has been blocked.", "content", ["spam-related"]),
    ("550 5.7.28 an unusual rate of unsolicited mail", "content", ["spam-related"]),
]

YAHOO = [
    *[(f"421 4.7.0 [{code}] deferred", "mail", ["suspend source for 2h"]) for code in ("TSS04", "IPTS04")],
    *[(f"421 4.7.0 [{code}] deferred", "mail", ["suspend source for 4h"]) for code in ("TSS05", "IPTS05")],
    ("421 4.7.0 [TS02] deferred", "mail", ["slow source: 1/min, for 30m (after 3 in 1h)"]),
    ("421 4.7.1 [TS03] All messages will be permanently deferred", "mail", ["suspend source for 1d", "alert source"]),
    ("421 Max message per connection reached", "mail", ["slow source: 10 messages a connection, for 1h"]),
    ("552 1 Requested mail action aborted, mailbox not found", "content", ["bad-mailbox"]),
]

HOUR_OF_TWO = "suspend source for 1h (after 2 in 1h)"
YAHOO_JAPAN = [
    ("553 Mail from 192.0.2.1 not allowed - VS98-IP0 deferred", "mail", [HOUR_OF_TWO]),
    *[(f"421 [{code}] deferred", "mail", [HOUR_OF_TWO]) for code in ("TSS04", "IPTS04")],
]

ONE_FOR_AN_HOUR = "slow source: 1 connection, for 1h (after 2 in 1h)"
REPUTATION = "slow source: 10/min, 1 connection, for 30m"
OUTLOOK = [
    ("421 RP-001 rate limited due to IP reputation", "mail", [REPUTATION]),
    ("421 RP-003 exceeded the maximum number of connections allowed", "mail", [ONE_FOR_AN_HOUR]),
    ("421 exceed max concurrent connections. IB007", "greeting", [ONE_FOR_AN_HOUR]),
    ("451 4.7.500 Server busy.", "mail", ["slow source: 1/min, 1 connection, for 30m (after 3 in 1h)"]),
    *[(f"451 4.7.{detail} rate limited", "mail", [REPUTATION]) for detail in (650, 651)],
    (
        "550 5.7.1 block list (S3150)",
        "mail",
        [f"{deed} (after 5 in 1h)" for deed in ("suspend source for 2h", "alert source")],
    ),
    (
        "550 5.7.515 Access denied",
        "content",
        [f"{deed} (after 5 in 1h)" for deed in ("suspend spf-domain for 2h", "alert spf-domain")],
    ),
]

MICROSOFT = [(f"550 5.2.{detail} limit", "content", ["defer 1h", "suspend recipient for 1h"]) for detail in (121, 122)]

APPLE = [
    ("451 4.7.1 [BS02] Temporary server error.", "content", ["suspend source for 15m (after 5 in 1h)"]),
    ("421 4.7.1 [HCM1] Your mail was deferred.", "mail", ["suspend source for 15m (after 3 in 1h)"]),
    ("421 4.7.1 not now", "mail", ["slow source: 1 connection, for 15m"]),
    *[(f"554 5.7.1 [{code}] rejected", "content", ["policy-related"]) for code in ("CS01", "CS02", "HM08")],
    ("554 5.7.1 [HME1] failing both SPF and DKIM", "content", ["alert spf-domain (after 5 in 1h)"]),
]

COMCAST = [
    ("421 4.1.0 Throttled #RL000001", "mail", ["slow source: 10000/h, for 2h (after 2 in 1h)"]),
    ("451 4.2.0 Throttled #RL000010", "rcpt", ["defer 5m", "suspend tenant for 5m"]),
    ("554 block for spam #BL000000", "greeting", ["suspend source for 2h (after 5 in 1h)"]),
]

ORANGE = [
    ("421 Trop de connexions OFR004_104 [104]", "greeting", [ONE_FOR_AN_HOUR]),
    ("421 Service refuse OFR_999 [999]", "greeting", ["suspend source for 3h (after 2 in 1h)"]),
    ("550 5.2.0 Mail rejete. ofr_506 [506]", "content", ["spam-related"]),
    ("550 5.1.1 Invalid recipient. OFR_416 [416]", "rcpt", ["bad-mailbox"]),
    ("552 5.1.1 Recipient overquota. OFR_417 [417]", "rcpt", ["quota-issues"]),
]

RESTRICTED = "Reject due to policy restrictions."
GMX = [
    ("421 Too many connections", "greeting", ["slow source: 1 connection, for 30m (after 3 in 1h)"]),
    (f"421 {RESTRICTED}", "greeting", ["slow source: 1/min, for 1h (after 5 in 1h)"]),
    (f"554 {RESTRICTED}", "greeting", ["suspend source for 2h (after 5 in 1h)"]),
]

QQ = [
    *[
        (f"550 {what} frequency limited", "mail", ["defer 1h", "suspend source for 1h (after 5 in 1h)"])
        for what in ("Ip", "Connection")
    ],
    *[
        (f"550 {what} frequency limited", "mail", ["defer 1h", "suspend spf-domain for 1h (after 5 in 1h)"])
        for what in ("Sender", "Domain")
    ],
    ("550 Mail content denied", "content", ["defer 1h", "suspend source for 1h (after 5 in 1h)"]),
]

FULLER = "slow source: 3 messages a connection, 20 recipients a transaction, for 1h"
NETEASE = [
    ("421 HL:REP 163", "greeting", ["suspend source for 15m"]),
    ("421 HL:ICC 163", "greeting", [ONE_FOR_AN_HOUR]),
    ("421 HL:IFC 163", "greeting", ["suspend source for 15m"]),
    *[(f"450 {code} 163", "mail", [FULLER]) for code in ("MI:DMC", "RP:DRC")],
    ("451 DT:SPM 163", "content", ["suspend source for 15m (after 5 in 1h)"]),
    *[(reply, "rcpt", ["defer 1h", HOUR_OF_TWO]) for reply in ("550 RP:ORQ 163", "554 HL:ITC 163")],
]

BRAKE = "slow provider: 1/s, 1 connection, for 1h (after 3% of 200 in 10m)"
DOCOMO = [("550 Unknown user nobody@docomo.ne.jp", "rcpt", ["bad-mailbox, never hard", BRAKE])]
AU = [
    ("550 : User unknown", "rcpt", ["policy-related"]),
    ("550 <nobody@ezweb.ne.jp>: User unknown", "rcpt", ["bad-mailbox, never hard", BRAKE]),
]
SOFTBANK = [("550 Invalid recipient: <nobody@i.softbank.jp>", "rcpt", [BRAKE])]

ANYBODY = [
    *[
        (f"421 4.7.0 {words}", "mail", ["slow source: 1 connection, for 90m"])
        for words in ("temporarily deferred", "rate limited", "server busy")
    ],
    ("451 4.3.0 try again later", "mail", ["slow source: 1/min, 1 connection, for 90m (after 5 in a row)"]),
]

REPLIES = [
    (name, *fact)
    for name, facts in {
        "google": GOOGLE,
        "yahoo": YAHOO,
        "yahoo-japan": YAHOO_JAPAN,
        "outlook": OUTLOOK,
        "microsoft": MICROSOFT,
        "apple": APPLE,
        "comcast": COMCAST,
        "orange": ORANGE,
        "gmx": GMX,
        "qq": QQ,
        "netease": NETEASE,
        "docomo": DOCOMO,
        "au": AU,
        "softbank": SOFTBANK,
        "default": ANYBODY,
    }.items()
    for fact in facts
]


@pytest.mark.parametrize(("name", "reply", "stage", "done"), REPLIES, ids=[f"{one[0]} {one[1]}" for one in REPLIES])
def test_what_is_done_about_a_reply(policies: PolicySet, name: str, reply: str, stage: str, done: list[str]) -> None:
    """The rule that it finds does this, among other things, with these numbers."""
    answer = cases.answer_of(TestCase(reply=reply, stage=stage))
    assert answer is not None

    rule = policies.policies[name].rules.find(answer, classify(answer).name)

    assert rule is not None
    assert set(done) <= set(deeds(rule)), (rule.name, deeds(rule))


def test_whoever_is_slowed_finds_his_pace(policies: PolicySet) -> None:
    """Where no pace is known: one connection, and the rate is halved and rises again."""
    assert {name for name, policy in policies.policies.items() if "any-throttled" not in policy.adapt.on} == set()
    assert "outlook-connection-rate" in policies.policies["outlook"].adapt.on
