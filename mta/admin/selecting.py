"""Selecting: what a request asks for, read from its query or its body. Pure; whatever is wrong is a ValueError with
one sentence for whoever asked.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from mta.admin.pages import BY_CHARS_MAX, REASON_CHARS_MAX, Cursor, Wish
from mta.model.selection import Selection
from mta.reporting.waiting import LIST_MAX
from mta_policies.located import nearest
from mta_policies.units import DURATION_S_MAX, duration_s

T = TypeVar("T")

CRITERION_CHARS_MAX = 1_000  # an address has at most 320
STARS_MAX = 8  # in one pattern: more is a slip, and costs time with every recipient
LIMIT_DEFAULT = 100
SUSPENSION_S_MAX = 366 * 86400.0  # who wants it for longer wants a policy
_TEXTS = tuple(name for name in Selection.__struct_fields__ if name not in ("older_than_s", "all"))
_YES = frozenset({"", "1", "true", "yes"})
_NO = frozenset({"0", "false", "no"})


class Acting(Selection, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /queue/VERB`: a selection, and who asks."""

    by: str = "admin"
    notify: bool = False
    """Of `cancel`: tell the senders."""
    cursors: list[Cursor] | None = None
    """Where each worker is; None: the answer comes when all is done, else after some seconds."""

    def selection(self) -> Selection:
        """What it selects."""
        return checked(Selection(*(getattr(self, name) for name in Selection.__struct_fields__)))


class Paging(msgspec.Struct, frozen=True):
    """Which part of a list."""

    limit: int = LIMIT_DEFAULT
    after: str = ""


def selection_of(query: Mapping[str, str], *, besides: tuple[str, ...] = ()) -> Selection:
    """The selection in a query, `?domain=a.test&older_than=2h`; without any criterion everything, for looking only."""
    values: dict[str, object] = {}
    for key, text in query.items():
        name = key.replace("-", "_")
        if name in besides:
            continue
        if name in _TEXTS:
            values[name] = text
        elif name == "older_than":
            values["older_than_s"] = duration_s(text)
        elif name == "older_than_s":
            values[name] = _number(name, text)
        elif name == "all":
            if text.lower() not in _YES | _NO:
                raise ValueError(f'not yes or no: all={_shown(text)}; write "true" or leave it out')
            values[name] = text.lower() in _YES
        else:
            known = [*_TEXTS, "older_than", "all", *besides]
            raise ValueError(f"there is no criterion {_shown(key)}{nearest(key, known)}")
    return checked(msgspec.convert(values, Selection) if any(values.values()) else Selection(all=True))


def checked(selection: Selection) -> Selection:
    """The selection, with `all` only where it stands alone; raises ValueError where a criterion cannot be meant."""
    for name in _TEXTS:
        value = getattr(selection, name)
        if len(value) > CRITERION_CHARS_MAX:
            raise ValueError(f"{name} is longer than {CRITERION_CHARS_MAX} characters")
        if value.count("*") > STARS_MAX:
            raise ValueError(f'{name} has more than {STARS_MAX} "*"')
    if not 0 <= selection.older_than_s <= DURATION_S_MAX:
        raise ValueError("older_than_s must be from 0 to ten years")
    if selection.all and selection != Selection(all=True):
        return msgspec.structs.replace(selection, all=False)
    return selection


def acting_from(body: bytes) -> Acting:
    """The body of an action; one that selects nothing is a mistake, not everything."""
    acting = decoded(body, Acting)
    _refuse_empty(msgspec.json.decode(body))
    if acting.selection().is_empty:
        raise ValueError('nothing is selected: give a criterion, or "all": true')
    return msgspec.structs.replace(acting, by=who(acting.by))


def wish_from(body: bytes) -> Wish:
    """The body of a new suspension."""
    wish = decoded(body, Wish)
    _refuse_empty(msgspec.json.decode(body)["selection"])
    selection = checked(wish.selection)
    if selection.is_empty:
        raise ValueError('nothing is selected: give a criterion, or "all": true')
    length_s(wish.for_s)
    reason(wish.reason)
    return msgspec.structs.replace(wish, selection=selection, by=who(wish.by))


def paging_of(query: Mapping[str, str]) -> Paging:
    """`limit` and `after` of a query."""
    limit = query.get("limit", str(LIMIT_DEFAULT))
    if not (limit.isascii() and limit.isdigit()) or not 1 <= int(limit[:10]) <= LIST_MAX:
        raise ValueError(f"limit must be a number from 1 to {LIST_MAX}")
    return Paging(int(limit), query.get("after", "")[:CRITERION_CHARS_MAX])


def decoded(body: bytes, kind: type[T]) -> T:
    """A body as what is expected."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not what is expected: {error}") from None


def _refuse_empty(selection: Mapping[str, object]) -> None:
    """What is empty by a slip of the asking program must not widen what is meant."""
    for name in _TEXTS:
        if selection.get(name) == "":
            raise ValueError(f"{name} is empty: say which, or leave it out")


def who(by: str) -> str:
    """Who asks, as the event log tells it; ValueError where that is too long."""
    if len(by) > BY_CHARS_MAX:
        raise ValueError(f"by is longer than {BY_CHARS_MAX} characters")
    return by or "admin"


def reason(text: str) -> str:
    """Why, as the event log tells it; ValueError where that is too long."""
    if len(text) > REASON_CHARS_MAX:
        raise ValueError(f"the reason is longer than {REASON_CHARS_MAX} characters")
    return text


def length_s(for_s: float) -> float:
    """For how long something is to hold; ValueError where nobody can mean that."""
    if not 0 < for_s <= SUSPENSION_S_MAX:
        raise ValueError(f"for_s must be over 0 and at most {SUSPENSION_S_MAX:.0f}: a year")
    return for_s


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"not a number: {name}={_shown(text)}") from None


def _shown(text: str) -> str:
    return f'"{text[:60]}"'
