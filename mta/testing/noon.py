"""Noon: a place where the day is far from its end, for tests that count by days or months on the real clock."""

import time


def noon_zone(now_s: float | None = None) -> str:
    """A time zone in which it is between 12:00 and 13:00. `now_s`: Unix seconds, None: now."""
    return f"Etc/GMT{time.gmtime(now_s).tm_hour - 12:+d}"  # their signs are those of POSIX: behind Greenwich is +
