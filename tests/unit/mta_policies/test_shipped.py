"""The shipped policies: right, complete, with a source for every number, and in the wheel."""

import re
import tomllib
from pathlib import Path

import pytest

from mta_policies import layers
from mta_policies.layers import PolicySet
from mta_policies.units import Rate

FOLDER = layers.shipped_directory()
NAMES = layers.shipped_names()


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return layers.load(None)


def test_they_load_without_a_word(policies: PolicySet) -> None:
    """No problem, no warning, no tie."""
    assert policies.warnings == []
    assert set(policies.policies) == {
        "default", "google", "microsoft", "outlook", "yahoo", "yahoo-japan", "apple", "docomo", "au", "softbank",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("domain", "hosts", "name"),
    [
        ("gmail.com", [], "google"),
        ("workspace.example", ["aspmx.l.google.com", "alt1.aspmx.l.google.com", "aspmx2.googlemail.com"], "google"),
        ("hotmail.com", ["hotmail-com.olc.protection.outlook.com"], "outlook"),
        ("firm.example", ["firm-example.mail.protection.outlook.com"], "microsoft"),
        ("dane.example", ["dane-example.a-v1.mx.microsoft"], "microsoft"),
        ("aol.com", ["mx-aol.mail.gm0.yahoodns.net"], "yahoo"),
        ("yahoo.co.jp", [], "yahoo-japan"),
        ("me.com", [], "apple"),
        ("own.example", ["mx01.mail.icloud.com", "mx02.mail.icloud.com"], "apple"),
        ("docomo.ne.jp", [], "docomo"),
        ("ezweb.ne.jp", [], "au"),
        ("d.vodafone.ne.jp", [], "softbank"),
        ("i.softbank.jp", [], "softbank"),
        ("mixed.example", ["aspmx.l.google.com", "mx.elsewhere.example"], None),
        ("elsewhere.example", ["mx.elsewhere.example"], None),
    ],
)
def test_providers_are_recognised(policies: PolicySet, domain: str, hosts: list[str], name: str | None) -> None:
    """By their domains, or by the names of all their MX hosts."""
    found = policies.by_domain(domain) or policies.by_mx(hosts)

    assert (found and found.name) == name


def test_published_limits_are_kept(policies: PolicySet) -> None:
    """The facts that providers publish and operators share."""
    default, google, yahoo = (policies.policies[name] for name in ("default", "google", "yahoo"))
    japan, docomo, apple = (policies.policies[name] for name in ("yahoo-japan", "docomo", "apple"))

    assert (default.limits.connections, default.limits.messages_per_connection) == (10, 100)
    assert (default.limits.rate, default.limits.connection_rate) == ((Rate(100, 1),), (Rate(100, 60),))
    assert (google.source_limits.connections, google.limits.messages_per_connection) == (5, 50)
    assert (google.tls, google.limits.mix_domains) == ("required", False)
    assert yahoo.limits.messages_per_connection == 20
    assert (japan.limits.connections, japan.limits.rate) == (2, (Rate(10, 1),))
    assert (docomo.limits.recipients_per_transaction, docomo.limits.recipients_per_connection) == (100, 100)
    assert (apple.source_limits.connections, apple.limits.messages_per_connection) == (10, 5)
    assert [str(window) for window in docomo.retry.avoid] == ["*:58-*:04"]


@pytest.mark.parametrize("name", NAMES)
def test_the_admins_own_brake_is_left_to_the_admin(policies: PolicySet, name: str) -> None:
    """Shipped files say nothing of provider_limits, and leave ownership at one."""
    policy = policies.policies[name]

    assert "provider_limits" not in policy.tree.data
    assert policy.owners == 1


NUMBER = re.compile(r'^[a-z_]+ *= *(\d|"[\d*]|\["[\d*])')


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_its_source(name: str) -> None:
    """In a comment beside it, or above its table; numbers of ours say so."""
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()

    bare = [
        line
        for i, line in enumerate(lines)
        if NUMBER.match(line) and "#" not in line and not _has_comment_above_its_table(lines, i)
    ]

    assert bare == []


def _has_comment_above_its_table(lines: list[str], at: int) -> bool:
    header = max(i for i in range(at) if lines[i].startswith("["))
    return header > 0 and lines[header - 1].startswith("#")


def test_the_wheel_takes_every_shipped_file() -> None:
    """pyproject.toml names them one by one; none is forgotten, none is gone."""
    root = Path(__file__).parents[3]
    built = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert built["force-include"] == {
        f"policies/{path.name}": f"mta_policies/shipped/{path.name}" for path in (root / "policies").glob("*.toml")
    }


def test_an_installation_finds_its_files_beside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a checkout they are in the folder above."""
    package = tmp_path / "mta_policies"
    (package / "shipped").mkdir(parents=True)
    monkeypatch.setattr(layers, "__file__", str(package / "layers.py"))

    installed = layers.shipped_directory()
    (package / "shipped").rmdir()
    checked_out = layers.shipped_directory()

    assert installed == package / "shipped"
    assert checked_out == tmp_path
