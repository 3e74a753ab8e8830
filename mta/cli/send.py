"""`mta send`: hands one message to a running server, over SMTP like any other application.

The client is aiosmtplib and not our own, so that this command is also an independent look at the server.
"""

import argparse
import asyncio
import os
import re
import socket
import sys
from collections.abc import Sequence
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import ip_address
from pathlib import Path

import aiosmtplib

from mta.cli import EXIT_DONE, EXIT_UNAVAILABLE, EXIT_USAGE, EXIT_WRONG, Subparsers

DEFAULT_CONFIG = "mta.toml"
TIMEOUT_S = 330.0
"""For each reply; a little more than a server may take to answer the end of the data of a small message."""
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server is reached that listens everywhere."""
_FIELD = re.compile(rb"[!-9;-~]+:")  # RFC 5322 2.2
_MORE = re.compile(rb"[ \t]")
_SERVER = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")


class SendError(Exception):
    """What the user asked for cannot be done; the text says why, `status` is the command's exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def add(subparsers: Subparsers) -> None:
    """Describes the command."""
    parser = subparsers.add_parser(
        "send",
        help="hand one message to a running server",
        description=(
            "Hands one message to a running server and prints its reply, with the id that the event log knows the "
            "message by. A FILE that begins with header fields is sent as it is; anything else is the text of a "
            "message that is made from it."
        ),
        epilog="Exit status: 0 taken for all recipients, 1 refused for one or more, 2 wrong usage, 69 no server.",
    )
    parser.add_argument("--from", dest="sender", required=True, metavar="A", help='the sender; "" for the null sender')
    parser.add_argument(
        "--to", dest="recipients", required=True, action="append", metavar="B", help="a recipient; may be repeated"
    )
    parser.add_argument("--subject", metavar="S", help="the subject of a message that is made from a text")
    parser.add_argument(
        "--header",
        dest="headers",
        action="append",
        default=[],
        metavar='"NAME: VALUE"',
        help='a header field to put on top, like "X-MTA-Priority: 9"; may be repeated',
    )
    parser.add_argument("--server", metavar="ADDRESS:PORT", help="default: the configuration's first listener")
    parser.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="the message; - or nothing: standard input"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sends the message; prints the server's reply, and on standard error whom it refused."""
    try:
        host, port = parse_server(args.server) if args.server else configured_server(args.config)
        content = build(read_input(args.file), args.sender, args.recipients, args.subject, args.headers)
        refused, reply = asyncio.run(hand_over(host, port, args.sender, args.recipients, content))
    except SendError as error:
        print(f"mta send: {error}", file=sys.stderr)
        return error.status
    print(reply)
    for line in refused:
        print(f"mta send: {line}", file=sys.stderr)
    return EXIT_WRONG if refused else EXIT_DONE


def parse_server(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:2525`, `[::1]:2525` or `mail.example:2525`; raises SendError."""
    match = _SERVER.fullmatch(text)
    port = int(match[3]) if match is not None else 0
    if match is None or not 0 < port < 65_536:
        raise SendError(f"{text!r} is not a server: give its address and port, like 127.0.0.1:2525", EXIT_USAGE)
    return match[1] or match[2], port


def configured_server(file: str) -> tuple[str, int]:
    """Where the first listener of the configuration is reached; without a file, where a server listens by default.

    Raises ConfigError for a configuration that is wrong.
    """
    from mta import config  # takes a while, and is not needed where --server is given

    if Path(file).exists() or file != DEFAULT_CONFIG:
        address = config.load_settings(file).listeners[0].address
    else:
        address = config.Listener().address
    return ANYWHERE.get(address.host, address.host), address.port


def read_input(file: str) -> bytes:
    """The bytes of the file or of standard input; raises SendError where there are none to be had."""
    if file == "-":
        if sys.stdin.isatty():
            print("The message, please; end it with Ctrl-D.", file=sys.stderr)
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise SendError(f"{file}: {error.strerror}", EXIT_WRONG) from error


def build(
    data: bytes, sender: str, recipients: Sequence[str], subject: str | None, headers: Sequence[str] = ()
) -> bytes:
    """The message to send, with CRLF line ends: `data` itself where it has header fields, else made around it.

    Raises SendError for what does not go together or is no header field.
    """
    lines = [line.rstrip(b"\r") for line in data.split(b"\n")]
    fields = [_header_line(header) for header in headers]
    if is_message(lines):
        if subject is not None:
            raise SendError("--subject is for a text; this message has header fields of its own", EXIT_USAGE)
        whole = b"\r\n".join(lines)
    else:
        whole = _wrap(data, sender, recipients, subject)
    return b"".join(fields) + whole + (b"" if whole.endswith(b"\r\n") else b"\r\n")


def is_message(lines: Sequence[bytes]) -> bool:
    """These lines begin with header fields and then a blank line, or nothing more (RFC 5322 2.1)."""
    if not lines or not _FIELD.match(lines[0]):
        return False
    for line in lines[1:]:
        if not line:
            return True
        if not _FIELD.match(line) and not _MORE.match(line):
            return False
    return True


def _header_line(header: str) -> bytes:
    line = header.encode()
    if not _FIELD.match(line) or b"\r" in line or b"\n" in line:
        raise SendError(f'{header!r} is not a header field: it is written "Name: value"', EXIT_USAGE)
    return line + b"\r\n"


def _wrap(data: bytes, sender: str, recipients: Sequence[str], subject: str | None) -> bytes:
    """A message with this text, like a mail program makes it."""
    message = EmailMessage(policy.SMTP)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise SendError("the text is not UTF-8; a message in another coding needs header fields", EXIT_WRONG) from error
    domain = sender.rpartition("@")[2]
    try:
        message["From"] = sender or f"postmaster@{socket.gethostname()}"
        message["To"] = ", ".join(recipients)
        message["Subject"] = subject or ""
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=domain or None)
        message.set_content(text)
        return message.as_bytes()
    except (MessageError, ValueError) as error:
        raise SendError(f"no message can be made of this: {error}", EXIT_USAGE) from error


async def hand_over(
    host: str, port: int, sender: str, recipients: Sequence[str], content: bytes
) -> tuple[list[str], str]:
    """Sends `content` to all recipients in one transaction.

    Returns a line for each recipient that was refused, and the server's reply to the message. Raises SendError
    where nobody answers or everything is refused.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    client = aiosmtplib.SMTP(
        hostname=host, port=port, use_tls=False, start_tls=False, timeout=TIMEOUT_S, local_hostname=_own_name()
    )
    try:
        async with client:
            try:
                await client.ehlo()
            except aiosmtplib.SMTPHeloError:
                await client.helo()
            is_utf8 = not all(address.isascii() for address in (sender, *recipients))
            options = ["SMTPUTF8"] if is_utf8 else []
            if not content.isascii() and client.supports_extension("8bitmime"):
                options.append("BODY=8BITMIME")
            errors, reply = await client.sendmail(sender, list(recipients), content, mail_options=options)
    except aiosmtplib.SMTPRecipientsRefused as error:
        lines = [f"{each.recipient}: {each.code} {_one_line(each.message)}" for each in error.recipients]
        raise SendError("refused for all recipients\n  " + "\n  ".join(lines), EXIT_WRONG) from error
    except aiosmtplib.SMTPResponseException as error:
        status = EXIT_UNAVAILABLE if isinstance(error, aiosmtplib.SMTPConnectResponseError) else EXIT_WRONG
        raise SendError(f"{where} says {error.code} {_one_line(error.message)}", status) from error
    except aiosmtplib.SMTPNotSupported as error:
        raise SendError(f"{where} takes no addresses that are not ASCII (SMTPUTF8)", EXIT_WRONG) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise SendError(f"no server answers at {where}: {_why_not(error)}", EXIT_UNAVAILABLE) from error
    except ValueError as error:  # UnicodeEncodeError among them
        raise SendError(f"not an address: {error}", EXIT_USAGE) from error
    refused = [f"{address}: {said.code} {_one_line(said.message)}" for address, said in errors.items()]
    return refused, f"250 {_one_line(reply)}"


def _why_not(error: Exception) -> str:
    """The system's own words where it gave some: the library's repeat the address."""
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno is None:
        return _one_line(str(error))
    return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)  # below 0: a name was not found


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _own_name() -> str:
    """This machine's name as a name or a literal that EHLO may carry; never asks the DNS."""
    name = socket.gethostname()
    try:
        return f"[{ip_address(name)}]"
    except ValueError:
        return name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "localhost"
