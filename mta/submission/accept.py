"""Acceptance: from a complete message to an envelope, and from there to the 250.

Adds what RFC 6409 asks of a submission server (Received, and Date and Message-ID where they are missing), finds out
whose mail it is, and hands it over. The client is answered only when every owner has it on stable storage.
"""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from mta.model.clock import Clock
from mta.model.dates import date_header
from mta.model.envelope import Envelope, Recipient
from mta.model.identity import IdMaker
from mta.reporting.events import Events
from mta.smtp import replies
from mta.smtp.server import Transaction
from mta.submission import headers
from mta.submission.headers import Refused

SEND_AT_AHEAD_S_MAX = 366 * 86_400.0  # a year: what is planned later is a mistake
EXPIRE_S_MAX = 366 * 86_400.0
MAIL_SHARE = 0.75  # of the memory for content up to which new messages may begin: the rest is for those that have begun

TOO_FAR_AHEAD = replies.reply(550, "5.6.0", "X-MTA-Send-At is more than a year ahead")
UNKNOWN_TENANT = replies.reply(550, "5.6.0", "X-MTA-Tenant names no tenant of this server")
UNSIGNED = "5.7.20"  # RFC 7372 3.1: no passing DKIM signature found, nor will there be one
UNKNOWN_POOL = replies.reply(550, "5.6.0", "X-MTA-Pool names no pool of this server")


class Submitter(Protocol):
    """Who gets accepted mail to its owners: `mta.handoff.door.Door`."""

    def submit(
        self,
        envelope: Envelope,
        content: bytes,
        on_accepted: Callable[[], None],
        on_refused: Callable[[bytes], None],
    ) -> None:
        """Get a message written down: then `on_accepted`, else `on_refused` with a reply."""
        ...


class TenantSettings(msgspec.Struct, frozen=True):
    """One `[[tenant]]`, as the door needs it."""

    name: str
    senders: tuple[str, ...] = ()
    pool: str = ""
    wants_dsn: bool = True
    """Its senders are told of bounced and expired mail."""


class ListenerFacts(Protocol):
    """What acceptance must know of the listener that a message came in by."""

    @property
    def hostname(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def hide_client(self) -> bool: ...


class Tenants:
    """Whose mail is whose, and which pool it leaves from."""

    def __init__(self, tenants: Sequence[TenantSettings], pools: Sequence[str]) -> None:
        self.by_name = {tenant.name: tenant for tenant in tenants}
        self.pools = frozenset(pools)
        self._exact: dict[str, TenantSettings] = {}
        self._domains: dict[str, TenantSettings] = {}
        self._patterns: list[tuple[str, TenantSettings]] = []
        for tenant in tenants:
            for pattern in (sender.lower() for sender in tenant.senders):
                local, _, domain = pattern.rpartition("@")
                if "*" not in pattern and "?" not in pattern:
                    self._exact.setdefault(pattern, tenant)
                elif local == "*" and "*" not in domain and "?" not in domain:
                    self._domains.setdefault(domain, tenant)
                else:
                    self._patterns.append((pattern, tenant))

    def wants_dsn(self, tenant: str) -> bool:
        """Whether senders of this tenant ("" for nobody's) are told of bounced and expired mail."""
        found = self.by_name.get(tenant)
        return found is None or found.wants_dsn

    def of_sender(self, sender: str) -> TenantSettings | None:
        """Whose mail a sender's is: an exact address before a domain before other patterns."""
        if not self.by_name:
            return None
        sender = sender.lower()
        found = self._exact.get(sender) or self._domains.get(sender.rpartition("@")[2])
        if found is None:
            for pattern, tenant in self._patterns:
                if fnmatch.fnmatchcase(sender, pattern):
                    return tenant
        return found


class Acceptor:
    """Takes complete messages from all sessions of a worker."""

    def __init__(
        self,
        *,
        clock: Clock,
        ids: IdMaker,
        submitter: Submitter,
        events: Events,
        tenants: Tenants,
        content_bytes_max: int,
        size_max_bytes: int,
        may_send: Callable[[str], bool] = lambda domain: True,
    ) -> None:
        """`may_send`: whether mail of this From domain may leave, signed or not."""
        self.may_send = may_send
        self._clock = clock
        self._ids = ids
        self._submitter = submitter
        self._events = events
        self.tenants = tenants
        self._bytes_max = max(content_bytes_max, 2 * size_max_bytes)
        self._mail_bytes_max = int(self._bytes_max * MAIL_SHARE)
        self.held_bytes = 0
        """What all sessions together have in memory of what is coming in; they keep it up to date."""
        self.being_written = 0
        """Messages whose clients wait for an answer."""
        self.being_written_bytes = 0
        self.closed_reply = b""
        """Set where no new mail can be taken (disk nearly full, event log stuck): the reply to MAIL."""
        self.accepted = 0
        self.refused = 0

    @property
    def is_overfull(self) -> bool:
        """No content may grow any further: the session whose content does so ends."""
        return self.held_bytes + self.being_written_bytes > self._bytes_max

    def refusal(self, size_declared: int) -> bytes | None:
        """The reply to a MAIL that cannot be taken now, because disk or memory cannot follow; None: go on."""
        if self.closed_reply:
            return self.closed_reply
        if self.held_bytes + self.being_written_bytes + size_declared > self._mail_bytes_max:
            return replies.NO_SPACE
        return None

    def accept(
        self,
        transaction: Transaction,
        listener: ListenerFacts,
        *,
        client: str,
        helo: str,
        is_esmtp: bool,
        is_trusted: bool,
        answer: Callable[[bytes], None],
    ) -> None:
        """Write a message down with its owners, then `answer` with its 250, or with why not."""
        if self.closed_reply:
            self._refuse(self.closed_reply, transaction.sender, client, listener, answer)
            return
        prepared = headers.prepare(transaction.content, trusted=is_trusted)
        sender = transaction.sender
        if isinstance(prepared, Refused):
            self._refuse(prepared.reply, sender, client, listener, answer)
            return
        tenant = prepared.tenant or listener.tenant
        pool = prepared.pool
        if prepared.tenant or prepared.pool or prepared.send_at_s:
            wrong = self._wrong_wish(prepared)
            if wrong:
                self._refuse(wrong, sender, client, listener, answer)
                return
        if self.tenants.by_name:
            owner = self.tenants.by_name.get(tenant) if tenant else self.tenants.of_sender(sender)
            if owner is not None:
                tenant = owner.name
                pool = pool or owner.pool
        if not self.may_send(prepared.from_domain):
            domain = prepared.from_domain or "an empty From"
            text = f"This server has no DKIM key for {domain} and sends no unsigned mail"
            self._refuse(replies.reply(550, UNSIGNED, text), sender, client, listener, answer)
            return
        now_s = self._clock.wall_s()
        message_id = self._ids.make(now_s)
        recipients = _each_once(transaction.recipients)
        hostname = listener.hostname
        top = headers.received_header(
            hostname=hostname,
            message_id=message_id,
            now_s=now_s,
            helo=helo,
            client=client,
            is_esmtp=is_esmtp,
            smtputf8=transaction.smtputf8,
            recipient=recipients[0].address if len(recipients) == 1 else "",
            hidden=listener.hide_client,
        )
        is_delayed = prepared.send_at_s > now_s
        if not prepared.has_message_id:
            top += headers.message_id_header(message_id, prepared.from_domain or hostname)
            prepared.message_id = f"<{message_id}@{prepared.from_domain or hostname}>"
        if not prepared.has_date and not is_delayed:
            top += date_header(now_s)
        content = top + prepared.content
        envelope = Envelope(
            message_id,
            sender,
            recipients,
            now_s,
            len(content),
            transaction.body_8bit or not top.isascii(),
            transaction.smtputf8,
            prepared.priority,
            tenant,
            prepared.campaign,
            pool,
            prepared.message_id,
            prepared.from_domain,
            client,
            prepared.send_at_s if is_delayed else 0.0,
            min(prepared.expire_s, EXPIRE_S_MAX),
            None,
            is_delayed and not prepared.has_date,
        )
        size = len(content)
        self.being_written += 1
        self.being_written_bytes += size

        def accepted() -> None:
            self.being_written -= 1
            self.being_written_bytes -= size
            self.accepted += 1
            answer(replies.queued(message_id))

        def refused(reply: bytes) -> None:
            self.being_written -= 1
            self.being_written_bytes -= size
            self._refuse(reply, sender, client, listener, answer, message_id)

        self._submitter.submit(envelope, content, accepted, refused)

    def _wrong_wish(self, prepared: headers.Prepared) -> bytes:
        """What an X-MTA header asks for and this server does not have; b"" where all is well."""
        if prepared.send_at_s > self._clock.wall_s() + SEND_AT_AHEAD_S_MAX:
            return TOO_FAR_AHEAD
        if prepared.tenant and self.tenants.by_name and prepared.tenant not in self.tenants.by_name:
            return UNKNOWN_TENANT
        if prepared.pool and prepared.pool not in self.tenants.pools:
            return UNKNOWN_POOL
        return b""

    def _refuse(
        self,
        reply: bytes,
        sender: str,
        client: str,
        listener: ListenerFacts,
        answer: Callable[[bytes], None],
        message_id: str = "",
    ) -> None:
        self.refused += 1
        self._events.rejected(
            self._clock.wall_s(),
            "content",
            replies.as_value(reply),
            sender=sender,
            client=client,
            tenant=listener.tenant,
            message=message_id,
        )
        answer(reply)

    def rejected(self, stage: str, reply: bytes, sender: str, recipient: str, client: str, tenant: str) -> None:
        """The dialogue refused something: one line in the event log."""
        self._events.rejected(
            self._clock.wall_s(),
            stage,
            replies.as_value(reply),
            sender=sender,
            recipient=recipient,
            client=client,
            tenant=tenant,
        )


def _each_once(recipients: list[Recipient]) -> list[Recipient]:
    """Every recipient once, however often it was named."""
    if len(recipients) == 1:
        return recipients
    return list({recipient.address: recipient for recipient in recipients}.values())
