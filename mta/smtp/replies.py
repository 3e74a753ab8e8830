"""Replies: everything that we ever say to a client, in one place, as the bytes that go on the wire.

Each reply has its enhanced code (RFC 2034 4, RFC 3463), save the greeting, the answers to EHLO and HELO, and
354, which have none by that law. A shell that must say something of its own uses `reply`.
"""

from mta.model.outcome import Reply

TEXT_BYTES_MAX = 400  # RFC 5321 4.5.3.1.5: a reply line has at most 512 bytes; what we quote in it is cut well before


def reply(code: int, enhanced: str, text: str) -> bytes:
    """One reply line. What cannot be printed in ASCII is shown as `?`, so that no text can break the line."""
    shown = text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
    return f"{code} {enhanced} {shown[:TEXT_BYTES_MAX]}\r\n".encode("ascii")


def as_value(said: bytes) -> Reply:
    """One of our own replies as a value, for events and the log."""
    code, _, text = said.decode("ascii").rstrip("\r\n").partition(" ")
    first, _, rest = text.partition(" ")
    if first.count(".") == 2 and first.replace(".", "").isdigit():
        return Reply(int(code), first, rest)
    return Reply(int(code), "", text)


# --- what goes well

MAIL_OK = reply(250, "2.1.0", "Sender ok")
RCPT_OK = reply(250, "2.1.5", "Recipient ok")
RSET_OK = reply(250, "2.0.0", "Reset")
NOOP_OK = reply(250, "2.0.0", "Ok")
VRFY_OK = reply(252, "2.0.0", "Cannot verify, send mail and see")  # RFC 5321 3.5.3: neither yes nor no
HELP_OK = reply(214, "2.0.0", "EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT, as in RFC 5321")
GO_AHEAD = b"354 End the message with a line that holds only a dot\r\n"

# --- a command that was not understood or came at the wrong time

UNKNOWN = reply(500, "5.5.2", "Command not known")
LINE_TOO_LONG = reply(500, "5.5.6", "Line too long")
BARE_LINE_FEED = reply(500, "5.5.2", "Lines end with CR LF")
BAD_BYTES = reply(501, "5.5.2", "Control bytes or broken UTF-8 in a command")
BAD_SYNTAX = reply(501, "5.5.2", "Syntax: MAIL FROM:<address> or RCPT TO:<address>")
BAD_HELLO = reply(501, "5.5.2", "Say EHLO or HELO with your host name or [address]")
NO_ARGUMENT = reply(501, "5.5.4", "This command takes no argument")
ARGUMENT_MISSING = reply(501, "5.5.4", "This command needs an argument")
NOT_OFFERED = reply(502, "5.5.1", "Command not offered here")
HELLO_FIRST = reply(503, "5.5.1", "Say EHLO or HELO first")
MAIL_TWICE = reply(503, "5.5.1", "A transaction is open already")
MAIL_FIRST = reply(503, "5.5.1", "Say MAIL first")
NO_RECIPIENTS = reply(554, "5.5.1", "No recipient was accepted")
BAD_PARAMETER = reply(501, "5.5.4", "Bad parameter")
PARAMETER_TWICE = reply(501, "5.5.4", "A parameter was given twice")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "Parameter not known")

# --- an address or a message that we do not take

BAD_SENDER = reply(501, "5.1.7", "Bad sender address")
BAD_RECIPIENT = reply(501, "5.1.3", "Bad recipient address")
NEEDS_SMTPUTF8 = reply(553, "5.6.7", "An address beyond ASCII needs SMTPUTF8")  # RFC 6531 3.5
RELAY_DENIED = reply(550, "5.7.1", "Relaying denied")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients")  # RFC 5321 4.5.3.1.10
TOO_BIG = reply(552, "5.3.4", "Message too big")
BAD_LINE_ENDS = reply(550, "5.6.0", "Message holds a bare CR, a bare LF or NUL")
LINE_OVER_998 = reply(550, "5.6.0", "Message holds a line of more than 998 bytes")

# --- the end of a session, or of our patience

OUT_OF_STEP = reply(554, "5.5.0", "You spoke before our reply")  # RFC 2920 3.1
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors, closing")
TOO_MUCH_AHEAD = reply(421, "4.3.2", "Too much was sent ahead of our reply, closing")
TIMED_OUT = reply(421, "4.4.2", "Nothing came for too long, closing")  # RFC 5321 4.5.3.2.7
SHUTTING_DOWN = reply(421, "4.3.2", "Service is shutting down")  # RFC 5321 3.8
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "Too many connections")

# --- for the shell: it cannot take the message now

NO_SPACE = reply(452, "4.3.1", "Not enough storage for now")
NOT_STORED = reply(451, "4.3.0", "Message was not stored, try again")


def greeting(hostname: str) -> bytes:
    """The first words of a session (RFC 5321 4.3.1)."""
    return f"220 {hostname} ESMTP\r\n".encode("ascii")


def ehlo(hostname: str, keywords: tuple[str, ...]) -> bytes:
    """The answer to EHLO: our name, then a line for each keyword (RFC 5321 4.1.1.1)."""
    lines = (hostname, *keywords)
    text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
    return text.encode("ascii")


def helo(hostname: str) -> bytes:
    """The answer to HELO."""
    return f"250 {hostname}\r\n".encode("ascii")


def goodbye(hostname: str) -> bytes:
    """The answer to QUIT."""
    return f"221 2.0.0 {hostname} closing\r\n".encode("ascii")


def queued(message_id: str) -> bytes:
    """The answer to a message that is on stable storage."""
    return f"250 2.0.0 Ok: queued as {message_id}\r\n".encode("ascii")
