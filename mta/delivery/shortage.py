"""A shortage: a limit has no room for single messages now. They are parked, ready but for it: nobody suspended them."""

from collections.abc import Callable
from typing import TypeAlias

from mta.reporting.waiting import Reason

Told: TypeAlias = tuple[str, Reason]
"""What mail waits for, to be read behind "waits for", and the same in fields. "": for nothing."""


class Shortage:
    """Keeps messages back (`mta.delivery.parking.Keeper`), and can say why."""

    __slots__ = ("told",)

    def __init__(self, told: Callable[[], Told]) -> None:
        self.told = told
        """What they wait for, as it is at this moment."""
