"""Providers that are down: what is accepted meanwhile waits on the disk and goes out when they are back."""

import os
from pathlib import Path

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

MESSAGES = int(os.environ.get("MTA_TEST_MESSAGES", "50000"))
WITHIN_S = 300.0


async def test_what_is_accepted_while_every_provider_is_down_arrives_once(tmp_path: Path) -> None:
    """Thousands of messages wait while no provider can be reached; each is delivered, and told, exactly once."""
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies(10)) as server,
    ):
        ledger = Ledger(sink)
        plan = Plan(port=server.smtp_port, messages=MESSAGES, sessions=50, sizes=[1_024], domains=village.domains)

        load = await ledger.run(plan)
        for provider in sink.profiles.values():
            await provider.set_down(False)
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        status = await server.stop()

    events = server.events()
    assert status == 0
    assert len(load.result.accepted) == MESSAGES
    assert ledger.twice() == {}
    assert ledger.strangers() == set()
    assert ledger.untold(events) == []
    assert sum(event["event"] == "delivered" for event in events) == MESSAGES
    assert {event["worker"] for event in events if event["event"] == "delivered"} == {0, 1}
