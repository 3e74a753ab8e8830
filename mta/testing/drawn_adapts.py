"""[adapt] of a simulation's policies, drawn from a seed: rates that fall when a provider complains."""

from random import Random

COMPLAINTS = '["policy-related", "bad-connection", "other"]'
"""What most whims of a `Temper` are taken for."""


class DrawnAdapts:
    """Of one machine."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def text(self) -> str:
        """A part of a policy; "" of some."""
        random = self._random
        if random.random() < 0.2:
            return ""
        floor, ceiling = random.choice([(6, 60), (12, 60), (30, 240), (20, 20)])
        return (
            f'[adapt]\non = {COMPLAINTS}\nfloor = "{floor}/min"\nceiling = "{ceiling}/min"\n'
            f'decrease = "{random.choice([20, 50, 70])}%"\nincrease = "{random.choice([1, 10, 40])}%"\n'
        )
