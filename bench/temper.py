"""A mailbox provider as it looks from outside: how fast it answers, what it refuses, and what it saw of us.

`Profile` is its temper, `Counts` is what it counted, `Verdicts` says what a recipient gets. No socket here:
the caller passes `now_s`, so every verdict can be tested without waiting.

What becomes of a recipient is asked for by its local part, `WORD`, `WORD.N`, and either with a `+tag`
behind it so that addresses can be unique (`tempfail.2+17@moody.test`):

    unknown@        550 5.1.1 to RCPT, always, or what the profile says instead
    full@           452 4.2.2 to RCPT, always
    tempfail@       451 4.3.0 to RCPT, always; tempfail.N@ only the first N times, then it is taken
    421@            421 4.7.0 to RCPT and the connection is closed; 421.N@ only the first N times
    NNN@            any other reply code from 400 to 599, said to RCPT; NNN.N@ only the first N times
    slow@           taken, but the answer to RCPT comes a second late; slow.N@ N seconds
    hang@           RCPT is never answered
    drop@           the connection is cut at RCPT, without a word; drop.N@ only the first N times
    deferdot@       taken at RCPT, 451 4.3.0 to the final dot; deferdot.N@ only the first N times
    spam@           taken at RCPT, 550 5.7.1 to the final dot
    dropdot@        taken at RCPT, the connection is cut at the final dot, without a word; dropdot.N@
                    only the first N times; the content is not counted as accepted
    anything else   as the profile says: its share of unknown users, of deferred ones, of greylisted ones
"""

import re
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

Keep = Literal["counts", "ids", "contents"]
SAMPLES_MAX = 200  # enough to look at; the contents of a long run would fill the memory


class Profile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The temper of one provider. Fields may be changed while the sink runs; 0 and "" mean: no such habit."""

    name: str
    address: str = ""
    """Where it listens; "" lets the sink choose 127.0.0.2, 127.0.0.3 and so on. A network such as "127.64.0.0/10":
    as many mail hosts of one temper, each with its own `connections_max` and `rate_per_s`, counted together."""
    port: int = 0
    """0: the port that all providers of the sink share."""
    latency_s: float = 0.0
    """Every group of replies leaves this much later: round trip and thinking together."""
    greeting_latency_s: float = 0.0
    """The greeting comes this much later still: a connection over a network costs a round trip before it."""
    connections_max: int = 0
    connections_over: str = "421 4.7.0 Too many connections from your address"
    """What a connection too many is greeted with; "" lets it in, and it is only counted."""
    messages_per_connection: int = 0
    messages_over: str = "421 4.7.0 Max message per connection reached"
    """What the MAIL too many on a connection gets; "" takes it, and it is only counted."""
    rate_per_s: float = 0.0
    """Transactions a second, evenly spread, with at most `burst` at once."""
    burst: int = 0
    """0: one second's worth, at least one."""
    rate_over: str = "451 4.7.0 Temporarily deferred, you are sending too fast"
    """What a MAIL too early gets; "" takes it, and it is only counted."""
    deferred_percent: float = 0.0
    """Share of recipients (by a hash of the address) deferred at their first `deferred_times` attempts."""
    deferred_times: int = 1
    bounced_percent: float = 0.0
    """Share of recipients (by the same hash) that are unknown."""
    deferred_reply: str = "451 4.3.0 Try again later"
    unknown_reply: str = "550 5.1.1 No such user here"
    greylisted_reply: str = "451 4.7.1 Greylisted, please try again later"
    greylist_s: float = 0.0
    """A client, sender and recipient not seen before is deferred until this long after its first attempt."""
    greylist_percent: float = 100.0
    """Share of recipients (by another hash) that `greylist_s` holds for."""
    down: bool = False
    """Connections are refused. While running: `await provider.set_down(True)`."""
    pipelining: bool = True
    extensions: list[str] = []
    """Further EHLO lines, beside PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES."""
    size_max: int = 52_428_800
    keep: Keep = "ids"
    """counts: numbers only | ids: one `Delivery` a message | contents: with the whole content."""
    times: bool = True
    """Keep the monotonic time of every MAIL and of every connection."""
    sample_every: int = 0
    """Keep the content of every so many messages, the first among them; at most `SAMPLES_MAX`."""


class Delivery(NamedTuple):
    """A message that was taken: 250 was said to its final dot."""

    id: str
    """`X-Bench-Id`, else `Message-ID` without its brackets, else ""."""
    sender: str
    recipients: tuple[str, ...]
    """Those that were taken at RCPT."""
    size: int
    """Bytes of content as on the wire, before the dots are un-stuffed."""
    at_s: float
    """Monotonic."""
    connection: int
    """Which connection of this provider, from 1."""
    content: bytes
    """Un-stuffed, with the last CRLF; b"" unless `keep` is contents."""


class Verdict(NamedTuple):
    """What a recipient gets."""

    reply: bytes
    delay_s: float = 0.0
    """The reply, and all after it, comes this much later; infinity: never."""
    close: bool = False
    """The connection ends with the reply; an empty reply: it is cut."""
    dot: str = ""
    """What the final dot gets instead of 250: "" nothing special, "drop" a cut connection, else the reply."""


TAKEN = Verdict(b"250 2.1.5 Ok\r\n")
BY_WORD: dict[str, Verdict] = {
    "unknown": TAKEN,  # in the words of the profile
    "full": Verdict(b"452 4.2.2 Mailbox full\r\n"),
    "tempfail": Verdict(b"451 4.3.0 Try again later\r\n"),
    "421": Verdict(b"421 4.7.0 Closing, try again later\r\n", close=True),
    "slow": TAKEN,
    "hang": Verdict(b"", delay_s=float("inf")),
    "drop": Verdict(b"", close=True),
    "deferdot": TAKEN._replace(dot="451 4.3.0 Try again later"),
    "spam": TAKEN._replace(dot="550 5.7.1 Message refused"),
    "dropdot": TAKEN._replace(dot="drop"),
}
_SPECIAL = re.compile(rf"({'|'.join(BY_WORD)}|[45][0-9][0-9])(?:\.([0-9]+))?(?:\+.*)?@", re.IGNORECASE)


def hash_percent(address: str, salt: str = "") -> float:
    """0.00 to 99.99, the same for an address in every run and on every machine."""
    return zlib.crc32((salt + address).encode()) % 10_000 / 100


class Verdicts:
    """What each recipient gets, remembering how often it was asked for."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._attempts: Counter[str] = Counter()
        self._greylist: dict[tuple[str, str, str], float] = {}

    def verdict(self, client: str, sender: str, recipient: str, now_s: float) -> Verdict:
        """The verdict at RCPT, for the first time or again; `now_s` is monotonic."""
        special = _SPECIAL.match(recipient)
        if special is not None:
            return self._special(special, recipient)
        profile = self._profile
        if profile.bounced_percent or profile.deferred_percent:
            share = hash_percent(recipient)
            if share < profile.bounced_percent:
                return _said(profile.unknown_reply)
            if share < profile.bounced_percent + profile.deferred_percent:
                self._attempts[recipient] += 1
                if self._attempts[recipient] <= profile.deferred_times:
                    return _said(profile.deferred_reply)
        if profile.greylist_s and hash_percent(recipient, "grey ") < profile.greylist_percent:
            first_s = self._greylist.setdefault((client, sender, recipient), now_s)
            if now_s - first_s < profile.greylist_s:
                return _said(profile.greylisted_reply)
        return TAKEN

    def _special(self, special: re.Match[str], recipient: str) -> Verdict:
        word, number = special[1].lower(), special[2]
        verdict = _said(self._profile.unknown_reply) if word == "unknown" else BY_WORD.get(word)
        if verdict is None:
            verdict = Verdict(f"{word} {word[0]}.0.0 As you asked for\r\n".encode())
        if word == "slow":
            return verdict._replace(delay_s=float(number or 1))
        if number is not None:
            self._attempts[recipient] += 1
            if self._attempts[recipient] > int(number):
                return TAKEN
        return verdict


def _said(reply: str) -> Verdict:
    """A profile's own words; a reply that begins with 421 ends the connection."""
    return Verdict(reply.encode() + b"\r\n", close=reply.startswith("421"))


class Bucket:
    """How often MAIL may come: a token bucket that begins full."""

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._at_s = 0.0

    def take(self, rate_per_s: float, burst: int, now_s: float) -> bool:
        """Whether this one is in time. One that is not costs no token."""
        tokens_max = float(burst) if burst else max(1.0, rate_per_s)
        tokens = tokens_max if self._tokens is None else self._tokens + (now_s - self._at_s) * rate_per_s
        self._tokens = min(tokens_max, tokens)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Counts:
    """Everything that one provider saw, counted exactly."""

    def __init__(self) -> None:
        self.connections_open = 0
        """TCP connections now, those greeted with 421 included."""
        self.connections_max = 0
        """The most that were ever open at once."""
        self.connections_total = 0
        self.connections_over = 0
        """How many came while `connections_max` of the profile were open."""
        self.connections_max_by_address = 0
        """The most that one address of a network of mail hosts had open at once; 0 for a single host."""
        self.addresses = 0
        """How many addresses of a network were ever connected to."""
        self.connections_open_by_client: Counter[str] = Counter()
        self.connections_max_by_client: Counter[str] = Counter()
        self.connection_times = array("d")
        self.messages_per_connection: list[int] = []
        """One number a connection, in the order they came; still growing for those that are open."""
        self.mails = 0
        """MAIL commands, refused ones included."""
        self.mails_over = 0
        """Those that came too early for the rate, or were too many on their connection."""
        self.mail_times = array("d")
        """Monotonic times of all MAIL commands, refused ones included."""
        self.messages = 0
        """250 said to the final dot."""
        self.recipients = 0
        """Recipients of those messages."""
        self.signed = 0
        """Of the messages, those with a DKIM-Signature in the header, of whatever worth."""
        self.recipients_max = 0
        """The most RCPT commands in one transaction."""
        self.bytes = 0
        self.replies: Counter[str] = Counter()
        """What was said, as "RCPT 451"; plain 250 and 354 are not counted."""
        self.tls_handshakes = 0
        self.deliveries: list[Delivery] = []
        self.samples: list[bytes] = []
        """Contents as `sample_every` says, un-stuffed."""
        self.duplicates = 0
        """Messages whose id had arrived before."""
        self._ids_seen: set[str] = set()
        self.attempts: Counter[str] = Counter()
        """RCPT commands by address, whatever became of them; not kept with `keep` = counts."""

    def add(self, delivery: Delivery) -> None:
        """Writes a message down, and notices one that had come before."""
        self.deliveries.append(delivery)
        if not delivery.id:
            return
        if delivery.id in self._ids_seen:
            self.duplicates += 1
        self._ids_seen.add(delivery.id)

    def ids(self) -> Counter[str]:
        """How often each id arrived: all ones where each arrived exactly once."""
        return Counter(delivery.id for delivery in self.deliveries)

    def by_recipient(self) -> Counter[str]:
        """How many messages each recipient was given."""
        return Counter(recipient for delivery in self.deliveries for recipient in delivery.recipients)

    def report(self) -> dict[str, object]:
        """The numbers, fit for JSON."""
        times = self.mail_times
        return {
            "connections_open": self.connections_open,
            "connections_max": self.connections_max,
            "connections_total": self.connections_total,
            "connections_over": self.connections_over,
            "connections_max_by_address": self.connections_max_by_address,
            "addresses": self.addresses,
            "messages_per_connection_max": max(self.messages_per_connection, default=0),
            "mails": self.mails,
            "mails_over": self.mails_over,
            "messages": self.messages,
            "recipients": self.recipients,
            "recipients_max": self.recipients_max,
            "signed": self.signed,
            "bytes": self.bytes,
            "tls_handshakes": self.tls_handshakes,
            "replies": dict(sorted(self.replies.items())),
            "duplicates": self.duplicates,
            "first_mail_s": times[0] if times else 0.0,
            "last_mail_s": times[-1] if times else 0.0,
        }


def most_in_window(times_s: Sequence[float], window_s: float = 1.0) -> int:
    """The most events that any window of this length holds; `times_s` ascending."""
    most = first = 0
    for last, time_s in enumerate(times_s):
        while times_s[first] <= time_s - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_beyond_rate(times_s: Sequence[float], rate_per_s: float) -> float:
    """The burst that a rate must allow for these events: over all windows of whatever length the most events that it
    holds beyond `rate_per_s` times its length; 1.0 where they come evenly. `times_s` ascending."""
    most, least = 0.0, float("inf")
    for number, time_s in enumerate(times_s):
        evenly = number - rate_per_s * time_s
        least = min(least, evenly)
        most = max(most, evenly + 1.0 - least)
    return most
