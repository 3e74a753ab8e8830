"""Traffic of a simulation: messages of many kinds, and the clients that hand them in over SMTP."""

import asyncio
import zlib
from collections import deque
from datetime import UTC, datetime
from random import Random

import msgspec

from mta.testing.engine_rig import EngineRig
from mta.testing.promised_mail import Message

SENDER_DOMAIN = "sender.test"
BODY = b"Hello,\r\n.with a dot\r\n"


class Habits(msgspec.Struct):
    """What mail there is; shares are of 1."""

    domains: list[str]
    tenants: list[str]
    from_domains: list[str]
    several: float = 0.3
    """To more than one recipient."""
    bad: float = 0.05
    """Recipients that no provider knows."""
    null: float = 0.1
    """From the null sender."""
    delayed: float = 0.1
    hurried: float = 0.1
    """With an expiry of their own."""
    large: float = 0.03
    """More than some providers take."""
    huge: float = 0.01
    """More than we take."""
    delay_s_max: float = 3600.0


def compose(random: Random, number: int, habits: Habits, wall_s: float) -> tuple[Message, bytes]:
    """A message and its content, as a client sends it; `wall_s`: now."""
    count = random.randint(2, 5) if random.random() < habits.several else 1
    addresses = []
    for at in range(count):
        name = "bad" if random.random() < habits.bad else "u"
        addresses.append(f"{name}{number}.{at}@{random.choice(habits.domains)}")
    message = Message(
        number,
        "" if random.random() < habits.null else f"s{number}@{SENDER_DOMAIN}",
        addresses,
        random.choice(habits.from_domains),
        tenant=random.choice(habits.tenants),
        campaign=random.choice(["", "spring", "autumn"]),
        priority=random.choice([5, 5, 5, 2, 9]),
        story=[],
    )
    fields = [
        f"Message-ID: <{number}@client.test>",
        f"From: <s@{message.from_domain}>",
        f"Subject: message {number}",
        f"X-MTA-Priority: {message.priority}",
    ]
    if message.tenant:
        fields.append(f"X-MTA-Tenant: {message.tenant}")
    if message.campaign:
        fields.append(f"X-MTA-Campaign: {message.campaign}")
    if random.random() < habits.delayed:
        message.send_at_s = float(int(wall_s + random.uniform(5.0, habits.delay_s_max)))
        text = datetime.fromtimestamp(message.send_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields.append(f"X-MTA-Send-At: {text}")
    if random.random() < habits.hurried:
        message.expire_s = float(random.choice([60, 300, 1200, 3600]))
        fields.append(f"X-MTA-Expire: {message.expire_s:.0f}s")
    lines = random.randint(400, 600) if random.random() < habits.large else random.randint(0, 20)
    if random.random() < habits.huge:
        lines = 3000
    body = BODY + b"The same line again and again.\r\n" * lines
    fields.append(f"X-Check: {zlib.crc32(body)}")
    message.size = len(body)
    return message, "\r\n".join([*fields, "", ""]).encode() + body


class Client(asyncio.Protocol):
    """Hands some messages in, one after another, and hears what becomes of them; one that is cut off gives up."""

    def __init__(self, rig: EngineRig, door: int, messages: list[tuple[Message, bytes]]) -> None:
        self._rig = rig
        self._door = door
        self._todo = deque(messages)
        self._read = b""
        self._replies = 0
        self._expected = 1
        """Replies to come before it goes on."""
        self._message: Message | None = None
        self._content = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._read = (self._read + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-":
                self._hear(line.decode())

    def _hear(self, reply: str) -> None:
        if self._expected:
            self._expected -= 1
            if self._expected == 0:
                if self._message is None and not self._replies:
                    self._replies = 1
                    self._expected = 1
                    self._transport.write(b"EHLO client.test\r\n")
                else:
                    self._next()
            return
        assert self._message is not None
        if reply.startswith("354"):
            message = self._message
            message.given_s = self._rig.time.now_s
            message.given_wall_s = self._rig.clock.wall_s()
            self._transport.write(self._content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        elif self._replies:
            self._replies -= 1
            if not reply.startswith("250"):
                self._refused = reply
        else:
            self._rig.ledger.answered(self._message, reply)
            self._next()

    def _next(self) -> None:
        if not self._todo:
            self._transport.write(b"QUIT\r\n")
            self._expected = 9
            return
        message, self._content = self._todo.popleft()
        self._message = message
        message.door = self._door
        self._rig.ledger.given(message)
        message.given_s = self._rig.time.now_s
        message.given_wall_s = self._rig.clock.wall_s()
        self._replies = 1 + len(message.addresses)
        commands = [f"MAIL FROM:<{message.sender}>", *(f"RCPT TO:<{address}>" for address in message.addresses), "DATA"]
        self._transport.write("".join(command + "\r\n" for command in commands).encode())
