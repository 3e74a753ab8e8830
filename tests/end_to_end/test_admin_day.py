"""An admin's day: mail that waits is looked at, held, suspended, released and cancelled, and it all agrees with the
event log and with what providers got, message by message.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from bench.ledger import Village
from bench.sink import Sink
from mta.testing.commands import fetched, run, until_shown
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

NEWS, SPRING, SPAM = 12, 10, 5
STATES = ("ready", "scheduled", "held", "suspended", "sending")


def message(campaign: str = "") -> bytes:
    more = f"X-MTA-Campaign: {campaign}\r\n".encode() if campaign else b""
    return more + b"Subject: hello\r\n\r\nHello.\r\n"


def counted(page: Any) -> Counter[str]:
    """Recipients by state, of a summary."""
    return +Counter({state: sum(row[state] for row in page["rows"]) for state in STATES})


def final(events: list[Event]) -> Counter[tuple[str, str, str]]:
    """How often each recipient's end was told."""
    ends = {"delivered", "bounced", "expired", "cancelled"}
    return Counter((each["id"], each["recipient"], each["event"]) for each in events if each["event"] in ends)


def metric(text: str, name: str) -> float:
    """A metric over all workers."""
    return sum(float(value) for value in re.findall(rf"^mta_{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE))


async def test_an_admins_day(tmp_path: Path) -> None:
    """Nobody gets what was cancelled, everybody else gets everything once, and no step of it gets lost in a restart."""
    village = Village(4)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        await sink.profiles["d0.test"].set_down(True)
        sent: dict[str, list[str]] = {}
        kinds = [("news@shop.test", "", NEWS), ("news@shop.test", "spring", SPRING), ("spam@shop.test", "", SPAM)]
        ids: dict[tuple[str, str], list[str]] = {}
        for sender, campaign, count in kinds:
            for number in range(count):
                recipients = [f"{campaign or sender[:4]}{number}@d0.test", f"{campaign or sender[:4]}{number}@d2.test"]
                message_id = await server.send(sender, recipients, message(campaign))
                sent[message_id] = recipients
                ids.setdefault((sender, campaign), []).append(message_id)
        total = NEWS + SPRING + SPAM
        await server.until_told(
            lambda events: sum(final(events).values()) == sum(each["event"] == "received" for each in events) == total,
            "what may go has gone",
        )

        # Looking: what waits is what was sent to the provider that is down, and nothing else.
        summary = await until_shown(server, lambda page: sum(counted(page).values()) == total, "queue", "summary")
        listed = (await run(server, "queue", "list", "--json", "--limit", "0")).json
        shown = (await run(server, "queue", "show", next(iter(sent)), "--json")).json
        assert {row["site"] for row in summary["rows"] if sum(row[state] for state in STATES)} == {"mx.d0.test"}
        assert summary["messages"] == total
        assert sorted(row["id"] for row in listed["rows"]) == sorted(sent)
        assert {row["domain"] for row in listed["rows"]} == {"d0.test"}
        assert [row["recipient"] for row in shown["rows"]] == ["news0@d0.test"]
        told = {(each["event"], each.get("recipient")) for each in shown["history"]}
        assert {("received", None), ("delivered", "news0@d2.test")} <= told

        # Acting: each kind by its own criterion.
        held = await run(server, "queue", "hold", "--campaign", "spring", "--domain", "d0.test")
        cancelled = await run(server, "queue", "cancel", "--sender", "spam@*")
        again = await run(server, "queue", "cancel", "--sender", "spam@*")
        assert (held.status, held.out) == (0, f"held {SPRING} recipients of {SPRING} messages at 2 workers\n")
        assert (cancelled.status, cancelled.out) == (
            0,
            f"cancelled {SPAM} recipients of {SPAM} messages at 2 workers\n",
        )
        assert (again.status, again.out) == (1, "nothing matched\n")
        suspended = await run(
            server, "suspend", "--domain", "d0.test", "--for", "2h", "--reason", "they asked", "--json"
        )
        suspension = suspended.json["suspension"]["id"]
        assert suspended.status == 0

        # The provider comes back, and the server is restarted: what an admin said still holds.
        await sink.profiles["d0.test"].set_down(False)
        assert await server.stop() == 0
        await server.start()
        sent[await server.send("news@shop.test", ["late@d0.test", "late@d2.test"])] = ["late@d0.test", "late@d2.test"]
        await server.until_told(lambda events: any(each.get("recipient") == "late@d2.test" for each in events))
        page = await until_shown(server, lambda page: counted(page)["held"] == SPRING, "queue", "summary")
        listing = await run(server, "suspend", "list")
        assert sum(counted(page).values()) == NEWS + SPRING + 1
        assert suspension in listing.out
        assert "they asked" in listing.out
        assert sink.profiles["d0.test"].by_recipient().total() == 0

        # Letting go: first the suspension, then what is held.
        assert (await run(server, "suspend", "resume", suspension)).status == 0
        await until_shown(server, lambda page: counted(page) == Counter(held=SPRING), "queue", "summary")
        assert sink.profiles["d0.test"].by_recipient().total() == NEWS + 1
        released = await run(server, "queue", "release", "--all")
        assert released.out == f"released {SPRING} recipients of {SPRING} messages at 2 workers\n"
        await until_shown(server, lambda page: counted(page) == Counter(), "queue", "summary")
        metrics = (await fetched(server, "/metrics"))[1]
        assert await server.stop() == 0

    # The day's end: every recipient has one fate in the event log, and the providers got what it says.
    spam = set(ids["spam@shop.test", ""])
    expected = {
        (message_id, recipient, "cancelled" if message_id in spam and recipient.endswith("@d0.test") else "delivered")
        for message_id, recipients in sent.items()
        for recipient in recipients
    }
    events = server.events()
    assert final(events) == Counter(expected)
    got = Counter(each for name in ("d0.test", "d2.test") for each in sink.profiles[name].by_recipient().elements())
    assert got == Counter(recipient for _, recipient, event in expected if event == "delivered")
    suspensions = [
        (each["event"], each["id"], each["by"] != "")
        for each in events
        if "suspen" in each["event"] or each["event"] == "resumed"
    ]
    assert suspensions == [("suspended", suspension, True), ("resumed", suspension, True)]
    restarted_s = next(each["time"] for each in events if each.get("recipient") == "late@d2.test") - 1
    since = Counter(each["event"] for each in events if each["time"] > restarted_s)
    assert metric(metrics, "delivered_total") == since["delivered"] == NEWS + SPRING + 2
    assert metric(metrics, "received_total") == 1
    assert metric(metrics, "queue_recipients") == metric(metrics, "queue_held") == 0
    assert metric(metrics, "up") == 2
