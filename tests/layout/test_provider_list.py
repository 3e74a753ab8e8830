"""docs/guide/providers.md shows the shipped policies as they are."""

import importlib.util
from pathlib import Path
from types import ModuleType

from mta_policies import layers

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("provider_list", ROOT / "docs" / "provider_list.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


provider_list = load()


def test_the_page_is_in_step_with_the_policies():
    """`make docs` writes it again."""
    assert provider_list.LIST.read_text("utf-8") == provider_list.render()


def test_every_policy_and_every_rule_is_shown():
    """Each file has its row, each rule its line."""
    page = provider_list.render()

    for name, policy in layers.load(None).policies.items():
        assert f"(../../policies/{name}.toml)" in page
        assert [rule.name for rule in policy.rulebook if f"| `{rule.name}` |" not in page] == []


def test_a_policy_of_another_folder_is_told_in_words(tmp_path: Path):
    """What it matches, its own limits, and its rules."""
    (tmp_path / "default.toml").write_text('title = "others"\n[limits]\nconnections = 10\n', "utf-8")
    (tmp_path / "isp.toml").write_text(
        'title = "ISP"\nmatch = { mx = ["*.isp.example"], domains = ["isp.example"] }\ntls = "required"\n'
        '[limits]\nmessages_per_connection = 1000\nmix_domains = false\n[retry]\navoid = ["*:58-*:04"]\n'
        '[[rule]]\nname = "isp-busy"\nwhen = { code = "421", text = "busy|full" }\n'
        'then = [{ action = "suspend", for = "1h", scope = "source" }]\n',
        "utf-8",
    )

    lines = provider_list.render(tmp_path).splitlines()

    assert "| [others](../../policies/default.toml) | nothing else matched | 10 connections | 0 |" in lines
    assert (
        "| [ISP](../../policies/isp.toml) | MX `*.isp.example`; `isp.example` | 1,000 messages a connection,"
        " one domain a transaction; TLS; no retries at `*:58-*:04` | [1](#isp) |"
    ) in lines
    assert "| `421, /busy\\|full/` | `isp-busy` | suspend source for 1h |" in lines
