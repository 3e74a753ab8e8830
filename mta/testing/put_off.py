"""Put off: when mail comes again that a provider deferred, by what its tenant says of retries."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mta.config import Config
from mta.model.outcome import COUNTED_STAGES
from mta.testing.watcher import Watcher, Wrong
from mta_policies.layers import DEFAULT
from mta_policies.schema import Retry

ROUNDED_S = 0.01
NEAR_S = 10.0  # out here it is not known to the second when a message expires


class PutOff(Watcher):
    """Looks at tenants whose schedule has one time, which no reload changes."""

    def __init__(self, expires_s_of: Callable[[str], float]) -> None:
        """`expires_s_of`: when a recipient's mail does, Unix seconds."""
        self.seen = 0
        """Deferrals that were looked at."""
        self._expires_s_of = expires_s_of
        self._retries: dict[str, Retry] = {}

    def configured(self, config: Config) -> None:
        """See `Watcher`."""
        default = config.policy_set.policies[DEFAULT]
        retries = {tenant: default.retry_for(tenant, "") for tenant in default.tenants_with_retry}
        self._retries = {tenant: retry for tenant, retry in retries.items() if len(retry.schedule) == 1}

    def told(self, event: Mapping[str, Any]) -> Iterator[Wrong]:
        """See `Watcher`."""
        retry = self._retries.get(event.get("tenant", ""))
        is_its = event["event"] == "deferred" and event["stage"] in COUNTED_STAGES and not event.get("rule")
        if retry is None or not is_its or not event.get("next_attempt"):
            return
        self.seen += 1
        wait_s, (planned_s,) = event["next_attempt"] - event["time"], retry.schedule
        least_s, most_s = planned_s * (1.0 - retry.jitter), planned_s * (1.0 + retry.jitter)
        if event["next_attempt"] > self._expires_s_of(event["recipient"]) - NEAR_S:
            least_s = 0.0  # not after it has expired
        if not least_s - ROUNDED_S <= wait_s <= most_s + ROUNDED_S:
            told = f"comes again in {wait_s:.2f} s, and {planned_s:g} s are planned"
            yield f"{event['recipient']} of {event['tenant']} {told}", None
