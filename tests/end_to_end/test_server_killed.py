"""SIGKILL to the whole server, again and again under load: what got 250 arrives, and hardly anything twice."""

from pathlib import Path
from random import Random

import pytest

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

ROUNDS = 4
MESSAGES = 1_500
WITHIN_S = 120.0


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_got_250_before_the_server_was_killed_arrives(tmp_path: Path, seed: int) -> None:
    """After SIGKILL at any moment every accepted recipient gets the message; only what was in flight comes twice."""
    random = Random(seed)
    village = Village(6)
    in_flight = 0
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(latency_s=0.01 * (seed % 2))) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        ledger = Ledger(sink)

        def kill() -> None:
            nonlocal in_flight
            in_flight += sum(provider.connections_open for provider in sink.profiles.values())
            server.kill()

        for number in range(ROUNDS):
            plan = Plan(
                port=server.smtp_port,
                messages=MESSAGES,
                sessions=20,
                sizes=[1_024, 6_000],
                domains=village.domains,
                recipients_per_message=1 + number % 2 * 2,
                seed=seed * ROUNDS + number,
            )
            load = await ledger.run(plan, at={random.randrange(1, MESSAGES * 3 // 4): kill})
            assert len(load.result.accepted) < MESSAGES
            await server.kill_and_wait()
            await server.start()

        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        status = await server.stop()

    assert status == 0
    assert ledger.strangers() == set()
    assert sum(provider.duplicates for provider in sink.profiles.values()) <= in_flight
    assert ledger.untold(server.events()) == []


async def test_mail_that_waits_outlives_many_kills(tmp_path: Path) -> None:
    """Mail that waited through three kills, one of them right after the start, arrives once."""
    village = Village(4)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        ledger = Ledger(sink)
        for _ in range(3):
            plan = Plan(port=server.smtp_port, messages=200, domains=village.domains, recipients_per_message=3)
            await ledger.run(plan)
            await server.kill_and_wait()
            await server.start()
        await server.kill_and_wait()
        await server.start()

        for provider in sink.profiles.values():
            await provider.set_down(False)
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        status = await server.stop()

    assert status == 0
    assert len(ledger.accepted) == 600
    assert ledger.twice() == {}
    assert ledger.untold(server.events()) == []
