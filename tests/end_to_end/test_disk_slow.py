"""A disk that takes as long as it likes for a sync: nobody hears 250 before it, nothing else waits for it, and senders
are slowed before memory is short. The test says when a sync returns, and what the server's clock says meanwhile."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Self

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.commands import run
from mta.testing.disk_governor import DiskGovernor
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

WAITING = 30
AN_HOUR_S = 3600.0
"""More than any deadline of a client, of a connection out, or of a worker."""
SIZE_MAX = 60_000
QUEUE = f'message_size_max = "{SIZE_MAX // 1000}KB"\nmemory_max = "100KB"'
EHLO = b"EHLO application.test\r\n"
MAIL = b"MAIL FROM:<a@shop.test>\r\n"
ENVELOPE = MAIL + b"RCPT TO:<b@d0.test>\r\nDATA\r\n"


def fates(events: list[Event]) -> Counter[str]:
    """How often what was told."""
    return Counter(event["event"] for event in events)


class Client:
    """A connection that says something and waits for so many replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def reply(self) -> int:
        """The code of the next reply; 0 where there is none any more."""
        while (line := await self._reader.readline())[3:4] == b"-":
            pass
        return int(line[:3] or b"0")

    async def say(self, data: bytes, replies: int) -> list[int]:
        self.writer.write(data)
        return [await self.reply() for _ in range(replies)]

    async def hand_in(self, size_bytes: int = 100) -> asyncio.Task[int]:
        """A message whose content is complete; -> its reply, when it comes."""
        assert await self.say(ENVELOPE, 3) == [250, 250, 354]
        self.writer.write(b"Subject: slow\r\n\r\n" + b"line\r\n" * (size_bytes // 6) + b".\r\n")
        return asyncio.create_task(self.reply())


class Clients:
    """All connections of a test, closed with the block."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def new(self) -> Client:
        """One that was greeted and answered: whatever was ready in the server before has been said by now."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.smtp_port)
        self._writers.append(writer)
        client = Client(reader, writer)
        assert await client.reply() == 220
        assert await client.say(EHLO, 1) == [250]
        return client


async def test_a_disk_that_takes_an_hour_for_a_sync(tmp_path: Path) -> None:
    """The 250 comes when the sync has returned, and only then; meanwhile mail that is in goes out, clients are served
    and timed out as ever, but not the one who waits for us."""
    village = Village(2)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        DiskGovernor(tmp_path) as disk,
        RunningServer(
            tmp_path,
            dns=dns.address,
            port=sink.port,
            workers=1,
            policies=village.policies(),
            env=disk.environment,
        ) as server,
        Clients(server) as clients,
    ):
        ledger = Ledger(sink)
        await ledger.run(Plan(port=server.smtp_port, messages=WAITING, domains=village.domains))
        assert len(ledger.accepted) == WAITING

        disk.hold("sync")
        sender = await clients.new()
        answer = await sender.hand_in()
        await disk.until_held("sync")
        idle = await clients.new()
        was_silent = not answer.done()
        disk.pass_time(AN_HOUR_S)
        last_words = await idle.reply()
        await clients.new()
        is_silent = not answer.done()
        for provider in sink.profiles.values():
            await provider.set_down(False)
        await run(server, "queue", "retry", "--all")  # else each site is tried when its next probe is due
        await server.until(lambda: not ledger.missing(), "mail that was in arrived")
        await clients.new()
        was_silent_to_the_end = not answer.done()

        disk.let_go()
        code = await answer
        events = await server.until_told(lambda events: fates(events)["delivered"] == WAITING + 1)
        status = await server.stop()

    assert (was_silent, is_silent, was_silent_to_the_end) == (True, True, True)
    assert last_words == 421
    assert (code, status) == (250, 0)
    assert ledger.twice() == {}
    assert fates(events).keys() <= {"received", "deferred", "delivered"}


async def test_senders_are_slowed_by_a_slow_disk(tmp_path: Path) -> None:
    """What waits for the disk is bounded: at three quarters of the memory for it new mail gets 452, and mail that has
    been handed in 250 when the disk is done; then mail is taken as before."""
    village = Village(1)
    size = SIZE_MAX // 2
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        DiskGovernor(tmp_path) as disk,
        RunningServer(
            tmp_path,
            dns=dns.address,
            port=sink.port,
            workers=1,
            policies=village.policies(),
            queue=QUEUE,
            env=disk.environment,
        ) as server,
        Clients(server) as clients,
    ):
        disk.hold("sync")
        answers: list[asyncio.Task[int]] = []
        while True:
            if await (await clients.new()).say(MAIL, 1) == [452]:
                break
            client = await clients.new()
            answers.append(await client.hand_in(size))
            await clients.new()  # its content has been taken
        in_time = [answer for answer in answers if answer.done()]

        disk.let_go()
        replies = await asyncio.gather(*answers)
        await server.send("a@shop.test", ["b@d0.test"])
        await sink.until(lambda: sink.messages == len(answers) + 1)
        status = await server.stop()

    assert in_time == []
    assert replies == [250] * len(answers)
    assert 1 < len(answers) * size <= 2 * SIZE_MAX
    assert status == 0
