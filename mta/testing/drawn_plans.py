"""Plans of a simulation, drawn from a seed: `[[warmup]]` of mta.toml, for one source or for all of them."""

import json
from collections.abc import Sequence
from random import Random

PLANS = ([3, 6, 12], [5, 8, 12, 20], [10, 30], [2])
ZONES = ("Asia/Shanghai", "Australia/Eucla", "UTC")
"""Where the day ends at 3200 and at 500 seconds, and where it does not."""
STARTS = ("", "", "2025-06-15", "2025-06-16")


class DrawnPlans:
    """Of one machine; they stay as they are, until those that keep mail for the next day are lifted."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._tables: list[tuple[str, bool]] | None = None
        """Each with whether what is over it goes another way."""

    def tables(self, sources: Sequence[str]) -> str:
        """As mta.toml has them; `sources`: those that there are."""
        if self._tables is None:
            random = self._random
            chosen = random.sample(list(sources), random.randint(1, len(sources))) if sources else []
            self._tables = [self._table(source, len(sources) > len(chosen)) for source in chosen]
        return "".join(text for text, _ in self._tables)

    def _table(self, source: str, has_warm: bool) -> tuple[str, bool]:
        random = self._random
        text = f'[[warmup]]\nsource = "{source}"\nplan = {json.dumps(random.choice(PLANS))}\n'
        text += f'zone = "{random.choice(ZONES)}"\n'
        if start := random.choice(STARTS):
            text += f'start = "{start}"\n'
        pool = random.choice(["", "default", "default"])
        if pool:
            text += f'overflow_pool = "{pool}"\n'
        return text, bool(pool) and has_warm

    def lift(self) -> None:
        """Nothing waits for another day, from the next tables on."""
        self._tables = [(text, goes_on) for text, goes_on in self._tables or () if goes_on]
