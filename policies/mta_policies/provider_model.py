"""Provider models: how a provider behaves, on a virtual clock. Pure: the rehearsal and the proof of the control law
send to these instead of to the world.

`Google` enforces the recovery that Google publishes for 421 4.7.28: it blocks, takes nothing while the block lasts, and
where told so punishes a wrong recovery: mail inside the ten minutes of silence, or more connections than one more at a
time. How long its blocks are nobody publishes; that is a parameter. `Throttle` only refuses what is too much, and
`Steady` takes everything.
"""

from collections.abc import Callable
from typing import Protocol

from mta_policies import units
from mta_policies.answers import Answer, Subject
from mta_policies.located import nearest

SILENCE_S = 600.0  # "no mail for at least 10 minutes"
STRAGGLER_S = 30.0  # what was under way when the block began is no mail of a recovery
RAMP_S = 30.0  # ours: in a recovery one connection more is let in so long after the last
RAMP_CONNECTIONS = 5  # with so many the recovery is over
LONGEST_S = 86400.0  # ours: however wrong a recovery was, a block is over after a day

BLOCKED = (
    "Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our \
users from spam, mail sent from your IP address has been temporarily rate limited."
)
THROTTLED = "Temporarily rate limited: too many messages, try again later"


class ProviderModel(Protocol):
    """What a sender sees of a provider."""

    def opened(self, way: Subject, now_s: float) -> Answer | None:
        """A connection is begun. -> what it says at the greeting; None: it takes the connection."""
        ...

    def closed(self, way: Subject, now_s: float) -> None:
        """A connection that it took is over."""
        ...

    def answer(self, subject: Subject, now_s: float) -> Answer | None:
        """A transaction. -> why it is not taken; the connection is closed then where the code is 421; None: it is."""
        ...


class Steady:
    """Takes everything."""

    def opened(self, way: Subject, now_s: float) -> Answer | None:
        del way, now_s
        return None

    def closed(self, way: Subject, now_s: float) -> None:
        del way, now_s

    def answer(self, subject: Subject, now_s: float) -> Answer | None:
        del subject, now_s
        return None


class Throttle(Steady):
    """Takes so many messages a minute of each source and refuses the others, without a grudge."""

    def __init__(self, per_minute: int = 600) -> None:
        self.per_minute = per_minute
        self._minutes: dict[str, _Minute] = {}

    def answer(self, subject: Subject, now_s: float) -> Answer | None:
        minute = self._minutes.setdefault(subject.source, _Minute())
        if minute.add(now_s) <= self.per_minute:
            return None
        minute.count -= 1
        return Answer(451, "4.7.1", THROTTLED, "mail", "mx.model.test")


class Google:
    """Blocks whoever sends too much a minute, or is told to with `block`, and enforces the published recovery."""

    def __init__(
        self,
        penalty_s: float = 3600.0,
        *,
        per_minute: int = 0,
        wants_silence: bool = True,
        wants_ramp: bool = True,
        silence_s: float = SILENCE_S,
    ) -> None:
        """`per_minute`: messages of one source; 0: as many as may come. `wants_silence`, `wants_ramp`: whether mail
        inside the silence, and more than one connection more at a time, are punished: the penalty is twice as long and
        begins anew. `silence_s`: another than the published one, for tests; the times within it go along."""
        self.penalty_s = penalty_s
        self.per_minute = per_minute
        self.wants_silence = wants_silence
        self.wants_ramp = wants_ramp
        self.silence_s = silence_s
        self.punished = 0
        """How often a recovery was wrong."""
        self._senders: dict[str, _Sender] = {}

    def block(self, way: Subject, now_s: float) -> None:
        """From now on, for the penalty."""
        self._block(self._sender(way), now_s)

    def is_blocked(self, way: Subject, now_s: float) -> bool:
        return now_s < self._sender(way).until_s

    def opened(self, way: Subject, now_s: float) -> Answer | None:
        del now_s
        self._sender(way).connections += 1
        return None

    def closed(self, way: Subject, now_s: float) -> None:
        del now_s
        self._sender(way).connections -= 1

    def answer(self, subject: Subject, now_s: float) -> Answer | None:
        sender = self._sender(subject)
        if now_s < sender.until_s:
            self._judge_silence(sender, now_s)
        elif sender.is_recovering:
            self._judge_ramp(sender, now_s)
        if now_s >= sender.until_s and self.per_minute and sender.minute.add(now_s) > self.per_minute:
            self._block(sender, now_s)
        if now_s >= sender.until_s:
            return None
        sender.mail_s = now_s
        return Answer(421, "4.7.28", BLOCKED, "content", "mx.google.model.test")

    def _sender(self, way: Subject) -> "_Sender":
        sender = self._senders.get(way.source)
        if sender is None:
            sender = self._senders[way.source] = _Sender()
        return sender

    def _block(self, sender: "_Sender", now_s: float) -> None:
        sender.begun_s = sender.mail_s = now_s
        sender.penalty_s = self.penalty_s
        sender.until_s = now_s + self.penalty_s
        sender.is_recovering = True
        sender.first_s = -1.0

    def _punish(self, sender: "_Sender", now_s: float) -> None:
        self.punished += 1
        longest_s = max(LONGEST_S, self.penalty_s)
        sender.penalty_s = min(2 * sender.penalty_s, longest_s)
        sender.until_s = max(sender.until_s, min(now_s + sender.penalty_s, sender.begun_s + longest_s))
        sender.punished_s = now_s
        sender.first_s = -1.0

    def _judge_silence(self, sender: "_Sender", now_s: float) -> None:
        """Mail while it is blocked: a probe behind a silence, mail that was under way, or a wrong recovery."""
        straggler_s = STRAGGLER_S * self.silence_s / SILENCE_S
        if not self.wants_silence or now_s - sender.begun_s < straggler_s or now_s - sender.mail_s >= self.silence_s:
            return
        if now_s - sender.punished_s >= self.silence_s:  # once for each silence that was broken, not for each message
            self._punish(sender, now_s)

    def _judge_ramp(self, sender: "_Sender", now_s: float) -> None:
        """Mail behind a block: as many connections as by now may be there?"""
        if sender.first_s < 0:
            sender.first_s = now_s
        allowed = 1 + int((now_s - sender.first_s) / (RAMP_S * self.silence_s / SILENCE_S))
        if allowed >= RAMP_CONNECTIONS:
            sender.is_recovering = False
        elif self.wants_ramp and sender.connections > allowed:
            self._punish(sender, now_s)


class _Sender:
    """What is held against one source."""

    __slots__ = (
        "begun_s",
        "connections",
        "first_s",
        "is_recovering",
        "mail_s",
        "minute",
        "penalty_s",
        "punished_s",
        "until_s",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.minute = _Minute()
        self.begun_s = self.until_s = self.mail_s = self.punished_s = -LONGEST_S
        self.penalty_s = 0.0
        self.is_recovering = False
        """It was blocked and is not trusted yet."""
        self.first_s = -1.0
        """When the first message of the recovery was taken; negative: none was."""


class _Minute:
    """Counts by minutes of the clock."""

    __slots__ = ("at", "count")

    def __init__(self) -> None:
        self.at = -1
        self.count = 0

    def add(self, now_s: float) -> int:
        """One more. -> how many it is in this minute."""
        at = int(now_s // 60)
        if at != self.at:
            self.at, self.count = at, 0
        self.count += 1
        return self.count


NewModel = Callable[[], ProviderModel]
"""Makes a model that has heard of nobody yet."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "google": ("per_minute", "penalty"),
    "throttle": ("per_minute",),
    "steady": (),
}
"""The models by the names that the rehearsal takes, and what can be said of each."""


def model(text: str) -> NewModel:
    """What makes the model in "google:per_minute=1200,penalty=1h", "throttle:per_minute=600", "steady"; ValueError for
    anything else. `per_minute` (messages of one source) must be there: without it nothing would ever be refused."""
    name, _, rest = text.partition(":")
    if name not in PARAMETERS:
        raise ValueError(f"there is no provider model {name}{nearest(name, PARAMETERS)}")
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, is_given, value = part.partition("=")
        if not is_given or key not in PARAMETERS[name] or key in given:
            known = ", ".join(f"{one}=..." for one in PARAMETERS[name])
            raise ValueError(f"{text}: {part}: {name} takes {f'{known}, each once' if known else 'nothing'}")
        given[key] = value
    if not PARAMETERS[name]:
        return Steady
    count = given.get("per_minute", "")
    if not (count.isascii() and count.isdecimal() and int(count)):
        raise ValueError(f"{text}: how many messages a minute? write {name}:per_minute=600")
    per_minute = int(count)
    if name == "throttle":
        return lambda: Throttle(per_minute)
    penalty_s = units.duration_s(given.get("penalty", "1h"))
    return lambda: Google(penalty_s, per_minute=per_minute)
