"""Links over real Unix sockets: they stand, carry, break and stand again."""

import asyncio
from pathlib import Path

from mta.handoff import frames
from mta.handoff.link import Link, Mesh

WAIT_S = 20.0  # a test that waits longer has failed


async def meshes(directory: Path, workers: int) -> list[Mesh]:
    loop = asyncio.get_running_loop()
    made = [Mesh(loop, number, workers, directory) for number in range(workers)]
    for mesh in made:
        await mesh.start()
    return made


async def close(made: list[Mesh]) -> None:
    for mesh in made:
        await mesh.close()
    await asyncio.sleep(0)


async def test_all_links_stand(tmp_path: Path) -> None:
    """Every worker hears of every other one, however long the path of the sockets is."""
    made = await meshes(tmp_path / ("long" * 30) / "links", 3)

    assert all([await mesh.all_up(WAIT_S) for mesh in made])

    await close(made)


async def test_a_body_of_many_pieces(tmp_path: Path) -> None:
    """A long body comes whole through a real socket that fills, and a small frame sent after it comes before it."""
    made = await meshes(tmp_path, 2)
    assert all([await mesh.all_up(WAIT_S) for mesh in made])
    got: asyncio.Queue[tuple[frames.Frame, bytes]] = asyncio.Queue()
    for kind in (frames.Offer, frames.Taken):
        made[1].handlers[kind] = lambda link, frame, body: got.put_nowait((frame, body))
    body = bytes(range(256)) * 40_000

    made[0].links[1].send(frames.Offer(1, b"", False), body)
    made[0].links[1].send(frames.Taken(9))
    first, second = [await asyncio.wait_for(got.get(), WAIT_S) for _ in range(2)]

    assert first == (frames.Taken(9), b"")
    assert second == (frames.Offer(1, b"", False), body)
    await close(made)


async def test_a_link_stands_again(tmp_path: Path) -> None:
    """A peer that dies is noticed, and its successor is found by whichever side calls."""
    made = await meshes(tmp_path, 2)
    assert all([await mesh.all_up(WAIT_S) for mesh in made])
    down = asyncio.Event()
    told: list[Link] = []

    for dying, staying in ((0, 1), (1, 0)):
        made[staying].on_down = [lambda link: (told.append(link), down.set())[0]]
        await made[dying].close()
        await asyncio.wait_for(down.wait(), WAIT_S)
        down.clear()
        made[staying].on_down = []
        made[dying] = Mesh(asyncio.get_running_loop(), dying, 2, tmp_path)
        await made[dying].start()
        assert await made[dying].all_up(WAIT_S)
        assert await made[staying].all_up(WAIT_S)

    assert [link.worker for link in told] == [0, 1]
    await close(made)


async def test_one_that_does_not_come_up(tmp_path: Path) -> None:
    """Who waits for a neighbour that never comes is told so."""
    mesh = Mesh(asyncio.get_running_loop(), 0, 2, tmp_path)
    await mesh.start()

    assert not await mesh.all_up(0.01)

    await close([mesh])


async def test_alone(tmp_path: Path) -> None:
    """One worker has nobody to wait for."""
    mesh = Mesh(asyncio.get_running_loop(), 0, 1, tmp_path)

    assert await mesh.all_up(WAIT_S)
    assert mesh.were_all_settled
