"""Each answer has one category, and the words of real providers have the right one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta_policies import bounces
from mta_policies.answers import STAGES, Answer
from mta_policies.bounces import CATEGORIES, ENHANCED, FAINT, HARD, TELLING, classify

CODES = st.integers(200, 599)
ENHANCED_CODES = st.one_of(
    st.just(""), st.builds("{}.{}.{}".format, st.sampled_from("245"), st.integers(0, 999), st.integers(0, 999))
)


def _classed(reply: str, stage: str = "rcpt", *, from_peer: bool = True) -> tuple[str, bool]:
    found = re.fullmatch(r"(\d{3}) ?(\d\.\d+\.\d+)? ?(.*)", reply)
    assert found is not None
    return classify(Answer(int(found[1]), found[2] or "", found[3], stage, "", from_peer))


@pytest.mark.parametrize(
    ("reply", "category"),
    [
        # no such mailbox, said in many ways
        ("550 5.1.1 The email account that you tried to reach does not exist. Please try", "bad-mailbox"),
        ("550 5.1.1 <a@b.example>: Recipient address rejected: User unknown in virtual mailbox table", "bad-mailbox"),
        ("554 delivery error: dd This user doesn't have a yahoo.com account (a@yahoo.com) [0]", "bad-mailbox"),
        ("552 1 Requested mail action aborted, mailbox not found", "bad-mailbox"),
        ("550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", "bad-mailbox"),
        ("550 Unknown user a@docomo.ne.jp", "bad-mailbox"),
        ("550 <a@ezweb.ne.jp>: User unknown", "bad-mailbox"),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "bad-mailbox"),
        ("550 No such user here", "bad-mailbox"),
        ("550 5.1.1 Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416 [416]", "bad-mailbox"),
        ("550 User not found: a@163.com", "bad-mailbox"),
        ("550 #5.1.0 Address rejected.", "bad-mailbox"),
        ("551 User not local; please try elsewhere", "bad-mailbox"),
        ("553 sorry, this recipient is not in my validrcptto list (#5.7.1)", "bad-mailbox"),
        # not used any more
        ("550 5.2.1 The email account that you tried to reach is inactive.", "inactive-mailbox"),
        ("550 Account has been suspended", "inactive-mailbox"),
        (
            "554 30 Sorry, your message to a@aol.com cannot be delivered. This mailbox is disabled (554.30).",
            "inactive-mailbox",
        ),
        # full
        ("452 4.2.2 The recipient's inbox is out of storage space.", "quota-issues"),
        ("552 5.2.2 <a@icloud.com>: user is over quota", "quota-issues"),
        ("550 5.7.1 Mailbox is full", "quota-issues"),
        # senders, relaying, domains, ways
        ("553 5.1.8 <a@nowhere.example>: Sender address rejected: Domain not found", "invalid-sender"),
        ("501 5.1.7 Bad sender address syntax", "invalid-sender"),
        ("550 5.7.27 a null MX", "invalid-sender"),
        ("554 5.7.1 <a@b.example>: Relay access denied", "relaying-issues"),
        ("550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "relaying-issues"),
        ("550 5.1.2 Host unknown", "bad-domain"),
        ("556 5.1.10 Domain does not accept mail", "bad-domain"),
        ("550 Unrouteable address", "routing-errors"),
        ("554 5.4.6 Too many hops", "routing-errors"),
        # spam, virus, content
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "spam-related"),
        ("550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. block list (S3150).", "spam-related"),
        (
            "550 5.7.1 [192.0.2.1 12] Our system has detected that this message is likely unsolicited mail.",
            "spam-related",
        ),
        ("554 5.7.1 Virus found, message rejected", "virus-related"),
        ("552 5.3.4 Message size exceeds fixed limit", "content-related"),
        ("550 Mail content denied. http://service.mail.qq.com/...", "content-related"),
        (
            "552 5.7.0 This message was blocked because its content presents a potential security issue.",
            "content-related",
        ),
        # rules of theirs
        ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume", "policy-related"),
        ("451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", "policy-related"),
        ("450 4.2.1 The user you are trying to contact is receiving mail too quickly.", "policy-related"),
        ("550 5.7.26 This mail has been blocked because the sender is unauthenticated.", "policy-related"),
        (
            "550 5.7.515 Access denied, sending domain does not meet the required authentication level.",
            "policy-related",
        ),
        ("450 4.2.0 <a@b.example>: Recipient address rejected: Greylisted, see http://postgrey", "policy-related"),
        ("421 Too many connections from your IP", "policy-related"),
        ("550 5.7.1 Too many invalid recipients", "policy-related"),
        ("452 4.5.3 Too many recipients", "policy-related"),
        ("550 Ip frequency limited. http://service.mail.qq.com/", "policy-related"),
        ("550 5.1.0 Address rejected.", "policy-related"),
        ("450 4.2.1 The user you are trying to contact is receiving mail at a rate that", "policy-related"),
        ("421 Max message per connection reached, closing transmission channel", "policy-related"),
        ("452 4.3.2 Per-Connection Message Limit Exceeded", "policy-related"),
        ("421 4.4.1 CHIC 192.0.2.1: Network is busy.", "policy-related"),
        # the dialogue, the host
        ("503 5.5.1 Bad sequence of commands", "protocol-errors"),
        ("500 5.5.1 Invalid command", "protocol-errors"),
        ("421 Service not available, closing transmission channel", "bad-connection"),
        ("421 4.4.2 mx.example Error: timeout exceeded", "bad-connection"),
        ("451 Internal resources are temporarily unavailable", "bad-connection"),
        ("451 Account service is temporarily unavailable", "bad-connection"),
        ("451 4.3.5 Server configuration error", "bad-configuration"),
        ("554 5.4.7 Delivery expired (message too old)", "message-expired"),
        # says nothing
        ("550 Sorry", "other"),
        ("554 Transaction failed", "other"),
        ("451 Requested action aborted: local error in processing", "other"),
    ],
)
def test_replies_of_the_field_have_their_category(reply: str, category: str) -> None:
    """As providers word them."""
    assert _classed(reply)[0] == category


@pytest.mark.parametrize(
    ("stage", "reply", "category"),
    [
        ("dns", "550 5.1.2 domain nowhere.example does not exist", "bad-domain"),
        ("dns", "556 5.1.10 domain nowhere.example does not accept mail (null MX)", "bad-domain"),
        ("dns", "451 4.4.3 cannot resolve nowhere.example: no answer", "routing-errors"),
        ("dns", "550 5.4.6 mail for us.example loops back to this server", "routing-errors"),
        ("connect", "451 4.4.1 connection refused", "no-answer-from-host"),
        ("greeting", "451 4.4.2 timed out while waiting for the greeting", "bad-connection"),
        ("starttls", "451 4.7.4 TLS is required but not offered", "bad-connection"),
        ("starttls", "451 4.7.5 the certificate is for another host", "bad-connection"),
        ("content", "451 4.4.2 connection lost", "bad-connection"),
        ("mail", "451 4.5.0 the reply does not fit", "protocol-errors"),
        ("local", "554 5.4.7 Could not be delivered before it expired", "message-expired"),
        ("local", "451 4.3.5 the message cannot be signed: no such file", "bad-configuration"),
        ("local", "552 5.3.4 larger than the host takes", "content-related"),
    ],
)
def test_our_own_words_are_classed_by_the_code_that_we_chose(stage: str, reply: str, category: str) -> None:
    """Never by words: "connection refused" is no policy of theirs."""
    assert _classed(reply, stage, from_peer=False)[0] == category


@pytest.mark.parametrize(
    ("reply", "hard"),
    [
        ("550 5.1.1 User unknown", True),
        ("450 4.1.1 User unknown", False),
        ("550 5.1.2 no such domain", True),
        ("550 5.2.1 mailbox disabled", True),
        ("552 5.2.2 mailbox full", False),
        ("550 5.7.1 blocked", False),
        ("550 Sorry", False),
    ],
)
def test_hard_is_an_address_that_is_refused_for_good(reply: str, hard: bool) -> None:
    """A 4xx is never hard, and neither is a 5xx about anything but the address."""
    assert _classed(reply)[1] is hard


@given(CODES, ENHANCED_CODES, st.text(max_size=200), st.sampled_from(STAGES), st.booleans())
def test_every_answer_has_exactly_one_category(
    code: int, enhanced: str, text: str, stage: str, from_peer: bool
) -> None:
    """Whatever comes; and the same one when it comes again."""
    answer = Answer(code, enhanced, text, stage, "mx.example", from_peer)

    first, again = classify(answer), classify(answer)

    assert first == again
    assert first.name in CATEGORIES
    assert first.hard == (first.name in HARD and code >= 500)


@given(st.integers(0, 9), st.integers(0, 99), st.sampled_from(STAGES))
def test_temporary_or_permanent_is_no_matter_of_the_category(subject: int, detail: int, stage: str) -> None:
    """4.X.Y and 5.X.Y are about the same thing; only hardness is another."""
    soft = classify(Answer(450, f"4.{subject}.{detail}", "", stage))
    final = classify(Answer(550, f"5.{subject}.{detail}", "", stage))

    assert soft.name == final.name
    assert not soft.hard


def test_there_are_seventeen_categories_and_each_can_be_reached() -> None:
    """No row is for a category that nobody knows, no category without a row."""
    reached = {row.category for row in (*TELLING, *FAINT)} | set(ENHANCED.values()) | set(bounces.VAGUE.values())
    reached |= set(bounces.CODES.values()) | set(bounces.OWN.values()) | set(bounces.OWN_STAGES.values())

    assert len(CATEGORIES) == 17
    assert reached == set(CATEGORIES)


@given(st.text(alphabet="a b@.:<>-()0", max_size=1_500).map(lambda text: text * 20))
def test_a_reply_cannot_keep_the_table_busy(text: str) -> None:
    """What is looked at is bounded, however long a reply is."""
    cut = text[: bounces.TEXT_CHARS_MAX]

    assert classify(Answer(550, "", text, "rcpt")) == classify(Answer(550, "", cut, "rcpt"))
