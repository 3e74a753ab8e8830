"""A shortage: a limit has no room for single messages now. They are parked, ready but for it: nobody suspended them."""

from collections.abc import Callable

from mta.reporting.questions import Reason


class Shortage:
    """Keeps messages back (`mta.delivery.parking.Keeper`), and can say why."""

    __slots__ = ("told",)

    def __init__(self, told: Callable[[], tuple[str, Reason]]) -> None:
        self.told = told
        """What they wait for, to be read behind "waits for", and the same in fields, as it is at this moment."""
