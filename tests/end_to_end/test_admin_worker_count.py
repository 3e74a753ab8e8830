"""Another number of workers after a restart: what an admin holds and suspends stays where no one sends it."""

from pathlib import Path

import pytest

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import run, until_shown
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

MESSAGES = 20


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
async def test_what_is_held_finds_its_new_owner_and_is_held(tmp_path: Path, is_killed: bool) -> None:
    """Three workers, then one, then two: recipients of one message, held, suspended or neither, keep what they are;
    in the end each got it once."""
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, workers=3, policies=village.policies()) as server,
    ):
        held, suspended, free = village.names[:2], village.names[2:4], village.names[4:]
        recipients = [[f"r{number}@{name}" for name in village.names] for number in range(MESSAGES)]
        for each in recipients:
            await server.send("a@shop.test", each)
        for name in held:
            assert (await run(server, "queue", "hold", "--domain", name, "--json")).json["touched"] == MESSAGES
        ids = [
            (await run(server, "suspend", "--recipient", f"*@{name}", "--for", "1h", "--json")).json["suspension"]["id"]
            for name in suspended
        ]

        for workers in (1, 2):
            if is_killed:
                await server.kill_and_wait()
            else:
                assert await server.stop() == 0
            server.workers = workers
            server.write_config()
            await server.start()
            if workers == 1:
                for provider in sink.profiles.values():
                    await provider.set_down(False)
            page = await until_shown(
                server, lambda page: len(page["rows"]) == MESSAGES * 4, "queue", "list", "--limit", "0"
            )
            assert {row["domain"] for row in page["rows"] if row["state"] == "held"} == set(held)
            assert {row["domain"] for row in page["rows"] if row["state"] != "held"} == set(suspended)
            assert sum(row["state"] == "held" for row in page["rows"]) == MESSAGES * len(held)
            for name in held + suspended:
                assert sink.profiles[name].by_recipient().total() == 0

        for each in ids:
            assert (await run(server, "suspend", "resume", each)).status == 0
        assert (await run(server, "queue", "release", "--all", "--json")).json["touched"] == MESSAGES * len(held)
        await until_shown(server, lambda page: not page["rows"], "queue", "list")
        arrived = [each for provider in sink.profiles.values() for each in provider.by_recipient().elements()]
        assert await server.stop() == 0

    certain = {address for each in recipients for address in each if not is_killed or address.split("@")[1] not in free}
    assert sorted(each for each in arrived if each in certain) == sorted(certain)
    assert set(arrived) == {address for each in recipients for address in each}
