"""`X-MTA-Priority`: urgent mail passes what waits for the same destination."""

import asyncio
import smtplib
from pathlib import Path
from time import monotonic

from bench.load import Domain, Plan, run
from bench.sink import Profile, Sink
from mta.testing.open_doors import OpenDoors
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

BACKLOG = 20_000
POLICY = """
match = { domains = ["slow.test"] }
tls = "none"
[limits]
connections = 3
connection_rate = "none"
messages_per_connection = 0
rate = "100/s"
"""


def hand_in_urgent(session: smtplib.SMTP, number: int) -> float:
    """One message of priority 9; -> when its 250 came, monotonic."""
    content = f"X-Bench-Id: urgent-{number}\r\nX-MTA-Priority: 9\r\nSubject: Your password\r\n\r\nHello.\r\n"
    session.sendmail("a@shop.test", [f"urgent{number}@slow.test"], content)
    return monotonic()


async def test_urgent_mail_passes_a_backlog_within_a_quarter_of_a_second(tmp_path: Path) -> None:
    """Ten messages of priority 9, handed in at once, five by each of two doors, pass 20,000 of priority 1 to the same
    rate-limited destination: from the 250 to the sink's final dot each takes at most 0.25 s."""
    async with (
        ToyDns({"slow.test": {"MX": ["10 mx.slow.test."]}, "mx.slow.test": {"A": ["127.0.0.2"]}}) as dns,
        Sink([Profile(name="slow")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"slow": POLICY}) as server,
    ):
        backlog = Plan(
            port=server.smtp_port,
            messages=BACKLOG,
            sessions=40,
            sizes=[1_024],
            domains=[Domain("slow.test")],
            priority=1,
        )
        result = await run(backlog)
        slow = sink.profiles["slow"]
        with OpenDoors(server) as doors:
            await asyncio.to_thread(doors.open, 5)
            sessions = [session for door in doors.sessions.values() for session in door[:5]]
            accepted_s = await asyncio.gather(
                *(asyncio.to_thread(hand_in_urgent, session, number) for number, session in enumerate(sessions))
            )
        await sink.until(lambda: sum(each.id.startswith("urgent") for each in slow.deliveries) == 10)
        waiting = BACKLOG + 10 - slow.messages

    urgent = [each for each in slow.deliveries if each.id.startswith("urgent")]
    took_s = {each.id: each.at_s - accepted_s[int(each.id.removeprefix("urgent-"))] for each in urgent}
    assert len(result.accepted) == BACKLOG
    assert len(took_s) == 10
    assert waiting > BACKLOG / 2
    assert max(took_s.values()) <= 0.25
