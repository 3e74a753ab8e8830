"""What holds for one tenant's mail: own limits, retry times and rules, and nobody else's mail touched."""

from pathlib import Path

import pytest

from mta_policies import layers
from mta_policies.layers import PolicyError, PolicySet
from mta_policies.tenants import NO_LIMITS
from mta_policies.units import Rate

DEFAULT = '[limits]\nrate = "100/s"\n[retry]\nschedule = ["5m", "1h"]\nexpire = "5d"\n'
GOOGLE = (
    '[limits]\nconnections = 5\n[sources."new-*"]\nretry = { schedule = ["9h"] }\n'
    '[[rule]]\nname = "busy"\nthen = [{ action = "slow", connections = 1 }]\n'
)


class Folders:
    def __init__(self, root: Path) -> None:
        self.shipped, self.local = root / "shipped", root / "local"
        self.shipped.mkdir()
        (self.shipped / "default.toml").write_text(DEFAULT)
        (self.shipped / "google.toml").write_text(GOOGLE)

    def put(self, name: str, text: str) -> None:
        path = self.local / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def load(self) -> PolicySet:
        return layers.load(self.local, shipped=self.shipped)

    def problems(self) -> list[str]:
        with pytest.raises(PolicyError) as raised:
            self.load()
        return [str(problem).removeprefix(f"{self.local}/") for problem in raised.value.problems]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_a_tenants_limits_are_its_own_beside_the_policys(folders: Folders) -> None:
    """What its file does not say is no limit of the tenant's."""
    folders.put("tenants/shop/google", '[limits]\nrate = "2/s"\nwindow = "08:00-22:00 Asia/Tokyo"\n')

    policies = folders.load()
    google = policies.policies["google"]

    assert policies.tenants == ["shop"]
    assert google.for_tenant("shop").limits.rate == (Rate(2, 1),)
    assert google.for_tenant("shop").limits.connections == 0
    assert str(google.for_tenant("shop").limits.window[0]) == "08:00-22:00 Asia/Tokyo"
    assert google.for_tenant("bank").limits is NO_LIMITS
    assert policies.default.for_tenant("shop").limits is NO_LIMITS
    assert google.limits.rate == (Rate(100, 1),)


def test_a_tenants_default_is_under_its_own_files(folders: Folders) -> None:
    """It holds for all policies, as default does."""
    folders.put("tenants/shop/default", '[limits]\nrate = "9/s"\nconnections = 3\n')
    folders.put("tenants/shop/google", '[limits]\nrate = "2/s"\n')

    policies = folders.load()

    google, default = policies.policies["google"].for_tenant("shop"), policies.default.for_tenant("shop")
    assert (google.limits.rate, google.limits.connections) == ((Rate(2, 1),), 3)
    assert (default.limits.rate, default.limits.connections) == ((Rate(9, 1),), 3)


@pytest.mark.parametrize(
    ("tenant", "source", "schedule", "expire_s"),
    [
        ("shop", "out-1", (300.0, 3600.0), 3600.0),
        ("shop", "new-1", (32400.0,), 3600.0),
        ("bank", "out-1", (60.0,), 432_000.0),
        ("bank", "new-1", (60.0,), 432_000.0),
        ("other", "new-1", (32400.0,), 432_000.0),
    ],
)
def test_retry_is_the_tenants_key_by_key(
    folders: Folders, tenant: str, source: str, schedule: tuple[float, ...], expire_s: float
) -> None:
    """Over the source's, over the policy's, over default's."""
    folders.put("tenants/shop/default", '[retry]\nexpire = "1h"\n')
    folders.put("tenants/bank/google", '[retry]\nschedule = ["60s"]\n')

    retry = folders.load().policies["google"].retry_for(tenant, source)

    assert (retry.schedule, retry.expire_s) == (schedule, expire_s)


def test_a_tenants_rules_come_first_and_are_for_the_tenant(folders: Folders) -> None:
    """Where they name no scope; one with the name of a policy's stands in its place."""
    text = (
        '[[rule]]\nname = "{}"\nthen = [{{ action = "suspend", for = "1h" }}, {{ action = "defer", after = "1h" }}]\n'
    )
    folders.put("tenants/shop/google", text.format("own") + text.format("busy"))

    google = folders.load().policies["google"]

    assert [rule.name for rule in google.for_tenant("shop").rules.in_order] == ["own", "busy"]
    assert google.for_tenant("shop").rules.in_order[0].then[0].scope == "tenant"
    assert google.tenants_with_rules == ("shop",)
    assert google.rule_origin("busy", "shop").endswith("tenants/shop/google.toml:4")
    assert google.rule_origin("busy").endswith("shipped/google.toml:5")


def test_rules_of_a_tenants_default_come_after_those_of_its_other_file(folders: Folders) -> None:
    """And before all that are not the tenant's."""
    folders.put("tenants/shop/default", '[[rule]]\nname = "any"\n[[rule]]\nname = "both"\n')
    folders.put("tenants/shop/google", '[[rule]]\nname = "own"\n[[rule]]\nname = "both"\n')

    policies = folders.load()

    google, default = (policies.policies[name].for_tenant("shop").rules for name in ("google", "default"))
    assert [rule.name for rule in google.in_order] == ["own", "both", "any", "busy"]
    assert [rule.name for rule in default.in_order] == ["any", "both"]


def test_every_value_of_a_tenant_knows_its_line(folders: Folders) -> None:
    """As every other."""
    folders.put("tenants/shop/google", '[limits]\nrate = "2/s"\n')

    policies = folders.load()

    def origin(path: tuple[str, ...], tenant: str) -> str:
        return policies.origin("google", path, tenant=tenant)

    assert origin(("limits", "rate"), "shop").endswith("tenants/shop/google.toml:2")
    assert origin(("limits", "rate"), "bank").endswith("shipped/default.toml:2")
    assert origin(("limits", "connections"), "shop").endswith("shipped/google.toml:2")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("google", "owners = 2\n", "1: unknown key owners; known: limits, retry, rule, test"),
        ("google", "[limits]\nmix_domains = true\n", "2: unknown key mix_domains"),
        ("google", "[retry]\nschedule = []\n", "2: schedule: at least one time"),
        ("google", '[limits]\nwindow = "08:00-22:00 Asia/Tokio"\n', '2: window: there is no time zone "Asia/Tokio"'),
        ("gogle", "", "1: there is no policy gogle to lay this over; did you mean google?"),
        (
            "google",
            '[[rule]]\nname = "r"\nthen = [{ action = "suspend", scope = "source" }]\n',
            "3: scope source is others' mail too; a tenant's rule takes tenant, campaign or recipient",
        ),
    ],
)
def test_what_a_tenants_file_cannot_say(folders: Folders, name: str, text: str, told: str) -> None:
    """Each problem at its line."""
    folders.put(f"tenants/shop/{name}", text)

    (problem,) = folders.problems()

    assert problem.startswith(f"tenants/shop/{name}.toml:{told}")


def test_a_tenants_limit_must_be_enough_for_every_owner(folders: Folders) -> None:
    """It is divided as the others are."""
    folders.put("google", 'owners = 4\n[limits]\nconnections = 8\nrate = "none"\n')
    folders.put("tenants/shop/google", '[limits]\nrate = "2/s"\n')

    assert [problem.partition(":")[0] for problem in folders.problems()] == ["tenants/shop/google.toml"]
