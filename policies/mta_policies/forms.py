"""Forms: how each kind of value is written in a policy file, and the types that carry them.

A form reads what TOML gives and complains in the words of whoever wrote it; the tables in `schema` and `rulebook`
are built of these types.
"""

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta

from mta_policies import units
from mta_policies.answers import STAGES
from mta_policies.bounces import CATEGORIES
from mta_policies.located import Place, nearest
from mta_policies.reader import Form, form, shown, text_form
from mta_policies.units import MinuteWindow, Rate
from mta_policies.windows import Window, window

NAMED_STAGES: Final = tuple(stage for stage in STAGES if stage != "local")
"""What a rule may ask for: reasons of our own are no answers."""

WIDE_REPEATS_MAX = 1  # of `.*` and its like in one pattern: the second would take a hostile reply to a CPU second


# -- numbers with units --


def _read_rates(value: object, place: Place) -> tuple[Rate, ...]:
    del place
    if isinstance(value, str):
        return units.rates(value)
    if isinstance(value, list):
        return tuple(units.rate(one) for one in _texts(value))
    raise ValueError(f'expected a rate such as "100/min", a list of rates or "none", got {shown(value)}')


DURATION = text_form('a duration such as "5m"', units.duration_s, units.render_duration)
SIZE = text_form('a size such as "50MB"', units.size_bytes, units.render_size)
SHARE = text_form('a share such as "20%"', units.share, units.render_share)
MINUTES = text_form('minutes of the hour such as "*:58-*:04"', units.minute_window, str)
RATES = Form("rates", _read_rates, units.render_rates)


def _read_windows(value: object, place: Place) -> tuple[Window, ...]:
    del place
    return tuple(window(one) for one in _texts([value] if isinstance(value, str) else value))


WINDOWS = Form(
    "delivery windows", _read_windows, lambda windows: str(windows[0]) if len(windows) == 1 else [*map(str, windows)]
)


# -- names and patterns --


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"expected a text or a list of texts, got {shown(value)}")
    wrong = [one for one in value if not isinstance(one, str)]
    if wrong:
        raise ValueError(f"expected a text, got {shown(wrong[0])}")
    return value


def texts_form(name: str, read: Callable[[str], str]) -> Form[tuple[str, ...]]:
    """One text or a list of them, each read by `read`."""

    def read_all(value: object, place: Place) -> tuple[str, ...]:
        del place
        return tuple(read(text) for text in _texts([value] if isinstance(value, str) else value))

    return Form(name, read_all, lambda values: values[0] if len(values) == 1 else list(values))


def one_of(what: str, known: tuple[str, ...]) -> Callable[[str], str]:
    """Reads a name that must be a known one."""

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"{shown(text)} is not {what}{nearest(text, known)}")
        return text

    return read


def domain_pattern(pattern: str) -> str:
    """Lower case, in A-labels as far as they are ASCII; a star only as the whole first label."""
    clean = pattern.strip().rstrip(".").lower()
    rest = clean.removeprefix("*.")
    if not rest or "*" in rest or ".." in rest or rest.startswith(".") or any(c.isspace() or c == "@" for c in rest):
        raise ValueError(f'not a domain or pattern: {shown(pattern)}; write "example.com" or "*.example.com"')
    if not rest.isascii():
        raise ValueError(f"write {shown(pattern)} in its ASCII form, xn--...: that is what mail is routed by")
    return clean


def _number(value: object, place: Place) -> float:
    del place
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 100:
        raise ValueError(f"expected a number from 1 to 100, such as 2 or 1.5, got {shown(value)}")
    return float(value)


_CODE = re.compile(r"[2-5](?:[0-9][0-9x]|xx)", re.ASCII)
_ENHANCED = re.compile(r"(?:[245*x])(?:\.(?:\d{1,3}|[*x])){2}", re.ASCII)
_NAME = re.compile(r"[^\s/]{1,100}")


def code_pattern(text: str) -> str:
    """A reply code, an x for any digit at its end: "421", "45x", "4xx"."""
    clean = text.strip().lower()
    if not _CODE.fullmatch(clean):
        raise ValueError(f'not a reply code: {shown(text)}; write "421", "45x" or "4xx"')
    return clean


def enhanced_pattern(text: str) -> str:
    """An enhanced code, a star for any number in its place: "4.7.28", "4.7.*", "*.7.28"."""
    clean = text.strip().lower()
    if not _ENHANCED.fullmatch(clean):
        raise ValueError(f'not an enhanced code: {shown(text)}; write "4.7.28", "4.7.*" or "*.7.28"')
    return clean.replace("x", "*")


def rule_name(text: str) -> str:
    """Without blanks and strokes, so that commands can name it: NAME or POLICY/NAME."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"not a name: {shown(text)}; without blanks and /, at most 100 characters")
    return text


@lru_cache(maxsize=2048)
def search_pattern(text: str) -> str:
    """A regular expression that no reply can keep busy: whoever answers us chooses the text that it runs over. Every
    policy has default's, so each is looked at once."""
    try:
        re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {shown(text)}: {error}") from None
    if not text:
        raise ValueError("an empty regular expression is found in every reply; leave the key out")
    if trouble := _slowness(text):
        raise ValueError(f"a hostile reply could keep {shown(text)} busy: {trouble}")
    return text


_TOKEN = re.compile(
    r"(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<escape>\\.)|(?P<open>\((?:\?(?:P<\w+>|[aiLmsux-]*:|<?[=!]|>))?)|(?P<close>\))"
    r"|(?P<repeat>[*+?]|\{\d*,?\d*\})|(?P<any>\.)|(?P<or>\|)|(?P<other>.)",
    re.DOTALL,
)
_WIDE = re.compile(r"\[\^|\[?\\[SwDW]")  # matches almost anything
_LONG_REPEAT = 10  # so many repetitions of what can be matched in several ways are as good as any number
_ENDLESS_REPEAT = 100  # so many of almost anything are as good as `.*`


def _slowness(pattern: str) -> str:
    """Why a pattern may take more than quadratic time, what is bounded left aside; "" where it may not.

    A repeated group that holds a repetition or alternatives can take exponential time; several repetitions of almost
    anything multiply.
    """
    groups = [False]  # of each open group: whether what it holds can be matched in several ways
    wide, before, closed = 0, "", False
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "open":
            groups.append(False)
        elif kind == "or":
            groups[-1] = True
            wide = 0 if len(groups) == 1 else wide  # alternatives of the whole are searched one after the other
        elif kind == "close" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] |= closed
        elif kind == "repeat" and _most(token[0]) > _LONG_REPEAT:
            if before == "close" and closed:
                return "a repetition of repetitions or alternatives"
            groups[-1] = True
            wide += before in ("any", "wide") and _most(token[0]) > _ENDLESS_REPEAT
            if wide > WIDE_REPEATS_MAX:
                return "two times .* or the like; .{0,60} is taken"
        before = kind or ""
        if kind in ("class", "escape") and _WIDE.match(token[0]):
            before = "wide"
    return ""


def _most(repeat: str) -> float:
    """How often at most."""
    if repeat == "?":
        return 1
    low, comma, high = repeat.strip("*+{}").partition(",")
    most = high if comma else low
    return int(most) if most else math.inf


FACTOR = Form("a number such as 1.5", _number, lambda value: int(value) if value == int(value) else value)
DOMAIN_PATTERN = text_form("a domain or a pattern", domain_pattern, str)
RULE_NAME = text_form("a name", rule_name, str)
TEXTS = texts_form("texts", str)
DOMAIN_PATTERNS = texts_form("domains or patterns", domain_pattern)
CODE_PATTERNS = texts_form("reply codes", code_pattern)
ENHANCED_PATTERNS = texts_form("enhanced codes", enhanced_pattern)
SEARCH_PATTERNS = texts_form("regular expressions", search_pattern)
STAGE_NAMES = texts_form("stages", one_of("a stage", NAMED_STAGES))
STAGE_NAME = text_form("a stage", one_of("a stage", NAMED_STAGES), str)
CATEGORY_NAMES = texts_form("categories", one_of("a category", tuple(CATEGORIES)))
CATEGORY_NAME = text_form("a category", one_of("a category", tuple(CATEGORIES)), str)

Seconds = Annotated[float, form(DURATION)]
Bytes = Annotated[int, form(SIZE)]
Factor = Annotated[float, form(FACTOR)]
Share = Annotated[float, form(SHARE)]
Rates = Annotated[tuple[Rate, ...], form(RATES)]
Texts = Annotated[tuple[str, ...], form(TEXTS)]
Windows = Annotated[tuple[Window, ...], form(WINDOWS)]
Minutes = Annotated[MinuteWindow, form(MINUTES)]
DomainPattern = Annotated[str, form(DOMAIN_PATTERN)]
DomainPatterns = Annotated[tuple[str, ...], form(DOMAIN_PATTERNS)]
Codes = Annotated[tuple[str, ...], form(CODE_PATTERNS)]
EnhancedCodes = Annotated[tuple[str, ...], form(ENHANCED_PATTERNS)]
SearchPatterns = Annotated[tuple[str, ...], form(SEARCH_PATTERNS)]
StageNames = Annotated[tuple[str, ...], form(STAGE_NAMES)]
StageName = Annotated[str, form(STAGE_NAME)]
CategoryNames = Annotated[tuple[str, ...], form(CATEGORY_NAMES)]
CategoryName = Annotated[str, form(CATEGORY_NAME)]
RuleName = Annotated[str, form(RULE_NAME)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
