"""A queue of thousands: pages together are everything once, counts are exact, and mail goes on meanwhile."""

import asyncio
from pathlib import Path

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.commands import run, until_shown
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

MESSAGES = 6_000
WITHIN_S = 120.0


async def test_everything_is_listed_once_held_and_released(tmp_path: Path) -> None:
    """Thousands wait; they are listed, held in two halves at the same time, released, and arrive once."""
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies(10)) as server,
    ):
        ledger = Ledger(sink)
        await ledger.run(
            Plan(port=server.smtp_port, messages=MESSAGES, sessions=30, sizes=[1_024], domains=village.domains)
        )
        listed = await until_shown(server, lambda page: len(page["rows"]) == MESSAGES, "queue", "list", "--limit", "0")
        halves = await asyncio.gather(
            *(run(server, "queue", "hold", *half, "--json") for half in (["--domain", "d0*"], ["--all"]))
        )
        page = await until_shown(
            server, lambda page: sum(row["held"] for row in page["rows"]) == MESSAGES, "queue", "summary"
        )
        for provider in sink.profiles.values():
            await provider.set_down(False)
        await server.send("a@shop.test", ["urgent@d0.test"])
        await server.until_told(
            lambda events: any(event.get("recipient") == "urgent@d0.test" for event in events[-50:])
        )
        before = sum(provider.by_recipient().total() for provider in sink.profiles.values())
        released = await run(server, "queue", "release", "--all", "--json")
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        assert await server.stop() == 0

    ids = [row["id"] for row in listed["rows"]]
    assert ids == sorted(ids)
    assert len(set(ids)) == MESSAGES
    assert sum(half.json["touched"] for half in halves) == MESSAGES
    assert page["messages"] == MESSAGES
    assert before == 1
    assert released.json["touched"] == MESSAGES
    assert ledger.twice() == {}
    assert [each for each in ledger.untold(server.events()) if "urgent@" not in each] == []
