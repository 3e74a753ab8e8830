"""The line between supervisor and worker."""

import asyncio
import socket

from mta.control import TEXT_CHARACTERS_MAX, Line, Order, Report

WAIT_S = 20.0


async def pair() -> tuple[Line, Line, asyncio.Queue[Order | Report], asyncio.Event]:
    """The supervisor's end, the worker's, what the worker's end heard, and whether it has ended."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[Order | Report] = asyncio.Queue()
    ended = asyncio.Event()
    ours, theirs = socket.socketpair()
    supervisor = Line(Report, heard.put_nowait, lambda: None)
    worker = Line(Order, heard.put_nowait, ended.set)
    await loop.create_connection(lambda: supervisor, sock=ours)
    await loop.create_connection(lambda: worker, sock=theirs)
    return supervisor, worker, heard, ended


async def test_orders_and_reports() -> None:
    """Both directions carry whole messages in order, several in one read."""
    supervisor, worker, heard, _ = await pair()

    supervisor.send(Order("open"))
    supervisor.send(Order("reload", 7))
    worker.send(Report(3, "linked"))
    found = [await asyncio.wait_for(heard.get(), WAIT_S) for _ in range(3)]

    assert sorted(found, key=repr) == [Order("open"), Order("reload", 7), Report(3, "linked")]
    supervisor.close()
    worker.close()


def test_split_at_every_byte() -> None:
    """A message that comes in two reads is heard once."""
    text = b'{"do":"open"}\n{"do":"stop","epoch":2}\n'

    for at in range(len(text)):
        heard: list[Order | Report] = []
        line = Line(Order, heard.append, lambda: None)
        line.data_received(text[:at])
        line.data_received(text[at:])
        assert heard == [Order("open"), Order("stop", 2)]


async def test_the_end_is_heard() -> None:
    """When one side is gone the other hears it at once; what it still says goes nowhere."""
    supervisor, worker, _, ended = await pair()

    supervisor.close()
    await asyncio.wait_for(ended.wait(), WAIT_S)

    worker.send(Report(1, "stopped"))
    worker.close()


async def test_a_long_text_is_cut() -> None:
    """A thousand problems do not break the line."""
    supervisor, worker, heard, _ = await pair()

    worker.send(Report(1, "problem", "\N{SNOWMAN}" * 100_000))
    found = await asyncio.wait_for(heard.get(), WAIT_S)

    assert isinstance(found, Report)
    assert len(found.text) == TEXT_CHARACTERS_MAX + 3
    supervisor.close()
    worker.close()
