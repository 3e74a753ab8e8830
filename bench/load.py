"""The load generator: hands messages in over kept-open, pipelining sessions, and remembers each one's answer.

In a test or a scenario:

    result = await run(Plan(port=2525, messages=5_000, sessions=50, domains=[Domain("swift.test", weight=3)]))
    result.accepted         # ids that got 250: each of them must arrive, exactly once
    result.uncertain        # ids whose content was sent when the connection broke: they may arrive

Alone: `python -m bench.load --to 127.0.0.1:2525 --messages 50000 --sessions 50 --recipient-domain swift.test=3`.

`rate_per_s` 0 sends as fast as the server answers (each session has one message in flight). With a rate the
load is open: messages are due at fixed times whatever the server does, and latency counts from the due time,
so a server that stalls cannot hide it.
"""

import argparse
import asyncio
import sys
from array import array
from collections import Counter, deque
from time import monotonic
from typing import cast

import msgspec
import uvloop

from bench.mailing import Domain, Maker, Message, Plan
from bench.table import percentile
from mta.tasks import Tasks

TICK_S = 0.001  # how finely an open load is spread; the event loop's clock is not finer
AGAIN_AFTER_S = 0.1  # pause before a lost session is reopened, or a refused message is tried again
QUIT_TIMEOUT_S = 2.0  # a server that does not close after QUIT is not waited for longer


__all__ = ["Domain", "Load", "Maker", "Message", "Plan", "Result", "Session", "run"]


class Result:
    """What became of the messages; it grows while the load runs."""

    def __init__(self, messages: int = 0) -> None:
        self.accepted: list[str] = []
        self.uncertain: list[str] = []
        self.refused: dict[str, str] = {}
        """Id to reply."""
        self.recipients_refused: Counter[str] = Counter()
        """Replies to RCPT of messages that were accepted for other recipients."""
        self.tried_again = 0
        self.lost_sessions = 0
        self.latencies_s = array("d")
        """From MAIL (or from the due time) until 250."""
        self.starts_s = array("d", bytes(8 * messages))
        """Monotonic, by the number of the message: MAIL, or the due time of an open load."""
        self.late_s = array("d")
        """Of an open load: how much after its due time each MAIL was said, by the generator's own fault or because
        no session was free."""
        self.began_s = monotonic()
        self.ended_s = 0.0

    @property
    def duration_s(self) -> float:
        return (self.ended_s or monotonic()) - self.began_s

    @property
    def rate_per_s(self) -> float:
        """Messages accepted a second."""
        return len(self.accepted) / max(self.duration_s, 1e-9)

    def report(self) -> dict[str, object]:
        """The numbers, fit for JSON."""
        return {
            "accepted": len(self.accepted),
            "refused": dict(Counter(self.refused.values())),
            "uncertain": len(self.uncertain),
            "tried_again": self.tried_again,
            "lost_sessions": self.lost_sessions,
            "duration_s": round(self.duration_s, 3),
            "rate_per_s": round(self.rate_per_s, 1),
            "latency_p50_ms": round(percentile(self.latencies_s, 50) * 1000, 2),
            "latency_p99_ms": round(percentile(self.latencies_s, 99) * 1000, 2),
            "latency_max_ms": round(max(self.latencies_s, default=0.0) * 1000, 2),
        }


class Session(asyncio.Protocol):
    """One kept-open connection with at most one message in flight."""

    GREETING, EHLO, IDLE, ENVELOPE, CONTENT = range(5)

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._rest = b""
        self._state = self.GREETING
        self._message: Message | None = None
        self._began_s = 0.0
        self._replies: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        message, self._message = self._message, None
        self._load.session_lost(self, message, self._state == self.CONTENT)

    def data_received(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\r\n")
        self._rest = lines.pop()
        for line in lines:
            if line[3:4] != b"-":
                self._reply(line)

    def send(self, message: Message) -> None:
        """Hands in one message; the load is told when it is answered."""
        self._message = message
        now_s, result = monotonic(), self._load.result
        self._began_s = message.due_s or now_s
        result.starts_s[message.number] = self._began_s
        if message.due_s:
            result.late_s.append(now_s - message.due_s)
        self._replies.clear()
        self._state = self.ENVELOPE
        self._transport.write(message.envelope)

    def quit(self) -> None:
        """Says QUIT, and the server closes; in the middle of a message the connection is cut."""
        if self._state == self.IDLE:
            self._transport.write(b"QUIT\r\n")
        else:
            self.abort()

    def abort(self) -> None:
        """Cuts the connection."""
        self._transport.abort()

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _reply(self, line: bytes) -> None:
        if self._state == self.ENVELOPE:
            self._replies.append(line)
            message = self._message
            assert message is not None
            if len(self._replies) == message.recipients + 2:
                self._envelope_answered(message)
        elif self._state == self.CONTENT:
            self._done(line)
        elif self._state == self.GREETING:
            self._state = self.EHLO
            self._transport.write(b"EHLO load.test\r\n")
        elif self._state == self.EHLO:
            self._state = self.IDLE
            self._load.session_free(self)

    def _envelope_answered(self, message: Message) -> None:
        mail, *rcpt, data = self._replies
        refusals = [reply for reply in rcpt if reply[:1] != b"2"]
        if data[:3] != b"354":
            self._done(mail if mail[:1] != b"2" else refusals[0] if refusals else data)
            return
        self._state = self.CONTENT
        if len(refusals) == len(rcpt):  # nobody is left: a lone dot, not the content
            self._replies = [refusals[0]]
            self._transport.write(b".\r\n")
            return
        self._replies.clear()
        self._load.result.recipients_refused.update(reply.decode("ascii", "replace") for reply in refusals)
        self._transport.write(message.content)

    def _done(self, reply: bytes) -> None:
        message, self._message = self._message, None
        assert message is not None
        if self._state == self.CONTENT and self._replies:
            reply = self._replies[0]
        self._state = self.IDLE
        self._load.answered(message, reply, monotonic() - self._began_s)
        self._load.session_free(self)


class Load:
    """Runs a plan once. `result` may be read meanwhile."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.result = Result(plan.messages)
        self.maker = Maker(plan)
        self._loop = asyncio.get_running_loop()
        self._made = 0
        self._open = plan.messages
        self._again: deque[Message] = deque()
        self._free: list[Session] = []
        self.sessions: set[Session] = set()
        """Those that are connected."""
        self._connecting = 0
        self._all_closed = asyncio.Event()
        self._lost_at_s = 0.0
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._tasks = Tasks()

    async def run(self) -> Result:
        """Sends everything; returns when every message has its answer or no session is left.

        Raises OSError where nothing listens at the start and the plan has no `reconnect_s`.
        """
        self.result.began_s = monotonic()
        try:
            await asyncio.gather(*(self._connect_first() for _ in range(self.plan.sessions)))
            if self.plan.rate_per_s:
                self._tick()
            await self._done
        finally:
            self.result.ended_s = monotonic()
            self._open = 0
            await self._close()
        return self.result

    def session_free(self, session: Session) -> None:
        """Gives the session its next message, or lets it wait."""
        message = self._next()
        if message is None:
            self._free.append(session)
        else:
            session.send(message)

    def answered(self, message: Message, reply: bytes, took_s: float) -> None:
        """A message has got its answer."""
        if reply[:1] == b"2":
            self.result.accepted.append(message.id)
            self.result.latencies_s.append(took_s)
        elif reply[:1] == b"4" and self.plan.persist:
            self.result.tried_again += 1
            self._loop.call_later(AGAIN_AFTER_S, self._try_again, message)
            return
        else:
            self.result.refused[message.id] = reply.decode("ascii", "replace")
        self._one_less()

    def session_lost(self, session: Session, message: Message | None, is_uncertain: bool) -> None:
        """A connection broke; what was on its way is uncertain once its content was sent, else tried again."""
        self.sessions.discard(session)
        if not self._open:
            if not self.sessions:
                self._all_closed.set()
            return
        self.result.lost_sessions += 1
        self._free = [session for session in self._free if not session.is_closing]
        if message is not None and is_uncertain:
            self.result.uncertain.append(message.id)
            self._one_less()
        elif message is not None:
            self._again.append(message)
        self._come_back()

    def _come_back(self) -> None:
        """A session is missing: another one, after a pause, or the end where none is left."""
        self._lost_at_s = self._lost_at_s or monotonic()
        if monotonic() - self._lost_at_s < self.plan.reconnect_s:
            self._connecting += 1
            self._loop.call_later(AGAIN_AFTER_S, self._reconnect)
        elif not self.sessions and not self._connecting and not self._done.done():
            self._done.set_result(None)

    def _reconnect(self) -> None:
        self._tasks.start(self._connect_again())

    async def _connect_first(self) -> None:
        try:
            await self._connect()
        except OSError:
            if not self.plan.reconnect_s:
                raise
            self._come_back()

    async def _connect_again(self) -> None:
        try:
            if self._open:
                await self._connect()
        except OSError:
            self._connecting -= 1
            self._come_back()
        else:
            self._connecting -= 1
            self._lost_at_s = 0.0

    async def _connect(self) -> None:
        await self._loop.create_connection(lambda: Session(self), self.plan.host, self.plan.port)

    async def _close(self) -> None:
        """Ends every session and waits until none is left."""
        for session in self.sessions:
            session.quit()
        try:
            if self.sessions:
                await asyncio.wait_for(self._all_closed.wait(), QUIT_TIMEOUT_S)
        except TimeoutError:
            for session in list(self.sessions):
                session.abort()
            await self._all_closed.wait()

    def _try_again(self, message: Message) -> None:
        self._again.append(message)
        if self._free:
            self.session_free(self._free.pop())

    def _next(self) -> Message | None:
        if self._again:
            return self._again.popleft()
        if self._made >= self.plan.messages:
            return None
        due_s = 0.0
        if self.plan.rate_per_s:
            due_s = self.result.began_s + self._made / self.plan.rate_per_s
            if due_s > monotonic():
                return None
        self._made += 1
        return self.maker.make(self._made - 1, due_s)

    def _tick(self) -> None:
        while self._free and (message := self._next()) is not None:
            self._free.pop().send(message)
        if self._open:
            self._loop.call_later(TICK_S, self._tick)

    def _one_less(self) -> None:
        self._open -= 1
        if not self._open and not self._done.done():
            self._done.set_result(None)


async def run(plan: Plan) -> Result:
    """Sends what the plan says. Raises OSError where nothing listens."""
    return await Load(plan).run()


def parse_domain(text: str) -> Domain:
    """`swift.test`, or `swift.test=3` with its weight."""
    name, _, weight = text.partition("=")
    return Domain(name, float(weight or 1))


def main(argv: list[str] | None = None) -> int:
    """`python -m bench.load`; exit 1 where a message was not accepted."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Hands messages in, fast.")
    parser.add_argument("--to", default="127.0.0.1:2525", metavar="ADDRESS:PORT")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--size", type=int, nargs="+", default=[4_096], metavar="BYTES")
    parser.add_argument("--rate-per-s", type=float, default=0.0, help="0: as fast as the server answers")
    parser.add_argument("--recipient-domain", type=parse_domain, nargs="+", metavar="NAME[=WEIGHT]")
    parser.add_argument("--recipients", type=int, default=1, help="per message")
    parser.add_argument("--priority", type=int)
    parser.add_argument("--sender", default="shop@load.test")
    parser.add_argument("--persist", action="store_true", help="try again what is refused with 4xx")
    args = parser.parse_args(argv)
    host, _, port = args.to.rpartition(":")
    plan = Plan(
        host=host.strip("[]"),
        port=int(port),
        messages=args.messages,
        sessions=args.sessions,
        sizes=args.size,
        rate_per_s=args.rate_per_s,
        domains=args.recipient_domain or [Domain("sink.test")],
        recipients_per_message=args.recipients,
        priority=args.priority,
        sender=args.sender,
        persist=args.persist,
    )
    result = uvloop.run(run(plan))
    print(msgspec.json.format(msgspec.json.encode(result.report())).decode())
    return 0 if len(result.accepted) == plan.messages else 1


if __name__ == "__main__":
    sys.exit(main())
