"""What tenants of a simulation allow themselves, drawn from a seed: files below `tenants/`, laid over the policies.

Their limits are drawn anew for every reload; their retries stay, so that it is known when a message has to expire.
"""

from random import Random

from mta.testing.drawn_hours import DrawnHours

TENANTS = ("shop", "news")
EXPIRES_S = (3600, 7200, 10_800)
SCHEDULES_S = (90, 240)
"""Of one time, so that every deferral tells whose it is."""


class DrawnTenants:
    """Of one machine."""

    def __init__(self, random: Random, hours: DrawnHours | None) -> None:
        self._random = random
        self._hours = hours
        self._has_quotas = True
        chosen = random.sample(TENANTS, random.choice([1, 1, 2]))
        self.expires_s = {tenant: float(random.choice(EXPIRES_S)) for tenant in chosen if random.random() < 0.6}
        """Tenant -> when his mail is given up."""
        self._schedules_s = {tenant: float(random.choice(SCHEDULES_S)) for tenant in chosen if random.random() < 0.6}
        """Tenant -> from an attempt to the next."""
        self._limited = chosen

    def files(self) -> dict[str, str]:
        """Policy's name below the folder of policies -> what it says from now on."""
        return {
            f"tenants/{tenant}/{policy}": self._retry(tenant) * (policy == "default") + self._limits()
            for tenant in sorted(self._limited)
            for policy in ("default", "p0")[: self._random.randint(1, 2)]
        }

    def _retry(self, tenant: str) -> str:
        expire_s, schedule_s = self.expires_s.get(tenant), self._schedules_s.get(tenant)
        lines = [f'expire = "{expire_s:.0f}s"'] if expire_s else []
        lines += [f'schedule = ["{schedule_s:.0f}s"]', 'jitter = "10%"'] if schedule_s else []
        return "\n".join(["[retry]", *lines, ""]) if lines else ""

    def _limits(self) -> str:
        random = self._random
        values = {
            "rate": f'"{random.choice([20, 60, 180])}/min"',
            "connections": f"{random.choice([3, 5])}",
            "recipients_per_transaction": "1",
            "message_size_max": '"12KB"',
            "quota": f'{{ count = {random.choice([6, 15, 40])}, per = "hour" }}',
            "window": self._hours.value() if self._hours is not None else "[]",
        }
        chosen = random.sample(list(values), random.randint(0, 3))
        lines = [f"{key} = {values[key]}\n" for key in chosen if key != "quota" or self._has_quotas]
        return "".join(["[limits]\n", *lines]) if lines else ""

    def lift(self) -> None:
        """Nothing waits for another hour, from the next files on."""
        self._has_quotas = False
