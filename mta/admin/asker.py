"""The asker: how the admin face reaches the workers."""

from typing import Protocol

from mta.reporting.questions import Question


class Asker(Protocol):
    """The supervisor, or a test."""

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    async def ask(self, question: Question, *, worker: int | None = None) -> list[bytes | None]:
        """One raw JSON answer a worker, of `worker` alone where it is given; None: it is down or late."""
        ...
