"""Senders: ways to go on after a refusal, each with an endless backlog, against a model of a provider.

Ours are the server's own `probing` and `adapting`; the others are what mail servers are commonly configured to do.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import NamedTuple

from mta_policies.adapting import Adapting, Law
from mta_policies.answers import Answer, Subject
from mta_policies.firings import Firings
from mta_policies.probing import Probing
from mta_policies.provider_model import Google, ProviderModel

CONNECTIONS = 5
MESSAGE_S = 5.0  # one message on one connection: five connections send sixty a minute
FULL_PER_MINUTE = CONNECTIONS * 60 / MESSAGE_S
PER_CONNECTION = 50  # messages, then another connection
WAY = Subject(source="out-1", source_address="192.0.2.1", site="mx.model.test", provider="model")


class Sender:
    """Does not care: what is refused is tried again, at full speed."""

    def connections_max(self, now_s: float) -> int:
        del now_s
        return CONNECTIONS

    def wait_s(self, now_s: float) -> float:
        """Until something may go."""
        del now_s
        return 0.0

    def spacing_s(self, now_s: float) -> float:
        """From one message to the next; 0.0: as fast as connections carry."""
        del now_s
        return 0.0

    def opened(self, now_s: float) -> None: ...

    def delivered(self, now_s: float, begun_s: float) -> None: ...

    def refused(self, answer: Answer, now_s: float) -> None: ...


class Probe(Sender):
    """The published recovery: `mta_policies.probing`."""

    def __init__(self, growth: float = 0.0) -> None:
        self.probing: Probing | None = None
        self._growth = growth

    def connections_max(self, now_s: float) -> int:
        return self.probing.connections_max(now_s) if self.probing else CONNECTIONS

    def wait_s(self, now_s: float) -> float:
        return self.probing.wait_s(now_s) if self.probing else 0.0

    def opened(self, now_s: float) -> None:
        if self.probing:
            self.probing.opened(now_s)

    def delivered(self, now_s: float, begun_s: float) -> None:
        if self.probing:
            self.probing.delivered(now_s, begun_s)
            if self.probing.is_well:
                self.probing = None

    def refused(self, answer: Answer, now_s: float) -> None:
        if self.probing:
            self.probing.refused(now_s)
        else:
            self.probing = Probing(CONNECTIONS, now_s, growth=self._growth)


class Suspend(Sender):
    """Nothing for a fixed time after the last refusal, then everything."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._until_s = 0.0

    def wait_s(self, now_s: float) -> float:
        return max(0.0, self._until_s - now_s)

    def refused(self, answer: Answer, now_s: float) -> None:
        self._until_s = now_s + self._for_s


class Slow(Sender):
    """One message a minute on one connection, until a fixed time after the last refusal; then everything."""

    def __init__(self, for_s: float = 5400.0) -> None:
        self._for_s = for_s
        self._until_s = 0.0

    def connections_max(self, now_s: float) -> int:
        return 1 if now_s < self._until_s else CONNECTIONS

    def spacing_s(self, now_s: float) -> float:
        return 60.0 if now_s < self._until_s else 0.0

    def refused(self, answer: Answer, now_s: float) -> None:
        self._until_s = now_s + self._for_s


class Adapt(Sender):
    """The rate goes down by `mta_policies.adapting`, and up again."""

    def __init__(self, law: Law) -> None:
        self._ids = itertools.count()
        self.adapting = Adapting("model", law, Firings(), lambda: f"f{next(self._ids)}")
        self.rates: list[tuple[float, float]] = []
        """When the rate changed, and what it was then, messages a minute."""

    def spacing_s(self, now_s: float) -> float:
        rate = self.adapting.rate("path")
        return 1.0 / rate if rate < FULL_PER_MINUTE / 60 else 0.0

    def delivered(self, now_s: float, begun_s: float) -> None:
        if self.adapting.listens and self.adapting.delivered("path", now_s):
            self._note(now_s)

    def refused(self, answer: Answer, now_s: float) -> None:
        if self.adapting.hurt("path", answer, now_s):
            self._note(now_s)

    def _note(self, now_s: float) -> None:
        self.rates.append((now_s, self.adapting.rate("path") * 60))


class ProbeAndAdapt(Probe):
    """Both: connections come back one at a time, and the rate is a lower one then."""

    def __init__(self, law: Law) -> None:
        super().__init__()
        self.adapt = Adapt(law)

    def spacing_s(self, now_s: float) -> float:
        return self.adapt.spacing_s(now_s)

    def delivered(self, now_s: float, begun_s: float) -> None:
        super().delivered(now_s, begun_s)
        self.adapt.delivered(now_s, begun_s)

    def refused(self, answer: Answer, now_s: float) -> None:
        super().refused(answer, now_s)
        self.adapt.refused(answer, now_s)


class Course(NamedTuple):
    """What came of it."""

    delivered: int
    refused: int
    minutes: list[int]
    """Delivered in each minute."""


class _Connection:
    __slots__ = ("begun_s", "messages")

    def __init__(self, begun_s: float) -> None:
        self.begun_s = begun_s
        self.messages = 0


def send(model: ProviderModel, sender: Sender, length_s: float) -> Course:
    """Sends for so long from time 0; a `Google` blocks this source at once, where it does not count by the minute."""
    return _Run(model, sender).go(length_s)


class _Run:
    def __init__(self, model: ProviderModel, sender: Sender) -> None:
        self._model = model
        self._sender = sender
        self._events: list[tuple[float, int, _Connection | None]] = []
        self._order: Callable[[], int] = itertools.count().__next__
        self._open = 0
        self._next_s = 0.0

    def go(self, length_s: float) -> Course:
        model, sender = self._model, self._sender
        minutes = [0] * (int(length_s // 60) + 1)
        delivered = refused = 0
        if isinstance(model, Google) and not model.per_minute:
            model.block(WAY, 0.0)
        self._fill(0.0)
        while self._events:
            now_s, _, connection = heapq.heappop(self._events)
            if now_s > length_s:
                break
            if connection is None:
                if not self._open:
                    self._fill(now_s)
                continue
            answer = model.answer(WAY, now_s)
            if answer is None:
                delivered += 1
                minutes[int(now_s // 60)] += 1
                connection.messages += 1
                sender.delivered(now_s, connection.begun_s)
                is_over = connection.messages >= PER_CONNECTION or self._open > sender.connections_max(now_s)
            else:
                refused += 1
                sender.refused(answer, now_s)
                is_over = answer.code == 421
            if is_over or sender.wait_s(now_s):
                model.closed(WAY, now_s)
                self._open -= 1
            else:
                self._begin(connection, now_s)
            self._fill(now_s)
        return Course(delivered, refused, minutes)

    def _fill(self, now_s: float) -> None:
        """Opens what may be open."""
        sender = self._sender
        if wait_s := sender.wait_s(now_s):
            if not self._open:
                heapq.heappush(self._events, (now_s + wait_s, self._order(), None))
            return
        while self._open < sender.connections_max(now_s):
            self._open += 1
            sender.opened(now_s)
            self._model.opened(WAY, now_s)
            self._begin(_Connection(now_s), now_s)

    def _begin(self, connection: _Connection, now_s: float) -> None:
        """The next message on a connection."""
        at_s = now_s
        if spacing_s := self._sender.spacing_s(now_s):
            at_s = max(now_s, self._next_s)
            self._next_s = at_s + spacing_s
        heapq.heappush(self._events, (at_s + MESSAGE_S, self._order(), connection))
