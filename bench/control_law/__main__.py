"""Compares the control law with what is commonly configured: prints the tables, draws the plot.

python -m bench.control_law          # prints them, half a minute
python -m bench.control_law --write  # and writes tables and plot into docs/decisions, one table into the guide
"""

import argparse
import re
from pathlib import Path

from bench.control_law import plot, sweep

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "decisions" / "0010-the-control-law.md"
GUIDE = DOCS / "guide" / "rehearsal.md"
GUIDE_TABLE = "recovery, in messages"


def tables() -> dict[str, list[list[str]]]:
    """All tables of the page, by the name that stands above them there."""
    made = {f"recovery, {severity}": sweep.recovery_table(severity) for severity in sweep.SEVERITIES}
    for penalty_s, name in ((600.0, "10 min"), (3600.0, "1 h")):
        made[f"rate, blocks for {name}"] = sweep.rate_table(penalty_s)
    made["rate, throttles"] = sweep.throttle_table()
    return made


def into_page(page: str, made: dict[str, list[list[str]]]) -> str:
    """The page with these tables in the places of the old ones."""
    for name, rows in made.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        table = (begin + sweep.markdown(rows) + end).replace("\\", r"\\")
        page, count = pattern.subn(table, page)
        assert count == 1, f"the page has no place for the table: {name}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.control_law", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write tables and plot into docs")
    arguments = parser.parse_args()
    made, in_guide = tables(), {GUIDE_TABLE: sweep.guide_table()}
    for name, rows in (made | in_guide).items():
        print(f"{name}\n\n{sweep.markdown(rows)}")
    if arguments.write:
        PAGE.write_text(into_page(PAGE.read_text("utf-8"), made), "utf-8")
        GUIDE.write_text(into_page(GUIDE.read_text("utf-8"), in_guide), "utf-8")
        charts = [plot.recovery_chart("lenient"), plot.recovery_chart("strict"), plot.rate_chart()]
        PAGE.with_suffix(".svg").write_text(plot.svg(charts), "utf-8")
        print(f"written: {PAGE.name}, {PAGE.with_suffix('.svg').name}, {GUIDE.name}")


if __name__ == "__main__":
    main()
