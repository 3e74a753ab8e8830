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
CONNECTIONS = 4  # to each site
WITHIN_S = 120.0


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_got_250_before_the_server_was_killed_arrives(tmp_path: Path, seed: int) -> None:
    """After SIGKILL at any moment every accepted recipient gets the message; only what was in flight comes twice."""
    random = Random(seed)
    village = Village(6)
    in_flight = 0
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies(CONNECTIONS)) as server,
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
            await ledger.run(plan, at={random.randrange(1, MESSAGES * 3 // 4): kill})
            await server.kill_and_wait()
            await server.start()

        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        status = await server.stop()

    print(len(ledger.accepted), len(ledger.twice()), in_flight, len(ledger.uncertain))
    import json; json.dump([list(ledger.untold(server.events())), {str(k): v for k, v in ledger.twice().items()}], open("/tmp/dur/out.json", "w"))
    assert status == 0
    assert len(ledger.accepted) >= ROUNDS
    assert ledger.strangers() == set()
    assert sum(ledger.twice().values()) <= in_flight
    untold = ledger.untold(server.events()); print(untold[:3]); assert untold == []
