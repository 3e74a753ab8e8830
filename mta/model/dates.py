"""Dates as mail writes them: RFC 5322 3.3, always in UTC."""

from datetime import UTC, datetime

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_last: tuple[int, bytes] = (-1, b"")


def mail_date(wall_s: float) -> bytes:
    """`Sun, 22 Nov 2026 02:57:26 +0000` for Unix seconds; the last second's text is kept, most mail comes within it."""
    global _last  # noqa: PLW0603 - one remembered value, the same for all callers
    second = int(wall_s)
    if _last[0] == second:
        return _last[1]
    at = datetime.fromtimestamp(second, UTC)
    text = (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year} "
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} +0000"
    ).encode()
    _last = (second, text)
    return text


def date_header(wall_s: float) -> bytes:
    """A Date field with its line end."""
    return b"Date: " + mail_date(wall_s) + b"\r\n"
