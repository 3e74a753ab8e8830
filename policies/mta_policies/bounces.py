"""Bounces: what kind of answer it is, in the seventeen categories that PowerMTA gave the field.

A labelled decision table in four parts, asked in this order; each answer has exactly one category.

1. Words of our own (a time-out, the DNS): `OWN`, else `ENHANCED`, else the stage; for we chose the code.
2. `TELLING`: words that say more than any code, for codes are used freely: a 552 5.2.2 may say "mailbox not found".
3. `ENHANCED`: the enhanced code (RFC 3463 and IANA's registry), where it is one that says something.
4. `FAINT`: words such as "rejected", and `CODES`: the bare code. Else the category is `other`.

A rule of a policy may class a reply otherwise (`category`). Hard is what will not change by waiting: an address that
does not exist, and only where it was refused for good.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from mta_policies.answers import Answer
from mta_policies.needles import needles

BAD_MAILBOX: Final = "bad-mailbox"
BAD_DOMAIN: Final = "bad-domain"
INACTIVE_MAILBOX: Final = "inactive-mailbox"
QUOTA_ISSUES: Final = "quota-issues"
NO_ANSWER: Final = "no-answer-from-host"
RELAYING: Final = "relaying-issues"
ROUTING: Final = "routing-errors"
BAD_CONNECTION: Final = "bad-connection"
INVALID_SENDER: Final = "invalid-sender"
CONTENT: Final = "content-related"
POLICY: Final = "policy-related"
PROTOCOL: Final = "protocol-errors"
SPAM: Final = "spam-related"
VIRUS: Final = "virus-related"
EXPIRED: Final = "message-expired"
BAD_CONFIGURATION: Final = "bad-configuration"
OTHER: Final = "other"

CATEGORIES: Final = {
    BAD_MAILBOX: "There is no such mailbox.",
    BAD_DOMAIN: "There is no such domain, or it takes no mail.",
    INACTIVE_MAILBOX: "The mailbox is there, but disabled or abandoned.",
    QUOTA_ISSUES: "The mailbox is full.",
    NO_ANSWER: "The host does not answer.",
    RELAYING: "The host does not feel responsible for the recipient's domain.",
    ROUTING: "The way there is not known, or it is a loop.",
    BAD_CONNECTION: "The connection broke, or the host is in trouble.",
    INVALID_SENDER: "The sender's address or domain is refused.",
    CONTENT: "The message as such: its size, its form, what is in it.",
    POLICY: "A rule of theirs: rates, authentication, reputation of nobody in particular.",
    PROTOCOL: "One of the two does not speak SMTP as the other expects.",
    SPAM: "Taken for spam, or the source is on a block list.",
    VIRUS: "Taken for a virus.",
    EXPIRED: "Given up after the time that the policy allows.",
    BAD_CONFIGURATION: "Something is set up wrongly, there or here.",
    OTHER: "Nothing of the above can be told from the answer.",
}
"""All categories, with what they mean."""

HARD: Final = frozenset({BAD_MAILBOX, BAD_DOMAIN, INACTIVE_MAILBOX})
"""The address itself is bad: with a permanent code nothing will ever arrive there."""

TEXT_CHARS_MAX = 500  # what a reply says it says early; the worst that a hostile one can be takes some milliseconds
_REMEMBERED = 512  # a storm repeats itself


class Category(NamedTuple):
    """What kind of answer it is."""

    name: str
    hard: bool


class Words(NamedTuple):
    """One row: words that make a category."""

    label: str
    category: str
    pattern: re.Pattern[str]
    """Searched for in the text in lower case."""
    codes: str = "45"
    """First digits of the codes for which it holds."""
    needles: tuple[str, ...] = ()
    """See `mta_policies.needles`."""


def _words(label: str, category: str, *patterns: str, codes: str = "45") -> Words:
    return Words(label, category, re.compile("|".join(patterns)), codes, needles(patterns))


_SOMEBODY = r"(?:user|mailbox|recipient|rcpt|address|account|addressee|e-?mail|inbox)"
_ABSENT = (
    r"(?:not (?:a )?(?:valid|known|found|exist|listed|here)|unknown|invalid|nonexistent|non-existent"
    r"|(?:does not|doesn.?t|did not|didn.?t|do not|don.?t) exist|no longer (?:valid|exists?|in use))"
)
_FULL = r"(?:full|over ?quota|over (?:its|their|the) (?:storage |disk )?(?:quota|limit)|out of (?:storage|space))"
_DEAD = r"(?:disabled|inactive|deactivated|suspended|not activ(?:e|ated)|expired|locked|terminated|abandoned|closed)"

TELLING: Final = (
    _words("a virus", VIRUS, r"\bvirus\b", r"\bmalware\b", r"\binfected\b", r"\btrojan\b"),
    _words(
        "too many unknown recipients: about the sender, not about one of them",
        POLICY,
        r"too many (?:\w+ )?(?:bad|invalid|unknown|illegal|nonexistent|non-existent|unavailable) ",
    ),
    _words(
        "a block list, by name or by what it is",
        SPAM,
        r"spamhaus|spamcop|barracudacentral|sorbs\.net|surbl|uribl|abuseat\.org|invaluement|spamrats|mailspike",
        r"\b(?:dns|r|u)bls?\b|\bblack ?list|\bblock ?list|\bdeny ?list",
        r"\blisted (?:in|by|at|on)\b",
    ),
    _words(
        "the sender's address or domain",
        INVALID_SENDER,
        r"(?:sender|return.path|mail from|envelope.from|from)(?:'s)?(?: e-?mail)?(?: address| domain)*(?: <?\S+@\S+>?)?"
        r":? (?:is |was |could not be |cannot be |does |has been )?(?:rejected|refused|invalid|unknown|verif\w+"
        r"|not (?:found|exist|valid|resolve|verified)|domain not found)",
        r"domain of (?:the )?sender (?:address )?.{0,120}(?:does not|doesn.?t|not) (?:exist|resolve)",
    ),
    _words(
        "relaying",
        RELAYING,
        r"\brelay(?:ing)?\b.{0,40}\b(?:denied|prohibited|not (?:permitted|allowed)|disabled|rejected|refused)",
        r"(?:unable|not (?:permitted|allowed|authori[sz]ed)|do(?:es)? not|don.?t|cannot|won.?t) (?:to )?relay",
        r"not in my list of allowed rcpthosts|not (?:a )?local (?:domain|host)|isn.?t in my list",
    ),
    _words(
        "a full mailbox",
        QUOTA_ISSUES,
        rf"{_SOMEBODY}\b.{{0,80}}\b{_FULL}\b",
        r"\bover ?quota\b|\bquota (?:is )?exceeded\b.{0,40}\b(?:mailbox|user|recipient)",
        rf"(?:exceed\w*|beyond) .{{0,30}}{_SOMEBODY}.{{0,20}}\b(?:quota|storage|size)",
        r"bo[iî]te.{0,60}pleine|postfach.{0,40}voll|casella.{0,40}piena|(?:buz[oó]n|caixa).{0,40}(?:lleno|chei[ao])",
    ),
    _words(
        "a mailbox that is no longer used",
        INACTIVE_MAILBOX,
        rf"{_SOMEBODY}\b(?: <?\S+@\S+>?| that you tried to reach)?:?"
        rf"(?: has| have| is| was| been| currently| temporarily)* {_DEAD}\b",
        rf"\b{_DEAD} (?:user|mailbox|recipient|account)\b",
    ),
    _words(
        "no such mailbox",
        BAD_MAILBOX,
        r"\b(?:no such|unknown|invalid|bad|nonexistent|non-existent|undeliverable|illegal)"
        r" (?:local |virtual |e-?mail )?(?:user|mailbox|recipient|rcpt|address|account|addressee|person|alias)",
        rf"\b{_SOMEBODY}s?(?: (?:address|account|name))?(?: <?\S+@\S+>?)?:?(?: or domain)?(?: that you tried to reach)?"
        rf"(?: is| was| are| has| been| were)* {_ABSENT}",
        r"no (?:mailbox|user) (?:here )?by that name|not our customer|validrcptto|badrcptto|no mailbox here",
        r"(?:doesn.?t|does not) have an? \S+ account",
        r"(?:recipient|user|address|mailbox) (?:not|cannot be|could not be) found",
        r"#5\.1\.0 address rejected",  # AsyncOS: the directory has no such address
        r"destinataire.{0,40}(?:invalide|inconnu)|empf[aä]nger.{0,30}unbekannt|unbekannte[rn]? empf",
        r"destinat[aá]rio.{0,30}(?:descon|scon|inval)",
    ),
    _words(
        "no such domain",
        BAD_DOMAIN,
        r"\b(?:no such|unknown|invalid|bad) domain\b",
        r"\bdomain(?: name)?(?: \S+)? (?:not found|does not exist|doesn.?t exist|unknown|retired|no longer in use)",
    ),
    _words(
        "a loop, or no way",
        ROUTING,
        r"\b(?:mail|routing|message) loop|\bloop(?:s|ing)? (?:back|detected)|too many hops|hop count",
        r"\bunrout(?:e)?able\b|\bno route to\b",
    ),
    _words(
        "size and form",
        CONTENT,
        r"message.{0,20}(?:too (?:large|big)|exceed\w* .{0,30}size)|size .{0,20}exceed|exceed\w* .{0,30}maximum size",
        r"(?:content|attachment|mime|header)s?.{0,40}(?:den(?:y|ied)|reject|refus|not (?:accept|allow|permit))",
        r"(?:content|attachment|mime|header)s?.{0,40}(?:missing|malformed|invalid|unaccept|block|restrict|prohibit)",
        r"messages? (?:is )?(?:missing|with(?:out)? (?:an? )?(?:valid )?(?:from|date|message-id))|multiple from",
        r"potential security issue",
    ),
    _words(
        "taken for spam",
        SPAM,
        r"\bspam|\bunsolicited\b|\bjunk\b|\bbulk (?:e-?)?mail|\bphish|\bcomplaints?\b|\breputation\b",
    ),
    _words(
        "too fast, too much at once, or later please",
        POLICY,
        r"\b(?:rate|frequency|volume|concurren\w+|connection)s?[ -]?(?:is |are )?(?:limit|control|exceed|restrict)",
        r"throttl|too (?:many|much|fast|quick|frequent)|unusual rate|receiving mail at a rate",
        r"max(?:imum)? messages? per connection|per.connection (?:message )?limit",
        r"(?:network|server|system) (?:is )?busy",
        r"\bexceed\w* .{0,60}(?:rate|limit|connections|messages|recipients)",
        r"gr[ea]y ?-?list|temporar\w+ (?:deferred|rate|blocked|reject|refus|suspended|throttled)|trop de connexions",
    ),
    _words(
        "not authenticated",
        POLICY,
        r"\b(?:spf|dkim|dmarc|arc|ptr|rdns|reverse dns|tls)\b|unauthenticated|authenticat|starttls",
    ),
    _words(
        "not the SMTP that was expected",
        PROTOCOL,
        r"bad sequence|syntax error|command (?:not|un)|unrecogni[sz]ed|\bbare (?:lf|cr)\b|line too long|pipelining",
    ),
    _words(
        "a connection that broke", BAD_CONNECTION, r"connection (?:reset|lost|timed|closed|dropped)|\btime-?d? ?out\b"
    ),
    _words("given up", EXPIRED, r"(?:message|delivery|retry).{0,30}\bexpired|retry timeout"),
)
"""Asked in this order; the first that is found decides."""

FAINT: Final = (
    _words(
        "a rule of theirs, whichever",
        POLICY,
        r"\bpolic(?:y|ies)\b|block|bann?ed|prohibit|not (?:allowed|permitted)|denied",
    ),
    _words("RFC 5321's own words for 550", BAD_MAILBOX, r"mailbox unavailable", codes="5"),
    _words(
        "refused, nobody says why",
        POLICY,
        r"reject|refus|not accept|restrict|suspicious|forbidden|unauthori[sz]ed|abuse",
    ),
    _words(
        "the host is in trouble",
        BAD_CONNECTION,
        r"(?:resource|service|system|server)s? (?:is |are )?(?:temporarily |currently )?(?:unavailable|not available)",
        codes="4",
    ),
    _words("busy", POLICY, r"try (?:again|later)|server (?:is )?busy|too busy|overload|deferred|come back|retry later"),
)
"""Asked only where no code says anything."""

ENHANCED: Final = {
    # RFC 3463 3.2: addresses
    (1, 1): BAD_MAILBOX,
    (1, 2): BAD_DOMAIN,
    (1, 3): BAD_MAILBOX,
    (1, 4): BAD_MAILBOX,
    (1, 6): BAD_MAILBOX,
    (1, 7): INVALID_SENDER,
    (1, 8): INVALID_SENDER,
    (1, 9): PROTOCOL,  # RFC 3886: relayed to a mailer that does not comply
    (1, 10): BAD_DOMAIN,  # RFC 7505: null MX
    # RFC 3463 3.3: mailboxes
    (2, 1): INACTIVE_MAILBOX,
    (2, 2): QUOTA_ISSUES,
    (2, 3): CONTENT,
    (2, 4): BAD_MAILBOX,
    # RFC 3463 3.4: the mail system
    (3, 1): QUOTA_ISSUES,
    (3, 3): CONTENT,
    (3, 4): CONTENT,
    (3, 5): BAD_CONFIGURATION,
    (3, 6): OTHER,  # RFC 6710: the priority was changed
    # RFC 3463 3.5: network and routing
    (4, 1): NO_ANSWER,
    (4, 2): BAD_CONNECTION,
    (4, 3): ROUTING,
    (4, 4): ROUTING,
    (4, 5): BAD_CONNECTION,
    (4, 6): ROUTING,
    (4, 7): EXPIRED,
    # RFC 3463 3.6: the dialogue
    (5, 1): PROTOCOL,
    (5, 2): PROTOCOL,
    (5, 3): POLICY,
    (5, 4): PROTOCOL,
    (5, 5): PROTOCOL,
    (5, 6): PROTOCOL,
    # RFC 3463 3.7 and RFC 6531: the content
    **{(6, detail): CONTENT for detail in range(11)},
    # RFC 3463 3.8: security and policy
    (7, 2): POLICY,
    (7, 3): CONTENT,
    (7, 4): CONTENT,
    (7, 5): CONTENT,
    (7, 6): CONTENT,
    (7, 7): CONTENT,
    (7, 8): BAD_CONFIGURATION,  # RFC 4954: credentials, TLS and mechanisms of AUTH
    (7, 9): BAD_CONFIGURATION,
    (7, 10): POLICY,
    (7, 11): POLICY,
    (7, 12): BAD_CONFIGURATION,
    (7, 13): INACTIVE_MAILBOX,  # RFC 5248
    (7, 14): BAD_CONFIGURATION,
    (7, 15): POLICY,  # RFC 6710
    (7, 16): CONTENT,
    (7, 17): INACTIVE_MAILBOX,  # RFC 7293: mailbox or domain have a new owner
    (7, 18): BAD_DOMAIN,
    (7, 19): POLICY,
    **{(7, detail): POLICY for detail in range(20, 27)},  # RFC 7372: DKIM, SPF, PTR
    (7, 27): INVALID_SENDER,  # RFC 7505: the sender's domain has a null MX
    (7, 28): SPAM,  # a flood of mail
    (7, 29): POLICY,  # RFC 8617: ARC
    (7, 30): POLICY,  # RFC 8689: REQUIRETLS
}
"""(subject, detail) of codes that say something. Left out: X.0.0, X.1.0, X.2.0, X.3.0, X.3.2, X.4.0, X.5.0, X.7.0 and
X.7.1, which are used for everything."""

VAGUE: Final = {1: OTHER, 2: OTHER, 3: OTHER, 4: BAD_CONNECTION, 5: PROTOCOL, 6: CONTENT, 7: POLICY}
"""By subject alone, where neither the detail nor any word says more."""

CODES: Final = {
    421: BAD_CONNECTION,
    452: QUOTA_ISSUES,
    **dict.fromkeys((500, 501, 502, 503, 504, 555), PROTOCOL),
    **dict.fromkeys((521, 530, 534, 535, 538, 454), POLICY),
    551: BAD_MAILBOX,
    552: QUOTA_ISSUES,
    556: BAD_DOMAIN,  # RFC 7504
}
"""RFC 5321 4.2.3. Not 550, 553 and 554: they mean anything, and a mailbox is not called bad without a word."""

OWN: Final = {
    (3, 0): BAD_CONFIGURATION,
    (5, 0): PROTOCOL,
    (7, 4): BAD_CONNECTION,  # no TLS, or none that can be trusted
    (7, 5): BAD_CONNECTION,
    (7, 20): BAD_CONFIGURATION,  # no key signs
}
"""Enhanced codes that mean something else, or more, where the words are ours; the others are as in `ENHANCED`."""

OWN_STAGES: Final = {
    "dns": ROUTING,
    "connect": NO_ANSWER,
    "starttls": BAD_CONNECTION,
    "local": BAD_CONFIGURATION,
}
"""What our own words are about where their code says nothing; at all other stages the connection."""


def classify(answer: Answer) -> Category:
    """The category by the table; a rule's `category` is for the caller to put over it."""
    name = _name(answer.code, answer.enhanced, answer.text[:TEXT_CHARS_MAX], answer.stage, answer.from_peer)
    return Category(name, answer.code >= 500 and name in HARD)


@lru_cache(maxsize=_REMEMBERED)
def _name(code: int, enhanced: str, text: str, stage: str, from_peer: bool) -> str:
    number = _subject_and_detail(enhanced)
    if not from_peer:
        return OWN.get(number) or ENHANCED.get(number) or OWN_STAGES.get(stage, BAD_CONNECTION)
    words, digit = text.lower(), str(code)[0]
    return (
        _found(TELLING, words, digit)
        or ENHANCED.get(number)
        or _found(FAINT, words, digit)
        or VAGUE.get(number[0])
        or CODES.get(code, OTHER)
    )


def _found(rows: tuple[Words, ...], text: str, digit: str) -> str:
    for _, category, pattern, codes, needed in rows:
        if needed:
            for needle in needed:
                if needle in text:
                    break
            else:
                continue
        if digit in codes and pattern.search(text):
            return category
    return ""


def _subject_and_detail(enhanced: str) -> tuple[int, int]:
    """(7, 28) of "4.7.28"; (0, 0) where there is none."""
    parts = enhanced.split(".")
    if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
        return int(parts[1]), int(parts[2])
    return 0, 0
