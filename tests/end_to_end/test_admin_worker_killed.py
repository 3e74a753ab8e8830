"""A worker dies: the admin face says so, and what an admin said still holds when its successor is there."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import fetched, run, until_shown
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

MESSAGES = 20


async def test_what_is_held_and_suspended_outlives_its_worker(tmp_path: Path) -> None:
    """Both workers are killed, one after the other; nothing that was stopped goes out, and all of it when it may."""
    village = Village(4)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(down=True)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        recipients = [f"r{number}@{name}" for name in village.names for number in range(MESSAGES)]
        for recipient in recipients:
            await server.send("a@shop.test", [recipient])
        held = (await run(server, "queue", "hold", "--domain", "d0.test", "--json")).json
        begun = (await run(server, "suspend", "--sender", "a@shop.test", "--for", "1h", "--json")).json
        assert held["touched"] == MESSAGES
        await server.until_told(lambda events: any(event["event"] == "suspended" for event in events))
        for provider in sink.profiles.values():
            await provider.set_down(False)

        for number in (0, 1):
            gone = server.kill_worker(number)
            await server.until(lambda gone=gone: gone not in server.worker_pids().values(), "it is gone")
            await server.until(lambda: len(server.worker_pids()) == 2, "its successor is there")
            await until_shown(
                server, lambda page: len(page["rows"]) == len(recipients), "queue", "list", "--limit", "0"
            )
        still = await until_shown(server, lambda page: True, "queue", "list", "--domain", "d0.test")
        assert {row["state"] for row in still["rows"]} == {"held"}
        assert sum(provider.by_recipient().total() for provider in sink.profiles.values()) == 0

        await run(server, "suspend", "resume", begun["suspension"]["id"])
        await until_shown(server, lambda page: len(page["rows"]) == MESSAGES, "queue", "list")
        await run(server, "queue", "release", "--domain", "d0.test")
        await until_shown(server, lambda page: not page["rows"], "queue", "list")
        arrived = [each for provider in sink.profiles.values() for each in provider.by_recipient().elements()]
        assert await server.stop() == 0

    told = [event["event"] for event in server.events() if event["event"] in ("suspended", "resumed")]
    assert sorted(arrived) == sorted(recipients)
    assert told == ["suspended", "resumed"]


async def test_health_is_of_all_workers(tmp_path: Path) -> None:
    """While one does not answer it is 503, and well again when it does."""
    async with ToyDns({}) as dns, RunningServer(tmp_path, dns=dns.address, port=9) as server:
        well = await fetched(server, "/health")
        os.kill(server.worker_pids()[1], signal.SIGSTOP)
        ill = await until_health(server, 503)
        metrics = (await fetched(server, "/metrics"))[1]
        os.kill(server.worker_pids()[1], signal.SIGCONT)
        again = await until_health(server, 200)

    assert (well[0], json.loads(well[1])["workers"]) == (200, 2)
    assert ill["problems"] == ["worker 1 does not answer"]
    assert 'mta_up{worker="1"} 0' in metrics.splitlines()
    assert again["problems"] == []


async def until_health(server: RunningServer, status: int) -> dict[str, Any]:
    """Ask until the answer has a status; -> the answer."""
    while True:
        found, body = await asyncio.wait_for(fetched(server, "/health"), 60)
        if found == status:
            return json.loads(body)
