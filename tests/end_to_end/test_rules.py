"""Rules in a whole server: a provider says "too fast", its mail waits as the rule says, and an admin sees it, ends it,
and finds it again after the server was killed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import run, until_shown
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

SAID = "421 4.7.28 Our system has detected an unusual rate of mail"

SUSPENDS = """
[[rule]]
name    = "unusual-rate"
when    = { code = "421", enhanced = "4.7.28" }
then    = [{ action = "suspend", for = "2h", scope = "site" }]
"""


@asynccontextmanager
async def refused(folder: Path, village: Village) -> AsyncIterator[tuple[RunningServer, Sink, str]]:
    """A server with open limits, quick retries and one rule, which d0.test has just set off; it takes all mail since.
    -> The server, the sink, and the id of the message that was refused."""
    profiles = village.profiles()
    profiles[0].deferred_percent, profiles[0].deferred_reply = 100.0, SAID
    policies = {"default": Village.policies()["default"] + SUSPENDS}
    async with (
        ToyDns(village.zone) as dns,
        Sink(profiles) as sink,
        RunningServer(folder, dns=dns.address, port=sink.port, policies=policies) as server,
    ):
        message = await server.send("a@shop.test", ["first@d0.test"])
        await server.until_told(lambda events: told(events) == [("fired", "rule")])
        profiles[0].deferred_percent = 0
        yield server, sink, message


def delivered(events: list[Event]) -> int:
    return sum(event["event"] == "delivered" for event in events)


def told(events: list[Event]) -> list[tuple[str, str]]:
    """What was done, and by whom."""
    return [(event["change"], event["by"]) for event in events if event["event"] == "rule"]


async def test_a_site_is_silent_until_an_admin_says_otherwise(tmp_path: Path) -> None:
    """A 421 4.7.28 makes it silent, mail of other sites flows, SIGKILL changes nothing, `mta rule cancel` does."""
    village = Village(4)
    async with refused(tmp_path, village) as (server, sink, first):
        angry = sink.profiles["d0.test"]
        for number in range(10):
            for name in village.names:
                await server.send("a@shop.test", [f"r{number}@{name}"])
        await server.until_told(lambda events: delivered(events) == 30, "mail of other sites")
        shown = await until_shown(server, lambda page: len(page["rules"]) == 1, "rule", "list")
        waits = await until_shown(
            server, lambda page: page["rows"][0]["reason"]["kind"] == "rule", "queue", "show", first
        )
        why = await run(server, "queue", "why", first)
        [rule] = shown["rules"]
        assert (rule["rule"], rule["key"], rule["does"]) == (
            "unusual-rate",
            "site mx.d0.test > mx.d0.test",
            "nothing goes",
        )
        assert rule["written"].endswith("policies/default.toml:" + rule["written"].rpartition(":")[2])
        assert rule["reply"] == SAID
        assert waits["rows"][0]["reason"]["firing"] == rule["id"]
        assert f"mta rule cancel {rule['id']}" in why.out
        assert sum(angry.by_recipient().values()) == 0

        await server.kill_and_wait()
        await server.start()
        again = await until_shown(server, lambda page: len(page["rules"]) == 1, "rule", "list")
        assert again["rules"][0]["id"] == rule["id"]
        await until_shown(server, lambda page: len(page["rows"]) == 11, "queue", "list")
        assert sum(angry.by_recipient().values()) == 0

        done = await run(server, "rule", "cancel", rule["id"], "--reason", "they called")
        await server.until_told(lambda events: delivered(events) == 41, "all of it", 20.0)
        assert done.status == 0
        assert (await run(server, "rule", "show", rule["id"])).status == 1
        assert await server.stop() == 0

    events = server.events()
    assert [change for change, _ in told(events)] == ["fired", "cancelled"]
    [end] = [event for event in events if event["event"] == "rule" and event["change"] == "cancelled"]
    assert (end["id"], end["reason"], end["by"].partition(":")[0]) == (rule["id"], "they called", "command")
    assert {event["rule"] for event in events if event["event"] == "deferred"} == {"unusual-rate"}


async def test_it_ends_in_time_and_every_change_is_told(tmp_path: Path) -> None:
    """Muted, unmuted, extended to a moment from now; its end is told once, and the mail goes."""
    async with refused(tmp_path, Village(1)) as (server, _, _):
        [rule] = (await until_shown(server, lambda page: bool(page["rules"]), "rule", "list"))["rules"]
        wrong = await run(server, "rule", "mute", "unusual-rates", "--for", "1h")
        await run(server, "rule", "mute", "unusual-rate", "--for", "1h")
        await server.until_told(lambda events: delivered(events) == 1, "it has no effect")
        await run(server, "rule", "mute", "unusual-rate", "--off")
        await server.send("a@shop.test", ["second@d0.test"])
        await run(server, "rule", "extend", rule["id"], "--for", "2s")
        await server.until_told(lambda events: told(events)[-1] == ("ended", "clock"), "its end")
        await server.until_told(lambda events: delivered(events) == 2, "the other one")
        assert await server.stop() == 0

    assert wrong.status == 1
    assert "did you mean unusual-rate" in wrong.err
    changes = [change for change, _ in told(server.events())]
    assert changes[:4] == ["fired", "muted", "unmuted", "extended"]
    assert changes[-1] == "ended"


async def test_a_worker_that_was_killed_knows_it_again(tmp_path: Path) -> None:
    """And those that live know what fired in another one."""
    async with refused(tmp_path, Village(1)) as (server, sink, _):
        angry = sink.profiles["d0.test"]
        await until_shown(server, lambda page: len(page["rules"]) == 1, "rule", "list")
        for number in (0, 1):
            gone = server.kill_worker(number)
            await server.until(lambda gone=gone: gone not in server.worker_pids().values(), "it is gone")
            await server.until(lambda: len(server.worker_pids()) == 2, "its successor is there")
        await server.send("a@shop.test", ["second@d0.test"])
        await until_shown(
            server, lambda page: [row["state"] for row in page["rows"]] == ["suspended"] * 2, "queue", "list"
        )
        assert sum(angry.by_recipient().values()) == 0
        assert await server.stop() == 0
