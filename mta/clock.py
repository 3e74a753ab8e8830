"""The real clock. Built by the worker and the commands; everybody below is handed a `mta.model.clock.Clock`."""

import time


class SystemClock:
    """The machine's time; a `mta.model.clock.Clock`.

    Both are the C functions themselves: they are read several times a message.
    """

    __slots__ = ()

    wall_s = staticmethod(time.time)
    """Unix seconds; may jump when the machine's clock is set."""
    monotonic_s = staticmethod(time.monotonic)
    """Seconds since some moment; never jumps."""
