"""Time as an argument: rooms that need to know it take a Clock."""

from typing import Protocol


class Clock(Protocol):
    """Two times: one that people and schedules mean, one that never jumps."""

    def wall_s(self) -> float:
        """Unix seconds; may jump when the machine's clock is set. For due times, expiry and what people read."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some moment; never jumps. For time-outs and rates."""
        ...
