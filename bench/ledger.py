"""The ledger: what was accepted, what arrived and what was told of it, recipient by recipient, and where they differ.

    village = Village(6)                                  # six domains, so that every worker owns some
    async with ToyDns(village.zone) as dns, Sink(village.profiles()) as sink:
        ledger = Ledger(sink)
        result = await ledger.run(Plan(port=2525, messages=5_000, domains=village.domains))
        ...
        ledger.missing()        # accepted, and not there yet
        ledger.twice()          # there more than once
        ledger.untold(events)   # accepted, delivered or bounced, and the event log does not know

A message is known by its `X-Bench-Id`, which is in its Message-ID too, and so in every event.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from bench.load import Domain, Load, Maker, Message, Plan, Result, Session
from bench.sink import Sink
from bench.temper import Profile

NOBODY = "unknown"
"""How the local part of recipients begins who never get anything (see bench.temper)."""
_RCPT = re.compile(rb"RCPT TO:<([^>]*)>")

OPEN_POLICY = """\
tls = "none"

[limits]
connections = %d
connection_rate = "none"
messages_per_connection = 0
rate = "none"

[retry]
schedule = ["%s"]
jitter = "0%%"
"""


class Village:
    """Several domains, each with an MX host of its own on one sink: as many sites, and destinations."""

    def __init__(self, count: int) -> None:
        self.names = [f"d{number}.test" for number in range(count)]
        self.domains = [Domain(name) for name in self.names]
        self.zone: dict[str, dict[str, object]] = {}
        for number, name in enumerate(self.names):
            self.zone[name] = {"MX": [f"10 mx.{name}."]}
            self.zone[f"mx.{name}"] = {"A": [f"127.0.0.{number + 2}"]}

    def profiles(self, **temper: object) -> list[Profile]:
        """One provider a domain, all of the same temper (fields of `Profile`)."""
        habits = {"keep": "ids", "times": False} | temper
        return [msgspec.convert({"name": name} | habits, Profile) for name in self.names]

    @staticmethod
    def policies(connections: int = 4, schedule: str = "1s") -> dict[str, str]:
        """Policy files that lift all limits but the number of connections to a site."""
        return {"default": OPEN_POLICY % (connections, schedule)}


class Mail(NamedTuple):
    """One recipient of one message."""

    id: str
    recipient: str


class WatchedLoad(Load):
    """A load that does something at exact moments: `at` maps a number of accepted messages to what is done then."""

    def __init__(self, plan: Plan, at: Mapping[int, Callable[[], None]] | None = None) -> None:
        super().__init__(plan)
        self._at = dict(at or {})
        self.replies: Counter[str] = Counter()
        """Every reply to a message, by its code."""
        self.put_off: set[str] = set()
        """Messages that were refused with 4xx at least once."""
        self.unanswered = 0
        """Messages whose session ended without a word."""

    def answered(self, message: Message, reply: bytes, took_s: float) -> None:
        self.replies[reply[:3].decode("ascii", "replace")] += 1
        if reply[:1] == b"4":
            self.put_off.add(message.id)
        super().answered(message, reply, took_s)
        action = self._at.pop(len(self.result.accepted), None)
        if action is not None:
            action()

    def session_lost(self, session: Session, message: Message | None, is_uncertain: bool) -> None:
        if message is not None:
            self.unanswered += 1
        super().session_lost(session, message, is_uncertain)


class Ledger:
    """Follows loads and a sink. Everything is read from them when it is asked for, and only what is new."""

    def __init__(self, sink: Sink, *, without: Collection[str] = ()) -> None:
        """`without`: providers that get other mail too, such as notifications to the senders."""
        self._sink = sink
        self._without = without
        self._read: Counter[str] = Counter()
        self.recipients: dict[str, list[str]] = {}
        """Of every message that was made, accepted or not."""
        self.accepted: set[str] = set()
        self.uncertain: set[str] = set()
        self.arrived: Counter[Mail] = Counter()
        """How often each recipient was given each message."""
        self._results: list[Result] = []
        self._open: set[Mail] = set()

    async def run(self, plan: Plan, at: Mapping[int, Callable[[], None]] | None = None) -> WatchedLoad:
        """Send what a plan says and write down what was promised; `at` as in `WatchedLoad`."""
        load = WatchedLoad(plan, at)
        self.follow(load)
        await load.run()
        self.read()
        return load

    def follow(self, load: Load) -> None:
        """Write down a load's messages, before it runs."""
        plan = msgspec.structs.replace(load.plan, run_id=load.maker.run_id)
        maker = Maker(plan)
        for number in range(plan.messages):
            message = maker.make(number, 0.0)
            self.recipients[message.id] = [address.decode() for address in _RCPT.findall(message.envelope)]
        self._results.append(load.result)

    def read(self) -> None:
        """Take in what was accepted and what arrived since the last time."""
        for result in self._results:
            self.uncertain.update(result.uncertain)
            if len(result.accepted) > self._read[f"load {id(result)}"]:
                for message_id in result.accepted[self._read[f"load {id(result)}"] :]:
                    self.accepted.add(message_id)
                    self._open.update(
                        Mail(message_id, recipient)
                        for recipient in self.recipients[message_id]
                        if not recipient.startswith(NOBODY)
                    )
                self._read[f"load {id(result)}"] = len(result.accepted)
        for name, provider in self._sink.profiles.items():
            if name in self._without:
                continue
            for delivery in provider.deliveries[self._read[name] :]:
                for recipient in delivery.recipients:
                    self.arrived[Mail(delivery.id, recipient)] += 1
            self._read[name] = len(provider.deliveries)
        self._open = {mail for mail in self._open if mail not in self.arrived}

    def missing(self) -> set[Mail]:
        """Accepted with 250, and not there yet."""
        self.read()
        return self._open

    def twice(self) -> dict[Mail, int]:
        """There more than once, with how often."""
        self.read()
        return {mail: count for mail, count in self.arrived.items() if count > 1}

    def strangers(self) -> set[Mail]:
        """There, though nobody was told 250 and nobody was left in doubt about it."""
        self.read()
        known = self.accepted | self.uncertain
        return {mail for mail in self.arrived if mail.id not in known or mail.recipient not in self.recipients[mail.id]}

    def untold(self, events: Iterable[Mapping[str, object]]) -> list[str]:
        """What the event log lacks: a `received` a message, a `delivered` or `bounced` a recipient."""
        self.read()
        received: dict[str, set[str]] = {}
        told: set[tuple[str, Mail]] = set()
        for event in events:
            if event["event"] == "received":
                recipients = event["recipients"]
                assert isinstance(recipients, list)
                received.setdefault(bench_id(event), set()).update(recipients)
            elif "recipient" in event:
                told.add((str(event["event"]), Mail(bench_id(event), str(event["recipient"]))))
        lacks = [f"received {each}" for each in self.accepted if received.get(each) != set(self.recipients[each])]
        lacks += [f"delivered {mail}" for mail in self.arrived if ("delivered", mail) not in told]
        nobodies = (
            Mail(each, recipient)
            for each in self.accepted
            for recipient in self.recipients[each]
            if recipient.startswith(NOBODY)
        )
        return lacks + [f"bounced {mail}" for mail in nobodies if ("bounced", mail) not in told]


def bench_id(event: Mapping[str, object]) -> str:
    """The `X-Bench-Id` of the message that an event is about, from its Message-ID."""
    return str(event.get("message_id", "")).strip("<>").partition("@")[0]
