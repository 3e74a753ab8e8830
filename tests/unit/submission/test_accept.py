"""Acceptance: what becomes of a complete message before it is handed over, and what the client hears."""

import email
import email.policy
from collections.abc import Callable

import msgspec
import pytest

from mta.model.envelope import Envelope, Recipient
from mta.model.identity import IdMaker
from mta.reporting.events import Events
from mta.smtp import replies
from mta.smtp.server import Transaction
from mta.submission.accept import Acceptor, Tenants, TenantSettings
from mta.submission.listener import ListenerSettings
from mta.testing.fake_clock import FakeClock

LISTENER = ListenerSettings("mail.test", 1_000_000, 1000, ())
TENANTS = Tenants(
    [
        TenantSettings("shop", ("*@shop.test", "*@*.shop.test"), "fast"),
        TenantSettings("boss", ("boss@shop.test",)),
        TenantSettings("other"),
    ],
    ["fast", "slow"],
)
DAY_S = 86_400


class Desk:
    """An acceptor, whom it hands messages to, and what it answered."""

    def __init__(self, tenants: Tenants | None = None) -> None:
        self.clock = FakeClock()
        self.lines: list[bytes] = []
        self.taken: list[tuple[Envelope, bytes]] = []
        self.open: list[tuple[Callable[[], None], Callable[[bytes], None]]] = []
        self.answers: list[bytes] = []
        self.acceptor = Acceptor(
            clock=self.clock,
            ids=IdMaker(1),
            submitter=self,
            events=Events(self.lines.append, worker=0, prefix="e"),
            tenants=tenants or Tenants([], []),
            content_bytes_max=100_000,
            size_max_bytes=10_000,
        )

    def submit(
        self,
        envelope: Envelope,
        content: bytes,
        on_accepted: Callable[[], None],
        on_refused: Callable[[bytes], None],
    ) -> None:
        self.taken.append((envelope, content))
        self.open.append((on_accepted, on_refused))

    def accept(
        self,
        content: bytes,
        *recipients: str,
        sender: str = "a@shop.test",
        trusted: bool = True,
        listener: ListenerSettings = LISTENER,
        smtputf8: bool = False,
    ) -> None:
        each = [Recipient(address, address.rpartition("@")[2]) for address in recipients or ("b@d.test",)]
        self.acceptor.accept(
            Transaction(sender, each, content, not content.isascii(), smtputf8),
            listener,
            client="192.0.2.1",
            helo="c.test",
            is_esmtp=True,
            is_trusted=trusted,
            answer=self.answers.append,
        )

    @property
    def envelope(self) -> Envelope:
        return self.taken[-1][0]

    @property
    def content(self) -> bytes:
        return self.taken[-1][1]


def fields(content: bytes) -> list[tuple[str, str]]:
    """The header fields as an independent reader sees them."""
    return list(email.message_from_bytes(content, policy=email.policy.default).items())


# --- what is added (RFC 6409 8)


def test_what_is_missing_is_added_on_top():
    """Trace line, Message-ID in the From domain and Date; the rest is byte for byte what came."""
    desk = Desk()
    content = b"From: x <x@from.test>\r\nSubject: s\r\n\r\n.dot\r\n\xe3\x81\x82\r\n"
    desk.accept(content)

    assert [name for name, _ in fields(desk.content)] == ["Received", "Message-ID", "Date", "From", "Subject"]
    assert desk.content.endswith(content)
    assert desk.envelope.message_id == f"<{desk.envelope.id}@from.test>"
    assert f"Message-ID: {desk.envelope.message_id}\r\n".encode() in desk.content
    assert desk.envelope.size == len(desk.content)
    assert desk.envelope.body_8bit


def test_what_is_there_stays():
    """Only the trace line comes on top."""
    desk = Desk()
    content = b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@x>\r\nFrom: x@from.test\r\n\r\nbody\r\n"
    desk.accept(content)

    top = desk.content.removesuffix(content)
    assert top.startswith(b"Received: from c.test ([192.0.2.1])\r\n\tby mail.test with ESMTP id ")
    assert top.count(b"\n") == top.count(b"\r\n") == 3
    assert b"for <b@d.test>" in top
    assert (desk.envelope.message_id, desk.envelope.from_domain) == ("<1@x>", "from.test")


def test_several_recipients_are_not_named_in_the_trace_line():
    """Nobody reads who else got it (RFC 5321 7.2)."""
    desk = Desk()
    desk.accept(b"Subject: s\r\n\r\n", "b@d.test", "c@d.test")

    assert b"d.test" not in desk.content


def test_a_recipient_named_twice_gets_it_once():
    """In the order in which they came; another spelling is another recipient."""
    desk = Desk()
    desk.accept(b"Subject: s\r\n\r\n", "b@d.test", "c@d.test", "b@d.test", "B@d.test")

    assert [each.address for each in desk.envelope.recipients] == ["b@d.test", "c@d.test", "B@d.test"]


def test_a_listener_inside_is_not_described():
    """Who handed the message in is nobody's business there."""
    desk = Desk()
    desk.accept(b"Subject: s\r\n\r\n", listener=msgspec.structs.replace(LISTENER, hide_client=True))

    assert desk.content.startswith(b"Received: by mail.test with ESMTP id ")
    assert b"192.0.2.1" not in desk.content
    assert b"c.test" not in desk.content


@pytest.mark.parametrize("content", [b"", b"\r\n", b"\r\nbody\r\n", b"no header\r\n", b".\r\n"])
def test_a_message_without_header_gets_one(content):
    """And its body stays what it is."""
    desk = Desk()
    desk.accept(content)

    header, _, body = desk.content.partition(b"\r\n\r\n")
    assert [name for name, _ in fields(header + b"\r\n\r\n")] == ["Received", "Message-ID", "Date"]
    assert body == content.removeprefix(b"\r\n")


# --- what an application asks for


def test_wishes_are_taken_off_and_honoured():
    """They count from a trusted client."""
    desk = Desk(TENANTS)
    desk.accept(
        b"X-MTA-Tenant: other\r\nX-MTA-Campaign: spring\r\nX-MTA-Priority: 9\r\nX-MTA-Pool: slow\r\n"
        b"X-MTA-Expire: 1h\r\nSubject: s\r\n\r\n"
    )

    envelope = desk.envelope
    assert (envelope.tenant, envelope.campaign, envelope.priority) == ("other", "spring", 9)
    assert (envelope.pool, envelope.expire_s) == ("slow", 3600.0)
    assert b"X-MTA" not in desk.content


def test_wishes_of_a_stranger_are_only_taken_off():
    """Nothing of them counts, and nothing of them leaves."""
    desk = Desk(TENANTS)
    desk.accept(b"X-MTA-Tenant: other\r\nX-MTA-Priority: 9\r\nx-mta-nonsense: 1\r\nSubject: s\r\n\r\n", trusted=False)

    assert (desk.envelope.tenant, desk.envelope.priority) == ("shop", 5)
    assert b"mta-" not in desk.content.lower()


@pytest.mark.parametrize(
    ("wish", "reply"),
    [
        (b"X-MTA-Tenant: nobody", b"550 5.6.0 X-MTA-Tenant"),
        (b"X-MTA-Pool: nowhere", b"550 5.6.0 X-MTA-Pool"),
        (b"X-MTA-Send-At: 2999-01-01T00:00:00Z", b"550 5.6.0 X-MTA-Send-At"),
        (b"X-MTA-Priority: high", b"550 5.6.0 X-MTA-Priority"),
        (b"X-MTA-Priority: 1\r\nX-MTA-Priority: 2", b"550 5.6.0 X-MTA-Priority"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused(wish, reply):
    """The application hears of it at once, and so does the event log."""
    desk = Desk(TENANTS)
    desk.accept(wish + b"\r\nSubject: s\r\n\r\n")

    assert desk.answers[0].startswith(reply)
    assert desk.taken == []
    assert (desk.acceptor.refused, len(desk.lines)) == (1, 1)


def test_delayed_mail_gets_its_date_when_it_is_due():
    """Message-ID at once, so that the event log knows it."""
    desk = Desk()
    desk.accept(b"X-MTA-Send-At: 2025-06-16T00:00:00Z\r\nSubject: s\r\n\r\n")

    assert desk.envelope.send_at_s == 1_750_032_000.0
    assert desk.envelope.date_missing
    assert [name for name, _ in fields(desk.content)] == ["Received", "Message-ID", "Subject"]


def test_a_time_that_is_past_is_now():
    """Nothing is delayed."""
    desk = Desk()
    desk.accept(b"X-MTA-Send-At: 2020-01-01T00:00:00Z\r\nSubject: s\r\n\r\n")

    assert (desk.envelope.send_at_s, desk.envelope.date_missing) == (0.0, False)
    assert b"\r\nDate: " in desk.content


# --- whose mail it is


@pytest.mark.parametrize(
    ("sender", "tenant", "pool"),
    [
        ("a@shop.test", "shop", "fast"),
        ("A@SHOP.TEST", "shop", "fast"),
        ("boss@shop.test", "boss", ""),
        ("a@eu.shop.test", "shop", "fast"),
        ("a@shop.test.evil", "", ""),
        ("a@notshop.test", "", ""),
        ("", "", ""),
    ],
)
def test_the_tenant_follows_from_the_sender(sender, tenant, pool):
    """An address before a domain before a pattern."""
    desk = Desk(TENANTS)
    desk.accept(b"Subject: s\r\n\r\n", sender=sender)

    assert (desk.envelope.tenant, desk.envelope.pool) == (tenant, pool)


def test_the_listener_knows_better_than_the_sender():
    """And a trusted application better than the listener."""
    desk = Desk(TENANTS)
    inside = msgspec.structs.replace(LISTENER, tenant="other")
    desk.accept(b"Subject: s\r\n\r\n", listener=inside)
    first = desk.envelope.tenant
    desk.accept(b"X-MTA-Tenant: boss\r\nSubject: s\r\n\r\n", listener=inside)

    assert (first, desk.envelope.tenant) == ("other", "boss")


# --- bombs


def test_header_bombs_are_refused():
    """Too many lines, too many bytes, too many hops."""
    bombs = [
        b"X: y\r\n" * 100_000 + b"\r\n",
        b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"Received: from a\r\n" * 51 + b"\r\n",
        b"Received: from a\r\n" * 9_000 + b"\r\n",
    ]
    desk = Desk()
    for bomb in bombs:
        desk.accept(bomb)

    assert [answer[:9] for answer in desk.answers] == [b"552 5.3.4", b"552 5.3.4", b"554 5.4.6", b"554 5.4.6"]
    assert desk.taken == []


def test_nested_parts_are_body_and_nothing_more():
    """MIME is not looked at, however deep."""
    desk = Desk()
    content = b"Subject: s\r\n\r\n" + b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 10_000
    desk.accept(content)

    assert desk.content.endswith(content)


# --- the answer, and memory


def test_the_answer_names_the_message():
    """The id of the 250 is the envelope's, and no two are alike."""
    desk = Desk()
    for _ in range(3):
        desk.accept(b"Subject: s\r\n\r\n")
    ids = [envelope.id for envelope, _ in desk.taken]
    for accepted, _ in desk.open:
        accepted()

    assert desk.answers == [f"250 2.0.0 Ok: queued as {each}\r\n".encode() for each in ids]
    assert len(set(ids)) == 3
    assert (desk.acceptor.accepted, desk.acceptor.refused) == (3, 0)


def test_memory_is_counted_until_the_answer():
    """New mail is refused beyond three quarters of it, and content may not grow beyond all of it."""
    desk = Desk()
    while desk.acceptor.refusal(0) is None:
        desk.accept(b"Subject: s\r\n\r\n" + b"x" * 9_000)
    assert not desk.acceptor.is_overfull
    assert 75_000 < desk.acceptor.being_written_bytes < 90_000
    desk.acceptor.held_bytes = 100_000 - desk.acceptor.being_written_bytes
    assert not desk.acceptor.is_overfull
    desk.acceptor.held_bytes += 1
    assert desk.acceptor.is_overfull
    desk.acceptor.held_bytes = 0

    for accepted, _ in desk.open[::2]:
        accepted()
    for _, refused in desk.open[1::2]:
        refused(replies.NOT_STORED)

    assert (desk.acceptor.being_written, desk.acceptor.being_written_bytes) == (0, 0)
    assert desk.acceptor.refusal(0) is None


def test_a_declared_size_counts_before_it_comes():
    """RFC 1870: that is what it is declared for."""
    acceptor = Desk().acceptor
    acceptor.held_bytes = 70_000

    assert acceptor.refusal(5_000) is None
    assert acceptor.refusal(5_001) == replies.NO_SPACE


def test_the_largest_message_always_fits():
    """However little memory is configured."""
    acceptor = Acceptor(
        clock=FakeClock(),
        ids=IdMaker(1),
        submitter=Desk(),
        events=Events(lambda line: None, worker=0, prefix="e"),
        tenants=Tenants([], []),
        content_bytes_max=1,
        size_max_bytes=50_000_000,
    )

    assert acceptor.refusal(50_000_000) is None


def test_nothing_is_accepted_while_the_door_is_closed():
    """Neither at MAIL nor behind the content."""
    desk = Desk()
    desk.acceptor.closed_reply = replies.NO_SPACE
    desk.accept(b"Subject: s\r\n\r\n")

    assert desk.acceptor.refusal(0) == replies.NO_SPACE
    assert desk.answers == [replies.NO_SPACE]
    assert desk.taken == []


# --- mail that would leave unsigned


def test_mail_whose_from_domain_has_no_key_is_refused_where_the_admin_says_so():
    """550 5.7.20 with the domain in it, one `rejected` event, nothing handed over; a domain with a key is taken."""
    desk = Desk()
    desk.acceptor.may_send = lambda domain: domain == "signed.test"
    desk.accept(b"From: x@plain.test\r\n\r\nb\r\n")
    desk.accept(b"From: x@signed.test\r\n\r\nb\r\n")

    assert desk.answers == [
        b"550 5.7.20 This server has no DKIM key for plain.test and sends no unsigned mail\r\n",
    ]
    assert [envelope.from_domain for envelope, _ in desk.taken] == ["signed.test"]
    assert b'"enhanced":"5.7.20"' in desk.lines[0]


def test_mail_without_a_from_domain_is_refused_in_words():
    """A From that cannot be read belongs to no domain with a key."""
    desk = Desk()
    desk.acceptor.may_send = bool
    desk.accept(b"Subject: nobody\r\n\r\nb\r\n")

    assert desk.answers[0].startswith(b"550 5.7.20 This server has no DKIM key for an empty From")


def test_a_tenant_says_whether_its_senders_are_told():
    """Mail of nobody's is told of; so is that of a tenant that is gone since."""
    tenants = Tenants([TenantSettings("loud"), TenantSettings("quiet", wants_dsn=False)], [])

    assert [tenants.wants_dsn(tenant) for tenant in ("loud", "quiet", "", "gone")] == [True, False, True, True]
