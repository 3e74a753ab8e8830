"""`mta dkim`: makes keys, shows what to publish for them, and asks the DNS whether it is published.

`keygen` writes a private key that nobody else can read and never overwrites a file; `txt` prints the TXT records of a
key file or of all keys of the configuration; `check` compares them with what the configured nameservers say, and lets
dkimpy verify a sample that each key signs.
"""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta import config
from mta.cli import EXIT_DONE, EXIT_USAGE, EXIT_WRONG, Subparsers
from mta.config import Config
from mta.signing.keyring import KeyPlace, KeyRing
from mta.signing.keys import RSA_BITS_MAX, RSA_BITS_MIN, KeyFileError, SigningKey, key_of, load_key
from mta.signing.published import faults, record_name
from mta.smtp.grammar import routing_domain

KEYS = "keys"
"""Where new keys go: a folder that only its owner can look into."""
RSA_BITS = (
    2048  # what every receiver checks; longer keys do not fit one string of a TXT record and cost four times more
)
TXT_STRING_BYTES_MAX = 255  # RFC 1035 3.3.14
QUESTIONS_AT_ONCE = 20
QUESTION_TIMEOUT_S = 10.0

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")


class Checked(NamedTuple):
    """What the DNS says of a key."""

    key: SigningKey
    records: list[str]
    faults: list[str]


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "dkim",
        help="make signing keys, and see that they are published",
        description="Makes keys that mail is signed with (DKIM), shows the TXT records to publish, and checks them.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument("--config", metavar="FILE", default=config.DEFAULT_FILE, help="default: %(default)s")

    keygen = actions.add_parser(
        "keygen",
        parents=[common],
        help="make a private key",
        description="Makes a private key, readable for you alone, and prints the TXT record to publish.",
    )
    keygen.add_argument("domain", metavar="DOMAIN", type=_domain, help="the domain that signs")
    keygen.add_argument("selector", metavar="SELECTOR", type=_selector, help="a name for the key, such as s2026")
    keygen.add_argument("--algorithm", choices=("rsa", "ed25519"), default="rsa", help="default: %(default)s")
    keygen.add_argument("--bits", type=_bits, metavar="N", help=f"of an RSA key; default: {RSA_BITS}")
    keygen.add_argument("--out", type=Path, metavar="FILE", help="default: keys/DOMAIN.SELECTOR.pem; never overwritten")
    keygen.set_defaults(run=run_keygen)

    txt = actions.add_parser(
        "txt",
        parents=[common, configured],
        help="show the TXT records to publish",
        description="Shows the TXT record of a private key, or those of all keys of the configuration, as zone files "
        "have them.",
    )
    txt.add_argument("file", metavar="FILE", type=Path, nargs="?", help="a private key; left out: all of --config")
    txt.add_argument("--domain", metavar="DOMAIN", type=_domain, help="of the key in FILE")
    txt.add_argument("--selector", metavar="SELECTOR", type=_selector, help="of the key in FILE")
    txt.add_argument("--value", action="store_true", help="only the value, in one piece: for the forms of web pages")
    txt.set_defaults(run=run_txt)

    check = actions.add_parser(
        "check",
        parents=[common, configured],
        help="ask the DNS whether the keys are published",
        description="Asks the configured nameservers whether what is published fits each key. Exit status 1: it does "
        "not for one of them.",
    )
    check.add_argument("domain", metavar="DOMAIN", type=_domain, nargs="?", help="only keys of this domain")
    check.set_defaults(run=run_check)


def _domain(text: str) -> str:
    try:
        domain = routing_domain(text.rstrip("."))
    except (ValueError, UnicodeError):
        domain = "["
    if domain.startswith("["):
        raise argparse.ArgumentTypeError(f"{text!r} is not a domain")
    return domain


def _selector(text: str) -> str:
    if _SELECTOR.fullmatch(text) is None or ".." in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a selector: letters, digits, hyphens and dots")
    return text


def _bits(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not RSA_BITS_MIN <= int(text) <= RSA_BITS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: receivers check RSA keys of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
    return int(text)


# -- keygen --


def run_keygen(args: argparse.Namespace) -> int:
    """Writes the key; prints where it went and what to publish."""
    if args.algorithm != "rsa" and args.bits is not None:
        print("mta dkim keygen: --bits is for RSA keys only; an Ed25519 key has one size", file=sys.stderr)
        return EXIT_USAGE
    path: Path = args.out or Path(KEYS, f"{args.domain}.{args.selector}.pem")
    pem = new_pem(args.algorithm, args.bits or RSA_BITS)
    try:
        if args.out is None:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        _write_key(path, pem)
    except FileExistsError:
        print(
            f"mta dkim keygen: {path} is there already and is left as it is; name another with --out", file=sys.stderr
        )
        return EXIT_WRONG
    except OSError as error:
        print(f"mta dkim keygen: {path}: {error.strerror}", file=sys.stderr)
        return EXIT_WRONG
    key = key_of(pem, args.domain, args.selector)
    if args.json:
        print(json.dumps({"file": str(path), **_record_object(key)}))
        return EXIT_DONE
    print(f"The private key is in {path}, readable for you alone. Publish this record:\n")
    print(zone_line(key))
    print("\nThen sign with it:\n")
    print(f'[[dkim]]\ndomain = "{key.domain}"\nselector = "{key.selector}"\nkey = {json.dumps(str(path.absolute()))}')
    print(f"\nand see with `mta dkim check {key.domain}` that the record is there.")
    return EXIT_DONE


def new_pem(algorithm: str, bits: int) -> bytes:
    """A fresh private key as PKCS#8; `bits` counts for "rsa" only."""
    is_rsa = algorithm == "rsa"
    private = rsa.generate_private_key(65_537, bits) if is_rsa else ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_key(path: Path, pem: bytes) -> None:
    """Whole or not at all, and never over another file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(file, "wb") as stream:
            stream.write(pem)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


# -- txt --


def run_txt(args: argparse.Namespace) -> int:
    """Prints the records."""
    if args.file is None and (args.domain or args.selector):
        print("mta dkim txt: --domain and --selector say whose key FILE is; name the FILE", file=sys.stderr)
        return EXIT_USAGE
    try:
        if args.file is not None:
            keys = [load_key(args.file, args.domain or "DOMAIN", args.selector or "SELECTOR")]
        else:
            keys = list(configured_keys(config.load(args.config)))
    except KeyFileError as error:
        print(f"mta dkim txt: {error}", file=sys.stderr)
        return EXIT_WRONG
    if args.json:
        print(json.dumps([_record_object(key) for key in keys], indent=2))
        return EXIT_DONE
    if not keys:
        print(f"{args.config} names no keys; `mta dkim keygen` makes one", file=sys.stderr)
        return EXIT_WRONG
    for key in keys:
        print(key.public_record() if args.value else zone_line(key))
    return EXIT_DONE


def configured_keys(loaded: Config) -> Iterator[SigningKey]:
    """All keys of the configuration; raises KeyFileError for one that cannot be used."""
    places = [KeyPlace(key.domain, key.selector, key.key, key.sign == "always") for key in loaded.dkim]
    yield from KeyRing(places, loaded.signing.directory, loaded.signing.unsigned).every_key()


def txt_strings(value: str) -> list[str]:
    """The value as a TXT record holds it: strings that receivers join without a blank (RFC 6376 3.6.2.2)."""
    return [value[at : at + TXT_STRING_BYTES_MAX] for at in range(0, len(value), TXT_STRING_BYTES_MAX)]


def zone_line(key: SigningKey) -> str:
    """The record as zone files have it, a string a line."""
    quoted = [f'"{string}"' for string in txt_strings(key.public_record())]
    start = f"{record_name(key)}. IN TXT"
    return f"{start} {quoted[0]}" if len(quoted) == 1 else "\n    ".join([f"{start} (", *quoted]) + " )"


def _record_object(key: SigningKey) -> dict[str, object]:
    value = key.public_record()
    return {
        "name": record_name(key),
        "type": "TXT",
        "value": value,
        "strings": txt_strings(value),
        "algorithm": key.algorithm,
    }


# -- check --


def run_check(args: argparse.Namespace) -> int:
    """Prints a line a key and what is wrong with it; 1 where anything is, or there is no key to check."""
    loaded = config.load(args.config)
    try:
        keys = [key for key in configured_keys(loaded) if args.domain in (None, key.domain)]
    except KeyFileError as error:
        print(f"mta dkim check: {error}", file=sys.stderr)
        return EXIT_WRONG
    if not keys:
        whose = f"no key for {args.domain}" if args.domain else "no keys"
        print(f"{args.config} names {whose}; `mta dkim keygen` makes one", file=sys.stderr)
        return EXIT_WRONG
    checked = asyncio.run(check_keys(keys, [(server.host, server.port) for server in loaded.dns.nameservers]))
    if args.json:
        print(json.dumps([_checked_object(one) for one in checked], indent=2, ensure_ascii=False))
    else:
        _print_checked(checked)
    return EXIT_WRONG if any(one.faults for one in checked) else EXIT_DONE


async def check_keys(keys: Sequence[SigningKey], nameservers: Sequence[tuple[str, int]]) -> list[Checked]:
    """Asks for every key's record, several at once; without nameservers the system's are asked."""
    resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    if nameservers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in nameservers]
    free = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def check(key: SigningKey) -> Checked:
        async with free:
            try:
                records = await _ask(resolver, record_name(key))
            except dns.exception.DNSException as error:
                return Checked(key, [], [f"the DNS cannot tell: {error}"])
        return Checked(key, records, faults(key, records))

    return list(await asyncio.gather(*(check(key) for key in keys)))


async def _ask(resolver: dns.asyncresolver.Resolver, name: str) -> list[str]:
    """The TXT records of the name, their strings joined; none where the name does not exist."""
    try:
        answer = await resolver.resolve(f"{name}.", "TXT", search=False, lifetime=QUESTION_TIMEOUT_S)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    return [b"".join(record.strings).decode("utf-8", "backslashreplace") for record in answer]


def _print_checked(checked: Sequence[Checked]) -> None:
    width = max(len(record_name(one.key)) for one in checked)
    for one in checked:
        print(f"{record_name(one.key):{width}}  {one.key.algorithm:14}  {'wrong' if one.faults else 'good'}")
        for fault in one.faults:
            print(f"    {_printable(fault)}")
    wrong = sum(bool(one.faults) for one in checked)
    count = f"{len(checked)} key{'' if len(checked) == 1 else 's'}"
    print(f"{count}, {wrong} not published as it signs" if wrong else f"{count}, published as needed")


def _checked_object(one: Checked) -> dict[str, object]:
    return {
        "name": record_name(one.key),
        "algorithm": one.key.algorithm,
        "good": not one.faults,
        "faults": one.faults,
        "expected": one.key.public_record(),
        "published": one.records,
    }


def _printable(text: str) -> str:
    """What stands in somebody's DNS must not move the admin's cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
