"""Mail that waits moves to another server: out of a running one, and out of the files of one that is dead."""

from collections import Counter
from pathlib import Path

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import run, until_shown
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

LARGE = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 40_000


async def test_mail_goes_on_on_another_server(tmp_path: Path) -> None:
    """Exported, imported twice, removed: every recipient gets it once, from the new server. What the old one has in its
    files when it is killed goes the same way."""
    village = Village(4)
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    file, rest = tmp_path / "queue.tar", tmp_path / "rest.tar"
    async with ToyDns(village.zone) as dns, Sink(village.profiles()) as sink:
        options = {"dns": dns.address, "port": sink.port, "policies": village.policies()}
        await sink.profiles["d0.test"].set_down(True)
        await sink.profiles["d2.test"].set_down(True)
        sent: dict[str, str] = {}
        async with RunningServer(tmp_path / "old", **options) as old:
            for number in range(8):
                address = f"a{number}@d{0 if number % 2 else 2}.test"
                sent[
                    await old.send("news@shop.test", [address], LARGE if number == 3 else b"Subject: x\r\n\r\nx\r\n")
                ] = address
            held = next(iter(sent))
            await until_shown(old, lambda page: page["messages"] == 8, "queue", "summary")
            await run(old, "queue", "hold", "--id", held)
            why = await run(old, "queue", "why", held)
            exported = await run(old, "queue", "export", "--domain", "d0.test", "--to", str(file))
            again = await run(old, "queue", "export", "--all", "--to", str(file))
            async with RunningServer(tmp_path / "new", **options) as new:
                first = await run(new, "queue", "import", str(file))
                second = await run(new, "queue", "import", str(file))
                removed = await run(old, "queue", "cancel", "--exported", str(file))
                left = (await run(old, "queue", "list", "--json")).json
                await old.kill_and_wait()
                beside = await run(
                    new, "queue", "export", str(tmp_path / "new" / "queue"), "--to", str(tmp_path / "x.tar")
                )
                dead = await run(new, "queue", "export", str(tmp_path / "old" / "queue"), "--to", str(rest))
                third = await run(new, "queue", "import", str(rest))
                states = {row["id"]: row["state"] for row in (await run(new, "queue", "list", "--json")).json["rows"]}
                for name in ("d0.test", "d2.test"):
                    await sink.profiles[name].set_down(False)
                await run(new, "queue", "release", "--all")
                await run(new, "queue", "retry", "--all")
                events = await new.until_told(
                    lambda events: sum(each["event"] == "delivered" for each in events) == 8, "all of it is delivered"
                )

    assert (why.status, "held\n  It waits for an admin, who holds it." in why.out) == (0, True), why
    assert exported.status == 0, exported
    assert "exported 4 recipients of 4 messages" in exported.out
    assert (again.status, "never overwrites" in again.err) == (1, True), again
    assert (first.status, first.out) == (0, "imported 4 recipients of 4 messages\n"), first
    assert "imported 0 recipients of 0 messages; 4 recipients were here already" in second.out, second
    assert "cancelled 4 recipients of 4 messages" in removed.out, removed
    assert len(left["rows"]) == 4
    assert beside.status == 1, beside
    assert "exported 4 recipients of 4 messages" in dead.out, dead
    assert third.out == "imported 4 recipients of 4 messages\n", third
    assert sorted(states) == sorted(sent)
    assert states[held] == "held"
    assert {each["id"]: each["recipient"] for each in events if each["event"] == "delivered"} == sent
    got = Counter(sink.profiles["d0.test"].by_recipient()) + Counter(sink.profiles["d2.test"].by_recipient())
    assert got == Counter(sent.values())
