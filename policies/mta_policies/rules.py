"""Rules: which rule of a policy an answer finds. The first that matches wins.

What a code, an enhanced code, a stage and a category rule out is looked up once for each combination and remembered;
hosts and regular expressions are looked at last, and only in the rules that are left.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mta_policies.answers import MESSAGE_STAGES, Answer
from mta_policies.match import Index
from mta_policies.needles import is_plain, needles
from mta_policies.rulebook import Rule, Trigger

TEXT_CHARS_MAX = 1_000  # of a reply; what is searched for in it may be written by anybody, and what it is in, too
_REMEMBERED_MAX = 1_000  # combinations; a peer may invent codes

PEER_STAGES = MESSAGE_STAGES | {"greeting", "ehlo", "starttls"}
"""Where the other side speaks."""


class Watch(NamedTuple):
    """A rule's trigger that hears all answers, and the scope that it counts by."""

    rule: str
    trigger: Trigger
    scope: str


class _Text(NamedTuple):
    """What is searched for."""

    pattern: re.Pattern[str]
    needles: tuple[str, ...]
    """See `mta_policies.needles`."""


class _Candidate(NamedTuple):
    rule: Rule
    hosts: Index | None
    texts: tuple[_Text, ...]


class Rules:
    """The rules of one policy, in their order."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._hosts = [_hosts(rule) for rule in rules]
        self._remembered: dict[tuple[int, str, str, bool, str], tuple[_Candidate, ...]] = {}
        self.in_order = tuple(rules)
        self.is_empty = not rules
        triggers = [(rule, rule.trigger_of(action), action.scope) for rule in rules for action in rule.then]
        self.triggers = {(rule.name, trigger) for rule, trigger, _ in triggers}
        """Of which counts are kept."""
        self.watches = tuple(
            dict.fromkeys(Watch(rule.name, trigger, scope) for rule, trigger, scope in triggers if trigger.hears_all)
        )
        """Who wants to be told of answers that do not match."""

    def find(self, answer: Answer, category: str) -> Rule | None:
        """The first rule that matches; `category`: as `bounces` classes the answer."""
        which = (answer.code, answer.enhanced, answer.stage, answer.from_peer, category)
        left = self._remembered.get(which)
        if left is None:
            left = self._left(answer, category)
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[which] = left
        text = answer.text if len(answer.text) <= TEXT_CHARS_MAX else answer.text[:TEXT_CHARS_MAX]
        words = text.lower() if is_plain(text) else None
        for rule, hosts, texts in left:
            if texts and not _is_found(texts, text, words):
                continue
            if hosts is None or hosts.find(answer.host.lower().rstrip(".")):
                return rule
        return None

    def _left(self, answer: Answer, category: str) -> tuple[_Candidate, ...]:
        """The rules that neither code nor stage nor category rule out, up to the first that takes whatever is left.
        Only their texts are compiled: most of what policies know no reply of this process ever comes to."""
        left: list[_Candidate] = []
        for rule, hosts in zip(self.in_order, self._hosts, strict=True):
            if _is_candidate(rule, answer, category):
                left.append(_Candidate(rule, hosts, tuple(map(_text, rule.when.text))))
                if not rule.when.text and hosts is None:
                    break
        return tuple(left)


def _hosts(rule: Rule) -> Index | None:
    if not rule.when.host:
        return None
    hosts = Index()
    hosts.add(rule.name, rule.when.host)
    return hosts


@lru_cache(maxsize=2048)
def _text(pattern: str) -> _Text:
    """Policies share default's rules, so each pattern is compiled once for all of them."""
    return _Text(re.compile(pattern, re.IGNORECASE), needles([pattern]))


def _is_found(texts: tuple[_Text, ...], text: str, words: str | None) -> bool:
    """Whether any of them is in a text; `words`: it in lower case, None where needles say nothing of it."""
    for pattern, needed in texts:
        if needed and words is not None:
            for needle in needed:
                if needle in words:
                    break
            else:
                continue
        if pattern.search(text):
            return True
    return False


def _is_candidate(rule: Rule, answer: Answer, category: str) -> bool:
    when = rule.when
    if when.stage:
        if answer.stage not in when.stage:
            return False
    elif not answer.from_peer or answer.stage not in PEER_STAGES:
        return False
    return (
        (not when.code or any(code_matches(pattern, answer.code) for pattern in when.code))
        and (not when.enhanced or any(enhanced_matches(pattern, answer.enhanced) for pattern in when.enhanced))
        and (not when.category or category in when.category)
    )


def code_matches(pattern: str, code: int) -> bool:
    """Whether a reply code is one of "421", "45x", "4xx"."""
    return str(code).startswith(pattern.rstrip("x")) and 200 <= code <= 599


def enhanced_matches(pattern: str, enhanced: str) -> bool:
    """Whether an enhanced code is one of "4.7.28", "4.7.*", "*.7.28"; no code is none of them."""
    parts = enhanced.split(".")
    return len(parts) == 3 and all(want in ("*", have) for want, have in zip(pattern.split("."), parts, strict=True))
