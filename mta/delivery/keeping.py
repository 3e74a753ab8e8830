"""Keeping: counters of this worker that outlive it.

What counts (a quota, a plan) says what has to be on disk before more of it may be used; the supervisor writes it down
for all workers (`mta.admin.counters`) and says when it is there. One request at a time is under way, with all that
there is to say.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from mta.reporting.counting import Answered, Raw, Snapshot, Told
from mta_policies.allotments import Draw

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

NUMBERS_PER_S = 1e6  # requests count on from the time of birth: what was meant for an earlier life is nothing to us
STOP_WAIT_S = 3.0  # how long a stop waits for the supervisor to have it on disk

S = TypeVar("S")


class Kept(Protocol[S]):
    """Who has states, by key; one worker at a time saves a key."""

    def to_save(self, wall_s: float) -> Mapping[str, S]:
        """What has to be on disk before more of it may be used. Asked often: it must be quick to say "nothing"."""
        ...

    def saved(self, states: Mapping[str, S]) -> None:
        """These are, as `to_save` gave them."""
        ...

    def dump(self, wall_s: float) -> Mapping[str, S]:
        """All of it, when this worker stops: nothing is used any more."""
        ...

    def load(self, states: Mapping[str, S]) -> None:
        """What was kept, also of keys that other workers have now; before the first message goes."""
        ...


class Drawing(Protocol):
    """Who draws from accounts (`mta_policies.allotments`)."""

    def draws(self, wall_s: float) -> list[Draw]:
        """What to ask for now."""
        ...

    def drawn(self, draw: Draw, got: int, wall_s: float) -> None:
        """The answer to one of them is on disk."""
        ...

    def give_back(self, wall_s: float) -> list[Draw]:
        """What was drawn and is not needed: this worker stops."""
        ...


class _Keeper:
    """One prefix."""

    __slots__ = ("kept", "kind", "under_way")

    def __init__(self, kept: Kept[Any], kind: Any) -> None:
        self.kept = kept
        self.kind = kind
        self.under_way: Mapping[str, Any] = {}


class Keeping:
    """Of one worker."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self.tell: Callable[[Told], None] = lambda told: None
        """Tells the supervisor. Set by the worker."""
        self._keepers: dict[str, _Keeper] = {}
        self._drawings: list[Drawing] = []
        self._draws: list[tuple[Drawing, Draw]] = []
        """Under way."""
        self._snapshot: Snapshot | None = None
        self._number = int(engine.clock.monotonic_s() * NUMBERS_PER_S)
        self._is_waiting = self._is_asked = self._is_stopping = False
        self._answer: asyncio.Event = asyncio.Event()
        """Of who stops: there was one."""

    def register(self, prefix: str, kept: Kept[S], kind: type[S]) -> None:
        """Keep this; `kind` is what a state is made of again."""
        keeper = self._keepers[prefix] = _Keeper(kept, kind)
        if self._snapshot is not None:
            _load(keeper, prefix, self._snapshot)

    def draw_for(self, drawing: Drawing) -> None:
        """Ask this, too, what to draw."""
        self._drawings.append(drawing)

    def load(self, snapshot: Snapshot) -> None:
        """What was kept when this worker starts. Raises msgspec.ValidationError for what is none of ours."""
        self._snapshot = snapshot
        for prefix, keeper in self._keepers.items():
            _load(keeper, prefix, snapshot)

    def soon(self) -> None:
        """Ask all of them in the next turn of the loop."""
        if not self._is_asked:
            self._is_asked = True
            self._engine.loop.call_soon(self.sweep)

    def sweep(self) -> None:
        """Ask all of them, and tell the supervisor; while it has not answered nothing more is asked."""
        self._is_asked = False
        if self._is_waiting or self._is_stopping:
            return
        wall_s = self._engine.clock.wall_s()
        states: Raw = {}
        for prefix, keeper in self._keepers.items():
            keeper.under_way = keeper.kept.to_save(wall_s)
            if keeper.under_way:
                states[prefix] = _encoded(keeper.under_way)
        self._draws = [(each, draw) for each in self._drawings for draw in each.draws(wall_s)]
        if states or self._draws:
            self._send(states)

    def _send(self, states: Raw) -> None:
        self._number += 1
        self._is_waiting = True
        self.tell(Told(self._number, states, [draw for _, draw in self._draws]))

    def answered(self, answered: Answered) -> None:
        """The supervisor has it on disk."""
        if not self._is_waiting or answered.number != self._number:
            return
        self._is_waiting = False
        self._answer.set()
        wall_s = self._engine.clock.wall_s()
        for keeper in self._keepers.values():
            if keeper.under_way:
                keeper.kept.saved(keeper.under_way)
                keeper.under_way = {}
        draws, self._draws = self._draws, []
        for (drawing, draw), got in zip(draws, answered.got, strict=True):
            if draw.wanted > 0:
                drawing.drawn(draw, got, wall_s)
        self.soon()  # what came meanwhile

    async def stop(self) -> None:
        """Nothing is used any more: what was is told, and waited for a while."""
        self._is_stopping = True
        await self._wait()
        wall_s = self._engine.clock.wall_s()
        states: Raw = {}
        for prefix, keeper in self._keepers.items():
            if dump := keeper.kept.dump(wall_s):
                states[prefix] = _encoded(dump)
        self._draws = [(each, draw) for each in self._drawings for draw in each.give_back(wall_s)]
        if states or self._draws:
            self._send(states)
            await self._wait()

    async def _wait(self) -> None:
        """For the answer to what is under way."""
        if self._is_waiting:
            self._answer.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answer.wait(), STOP_WAIT_S)


def _encoded(states: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(msgspec.json.encode(state)) for key, state in states.items()}


def _load(keeper: _Keeper, prefix: str, snapshot: Snapshot) -> None:
    found = snapshot.states_of(prefix)
    keeper.kept.load({key: msgspec.json.decode(state, type=keeper.kind) for key, state in found.items()})
