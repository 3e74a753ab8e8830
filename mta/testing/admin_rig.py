"""For tests of the admin face: workers that answer what a test says, and a client that says what it is told to.

asker = FakeAsker()
asker.answers[Act] = [Acted(3, 2), Acted(0, 0)]
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mta.admin.address import TcpAddress
from mta.admin.face import AdminFace
from mta.admin.reloading import Reload
from mta.reporting.questions import Failed, Question, Rules, Suspend
from mta.reporting.waiting import RecipientRow
from mta.reporting.worker_counts import Metrics, WorkerCounts
from mta_policies.layers import PolicySet


class FakeAsker:
    """Workers whose answers are set by the kind of question; None and exceptions as the supervisor gives them."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.asked: list[tuple[Question, int | None]] = []
        self.answers: dict[type[Any], list[Any]] = {}
        self.down: set[int] = set()

    async def ask(self, question: Question, *, worker: int | None = None) -> list[bytes | None]:
        self.asked.append((question, worker))
        await asyncio.sleep(0)
        return [self._answer(question, number) for number in (range(self.workers) if worker is None else [worker])]

    def _answer(self, question: Question, number: int) -> bytes | None:
        if number in self.down:
            return None
        if type(question) in self.answers:
            answer = self.answers[type(question)][number]
            return answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        if isinstance(question, Metrics):
            return msgspec.json.encode(WorkerCounts(number, 100.0))
        return (
            b"null"
            if isinstance(question, Suspend | Rules)
            else msgspec.json.encode(Failed("nobody told it what to say"))
        )

    def of(self, kind: type[Any]) -> list[Any]:
        """The questions of a kind that were asked."""
        return [question for question, _ in self.asked if isinstance(question, kind)]


def row(message_id: str, recipient: str = "a@x.test", **more: Any) -> RecipientRow:
    """A recipient that waits."""
    return RecipientRow(message_id, recipient, "s@shop.test", recipient.rpartition("@")[2], "ready", **more)


class Answered:
    """One HTTP answer."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks HTTP by hand, so that a test may say what no client would."""

    def __init__(self, face: AdminFace) -> None:
        self.face = face

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.face.address
        if isinstance(address, TcpAddress):
            return await asyncio.open_connection(address.host, address.port)
        return await asyncio.open_unix_connection(str(address.path))

    async def raw(self, request: bytes) -> Answered:
        reader, writer = await self.open()
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return Answered(answer)

    async def ask(self, method: str, target: str, body: bytes | None = None, /, **headers: str) -> Answered:
        fields = {"Host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            fields.setdefault("Content-Type", "application/json")
            fields["Content-Length"] = str(len(body))
        lines = [
            f"{method} {target} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields.items() if value),
            "",
            "",
        ]
        return await self.raw("\r\n".join(lines).encode() + (body or b""))

    async def get(self, target: str, **headers: str) -> Answered:
        return await self.ask("GET", target, None, **headers)

    async def post(self, target: str, body: Any, **headers: str) -> Answered:
        return await self.ask("POST", target, json.dumps(body).encode(), **headers)

    async def delete(self, target: str, **headers: str) -> Answered:
        return await self.ask("DELETE", target, b"", **headers)


@contextmanager
def face_in_thread(
    asker: FakeAsker,
    folder: Path,
    *,
    token: str = "",
    events_path: Path | None = None,
    reload: Reload | None = None,
    policies: Callable[[], PolicySet | None] = lambda: None,
) -> Iterator[str]:
    """A face for a caller that blocks, as commands do; -> its address, a Unix socket in `folder`."""
    address = f"unix:{folder / 'admin.sock'}"
    started, ended = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        face = AdminFace(
            asker,
            address,
            token,
            events_path=events_path,
            kept_in=folder,
            version="1.2.3",
            hostname="mail.test",
            reload=reload,
            policies=policies,
        )
        await face.start()
        started.set()
        await ended.wait()
        await face.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(30), "the face did not start"
    try:
        yield address
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join()
