"""What all policy work costs a message: a worker's delivery with connections that answer at once, with policies and
without, in rounds that alternate. What the one takes more than the other is what policies cost, wherever it is spent.

Of twenty messages one is refused, in words that are new half of the time, and judged by the rules. `in force`: a firing
slows the source, to more than is sent, so that its limits are asked and told for every message; `a sender's`: it slows
the mail of one domain, so that every single message is looked at.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import msgspec

from mta.delivery import channel
from mta.delivery.connection import ConnectionOwner, SourceAddress, Target
from mta.model.outcome import Bounced, Deferred, Delivered, Outcome, Reply
from mta.reporting.questions import Rules
from mta.smtp.client import Outgoing
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, run_swiftly
from mta.testing.unruled import rules_off
from mta_policies import layers
from mta_policies.answers import Answer
from mta_policies.firings import Firings
from mta_policies.rulebook import Action
from mta_policies.units import rate

JUDGED_EVERY = 20
PLENTY = "1000000/s"
TAKEN = Delivered(Reply(250, "2.0.0", "taken"))
BARE = 'match = { domains = ["x.test"] }\n[limits]\nconnections = 20\n[retry]\nexpire = "1d"\n'
LIMITED = f"""
match = {{ domains = ["x.test"] }}
[limits]
connections = 20
messages_per_connection = 100
rate = "{PLENTY}"
connection_rate = "{PLENTY}"
[source_limits]
connections = 50
rate = "{PLENTY}"
[provider_limits]
connections = 100
rate = "{PLENTY}"
[retry]
expire = "1d"
"""
LISTENS = """
[[rule]]
name = "many-unknown"
when = { code = "550", enhanced = "5.1.1" }
trigger = { share = "50%", of = 1000000, in = "1h" }
then = [{ action = "alert" }]
"""


class Cost(msgspec.Struct):
    """One row."""

    what: str
    least_cpu_us: float
    """A message, delivery and all, of the rounds."""
    median_cpu_us: float
    policies_cpu_us: float
    """What policies take of it: the least of the rounds, beside the least of those without any. Whatever else runs on
    the machine only adds to a round."""
    rounds: list[float]


class Answering:
    """In place of a connection: everything is answered in the next turn of the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, target: Target, source: SourceAddress, mode: str, owner: ConnectionOwner,
        *rest: object,
    ) -> None:  # fmt: skip
        self._loop, self._owner, self.target, self.source = loop, owner, target, source
        self.local_address, self.tls_version, self.tls_cipher = "192.0.2.1", "", ""
        self._count = 0
        self._is_gone = False

    def open(self) -> None:
        self._loop.call_soon(self._owner.connection_ready, cast(Any, self))

    def send(self, outgoing: Outgoing) -> None:
        self._count += 1
        outcomes = [self._outcome() for _ in outgoing.recipients]
        self._loop.call_soon(self._owner.transaction_done, cast(Any, self), outcomes, True)

    def _outcome(self) -> Outcome:
        if self._count % JUDGED_EVERY:
            return TAKEN
        which = self._count // JUDGED_EVERY
        number = f" ({self._count})" if which % 2 else ""
        if which % 4 < 2:
            return Bounced(Reply(550, "5.1.1", f"The account that you tried to reach does not exist{number}"), "rcpt")
        return Deferred(Reply(451, "", f"please come back some other day{number}"), "content")

    def quit(self) -> None:
        if not self._is_gone:
            self._is_gone = True
            self._loop.call_soon(self._owner.connection_gone, cast(Any, self))

    def abort(self) -> None:
        self.quit()


KINDS = (
    "without policies",
    "with limits",
    "limits and rules",
    "limits, rules, one in force",
    "limits, rules, a sender's in force",
)

FIRED = {
    KINDS[3]: (
        Action("slow", for_s=3_600.0, scope="source", rate=(rate(PLENTY),), connections=20),
        "source system > google",
    ),
    KINDS[4]: (
        Action("slow", for_s=3_600.0, scope="spf-domain", rate=(rate(PLENTY),)),
        "spf-domain shop.test > google",
    ),
}
"""What is in force, and for whom."""


def _policies(kind: str) -> tuple[str, str]:
    """The files of default and of the provider: limits at every level, the shipped rules of Google and of everybody,
    and one that wants to hear of what is delivered."""
    folder = layers.shipped_directory()
    if kind == KINDS[0]:
        return rules_off(), BARE
    if kind == KINDS[1]:
        return rules_off(), LIMITED
    google = (folder / "google.toml").read_text()
    rules = google[google.index("[[rule]]") : google.index("[[test]]")]
    return (folder / "default.toml").read_text(), LIMITED + LISTENS + rules


def _message_us(kind: str, messages: int) -> float:
    """CPU a message of one round, from the queue's append to its end."""

    async def deliver(loop: SwiftLoop) -> float:
        with tempfile.TemporaryDirectory(prefix="policed") as folder, patch.object(channel, "Connection", Answering):
            default, google = _policies(kind)
            rig = DeliveryRig(loop, Path(folder), port=25, default=default, google=google)
            rig.domain("x.test", "mx.x.test", address="192.0.2.25")
            rig.send("first@x.test")
            await rig.until(lambda: rig.finals == 1)
            if kind in FIRED:
                await rig.clerk.answer(Rules([_fired(loop.wall_s(), *FIRED[kind])]))
            began_ns = time.process_time_ns()
            for number in range(messages):
                rig.send(f"r{number}@x.test")
            await rig.until(lambda: len(rig.lines) > messages)
            took_ns = time.process_time_ns() - began_ns
            restraints = rig.dispatcher.restraints.firings
            assert len(restraints) == (kind in FIRED), "nothing fires by itself"
            await rig.act("cancel")
            await rig.stop()
            return took_ns / messages / 1_000

    return run_swiftly(deliver)


def _fired(now_s: float, action: Action, key: str) -> Any:
    answer = Answer(421, "4.7.28", "unusual rate of mail", "content")
    return Firings().fire("google", "unusual", action, key, answer, now_s, "f1", scope=action.scope)


def costs(messages: int, rounds: int) -> list[Cost]:
    """Rounds of every kind in turn."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            found[kind].append(_message_us(kind, messages))
    bare = min(found[KINDS[0]])
    return [Cost(kind, min(each), statistics.median(each), min(each) - bare, each) for kind, each in found.items()]
