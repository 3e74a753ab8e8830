"""What may follow what: the server's side of the dialogue as a table (RFC 5321 4.1.4).

A session is in one of eight states. In four of them it reads commands, and `TABLE` has exactly one step for
each verb: an action that the session carries out, or the reply with which it refuses. In the other four,
`INPUT` says what becomes of the bytes that come in.
"""

import enum
from typing import Final, NamedTuple

from mta.smtp import replies


class State(enum.Enum):
    """Where a session is."""

    SILENT = "before our greeting"
    CONNECTED = "greeted, no EHLO yet"
    READY = "after EHLO or HELO, no transaction"
    SENDER = "MAIL was accepted"
    RECIPIENTS = "at least one RCPT was accepted"
    CONTENT = "after 354"
    WAITING = "the content is with the shell, its answer has not come"
    CLOSED = "the last reply was said"


class Action(enum.Enum):
    """What the session does with a command that may come now."""

    HELLO = "EHLO"
    OLD_HELLO = "HELO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    RESET = "RSET"
    NOTHING = "NOOP"
    VERIFY = "VRFY"
    HELP = "HELP"
    QUIT = "QUIT"


class Input(enum.Enum):
    """What becomes of bytes in a state."""

    COMMANDS = "read line by line"
    CONTENT = "read up to the end mark"
    KEPT = "kept until the answer was given"
    TOO_EARLY = "the client spoke before us: refused, closed"
    DROPPED = "nobody listens any more"


INPUT: Final = {
    State.SILENT: Input.TOO_EARLY,
    State.CONNECTED: Input.COMMANDS,
    State.READY: Input.COMMANDS,
    State.SENDER: Input.COMMANDS,
    State.RECIPIENTS: Input.COMMANDS,
    State.CONTENT: Input.CONTENT,
    State.WAITING: Input.KEPT,
    State.CLOSED: Input.DROPPED,
}

Step = Action | bytes
"""An action, or the reply that refuses the command."""

COMMAND_STATES: Final = (State.CONNECTED, State.READY, State.SENDER, State.RECIPIENTS)

COMMAND_LINE_BYTES_MAX = 512  # RFC 5321 4.5.3.1.4, with CRLF
PATH_LINE_BYTES_MAX = (
    4096  # MAIL and RCPT: RFC 1870 3, RFC 6152 2, RFC 6531 3.4, RFC 3461 4 add up to 1,100; room for more
)
AUTH_LINE_BYTES_MAX = 12_288  # RFC 4954 4


class Verb(NamedTuple):
    """What is true of a verb in every state."""

    line_bytes_max: int = COMMAND_LINE_BYTES_MAX
    """Longest command line, with CRLF."""
    ends_group: bool = False
    """Nothing may follow in one group before our reply (RFC 2920 3.1): what is sent behind it was meant for
    somebody else's ears, or for another state of ours. BDAT is here until it is offered: its chunk is no command."""


VERBS: Final[dict[bytes, Verb]] = {
    b"EHLO": Verb(ends_group=True),
    b"HELO": Verb(ends_group=True),
    b"MAIL": Verb(line_bytes_max=PATH_LINE_BYTES_MAX),
    b"RCPT": Verb(line_bytes_max=PATH_LINE_BYTES_MAX),
    b"DATA": Verb(ends_group=True),
    b"BDAT": Verb(ends_group=True),
    b"RSET": Verb(),
    b"NOOP": Verb(),
    b"VRFY": Verb(),
    b"EXPN": Verb(),
    b"HELP": Verb(),
    b"QUIT": Verb(ends_group=True),
    b"STARTTLS": Verb(ends_group=True),
    b"AUTH": Verb(line_bytes_max=AUTH_LINE_BYTES_MAX, ends_group=True),
}

LINE_BYTES_MAX: Final = max(verb.line_bytes_max for verb in VERBS.values())
"""An unfinished line that is longer than this is not kept: it is too long whatever its verb."""

_OPEN, _EARLY, _NO_MAIL = replies.MAIL_TWICE, replies.HELLO_FIRST, replies.MAIL_FIRST
_NEVER = (replies.NOT_OFFERED,) * 4


def _always(action: Action) -> tuple[Step, ...]:
    return (action,) * len(COMMAND_STATES)


# One row for each verb, one column for each of COMMAND_STATES:
#             CONNECTED  READY                SENDER                 RECIPIENTS
_ROWS: Final[dict[bytes, tuple[Step, ...]]] = {
    b"EHLO": _always(Action.HELLO),
    b"HELO": _always(Action.OLD_HELLO),
    b"MAIL": (_EARLY, Action.MAIL, _OPEN, _OPEN),
    b"RCPT": (_EARLY, _NO_MAIL, Action.RCPT, Action.RCPT),
    b"DATA": (_EARLY, _NO_MAIL, replies.NO_RECIPIENTS, Action.DATA),
    b"BDAT": _NEVER,
    b"RSET": _always(Action.RESET),
    b"NOOP": _always(Action.NOTHING),
    b"VRFY": _always(Action.VERIFY),
    b"EXPN": _NEVER,
    b"HELP": _always(Action.HELP),
    b"QUIT": _always(Action.QUIT),
    b"STARTTLS": _NEVER,
    b"AUTH": _NEVER,
}

TABLE: Final[dict[tuple[State, bytes], Step]] = {
    (state, verb): step for verb, steps in _ROWS.items() for state, step in zip(COMMAND_STATES, steps, strict=True)
}
