"""A new source in a whole server: what its plan allows goes from it, the rest from the warm one, and after SIGKILL the
day goes on where it was."""

from pathlib import Path

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import run
from mta.testing.noon import noon_zone
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

BIG = 'match = { domains = ["*.test"] }\ntls = "none"\n'
SOURCES = f"""
[[source]]
name = "new"
ipv4 = "127.0.0.101"

[[source]]
name = "old"
ipv4 = "127.0.0.102"

[[pool]]
name    = "default"
sources = {{ new = 1 }}

[[pool]]
name    = "warm"
sources = {{ old = 1 }}

[[warmup]]
source        = "new"
plan          = [20, 1000]
zone          = "{noon_zone()}"
overflow_pool = "warm"
"""


def sources(events: list[Event]) -> list[str]:
    """Of what was delivered; what is told twice after a crash counts once."""
    delivered = (event for event in events if event["event"] == "delivered")
    return list({(event["id"], event["recipient"]): event["source"] for event in delivered}.values())


async def test_a_new_source_sends_what_its_plan_allows(tmp_path: Path) -> None:
    """Two sites of one provider; 6 recipients, SIGKILL, 40 more: at most 20 from the new source, at most what was drawn
    is lost, nothing waits, and a command shows it."""
    village = Village(2)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"big": BIG}, more=SOURCES) as server,
    ):
        await server.send("a@shop.test", [f"r{number}@{village.names[number % 2]}" for number in range(6)])
        first = await server.until_told(lambda events: len(sources(events)) == 6)
        await server.kill_and_wait()
        await server.start()
        await server.send("a@shop.test", [f"s{number}@{village.names[number % 2]}" for number in range(40)])
        events = await server.until_told(lambda events: len(sources(events)) == 46)
        shown = await run(server, "policy", "warmup", "new", "--json")

    assert set(sources(first)) == {"new"}
    from_new = sources(events).count("new")
    assert 6 + 20 - 6 - 10 <= from_new <= 20
    [row] = [row for row in shown.json["rows"] if row["provider"] == "big"]
    assert (row["day"], row["allowed"], row["origin"].rpartition("/")[2].partition(":")[0]) == (1, 20, "mta.toml")
    assert from_new - 6 <= row["sent"] <= from_new
