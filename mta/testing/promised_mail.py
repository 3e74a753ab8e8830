"""Promised mail: the messages that clients of a simulation handed in, and what became of each recipient."""

import math
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mta.testing.scripted_provider import Taken


class Recipient(msgspec.Struct, eq=False):
    """One recipient of one message, or the sender as the recipient of notifications."""

    address: str
    message: "Message"
    begun: int = 0
    taken: list["Taken"] = []
    finals: list[dict[str, Any]] = []
    due_s: float = 0.0
    """Unix seconds: not tried again before, 0: nobody knows."""
    due_since_s: float = 0.0
    due_worker: int = -1
    is_held: bool = False
    was_refused: bool = False
    was_put_off: bool = False


class Message(msgspec.Struct, eq=False):
    """One message that a client handed in."""

    number: int
    sender: str
    addresses: list[str]
    from_domain: str = ""
    tenant: str = ""
    campaign: str = ""
    priority: int = 5
    size: int = 0
    send_at_s: float = 0.0
    """Unix seconds."""
    expire_s: float = 0.0
    """Seconds."""
    door: int = 0
    given_s: float = 0.0
    """Monotonic, when its last byte was sent."""
    given_wall_s: float = 0.0
    reply: str = ""
    """The answer to it; "" none came."""
    accepted_s: float = math.inf
    id: str = ""
    received: int = 0
    story: list[str] = []

    @property
    def is_accepted(self) -> bool:
        """The client was told 250."""
        return self.reply.startswith("250")
