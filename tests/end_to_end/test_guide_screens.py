"""docs/guide/policies.md, done from beginning to end with a running server: it shows what is printed."""

from pathlib import Path

from docs import guide_screens as guide


async def test_the_guide_can_be_followed(tmp_path: Path):
    """Every file and every command of the tutorial, in its order."""
    screens = await guide.play_with_server(guide.PAGE.read_text("utf-8"), tmp_path)

    assert len(screens) > 10
    told = guide.differences(screens)
    assert not told, told
