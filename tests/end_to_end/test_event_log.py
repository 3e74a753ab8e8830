"""The event log after SIGKILL: every fate is told, perhaps twice under another event_id, never not at all."""

from collections import Counter
from pathlib import Path
from random import Random

from bench.ledger import Ledger, Village, bench_id
from bench.load import Domain, Plan
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

SEED = 5
ROUNDS = 4
MESSAGES = 800
WITHIN_S = 120.0
FINAL = {"delivered", "bounced", "expired"}


async def test_every_fate_is_told_though_the_server_is_killed(tmp_path: Path) -> None:
    """Deliveries, deferrals and bounces before, at and after kills agree with what the sink took and refused."""
    random = Random(SEED)
    village = Village(6)
    words = {"unknown": 0.1, "tempfail.1": 0.1}
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        ledger = Ledger(sink)
        for number in range(ROUNDS):
            plan = Plan(
                port=server.smtp_port,
                messages=MESSAGES,
                domains=[Domain(name, words=words) for name in village.names],
                recipients_per_message=3,
                seed=SEED * ROUNDS + number,
            )
            await ledger.run(plan, at={random.randrange(1, MESSAGES): server.kill})
            await server.kill_and_wait()
            await server.start()
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        events = await server.until_told(lambda told: not ledger.untold(told), "every fate was told", WITHIN_S)
        status = await server.stop()

    fates = Counter((each["id"], each["recipient"]) for each in events if each["event"] in FINAL)
    retried = {
        (bench_id(each), each["recipient"]) for each in events if each["event"] == "delivered" and each["attempt"] > 1
    }
    deferred = {(bench_id(each), each["recipient"]) for each in events if each["event"] == "deferred"}
    kinds: dict[tuple[str, str], set[str]] = {}
    for each in events:
        if each["event"] in FINAL:
            kinds.setdefault((each["id"], each["recipient"]), set()).add(each["event"])
    assert status == 0
    assert len({each["event_id"] for each in events}) == len(events)
    assert max(fates.values()) <= ROUNDS + 1
    assert all(len(told) == 1 for told in kinds.values())
    assert retried <= deferred
    assert {each["recipient"] for each in events if each["event"] == "bounced" and each["sender"]} == {
        each["recipient"] for each in events if each["event"] in FINAL and each["recipient"].startswith("unknown")
    }
    notified = {each["dsn"] for each in events if each["event"] == "bounced" and each["sender"]}
    assert notified == {each["id"] for each in events if each["event"] == "received" and not each["sender"]}
