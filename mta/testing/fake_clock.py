"""A clock that stands still until it is told otherwise."""

WALL_START_S = 1_750_000_000.0  # June 2025; any date will do, a fixed one keeps failures the same
MONOTONIC_START_S = 1_000.0


class FakeClock:
    """A `mta.model.clock.Clock` whose two times move only by `advance` and `jump`."""

    def __init__(self, wall_s: float = WALL_START_S, monotonic_s: float = MONOTONIC_START_S) -> None:
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s

    def wall_s(self) -> float:
        """Unix seconds as last set."""
        return self._wall_s

    def monotonic_s(self) -> float:
        """Seconds since some moment; only ever goes forward."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Time passes: both clocks go forward together. `seconds` must not be negative."""
        assert seconds >= 0, "time does not run backwards; jump() sets the wall clock"
        self._wall_s += seconds
        self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock, forward or back; the monotonic one does not notice."""
        self._wall_s += seconds
