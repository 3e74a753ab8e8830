"""Ledger: what clients were promised, what providers saw and what the event log says, laid beside each other.

It stands outside the engine and believes nobody. What must never happen is written down at once (`violated`); `check`
says at the end what is missing or too much. Every message keeps its story, to be read when something is wrong with it.
"""

import json
import math
import re
import zlib
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import msgspec

from mta.model.outcome import COUNTED_STAGES
from mta.testing.promised_mail import Message, Recipient
from mta.testing.restrained import Restrained
from mta.testing.scripted_provider import Taken, Transaction
from mta.testing.signed_mail import SignedMail
from mta.testing.simulated_clock import SimulatedClock
from mta.testing.simulated_loop import NAP_S_MAX, SimulatedLoop
from mta.testing.turns import Turns
from mta.testing.watcher import Watcher, Wrong

FINAL = frozenset({"delivered", "bounced", "expired", "cancelled"})
SLACK_S = 1.0  # a due time is kept to a quarter of a second, and a line to the millisecond
LATE_S = NAP_S_MAX + 5.0  # how late a sweep may come that looks for what is over
UNSAID_S = 0.5  # what was decided so shortly before a process was killed is perhaps not written down
HURRY_S = 3600.0  # a message of a shorter life may be over before its turn comes
STORY_LINES_MAX = 80
HOSTNAME = "me.test"  # notifications come from it

_CAUSE = re.compile(rb"Final-Recipient: [^;]*; ?(\S+)", re.IGNORECASE)
_MESSAGE_ID = re.compile(rb"^Message-ID: <(\S+?)@", re.IGNORECASE | re.MULTILINE)


class Suspended(msgspec.Struct, eq=False):
    """Nothing that is meant goes out."""

    means: Callable[[Recipient, Transaction], bool]
    from_s: float
    until_wall_s: float
    is_over: bool = False


class Crash(msgspec.Struct):
    """A process died."""

    worker: int
    loop: SimulatedLoop
    at_s: float
    lost_since_s: float
    """What was decided since then may be forgotten."""


class Ledger:
    """Keeps the accounts of one simulation; a `Witness` of its providers."""

    def __init__(
        self,
        clock: SimulatedClock,
        *,
        expire_s: float,
        wants_dsn: Callable[[Message], bool],
        signed: SignedMail,
        restrained: Restrained,
    ) -> None:
        self.clock = clock
        self.signed = signed
        self.restrained = restrained
        self.expire_s = expire_s
        self.wants_dsn = wants_dsn
        self.messages: list[Message] = []
        self.recipients: dict[str, Recipient] = {}
        self.notices: dict[str, list[Taken]] = {}
        """Notification's id -> where it was taken."""
        self.informed: dict[str, set[str]] = {}
        """Recipient that a notification tells about -> the ids of these notifications."""
        self.notice_finals: dict[str, list[dict[str, Any]]] = {}
        self.ids: dict[str, Message] = {}
        self.suspended: list[Suspended] = []
        self.crashes: list[Crash] = []
        self.violations: list[tuple[str, Message | None]] = []
        self.world: list[str] = []
        self.expected = 0
        """Recipients of accepted messages."""
        self.finals = 0
        """How many of them have a final fate."""
        self.well_s = math.inf
        """Monotonic: by then, long after all trouble was over, everything has gone that may go."""
        self._retried_s = -math.inf
        self.turns = Turns()
        self._transactions: set[Transaction] = set()
        """All that ever began."""
        self._disturbed_s = 0.0
        self.seen: set[str] = set()
        """Ids of events."""
        self.watchers: list[Watcher] = []
        self.expires_s_by_tenant: dict[str, float] = {}
        """Tenant -> seconds, where it is not as for everybody."""

    # the story

    def when(self) -> str:
        """Now, in words."""
        return f"{self.clock.monotonic_s() - 1000.0:10.3f} s"

    def happened(self, what: str) -> None:
        """Something that concerns everybody."""
        self._befell(what)
        self._disturbed_s = self.clock.monotonic_s()

    def _befell(self, what: str) -> None:
        self.world.append(f"{self.when()}  * {what}")
        self.turns.disturbed(self.clock.monotonic_s())

    def note(self, message: Message, what: str) -> None:
        """Something that concerns one message."""
        message.story.append(f"{self.when()}    {what}")

    def violated(self, what: str, message: Message | None = None) -> None:
        """Something that must never happen has happened."""
        self.violations.append((f"{what} (at {self.when().strip()})", message))

    def story(self) -> str:
        """The first violations, and what happened to the message that the first is about."""
        lines = [what for what, _ in self.violations[:5]]
        about = next((message for _, message in self.violations if message is not None), None)
        told = [*self.world, *(about.story if about is not None else [])]
        told.sort(key=lambda line: float(line[:10]))
        if about is not None:
            lines.append(f"message {about.number} from <{about.sender}> to {', '.join(about.addresses)}:")
        return "\n".join([*lines, *told[-STORY_LINES_MAX:]])

    # what clients do

    def given(self, message: Message) -> None:
        """A client hands it in."""
        self.messages.append(message)
        for address in message.addresses:
            self.recipients[address] = Recipient(address, message, taken=[], finals=[])
        if message.sender:
            self.recipients[message.sender] = Recipient(message.sender, message, taken=[], finals=[])

    def answered(self, message: Message, reply: str) -> None:
        """A client heard what became of it."""
        message.reply = reply
        message.accepted_s = self.clock.monotonic_s()
        self.note(message, f"worker {message.door} answers: {reply}")
        if message.is_accepted:
            self.expected += len(message.addresses)
            self.finals += sum(bool(self.recipients[address].finals) for address in message.addresses)

    # what providers see

    def begun(self, address: str, transaction: Transaction) -> None:
        """See `Witness`."""
        recipient, provider = self.recipients.get(address), transaction.provider
        if recipient is None:
            self.violated(f"{provider} was asked for {address}, whom nobody wrote to")
            return
        message = recipient.message
        began_s = transaction.sent_s
        is_free = not any(each.means(recipient, transaction) for each in self.suspended)
        is_free = is_free and not self.restrained.concerns(recipient, transaction)
        is_free = is_free and not any(watcher.delays(recipient, transaction) for watcher in self.watchers)
        is_first = transaction not in self._transactions
        self._transactions.add(transaction)
        self.turns.begun(recipient, transaction, is_free=is_free)
        recipient.begun += 1
        self.note(message, f"{provider} is asked for {address}")
        for each in self.suspended:
            is_meant = not each.is_over and began_s > each.from_s and each.means(recipient, transaction)
            if is_meant and self.clock.reached(each.from_s) < each.until_wall_s - SLACK_S:
                self.violated(f"{address} goes to {provider} while it is suspended", message)
        self._see(watcher.begun(recipient, transaction, is_first=is_first) for watcher in self.watchers)
        if address == message.sender:
            return
        for what in self.restrained.begun(recipient, transaction, is_first=is_first):
            self.violated(f"{address} goes to {provider} {what}", message)
        if recipient.is_held:
            self.violated(f"{address} goes to {provider} while it is held", message)
        if message.send_at_s and self.clock.reached(message.given_s) < message.send_at_s - SLACK_S:
            self.violated(f"{address} goes to {provider} before its time", message)
        is_early = recipient.due_s and self.clock.reached(recipient.due_since_s) < recipient.due_s - SLACK_S
        if is_early and not self._may_be_forgotten(recipient.due_worker, recipient.due_since_s):
            self.violated(f"{address} goes to {provider} before its next attempt is due", message)
        recipient.due_s = 0.0
        if self.clock.least_since(began_s - LATE_S) > self.expires_s(message) + LATE_S:
            self.violated(f"{address} goes to {provider} after it expired", message)

    def _see(self, seen: Iterable[Iterable[Wrong]]) -> None:
        for what, message in chain.from_iterable(seen):
            self.violated(what, message)

    def refused(self, address: str, code: int, provider: str) -> None:
        """See `Witness`."""
        recipient = self.recipients[address]
        recipient.was_refused = True
        self.note(recipient.message, f"{provider} refuses {address} with {code}")

    def taken(self, taken: Taken) -> None:
        """See `Witness`."""
        found = _MESSAGE_ID.search(taken.content)
        name = found.group(1).decode() if found else ""
        sender = self.recipients[taken.addresses[0]].message
        from_domain = HOSTNAME if taken.addresses[0] == sender.sender else sender.from_domain
        if wrong := self.signed.looked_at(name, from_domain, taken, self._disturbed_s):
            self.violated(f"{taken.transaction.provider}: {name} from {from_domain} {wrong}", sender)
        recipients = [self.recipients[address] for address in taken.addresses]
        self._see(watcher.taken(taken, recipients) for watcher in self.watchers)
        for address in taken.addresses:
            recipient = self.recipients[address]
            message = recipient.message
            unheard = "" if taken.reply_s < math.inf else ", but nobody hears of it"
            self.note(message, f"{taken.transaction.provider} takes {name} for {address}{unheard}")
            if address == message.sender:
                self.notices.setdefault(name, []).append(taken)
                for cause in _CAUSE.findall(taken.content):
                    self.informed.setdefault(cause.decode(), set()).add(name)
            else:
                recipient.taken.append(taken)
                self._check_content(message, taken)

    def _check_content(self, message: Message, taken: Taken) -> None:
        head, _, body = taken.content.partition(b"\r\n\r\n")
        if f"X-Check: {zlib.crc32(body)}".encode() not in head:
            self.violated(f"{taken.transaction.provider} got another content of message {message.number}", message)

    # what the event log says

    def told(self, lines: Iterable[bytes]) -> None:
        """Lines are in the event log."""
        for line in lines:
            event = json.loads(line)
            if event["event_id"] in self.seen:
                self.violated(f"event id {event['event_id']} comes twice")
            self.seen.add(event["event_id"])
            self._see(watcher.told(event) for watcher in self.watchers)
            if event["event"] == "received":
                self._received(event)
            elif event["event"] == "rule":
                if said := self.restrained.told(event):
                    self._befell(said)  # what a rule keeps back keeps its signature
            elif "recipient" in event and event["event"] != "rejected":
                self._fate(event)

    def _received(self, event: dict[str, Any]) -> None:
        recipient = self.recipients.get(event["recipients"][0])
        assert recipient is not None, event
        message = recipient.message
        if recipient.address == message.sender:
            self.notice_finals.setdefault(event["id"], [])
            return
        message.id = event["id"]
        message.received += 1
        self.ids[message.id] = message

    def _fate(self, event: dict[str, Any]) -> None:
        recipient = self.recipients[event["recipient"]]
        message = recipient.message
        kind = event["event"]
        said = f"{event.get('code', '')} {event.get('text', '')}"
        self.note(message, f"worker {event['worker']} tells: {kind} {recipient.address} {event['stage']} {said}")
        event["told_s"] = self.clock.monotonic_s()
        if recipient.address == message.sender:
            if kind in FINAL:
                self.notice_finals.setdefault(event["id"], []).append(event)
            return
        if kind == "deferred":
            recipient.was_put_off = True
        if kind in FINAL:
            if not recipient.finals and message.is_accepted:
                self.finals += 1
            recipient.finals.append(event)
            recipient.due_s = 0.0
        elif event["stage"] in COUNTED_STAGES and event.get("next_attempt"):
            recipient.due_since_s = self.clock.monotonic_s() - SLACK_S
            recipient.due_s = 0.0 if recipient.due_since_s < self._retried_s + SLACK_S else event["next_attempt"]
            recipient.due_worker = event["worker"]

    # what admins and accidents do

    def crashed(self, worker: int, loop: SimulatedLoop, lost_since_s: float) -> None:
        """A worker is gone, and with it perhaps what it decided since then."""
        self.crashes.append(Crash(worker, loop, self.clock.monotonic_s(), min(lost_since_s, loop.time() - UNSAID_S)))

    def _may_be_forgotten(self, worker: int, since_s: float) -> bool:
        return any(
            crash.worker == worker and crash.lost_since_s <= since_s + SLACK_S and crash.at_s >= since_s
            for crash in self.crashes
        )

    def retried(self) -> None:
        """An admin has everything tried again at once; what was deferred in these moments perhaps too."""
        self._retried_s = self.clock.monotonic_s()
        for recipient in self.recipients.values():
            recipient.due_s = 0.0

    # the end

    def expires_s(self, message: Message) -> float:
        """When a message is given up: Unix seconds, as exactly as it is known out here."""
        expire_s = message.expire_s or self.expires_s_by_tenant.get(message.tenant, self.expire_s)
        return max(message.send_at_s, message.given_wall_s) + expire_s

    @property
    def accepted(self) -> list[Message]:
        """Those whose clients were told 250."""
        return [message for message in self.messages if message.is_accepted]

    @property
    def missing(self) -> list[Recipient]:
        """Accepted recipients of whom the event log does not say what became of them."""
        found = [self.recipients[address] for message in self.accepted for address in message.addresses]
        return [recipient for recipient in found if not recipient.finals]

    def is_settled(self) -> bool:
        """Everybody who was accepted has a fate, and every notification too."""
        return self.finals >= self.expected and all(self.notice_finals.values())

    def excused(self, taken: list[Taken]) -> int:
        """How many of these deliveries the engine could not know of, or may have forgotten."""
        return sum(taking.is_uncertain or self._is_forgotten(taking) for taking in taken)

    def _is_forgotten(self, taken: Taken) -> bool:
        return any(
            crash.loop is taken.transaction.client and crash.lost_since_s <= taken.reply_s for crash in self.crashes
        )

    def check(self) -> None:
        """What must hold when all is over."""
        for recipient in self.missing:
            self.violated(f"{recipient.address} is lost: nobody tells what became of it", recipient.message)
        for message in self.messages:
            if message.is_accepted and not message.received:
                self.violated(f"message {message.number} was accepted, and nobody tells so", message)
            was_refused = message.reply and not message.is_accepted and not self.crashes
            if was_refused and any(self.recipients[address].taken for address in message.addresses):
                self.violated(f"message {message.number} was refused and delivered", message)
            for address in message.addresses:
                self._check_recipient(self.recipients[address])
        for what, message in self.turns.unfair():
            self.violated(what, message)
        self._see(watcher.ended() for watcher in self.watchers)
        for name, taken in self.notices.items():
            if len(taken) > 1 + self.excused(taken):
                self.violated(f"notification {name} was delivered {len(taken)} times", self._sender_of(taken[0]))

    def _sender_of(self, taken: Taken) -> Message:
        return self.recipients[taken.addresses[0]].message

    def _check_recipient(self, recipient: Recipient) -> None:
        message, address = recipient.message, recipient.address
        excused = self.excused(recipient.taken)
        times = len(recipient.taken)
        if times - excused > 1:
            self.violated(f"{address} was delivered {times} times", message)
        kinds = [final["event"] for final in recipient.finals]
        if times > excused and "delivered" not in kinds and (message.is_accepted or kinds):
            self.violated(f"{address} was delivered, and told as {kinds}", message)
        if "delivered" in kinds and not times:
            self.violated(f"{address} is told as delivered, and never was", message)
        self._check_told(recipient, excused)
        for final in recipient.finals:
            if final["event"] == "expired" and final["time"] < self.expires_s(message) - 5.0:
                self.violated(f"{address} expired too early", message)
            is_kept = 0 < message.expire_s < HURRY_S or self.signed.withholds(message.from_domain)
            is_late = final["event"] == "expired" and self.well_s < final["told_s"] and not is_kept
            if is_late and not any(watcher.keeps(recipient) for watcher in self.watchers):
                self.violated(f"{address} expired, though nothing had been in its way for long", message)
            if final["event"] == "bounced" and not recipient.was_refused and final["stage"] not in ("dns", "local"):
                self.violated(f"{address} bounced, and nobody refused it", message)
            if final["event"] in ("bounced", "expired"):
                self._check_notice(recipient, final)

    def _check_told(self, recipient: Recipient, excused: int) -> None:
        """One final line, and after a crash perhaps the same once more, or another where one was forgotten."""
        for one, other in zip(recipient.finals, recipient.finals[1:], strict=False):
            is_same = (one["event"], one["time"]) == (other["event"], other["time"])
            crashed = any(crash.at_s >= one["told_s"] - 2 * UNSAID_S for crash in self.crashes)
            if not crashed or (not is_same and not excused and not self._was_forgotten(one)):
                kinds = [final["event"] for final in recipient.finals]
                self.violated(f"{recipient.address} is told twice: {kinds}", recipient.message)
                return

    def _was_forgotten(self, final: dict[str, Any]) -> bool:
        return any(
            crash.worker == final["worker"] and crash.lost_since_s <= final["told_s"] + UNSAID_S
            for crash in self.crashes
        )

    def _check_notice(self, recipient: Recipient, final: dict[str, Any]) -> None:
        message, address = recipient.message, recipient.address
        ids = self.informed.get(address, set())
        if not self.wants_dsn(message):
            if ids or final.get("dsn"):
                self.violated(f"a notification was made about {address}, which nobody wants", message)
            return
        name = final.get("dsn", "")
        ends = self.notice_finals.get(name, [])
        if not name:
            self.violated(f"{address} {final['event']}, and the sender is not told", message)
        elif not ends:
            self.violated(f"notification {name} about {address} is lost", message)
        elif any(end["event"] == "delivered" for end in ends) and not self.notices.get(name):
            self.violated(f"notification {name} about {address} is told as delivered, and never was", message)
        told = [final.get("dsn") for final in recipient.finals]
        if len(ids) > len(set(told)):
            self.violated(f"{address}: the sender was told by {len(ids)} notifications", message)
