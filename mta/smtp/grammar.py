"""Grammar: the arguments of MAIL and RCPT, and the addresses in them (RFC 5321 4.1.2, RFC 6531 3.3).

There are two ways through. `quick_mail` and `quick_rcpt` know the form that nearly every command has, and take
it in one look; whatever else comes goes through `parse_mail` and `parse_rcpt`, which know the whole grammar.
A test proves that both ways say the same wherever the first one speaks.

What is decided here beyond the letter of the law:
- blanks between the colon and `<` are taken, since many applications send them and nothing else could be meant;
- an underscore in a domain, a trailing dot and an empty label are refused, as the grammar says;
- a quoted local part is given without its quotes where it needs none, else with the fewest backslashes;
- `a%b@c` and `a!b@c` are local parts and nothing more: no address is ever taken apart behind its grammar;
- `<postmaster>` is the postmaster of our own host name, which an admin may route like any other domain.
"""

import functools
import ipaddress
import re
import unicodedata

import idna
import msgspec

from mta.model.envelope import Recipient
from mta.smtp import replies

LOCAL_PART_BYTES_MAX = 64  # RFC 5321 4.5.3.1.1
DOMAIN_BYTES_MAX = 255  # RFC 5321 4.5.3.1.2
PATH_BYTES_MAX = 256  # RFC 5321 4.5.3.1.3, with < and >
LABEL_BYTES_MAX = 63  # RFC 1035 2.3.4
HELLO_BYTES_MAX = 255  # a domain or a literal; it goes into the Received line
GIVEN_ADDRESS_CHARS_MAX = 320  # of a refused address that is told on
DOMAIN_CACHE_ENTRIES_MAX = 8192  # domains seen most recently: most mail goes to a few thousand


class CommandError(Exception):
    """A command that is refused for its form; `reply` is the answer."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


class Mail(msgspec.Struct, frozen=True):
    """The arguments of MAIL."""

    sender: str
    """As it goes on the wire between < and >; "" for the null sender."""
    size_declared: int = 0
    """Bytes, 0 where not said (RFC 1870)."""
    body_8bit: bool = False
    smtputf8: bool = False


_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_QUICK_PATH = rb"<(" + _ATOM + rb"(?:\." + _ATOM + rb")*+@([A-Za-z0-9.-]++))>"
_QUICK_MAIL = re.compile(
    rb"(?i:MAIL FROM):" + _QUICK_PATH + rb"(?: (?i:SIZE)=([0-9]{1,20}))?( (?i:BODY=8BITMIME))?\r\n"
)
_QUICK_RCPT = re.compile(rb"(?i:RCPT TO):" + _QUICK_PATH + rb"\r\n")

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
# RFC 6531 3.3 adds everything beyond ASCII to an atom; we leave out the control characters of Latin-1.
_WIDE_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u00a0-\U0010ffff-]++"
_DOT_ATOM = re.compile(rf"{_WIDE_ATOM}(?:\.{_WIDE_ATOM})*+")
_DOTS_ANYWHERE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]++")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~\u00a0-\U0010ffff]|\\[ -~])*+)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_MAILBOX = r'("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^"\\@<>() ,:;]*+)@(\[[^\[\]\\<> ]*+\]|[^"\\@<>()\[\] ,:;]*+)'
_PATH = re.compile(rf" *<(?:(@[^<>\":]*+):)?+(?:{_MAILBOX}|([A-Za-z]*+))>(?: +(.*))?")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~\u00a0-\U0010ffff]++))?")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_UTF8_CONTROL = re.compile("[\x80-\x9f]")
_HELLO = re.compile(rb"[A-Za-z0-9._-]++|\[[A-Za-z0-9.:]++\]")


def routing_domain(domain: str) -> str:
    """What mail for `domain` is routed by: lower-case A-labels (RFC 5890 2.3.2.1) or a literal with its brackets.

    Raises ValueError where it is neither.
    """
    if domain.startswith("["):
        return _literal(domain)
    labels = []
    for label in domain.split("."):
        if label.isascii():
            name = label.lower()
            if not _LABEL.fullmatch(name):
                raise ValueError("label")
        elif len(label) > LABEL_BYTES_MAX:
            raise ValueError("label too long")
        else:
            # What people type in upper case or taken apart is meant as the same name (RFC 5895 2).
            name = idna.alabel(unicodedata.normalize("NFC", label.lower())).decode("ascii")
        if len(name) > LABEL_BYTES_MAX:
            raise ValueError("label too long")
        labels.append(name)
    routed = ".".join(labels)
    if len(routed) > DOMAIN_BYTES_MAX:
        raise ValueError("domain too long")
    return routed


@functools.lru_cache(maxsize=DOMAIN_CACHE_ENTRIES_MAX)
def _ascii_domain(domain: bytes) -> str:
    """The domain to route by, or "" where `domain`, plain ASCII, is none."""
    try:
        return routing_domain(domain.decode("ascii"))
    except ValueError:
        return ""


def _literal(domain: str) -> str:
    """An address literal in its one canonical form (RFC 5321 4.1.3); raises ValueError."""
    inside = domain[1:-1]
    if inside[:5].lower() == "ipv6:":
        if "%" in inside:
            raise ValueError("zone")
        return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
    return f"[{ipaddress.IPv4Address(inside)}]"


def _local_part(local: str, japan: bool) -> str:
    """The local part as it goes on the wire; raises ValueError."""
    if local.startswith('"'):
        if not (quoted := _QUOTED.fullmatch(local)):
            raise ValueError("quoted string")
        plain = _QUOTED_PAIR.sub(r"\1", quoted[1])
        local = plain if _DOT_ATOM.fullmatch(plain) else _quote(plain)
    elif not _DOT_ATOM.fullmatch(local):
        # In use at Japanese carriers since before 2009: dots at the end or side by side. Quoted, it is lawful.
        if not (japan and _DOTS_ANYWHERE.fullmatch(local)):
            raise ValueError("dot-atom")
        local = _quote(local)
    if len(local.encode()) > LOCAL_PART_BYTES_MAX:
        raise ValueError("local part too long")
    return local


def _quote(plain: str) -> str:
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _mailbox(local: str, domain: str, japan: bool) -> Recipient:
    """A mailbox in both its forms; raises ValueError."""
    routed = routing_domain(domain)
    address = f"{_local_part(local, japan)}@{domain}"
    if len(address.encode()) + 2 > PATH_BYTES_MAX:
        raise ValueError("path too long")
    return Recipient(address, routed)


def _source_route(route: str | None) -> None:
    """A source route is read, checked and dropped (RFC 5321 4.1.1.3); raises ValueError."""
    if route is not None:
        for hop in route.split(","):
            if not hop.startswith("@"):
                raise ValueError("source route")
            routing_domain(hop[1:])


def _parameters(text: str | None) -> dict[str, str | None]:
    """The words behind the path (RFC 5321 4.1.2); raises CommandError."""
    found: dict[str, str | None] = {}
    for word in (text or "").split(" "):
        if not word:
            continue
        parameter = _PARAMETER.fullmatch(word)
        if not parameter:
            raise CommandError(replies.BAD_PARAMETER)
        name = parameter[1].upper()
        if name in found:
            raise CommandError(replies.PARAMETER_TWICE)
        found[name] = parameter[2]
    return found


def _path(args: bytes, keyword: str) -> re.Match[str]:
    """Finds path and parameters behind `FROM:` or `TO:`; raises CommandError."""
    text = args.decode("utf-8")
    if text[: len(keyword)].upper() != keyword:
        raise CommandError(replies.BAD_SYNTAX)
    rest = text[len(keyword) :]
    found = _PATH.fullmatch(rest)
    if not found:
        # Nothing in angle brackets at all is a command gone wrong, anything else an address gone wrong.
        bad_address = replies.BAD_SENDER if keyword == "FROM:" else replies.BAD_RECIPIENT
        raise CommandError(bad_address if rest.lstrip(" ").startswith("<") else replies.BAD_SYNTAX)
    return found


def parse_mail(args: bytes, *, japan: bool = False) -> Mail:
    """Reads what stands behind `MAIL `: valid UTF-8 without control bytes and without blanks at its end.

    Raises CommandError.
    """
    found = _path(args, "FROM:")
    size_declared, body_8bit, smtputf8 = 0, False, False
    for name, value in _parameters(found[5]).items():
        if name == "SIZE":
            if value is None or not (value.isascii() and value.isdigit() and len(value) <= 20):
                raise CommandError(replies.BAD_PARAMETER)
            size_declared = int(value)
        elif name == "BODY":
            if value is None or (body := value.upper()) not in ("7BIT", "8BITMIME"):
                raise CommandError(replies.BAD_PARAMETER)
            body_8bit = body == "8BITMIME"
        elif name == "SMTPUTF8":
            if value is not None:
                raise CommandError(replies.BAD_PARAMETER)
            smtputf8 = True
        else:
            raise CommandError(replies.UNKNOWN_PARAMETER)
    if not smtputf8 and not args.isascii():
        raise CommandError(replies.NEEDS_SMTPUTF8)
    route, local, domain, word = found[1], found[2], found[3], found[4]
    try:
        if domain is None:
            if word or route is not None:
                raise ValueError("no mailbox")
            return Mail("", size_declared, body_8bit, smtputf8)
        _source_route(route)
        sender = _mailbox(local, domain, japan).address
    except ValueError:
        raise CommandError(replies.BAD_SENDER) from None
    return Mail(sender, size_declared, body_8bit, smtputf8)


def parse_rcpt(args: bytes, *, hostname: str, smtputf8: bool = False, japan: bool = False) -> Recipient:
    """Reads what stands behind `RCPT `: valid UTF-8 without control bytes and without blanks at its end.

    Raises CommandError.
    """
    found = _path(args, "TO:")
    if _parameters(found[5]):
        raise CommandError(replies.UNKNOWN_PARAMETER)  # NOTIFY and ORCPT come with DSN (RFC 3461)
    if not smtputf8 and not args.isascii():
        raise CommandError(replies.NEEDS_SMTPUTF8)
    route, local, domain, word = found[1], found[2], found[3], found[4]
    try:
        if domain is None:
            if word.lower() != "postmaster" or route is not None:  # RFC 5321 4.1.1.3
                raise ValueError("no mailbox")
            return _mailbox(word, hostname, japan)
        _source_route(route)
        return _mailbox(local, domain, japan)
    except ValueError:
        raise CommandError(replies.BAD_RECIPIENT) from None


def quick_mail(data: bytes, at: int) -> tuple[Mail, int] | None:
    """A MAIL command of the usual form that stands whole at `at`: what it says, and the index behind it."""
    found = _QUICK_MAIL.match(data, at)
    if found is None:
        return None
    address, domain, size, body = found.groups()
    if len(address) + 2 > PATH_BYTES_MAX or len(address) - len(domain) > LOCAL_PART_BYTES_MAX + 1:
        return None
    if not _ascii_domain(domain):
        return None
    return Mail(address.decode("ascii"), int(size) if size else 0, body is not None), found.end()


def quick_rcpt(data: bytes, at: int) -> tuple[Recipient, int] | None:
    """A RCPT command of the usual form that stands whole at `at`: what it says, and the index behind it."""
    found = _QUICK_RCPT.match(data, at)
    if found is None:
        return None
    address, domain = found.groups()
    if len(address) + 2 > PATH_BYTES_MAX or len(address) - len(domain) > LOCAL_PART_BYTES_MAX + 1:
        return None
    routed = _ascii_domain(domain)
    if not routed:
        return None
    return Recipient(address.decode("ascii"), routed), found.end()


def hello_name(args: bytes) -> str:
    """The name behind EHLO or HELO, safe to repeat in a trace line; raises CommandError.

    It is not held to the grammar of domains: hosts with underscores in their names say EHLO too, and no name may
    be refused for not being true (RFC 5321 4.1.4).
    """
    if len(args) > HELLO_BYTES_MAX or not _HELLO.fullmatch(args):
        raise CommandError(replies.BAD_HELLO)
    return args.decode("ascii")


def is_clean(command: bytes) -> bool:
    """Whether a command line, without its CRLF, is UTF-8 without control characters."""
    if _CONTROL.search(command):
        return False
    try:
        return command.isascii() or not _UTF8_CONTROL.search(command.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def address_as_given(args: bytes) -> str:
    """What a refused MAIL or RCPT said between its angle brackets, or after its colon, for those who are told."""
    text = args.decode("utf-8", "backslashreplace").partition(":")[2].strip()
    if text.startswith("<"):
        text = text[1:].partition(">")[0]
    return text[:GIVEN_ADDRESS_CHARS_MAX]
