"""What became of the messages, read from the server's event log while it grows."""

from collections import Counter
from pathlib import Path

import msgspec

from bench.table import percentile

FINAL = frozenset({"delivered", "bounced", "expired", "cancelled"})


class Event(msgspec.Struct):
    """What is read of a line; the log says more."""

    event: str
    time: float
    id: str = ""
    recipient: str = ""
    recipients: list[str] = []
    text: str = ""
    code: int = 0


class Tally:
    """The recipients of one provider."""

    def __init__(self) -> None:
        self.accepted = 0
        self.counts: Counter[str] = Counter()
        """Events by name; `deferred` counts attempts, the others recipients."""
        self.deferred: set[tuple[str, str]] = set()
        """Recipients that were deferred at least once."""
        self.latencies_s: list[float] = []
        """Of those that were delivered, from the 250 at the door to the 250 of the provider."""
        self.first_s = 0.0
        self.last_s = 0.0

    @property
    def ended(self) -> int:
        """Recipients that have their fate."""
        return sum(self.counts[each] for each in FINAL)

    @property
    def rate_per_s(self) -> float:
        """Delivered a second, between the first and the last."""
        span_s = self.last_s - self.first_s
        return self.counts["delivered"] / span_s if span_s > 0 else 0.0

    def latency_s(self, percent: float) -> float:
        return percentile(self.latencies_s, percent)


class Fates:
    """Follows an event log. `provider_of` says which tally a recipient's domain belongs to."""

    def __init__(self, path: Path, provider_of: dict[str, str]) -> None:
        self._path = path
        self._provider_of = provider_of
        self._offset = 0
        self._rest = b""
        self._received_s: dict[str, float] = {}
        self._ended: set[tuple[str, str]] = set()
        self._decoder = msgspec.json.Decoder(Event)
        self.tallies = {name: Tally() for name in provider_of.values()}
        self.told_twice = 0
        """Final fates told again, as after a crash."""
        self._early: dict[str, list[tuple[str, float]]] = {}

    @property
    def ended(self) -> int:
        """Recipients that have their fate, all providers together."""
        return len(self._ended)

    def read(self) -> None:
        """Takes in what was written since the last time. Raises msgspec.DecodeError where a line is not an event."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._take(self._decoder.decode(line))

    def _take(self, event: Event) -> None:
        if event.event == "received":
            self._received_s[event.id] = event.time
            for recipient in event.recipients:
                self._tally(recipient).accepted += 1
            for recipient, time_s in self._early.pop(event.id, []):
                self._tally(recipient).latencies_s.append(time_s - event.time)
            return
        if not event.recipient:
            return
        tally, key = self._tally(event.recipient), (event.id, event.recipient)
        if event.event == "deferred":
            tally.counts["deferred"] += 1
            tally.deferred.add(key)
        elif event.event in FINAL:
            if key in self._ended:
                self.told_twice += 1
                return
            self._ended.add(key)
            tally.counts[event.event] += 1
            if event.event == "delivered":
                self._delivered(tally, event)

    def _delivered(self, tally: Tally, event: Event) -> None:
        tally.first_s = min(tally.first_s or event.time, event.time)
        tally.last_s = max(tally.last_s, event.time)
        received_s = self._received_s.get(event.id)
        if received_s is None:  # another worker tells of it, and has not yet
            self._early.setdefault(event.id, []).append((event.recipient, event.time))
        else:
            tally.latencies_s.append(max(0.0, event.time - received_s))

    def _tally(self, recipient: str) -> Tally:
        return self.tallies[self._provider_of[recipient.rpartition("@")[2].lower()]]
