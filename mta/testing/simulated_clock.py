"""SimulatedClock: the two times of a simulated machine; the wall clock can be set, and can stand still."""

from mta.testing.fake_clock import WALL_START_S
from mta.testing.simulated_loop import SimulatedTime


class SimulatedClock:
    """A `mta.model.clock.Clock` that remembers how its wall clock was set."""

    def __init__(self, time: SimulatedTime) -> None:
        self._time = time
        self._pieces: list[tuple[float, float, float]] = [(time.now_s, WALL_START_S, 1.0)]
        """(since when, wall time then, how fast it goes), all in seconds of the monotonic time."""

    def monotonic_s(self) -> float:
        return self._time.now_s

    def wall_s(self) -> float:
        since_s, wall_s, speed = self._pieces[-1]
        return wall_s + (self._time.now_s - since_s) * speed

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock, forward or back."""
        self._pieces.append((self._time.now_s, self.wall_s() + seconds, self._pieces[-1][2]))
        self._time.stir()

    def freeze(self) -> None:
        """The wall clock stands still."""
        self._pieces.append((self._time.now_s, self.wall_s(), 0.0))

    def thaw(self) -> None:
        """It goes on from where it stood."""
        self._pieces.append((self._time.now_s, self.wall_s(), 1.0))
        self._time.stir()

    @property
    def lost_s(self) -> float:
        """How much longer than by its own account something waits that was planned at the beginning."""
        return max(0.0, self._time.now_s - self._pieces[0][0] - (self.wall_s() - WALL_START_S))

    def wall_at(self, at_s: float) -> float:
        """What the wall clock said at a monotonic time."""
        for since_s, wall_s, speed in reversed(self._pieces):
            if since_s <= at_s:
                return wall_s + (at_s - since_s) * speed
        return WALL_START_S

    def is_steady(self, from_s: float, to_s: float) -> bool:
        """Whether nobody set it or stopped it between these monotonic times."""
        return not any(from_s <= since_s <= to_s for since_s, _, _ in self._pieces[1:])

    def _ends(self, from_s: float) -> list[float]:
        """What the wall clock said at both ends of every piece since then."""
        found = [self.wall_s(), self.wall_at(from_s)]
        for at, (since_s, wall_s, _) in enumerate(self._pieces):
            if since_s > from_s:
                _, before_wall_s, before_speed = self._pieces[at - 1]
                found += [wall_s, before_wall_s + (since_s - self._pieces[at - 1][0]) * before_speed]
        return found

    def reached(self, from_s: float) -> float:
        """The latest that the wall clock has said since then (monotonic)."""
        return max(self._ends(from_s))

    def least_since(self, from_s: float) -> float:
        """The earliest that it has said since then."""
        return min(self._ends(from_s))
