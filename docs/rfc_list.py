"""Which RFC is obeyed where: lists the citations in the code as docs/rfc.md. `make docs` writes it, a test compares.

A citation has one form, `RFC 5321 4.5.2` or `RFC 6409`: the number, then the section, nothing between them.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "docs" / "rfc.md"
PLACES = ("mta", "queue", "policies")
CITATION = re.compile(r"\bRFC (\d{3,5})(?: ((?:\d+|[A-Z]\.\d+)(?:\.\d+)*)(?![\w%]))?")
_ANY_FORM = re.compile(r"\brfc[\s_-]*\d{3,5}[^\n]{0,12}", re.IGNORECASE)
_RIGHT_FORM = re.compile(r"RFC \d{3,5}(?!\d)(?!,? ?(?:§|[Ss]ec(?:\b|tion|\.)|[Aa]pp(?:\b|endix|\.)|chapter))")

# More than are cited today, so that a new citation seldom stops at its title.
TITLES = {
    791: "Internet Protocol",
    919: "Broadcasting Internet datagrams",
    1034: "Domain names: concepts and facilities",
    1035: "Domain names: implementation and specification",
    1112: "Host extensions for IP multicasting",
    1122: "Requirements for Internet hosts: communication layers",
    1123: "Requirements for Internet hosts: application and support",
    1652: "SMTP service extension for 8bit-MIME transport",
    1870: "SMTP service extension for message size declaration",
    1918: "Address allocation for private internets",
    1939: "Post Office Protocol, version 3",
    2034: "SMTP service extension for returning enhanced error codes",
    2045: "MIME part one: format of message bodies",
    2181: "Clarifications to the DNS specification",
    2308: "Negative caching of DNS queries",
    2369: "The use of URLs as meta-syntax for core mail list commands",
    2544: "Benchmarking methodology for network interconnect devices",
    2765: "Stateless IP/ICMP translation algorithm",
    2782: "A DNS RR for specifying the location of services",
    2821: "Simple Mail Transfer Protocol (of 2001)",
    2919: "List-Id",
    2920: "SMTP service extension for command pipelining",
    2928: "Initial IPv6 sub-TLA ID assignments",
    3030: "SMTP service extensions for large and binary messages",
    3056: "Connection of IPv6 domains via IPv4 clouds",
    3068: "An anycast prefix for 6to4 relay routers",
    3207: "SMTP service extension for secure SMTP over TLS",
    3330: "Special-use IPv4 addresses",
    3339: "Date and time on the Internet: timestamps",
    3461: "SMTP service extension for delivery status notifications",
    3462: "The multipart/report content type (of 2003)",
    3463: "Enhanced mail system status codes",
    3464: "An extensible message format for delivery status notifications",
    3490: "Internationalizing domain names in applications",
    3492: "Punycode",
    3629: "UTF-8",
    3834: "Automatic responses to electronic mail",
    3848: "ESMTP and LMTP transmission types registration",
    3849: "IPv6 address prefix reserved for documentation",
    3879: "Deprecating site local addresses",
    3886: "An extensible message format for message tracking responses",
    3927: "Dynamic configuration of IPv4 link-local addresses",
    3986: "Uniform Resource Identifier: generic syntax",
    4193: "Unique local IPv6 unicast addresses",
    4291: "IP version 6 addressing architecture",
    4343: "DNS case insensitivity",
    4380: "Teredo",
    4468: "Message submission BURL extension",
    4592: "The role of wildcards in the DNS",
    4648: "Base16, base32 and base64 data encodings",
    4865: "SMTP submission service extension for future message release",
    4954: "SMTP service extension for authentication",
    5077: "TLS session resumption without server-side state",
    5156: "Special-use IPv6 addresses",
    5180: "IPv6 benchmarking methodology for network interconnect devices",
    5198: "Unicode format for network interchange",
    5234: "Augmented BNF for syntax specifications",
    5248: "A registry for SMTP enhanced mail system status codes",
    5321: "Simple Mail Transfer Protocol",
    5322: "Internet message format",
    5424: "The syslog protocol",
    5452: "Measures for making DNS more resilient against forged answers",
    5735: "Special use IPv4 addresses",
    5736: "IANA IPv4 special purpose address registry",
    5737: "IPv4 address blocks reserved for documentation",
    5771: "IANA guidelines for IPv4 multicast address assignments",
    5890: "Internationalized domain names for applications: definitions",
    5891: "Internationalized domain names for applications: protocol",
    5895: "Mapping characters for IDNA 2008",
    5952: "A recommendation for IPv6 address text representation",
    6052: "IPv6 addressing of IPv4/IPv6 translators",
    6066: "TLS extensions: definitions",
    6125: "Verification of domain-based application service identity in TLS",
    6146: "Stateful NAT64",
    6152: "SMTP service extension for 8-bit MIME transport",
    6376: "DomainKeys Identified Mail signatures",
    6409: "Message submission for mail",
    6522: "The multipart/report media type",
    6530: "Overview and framework for internationalized email",
    6531: "SMTP extension for internationalized email",
    6532: "Internationalized email headers",
    6533: "Internationalized delivery status and disposition notifications",
    6598: "IANA-reserved IPv4 prefix for shared address space",
    6647: "Email greylisting: an applicability statement for SMTP",
    6666: "A discard prefix for IPv6",
    6672: "DNAME redirection in the DNS",
    6710: "SMTP extension for message transfer priorities",
    6761: "Special-use domain names",
    6762: "Multicast DNS",
    6890: "Special-purpose IP address registries",
    6891: "Extension mechanisms for DNS",
    7208: "Sender Policy Framework",
    7293: "The Require-Recipient-Valid-Since header field and SMTP service extension",
    7335: "IPv4 service continuity prefix",
    7343: "ORCHIDv2",
    7372: "Email authentication status codes",
    7435: "Opportunistic security",
    7450: "Automatic multicast tunneling",
    7489: "DMARC",
    7504: "SMTP 521 and 556 reply codes",
    7505: "A null MX resource record for domains that accept no mail",
    7526: "Deprecating the anycast prefix for 6to4 relay routers",
    7534: "AS112 nameserver operations",
    7672: "SMTP security via opportunistic DANE TLS",
    7766: "DNS transport over TCP",
    7817: "Updated TLS server identity check for email",
    7873: "DNS cookies",
    8017: "PKCS #1: RSA cryptography",
    8020: "NXDOMAIN: there really is nothing underneath",
    8058: "Signaling one-click functionality for list email headers",
    8155: "TURN server auto discovery",
    8190: "Updates to the special-purpose IP address registries",
    8215: "Local-use IPv4/IPv6 translation prefix",
    8301: "Cryptographic algorithm and key usage update to DKIM",
    8314: "Use of TLS for email submission and access",
    8446: "TLS 1.3",
    8460: "SMTP TLS reporting",
    8461: "SMTP MTA Strict Transport Security",
    8463: "A new cryptographic signature method for DKIM",
    8482: "Providing minimal-sized responses to DNS queries of type ANY",
    8601: "Message header field for message authentication status",
    8617: "The Authenticated Received Chain (ARC) protocol",
    8689: "SMTP require TLS option",
    8767: "Serving stale data to improve DNS resiliency",
    9325: "Recommendations for secure use of TLS and DTLS",
    9422: "The LIMITS SMTP service extension",
    9525: "Service identity in TLS",
    9602: "SRv6 segment identifiers in the IPv6 addressing architecture",
    9637: "Expanding the IPv6 documentation space",
}


def files(root: Path = ROOT) -> Iterator[Path]:
    """The files whose citations count, in order."""
    for place in PLACES:
        yield from sorted(path for kind in ("*.py", "*.toml", "*.md") for path in (root / place).rglob(kind))


def citations(text: str) -> set[tuple[int, str]]:
    """Every (number, section) that a text cites; the section is "" for an RFC as a whole."""
    return {(int(number), section) for number, section in CITATION.findall(text)}


def malformed(text: str) -> list[str]:
    """Citations in another form than the one that this list understands."""
    return [found[0] for found in _ANY_FORM.finditer(text) if not _RIGHT_FORM.match(found[0])]


def render(root: Path = ROOT) -> str:
    """docs/rfc.md. Raises LookupError where TITLES lacks the title of an RFC."""
    found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in files(root):
        for number, section in citations(path.read_text("utf-8")):
            found[number][section].append(path.relative_to(root).as_posix())
    if untitled := sorted(found.keys() - TITLES.keys()):
        raise LookupError(f"docs/rfc_list.py: TITLES has no title yet for RFC {', '.join(map(str, untitled))}")
    out = [
        "# The law, and where it is obeyed",
        "",
        "Written by `make docs` from the citations in the code; not by hand.",
    ]
    for number in sorted(found):
        out += ["", f"## [RFC {number}](https://www.rfc-editor.org/rfc/rfc{number}): {TITLES[number]}", ""]
        out += ["| section | where |", "|---|---|"]
        for section in sorted(found[number], key=_in_order):
            out.append(f"| {section or 'as a whole'} | {', '.join(f'`{path}`' for path in found[number][section])} |")
    return "\n".join(out) + "\n"


def _in_order(section: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (1_000, part) for part in section.split(".") if part]


def main() -> int:
    """Writes docs/rfc.md."""
    try:
        LIST.write_text(render(), "utf-8")
    except LookupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
