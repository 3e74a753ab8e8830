"""Limits across destinations of a simulation, drawn from a seed: `[[limit]]` of mta.toml, others for each reload."""

from collections.abc import Sequence
from random import Random

from mta.testing.drawn_hours import DrawnHours
from mta_policies.answers import SYSTEM_SOURCE

RATES = ('"30/min"', '"1/s"', '"3/s"', '["5/s", "60/min"]')
"""Of which each lets all mail of a small scenario go within minutes."""
QUOTAS = (15, 40, 100)
ZONES = ("UTC", "Asia/Tokyo", "Asia/Kathmandu")


class DrawnLimits:
    """Of one machine."""

    def __init__(self, random: Random, hours: DrawnHours | None) -> None:
        self._random = random
        self._hours = hours
        self._is_lifted = False
        self.stays = random.random() < 0.3
        """Quotas hold to the end, and some mail expires for them; else they are lifted with the others."""

    def tables(self, sources: Sequence[str]) -> str:
        """As mta.toml has them from now on; `sources`: those that there are."""
        random = self._random
        whose = [(per, "*") for per in ("tenant", "campaign", "sender-domain", "source")]
        whose += [("tenant", "shop"), ("tenant", "news"), ("campaign", "shop/spring"), ("sender-domain", "sender.test")]
        whose += [("source", name) for name in sources or [SYSTEM_SOURCE]]
        chosen = random.sample(whose, random.randint(1, 3))
        return "".join(f'[[limit]]\nper = "{per}"\nname = "{name}"\n{self._values()}' for per, name in chosen)

    def _values(self) -> str:
        random = self._random
        kinds = ["rate", "rate", "quota", *(["window"] if self._hours is not None else [])]
        values = {kind: self._value(kind) for kind in random.sample(kinds, random.randint(1, 2))}
        if self._is_lifted:
            values.pop("quota", None)
        return "".join(f"{kind} = {value}\n" for kind, value in (values or {"rate": RATES[-1]}).items())

    def _value(self, kind: str) -> str:
        random = self._random
        if kind == "rate":
            return random.choice(RATES)
        if kind == "quota":
            per = random.choice(["hour", "hour", "day"])
            return f'{{ count = {random.choice(QUOTAS)}, per = "{per}", zone = "{random.choice(ZONES)}" }}'
        assert self._hours is not None, "only then there are windows"
        return self._hours.value()

    def lift(self) -> None:
        """Nothing waits for another hour or day, from the next tables on."""
        self._is_lifted = not self.stays
