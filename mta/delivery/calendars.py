"""Calendars: the hours and the quota of one level of limits, at this worker.

Outside of its windows, and when its quota is used up, nothing begins; what is under way is finished. The wall clock
may be set at any time, so nobody waits for long without looking again. Of quotas what may be used is drawn from the
machine's account beforehand (`mta_policies.allotments`, `keeping.py`): so it stays exact whoever sends, dies or begins
anew, and nothing of it is handed over when a destination changes its owner.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from mta_policies.allotments import Allotment, Draw
from mta_policies.limits import Share
from mta_policies.schema import Limits, Quota
from mta_policies.windows import Hours

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

LOOK_S = 30.0  # who waits looks at the wall clock so often: it may be set
LOOKED_AT_ONCE = 100  # quotas of which a sweep looks whether they are idle


class Calendar:
    """Of one level: one source at one site, a source or all of them at a destination, one tenant."""

    __slots__ = ("_allotment", "_engine", "_hours", "_quotas", "_wake", "key", "quota", "share", "windows")

    def __init__(self, engine: "Dispatcher", key: str, limits: Limits, share: Share, wake: Callable[[], None]) -> None:
        """`key`: of the account; `wake`: one more may go, perhaps."""
        self._engine = engine
        self._quotas = engine.quotas
        self._wake = wake
        self.key = key
        self.share = share
        self.windows = limits.window
        self.quota: Quota | None = limits.quota
        self._hours = Hours(self.windows, ZoneInfo) if self.windows else None
        self._allotment = self._quotas.open(key, self.quota, share, wake) if self.quota is not None else None

    def wait_s(self) -> float:
        """0.0: one more may go; else seconds until it is worth asking again."""
        wall_s = self._engine.clock.wall_s()
        if self._hours is not None and (wait_s := self._hours.wait_s(wall_s)) > 0:
            return min(wait_s, LOOK_S)
        allotment = self._allotment
        if allotment is None or (wait_s := allotment.wait_s(wall_s)) <= 0:
            return 0.0
        if allotment.wants:
            self._quotas.want(allotment)
        return min(wait_s, LOOK_S)

    def free(self) -> int | None:
        """How many more may go now; None: any number."""
        if self.wait_s() > 0:
            return 0
        return self._allotment.free(self._engine.clock.wall_s()) if self._allotment is not None else None

    def take(self) -> None:
        """A transaction begins."""
        allotment = self._allotment
        if allotment is not None:
            allotment.take(self._engine.clock.wall_s())
            if allotment.wants:
                self._quotas.want(allotment)

    @property
    def is_shut(self) -> bool:
        """Whether its hours are over or its quota is known to be used up."""
        return bool(self.opens_s() or self.refills_s())

    def opens_s(self) -> float:
        """When the next window opens, Unix seconds; 0.0: it is open."""
        wall_s = self._engine.clock.wall_s()
        wait_s = self._hours.wait_s(wall_s) if self._hours is not None else 0.0
        return wall_s + wait_s if wait_s > 0 else 0.0

    def refills_s(self) -> float:
        """When the next period of the quota begins, Unix seconds; 0.0: it is not used up."""
        wall_s = self._engine.clock.wall_s()
        allotment = self._allotment
        return allotment.ends_s(wall_s) if allotment is not None and allotment.is_used_up(wall_s) else 0.0

    def is_of(self, key: str, limits: Limits, share: Share) -> bool:
        """Whether these limits have the same hours and quota."""
        return (key, limits.window, limits.quota, share) == (self.key, self.windows, self.quota, self.share)

    def close(self) -> None:
        """It holds no more; what was drawn and not used goes back."""
        if self._allotment is not None:
            self._quotas.close(self.key, self._wake)


def calendar(
    engine: "Dispatcher", known: Calendar | None, key: str, limits: Limits, share: Share, wake: Callable[[], None]
) -> Calendar | None:
    """The calendar of a level whose limits are these now: the one that is `known` where it still says the same; None
    where they have neither hours nor quota, as most."""
    if known is not None:
        if known.is_of(key, limits, share):
            return known
        known.close()
    if limits.quota is None and not limits.window:
        return None
    return Calendar(engine, key, limits, share, wake)


def shut_words(calendar: Calendar) -> tuple[Literal["quota", "window"], str, str, float]:
    """What keeps a calendar shut: the key, what mail waits for, the value as one writes it, and when it goes on (Unix
    seconds)."""
    if opens_s := calendar.opens_s():
        hours = " or ".join(str(each) for each in calendar.windows)
        return "window", f"the hours in which mail may go: {hours}", hours, opens_s
    quota = calendar.quota
    assert quota is not None, "else nothing keeps it shut"
    value = f'{{ count = {quota.count}, per = "{quota.per}", zone = "{quota.zone}" }}'
    words = f"the quota of {quota.count:,} message{'s' if quota.count > 1 else ''} a {quota.per} ({quota.zone})"
    if refills_s := calendar.refills_s():
        return "quota", f"the next {quota.per} of {words}", value, refills_s
    return "quota", f"{words}, of which some is being written down as used", value, 0.0


class _Open:
    """A quota in use; at a change of policies two calendars may have it for a moment."""

    __slots__ = ("allotment", "wakes")

    def __init__(self, allotment: Allotment) -> None:
        self.allotment = allotment
        self.wakes: list[Callable[[], None]] = []


class Quotas:
    """All quotas of this worker; `mta.delivery.keeping.Drawing`."""

    def __init__(self, engine: "Dispatcher") -> None:
        self._engine = engine
        self._open: dict[str, _Open] = {}
        self._wanting: dict[Allotment, None] = {}
        self._returned: list[Draw] = []
        self._round: list[_Open] = []
        engine.keeping.draw_for(self)

    def open(self, key: str, quota: Quota, share: Share, wake: Callable[[], None]) -> Allotment:
        """Somebody counts by this from now on."""
        wall_s = self._engine.clock.wall_s()
        known = self._open.get(key)
        if known is not None and known.allotment.quota != quota:
            self._give_back(known.allotment, wall_s)
            del self._open[key]
            known = None
        if known is None:
            known = self._open[key] = _Open(Allotment(key, quota, share.of, ZoneInfo, wall_s))
        known.wakes.append(wake)
        return known.allotment

    def close(self, key: str, wake: Callable[[], None]) -> None:
        """He does no more."""
        known = self._open.get(key)
        if known is None or wake not in known.wakes:
            return
        known.wakes.remove(wake)
        if not known.wakes:
            del self._open[key]
            self._give_back(known.allotment, self._engine.clock.wall_s())

    def _give_back(self, allotment: Allotment, wall_s: float) -> None:
        self._wanting.pop(allotment, None)
        if (draw := allotment.give_back(wall_s, is_all=True)) is not None:
            self._returned.append(draw)
            self._engine.keeping.soon()

    def want(self, allotment: Allotment) -> None:
        """More of it is needed."""
        if allotment not in self._wanting:
            self._wanting[allotment] = None
            self._engine.keeping.soon()

    # what is drawn

    def draws(self, wall_s: float) -> list[Draw]:
        """See `mta.delivery.keeping.Drawing`."""
        draws, self._returned = self._returned, []
        wanting, self._wanting = self._wanting, {}
        draws += [draw for allotment in wanting if (draw := allotment.draw(wall_s)) is not None]
        if self._open:
            draws += self._idle(wall_s)
        return draws

    def _idle(self, wall_s: float) -> list[Draw]:
        """What some of them did not use for long."""
        if not self._round:
            self._round = list(self._open.values())
        some = list(islice(self._round, LOOKED_AT_ONCE))
        del self._round[: len(some)]
        return [draw for each in some if (draw := each.allotment.give_back(wall_s)) is not None]

    def drawn(self, draw: Draw, got: int, wall_s: float) -> None:
        """See `mta.delivery.keeping.Drawing`."""
        known = self._open.get(draw.key)
        if known is None or not known.allotment.is_asked(draw):
            if got > 0:  # who wanted it is gone
                self._returned.append(Draw(draw.key, draw.start_s, draw.end_s, draw.whole, -got))
            return
        known.allotment.drawn(draw.start_s, got, wall_s)
        if got > 0:
            for wake in list(known.wakes):
                wake()

    def give_back(self, wall_s: float) -> list[Draw]:
        """See `mta.delivery.keeping.Drawing`."""
        given = [each.allotment.give_back(wall_s, is_all=True) for each in self._open.values()]
        return [*self._returned, *(draw for draw in given if draw is not None)]
