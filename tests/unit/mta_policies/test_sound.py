"""Values that are right one by one and wrong together."""

from pathlib import Path

import pytest

from mta_policies import layers
from mta_policies.layers import PolicyError
from mta_policies.sound import EVERY_REPLY


def _problems(root: Path, text: str) -> list[str]:
    (root / "default.toml").write_text('[limits]\nrate = "10/s"\n[[rule]]\nname = "any"\n')
    (root / "google.toml").write_text(text)
    try:
        layers.load(None, shipped=root)
    except PolicyError as error:
        return [f"{problem.line}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "text",
    [
        '[adapt]\non = ["any", "spam-related"]\n',
        '[adapt]\non = ["own"]\nceiling = "1/s"\nfloor = "1/min"\n[[rule]]\nname = "own"\n',
        '[limits]\nwindow = ["08:00-22:00 Asia/Tokyo", "Sat,Sun 10:00-12:00"]\n',
        '[limits]\nquota = { count = 5, per = "hour", zone = "Europe/Berlin" }\n',
    ],
)
def test_what_hangs_together(tmp_path: Path, text: str) -> None:
    """Nothing to tell."""
    assert _problems(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[adapt]\non = ["anny"]\n', "2: on: anny is neither a rule of this policy nor a category; did you mean any?"),
        ('[adapt]\non = ["any"]\n[limits]\nrate = "none"\n', "1: adapt: from which rate down?"),
        ('[limits]\nwindow = "08:00-22:00 Tokyo"\n', '2: window: there is no time zone "Tokyo"'),
        ('[limits]\nwindow = "8 to 22"\n', "2: window: not a window"),
        ('[limits]\nquota = { count = 5, zone = "../etc" }\n', '2: quota: there is no time zone "../etc"'),
        ('[sources."x"]\nlimits = { window = "08:00-22:00 Nowhere" }\n', "2: window: there is no time zone"),
        ('[[rule]]\nname = "a"\n[[rule]]\nname = "a"\n', "3: rule a is also at "),
    ],
)
def test_what_does_not(tmp_path: Path, text: str, told: str) -> None:
    """One problem, at the line to mend."""
    (problem,) = _problems(tmp_path, text)

    assert problem.startswith(told)


@pytest.mark.parametrize(("text", "warnings"), [('floor = "2/s"\nceiling = "1/s"\n', 1), ('ceiling = "1/h"\n', 0)])
def test_a_floor_above_the_ceiling_is_warned_of_where_both_are_written(
    tmp_path: Path, text: str, warnings: int
) -> None:
    """Against default's floor a low ceiling simply holds."""
    (tmp_path / "default.toml").write_text('[limits]\nrate = "10/s"\n[adapt]\nfloor = "1/min"\n')
    (tmp_path / "google.toml").write_text(f'[adapt]\non = ["other"]\n{text}')

    assert len(layers.load(None, shipped=tmp_path).warnings) == warnings


def test_a_slow_with_too_few_connections_for_all_owners_is_warned_of(tmp_path: Path) -> None:
    """At the rule; but for those of default, which nobody wrote for this provider."""
    slow = '[[rule]]\nname = "{}"\nwhen = {{ code = "421" }}\nthen = [{{ action = "slow", connections = {} }}]\n'
    (tmp_path / "default.toml").write_text(slow.format("any", 1))
    (tmp_path / "google.toml").write_text(f"owners = 2\n{slow.format('a', 1)}{slow.format('b', 2)}")

    (warning,) = layers.load(None, shipped=tmp_path).warnings

    assert (Path(warning.file).name, warning.line) == ("google.toml", 2)
    assert "connections = 1 is less than owners = 2" in warning.message


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (
            '[[rule]]\nname = "gogle-one"\nthen = []\n[[rule]]\nname = "google-one"\nwhen = { code = "421" }\n',
            [EVERY_REPLY.format("gogle-one") + "; did you mean google-one?"],
        ),
        ('[[rule]]\nname = "one"\nwhen = { code = "421" }\n[[rule]]\nname = "two"\n', [EVERY_REPLY.format("two")]),
        ('[[rule]]\nname = "any"\n', []),
    ],
)
def test_a_rule_that_takes_every_reply_is_warned_of(tmp_path: Path, rules: str, told: list[str]) -> None:
    """A name that is written wrongly would else switch off all rules in place of one."""
    any_rule = '[[rule]]\nname = "any"\nwhen = { code = "4xx" }\n'
    (tmp_path / "default.toml").write_text(any_rule + '[[rule]]\nname = "all"\n')
    (tmp_path / "google.toml").write_text(rules)

    assert [warning.message for warning in layers.load(None, shipped=tmp_path).warnings] == told


def test_a_tenants_rule_that_takes_every_reply_is_warned_of_once(tmp_path: Path) -> None:
    """One of another name, and one that stands for a rule of another provider; whatever the number of policies."""
    shop, shipped = tmp_path / "local" / "tenants" / "shop", tmp_path / "shipped"
    shop.mkdir(parents=True)
    shipped.mkdir()
    rule = '[[rule]]\nname = "{}"\nwhen = {{ code = "421" }}\n'
    for name in ("default", "google", "yahoo"):
        (shipped / f"{name}.toml").write_text(rule.format(name))
    off = "".join(f'[[rule]]\nname = "{name}"\nthen = []\n' for name in ("default", "google"))
    (shop / "default.toml").write_text(off)
    (shop / "google.toml").write_text('[[rule]]\nname = "google"\nthen = []\n')

    warnings = layers.load(tmp_path / "local", shipped=shipped).warnings

    assert [(Path(each.file).name, each.line, each.message) for each in warnings] == [
        ("default.toml", 4, EVERY_REPLY.format("google"))
    ]


def test_limits_of_one_connection_are_kept_in_limits_alone(tmp_path: Path) -> None:
    """Elsewhere they are warned of, each at its line; what can be shared is not."""
    (tmp_path / "default.toml").write_text('[limits]\nmix_domains = false\nrate = "10/s"\n')
    (tmp_path / "google.toml").write_text(
        "[source_limits]\nconnections = 5\nmessages_per_connection = 5\n"
        '[provider_limits]\nrate = "5/s"\nmessage_size_max = "3MB"\n'
        '[sources."new-*".source_limits]\nmix_domains = true\n'
    )

    warnings = layers.load(None, shipped=tmp_path).warnings

    assert [(warning.line, warning.message) for warning in warnings] == [
        (3, "messages_per_connection has no effect in [source_limits]; write it in [limits]"),
        (6, "message_size_max has no effect in [provider_limits]; write it in [limits]"),
        (8, "mix_domains has no effect in [source_limits]; write it in [limits]"),
    ]
