"""docs/guide/rehearsal.md shows what the commands print."""

from pathlib import Path

from docs import guide_screens as guide


def test_the_screens_of_rehearsals_are_what_is_printed(tmp_path: Path):
    """Files are written and commands are typed in the order of the page."""
    screens = guide.play_alone(guide.REHEARSAL.read_text("utf-8"), tmp_path)

    assert len(screens) > 1
    assert guide.differences(screens) == ""
