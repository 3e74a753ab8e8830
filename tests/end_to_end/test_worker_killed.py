"""SIGKILL to one worker under load: the others go on, its successor finds its mail, and nobody waits in silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from bench.ledger import Ledger, Village
from bench.load import Plan, run
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

MESSAGES = 4_000
KILLS = 5
SEED = 3
WITHIN_S = 120.0


async def test_what_got_250_arrives_though_workers_are_killed(tmp_path: Path) -> None:
    """Workers are killed in the middle of a load of messages to several owners; every accepted recipient is served."""
    random = Random(SEED)
    village = Village(6)
    in_flight = 0
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        ledger = Ledger(sink)

        def kill() -> None:
            nonlocal in_flight
            in_flight += sum(provider.connections_open for provider in sink.profiles.values())
            server.kill_worker(random.choice(list(server.worker_pids())))

        plan = Plan(
            port=server.smtp_port,
            messages=MESSAGES,
            sessions=20,
            sizes=[1_024, 6_000],
            domains=village.domains,
            recipients_per_message=3,
            seed=SEED,
            persist=True,
            reconnect_s=60.0,
        )
        load = await ledger.run(plan, at=dict.fromkeys(random.sample(range(1, MESSAGES - 200), KILLS), kill))
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        status = await server.stop()

    result = load.result
    assert status == 0
    assert len(result.accepted) + len(result.uncertain) == MESSAGES
    assert ledger.strangers() == set()
    assert sum(provider.duplicates for provider in sink.profiles.values()) <= in_flight
    assert ledger.untold(server.events()) == []


class Client:
    """A client that says what it is told and hears what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.port: int = writer.get_extra_info("sockname")[1]

    async def reply(self) -> str:
        """The next reply, whole; "" where the server hung up."""
        lines = [await self._reader.readline()]
        while lines[-1][3:4] == b"-":
            lines.append(await self._reader.readline())
        return b"".join(lines).decode()

    async def ask(self, line: str) -> str:
        self._writer.write(line.encode() + b"\r\n")
        return await self.reply()

    async def hand_in(self, recipient: str) -> str:
        """One message; the reply to its content."""
        await self.begin(recipient)
        return await self.ask(f"Message-ID: <{recipient}>\r\nSubject: one\r\n\r\nHello.\r\n.")

    async def begin(self, recipient: str) -> None:
        """A message up to its content."""
        assert (await self.ask("MAIL FROM:<a@shop.test>")).startswith("250")
        assert (await self.ask(f"RCPT TO:<{recipient}>")).startswith("250")
        assert (await self.ask("DATA")).startswith("354")

    def close(self) -> None:
        self._writer.close()


async def client_of(server: RunningServer, worker: int) -> Client:
    """A client whom this worker lets in; the kernel chooses, so some are sent away again."""
    for _ in range(200):
        client = Client(*await asyncio.open_connection("127.0.0.1", server.smtp_port))
        await client.reply()
        if server.worker_of(client.port) == worker:
            await client.ask("EHLO application.test")
            return client
        client.close()
    raise AssertionError(f"the kernel never chose worker {worker}")


async def owners(server: RunningServer, sink: Sink, names: list[str]) -> dict[int, str]:
    """Worker -> a domain of its own, found out by sending mail."""
    for name in names:
        await server.send("a@shop.test", [f"first@{name}"])
    told = await server.until_told(lambda events: sum(each["event"] == "delivered" for each in events) == len(names))
    return {each["worker"]: each["domain"] for each in told if each["event"] == "delivered"}


@asynccontextmanager
async def kept_dead(server: RunningServer, worker: int) -> AsyncIterator[None]:
    """The worker is killed, and so is every successor as soon as it begins."""

    async def keep() -> None:
        while True:
            if worker in server.worker_pids():
                server.kill_worker(worker)
            await asyncio.sleep(0.005)

    keeper = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeper.cancel()


async def test_a_dead_worker_holds_up_only_its_own_destinations(tmp_path: Path) -> None:
    """While a worker is dead, mail to the others' destinations goes out, and mail to its own is put off with 4xx."""
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        domains = await owners(server, sink, village.names)
        living, dead = await client_of(server, 0), await client_of(server, 1)

        async with kept_dead(server, 1):
            lost = await asyncio.wait_for(dead.reply(), WITHIN_S)
            taken = await asyncio.wait_for(living.hand_in(f"living@{domains[0]}"), WITHIN_S)
            await sink.until(lambda: sink.profiles[domains[0]].by_recipient()[f"living@{domains[0]}"] == 1)
            put_off = await asyncio.wait_for(living.hand_in(f"dead@{domains[1]}"), WITHIN_S)
        again = await asyncio.wait_for(living.hand_in(f"dead@{domains[1]}"), WITHIN_S)
        while not again.startswith("250"):
            again = await asyncio.wait_for(living.hand_in(f"dead@{domains[1]}"), WITHIN_S)
        await sink.until(lambda: sink.profiles[domains[1]].by_recipient()[f"dead@{domains[1]}"] == 1, WITHIN_S)
        status = await server.stop()
        living.close()
        dead.close()

    assert lost == ""
    assert taken.startswith("250")
    assert put_off.startswith("451")
    assert status == 0


async def test_a_client_that_waits_for_a_killed_worker_is_answered(tmp_path: Path) -> None:
    """The owner dies when its message is under way: the client hears 250 or 4xx, and what got 250 arrives."""
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        domains = await owners(server, sink, village.names)
        clients = [await client_of(server, 0) for _ in range(10)]

        recipients = [f"waiting{number}@{domains[1]}" for number in range(10)]
        for client, recipient in zip(clients, recipients, strict=True):
            await client.begin(recipient)
        waiting = [asyncio.create_task(client.ask("Subject: one\r\n\r\nHello.\r\n.")) for client in clients]
        await asyncio.sleep(0)  # all contents are written now
        server.kill_worker(1)
        replies = await asyncio.wait_for(asyncio.gather(*waiting), WITHIN_S)
        answers = dict(zip(recipients, replies, strict=True))
        accepted = {recipient for recipient, reply in answers.items() if reply.startswith("250")}
        await sink.until(lambda: accepted <= set(sink.profiles[domains[1]].by_recipient()), WITHIN_S)
        status = await server.stop()
        for client in clients:
            client.close()

    assert {reply[:1] for reply in replies} <= {"2", "4"}
    assert status == 0


async def test_the_places_of_a_killed_worker_come_back(tmp_path: Path) -> None:
    """Killed while all three connections of a destination are busy: its successor has three again, never a fourth."""
    village = Village(1)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(latency_s=0.05)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies(connections=3)) as server,
    ):
        provider = sink.profiles["d0.test"]
        await run(Plan(port=server.smtp_port, messages=200, sessions=10, sizes=[1_024], domains=village.domains))
        told = await server.until_told(lambda events: any(each["event"] == "delivered" for each in events))
        await sink.until(lambda: provider.connections_open == 3)
        before = provider.connections_max
        worker = next(each["worker"] for each in told if each["event"] == "delivered")
        async with kept_dead(server, worker):
            await sink.until(lambda: provider.connections_open == 0)
            provider.connections_max = 0
        await sink.until(lambda: provider.connections_open == 3)
        seen = provider.messages
        await sink.until(lambda: provider.messages >= seen + 30)
        after = provider.connections_max

    assert (before, after) == (3, 3)
