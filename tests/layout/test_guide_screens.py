"""docs/guide/policies.md shows what the commands print: here those that need no server."""

from pathlib import Path

import pytest

from docs import guide_screens as guide

PAGE = guide.PAGE.read_text("utf-8")


def test_screens_that_need_no_server_are_what_is_printed(tmp_path: Path):
    """Files are written and commands are typed in the order of the page."""
    screens = guide.play_alone(PAGE, tmp_path)

    told = guide.differences(screens)
    assert len(screens) > 4
    assert not told, told


def test_every_command_of_the_page_is_done_or_needs_a_server():
    """Nothing stands in a screen that no test would type."""
    screens = [step for step in guide.steps_of(PAGE) if step.kind == "screen"]

    assert len(screens) > 15
    assert [step.text for step in screens if not step.text.startswith("mta ")] == []
    assert [step.text for step in screens if not step.shown] == []


SCREEN = """\
```toml
# policies/isp.toml
match = { domains = ["isp.example"] }
[limits]
rate = "20/s"
```

```console
$ mta policy show isp | grep isp.toml
match.domains                      isp.example               policies/isp.toml:2
limits.rate                        20/s                      policies/isp.toml:4
```
"""


def test_another_output_is_told_with_its_line_and_can_be_written(tmp_path: Path):
    """The page says 30/s, 20/s is printed."""
    page = SCREEN.replace(" 20/s  ", " 30/s  ")

    screens = guide.play_alone(page, tmp_path)
    told = guide.differences(screens)

    assert ":9: $ mta policy show isp | grep isp.toml" in told
    assert [line.split()[:2] for line in told.splitlines() if line.startswith(("-lim", "+lim"))] == [
        ["-limits.rate", "30/s"],
        ["+limits.rate", "20/s"],
    ]
    assert "make docs" in told
    assert guide.written(page, screens) == SCREEN


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("since 2026-11-22 05:43:12 +01:00", "since 2025-01-02 23:59:59 -08:00", True),
        ("just now", "3 s ago", True),
        ("in 30 min", "in 2 h", True),
        ("a   b", "a b", True),
        ("waits 12", "waits 1,304", True),
        ("limits.rate = 2/s", "limits.rate = 3/s", False),
        ("policies/isp.toml:8", "policies/isp.toml:9", False),
        ("suspend", "slow", False),
    ],
)
def test_what_depends_on_the_moment_is_compared_by_its_form(shown: str, printed: str, is_same: bool):
    """Times always, numbers that stand alone where the page says so; limits and lines never."""
    step = guide.Step("screen", 0, "mta queue summary", (shown,), True)

    assert guide.Screen(step, (printed,)).is_same == is_same
