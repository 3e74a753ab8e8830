"""Another number of workers after a restart: waiting mail finds its new owners, with all that is known of it."""

from pathlib import Path

import pytest

from bench.ledger import Ledger, Village, bench_id
from bench.load import Domain, Plan
from bench.sink import Sink
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

MESSAGES = 400
RETRY_S = 4
WITHIN_S = 120.0


def deferred_by_peer(events: list[Event]) -> dict[tuple[str, str], Event]:
    """The first attempt of each recipient that was told to come again."""
    deferred = [each for each in events if each["event"] == "deferred" and each["attempt"]]
    return {(bench_id(each), each["recipient"]): each for each in deferred}


@pytest.mark.parametrize(
    ("before", "after", "is_killed"),
    [(2, 1, True), (1, 2, False), (3, 2, True), (3, 2, False)],
    ids=["2-1-killed", "1-2-stopped", "3-2-killed", "3-2-stopped"],
)
async def test_waiting_mail_survives_another_number_of_workers(
    tmp_path: Path, before: int, after: int, is_killed: bool
) -> None:
    """All that waited arrives once, what was deferred at its due time and as the second attempt; old logs are gone."""
    village = Village(6)
    up, down = village.names[:2], village.names[2:]
    domains = [Domain(name, words={"tempfail.1": 1.0}) for name in up] + [Domain(name) for name in down]
    profiles = village.profiles()
    for profile in profiles[2:]:
        profile.down = True
    async with (
        ToyDns(village.zone) as dns,
        Sink(profiles) as sink,
        RunningServer(
            tmp_path,
            dns=dns.address,
            port=sink.port,
            workers=before,
            policies=village.policies(schedule=f"{RETRY_S}s"),
        ) as server,
    ):
        ledger = Ledger(sink)
        plan = Plan(port=server.smtp_port, messages=MESSAGES, domains=domains, recipients_per_message=3)
        await ledger.run(plan)
        tried = {
            (each, recipient)
            for each, recipients in ledger.recipients.items()
            for recipient in recipients
            if recipient.startswith("tempfail")
        }
        events = await server.until_told(lambda told: deferred_by_peer(told).keys() == tried)
        if is_killed:
            await server.kill_and_wait()
        else:
            assert await server.stop() == 0

        server.workers = after
        server.write_config()
        await server.start()
        for name in down:
            await sink.profiles[name].set_down(False)
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        queue = tmp_path / "queue"
        await server.until(lambda: not any((queue / str(log)).exists() for log in range(after, before)), "logs removed")
        status = await server.stop()

    due_s = {mail: each["next_attempt"] for mail, each in deferred_by_peer(events).items()}
    second = {
        (bench_id(each), each["recipient"]): each
        for each in server.events()
        if each["event"] == "delivered" and each["recipient"].startswith("tempfail")
    }
    assert status == 0
    assert len(ledger.accepted) == MESSAGES
    assert ledger.twice() == {}
    assert ledger.untold(server.events()) == []
    assert second.keys() == tried
    assert {each["attempt"] for each in second.values()} == {2}
    assert all(each["time"] > due_s[mail] - 0.5 for mail, each in second.items())
