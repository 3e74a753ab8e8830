"""A face over workers that a test makes up."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mta.admin.face import AdminFace
from mta.testing.admin_rig import Client, FakeAsker
from mta.testing.fake_clock import FakeClock

MakeFace = Callable[..., AdminFace]


@pytest.fixture
def asker() -> FakeAsker:
    return FakeAsker()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def make_face(asker: FakeAsker, clock: FakeClock, tmp_path: Path) -> AsyncIterator[MakeFace]:
    """Makes faces; they are stopped at the end."""
    made: list[AdminFace] = []

    def make(address: str = "127.0.0.1:0", token: str = "", events_path: Path | None = None) -> AdminFace:
        face = AdminFace(
            asker,
            address,
            token,
            events_path=events_path,
            kept_in=tmp_path,
            version="1.2.3",
            hostname="mail.test",
            clock=clock,
        )
        made.append(face)
        return face

    yield make
    for face in made:
        await face.stop()


@pytest.fixture
async def client(make_face: MakeFace) -> Client:
    """A face without a token on loopback, and its client."""
    face = make_face()
    await face.start()
    return Client(face)
