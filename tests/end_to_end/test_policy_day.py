"""A day with policies: a limit is lowered while mail flows, a mistake changes nothing, mail says why it waits, what a
rule set off is ended, and the log of all that is rehearsed."""

import json
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

from bench.load import Domain, Plan
from bench.load import run as load
from bench.sink import Profile, Sink
from bench.temper import most_beyond_rate
from mta.testing.commands import run, until_shown
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {"isp.test": {"MX": ["10 mx.isp.test."]}, "mx.isp.test": {"A": ["127.0.0.2"]}}
CONNECTIONS, FAST, SLOW = 3, 60, 10
TOTAL = 1_200  # at the fast rate there is enough for 20 s, however slowly commands start
FIRST, THEN = 30, 18  # seen at the fast rate, and at the slow one: at the fast one that many would be far beyond it

POLICY = """\
match = {{ domains = ["isp.test"] }}
tls = "none"
[limits]
connections = {connections}
connection_rate = "none"
messages_per_connection = 0
rate = "{rate}"
[retry]
schedule = ["1s"]
[[rule]]
name = "had-enough"
when = {{ code = "421", text = "closing" }}
then = [{{ action = "suspend", for = "2h", scope = "provider" }}]
"""


def policy(rate: str) -> str:
    return POLICY.format(connections=CONNECTIONS, rate=rate)


def ends(events: list[Event]) -> Counter[tuple[str, str]]:
    """How often each recipient was delivered to."""
    return Counter((each["id"], each["recipient"]) for each in events if each["event"] == "delivered")


async def reason(server: RunningServer, message: str, kind: str) -> Any:
    """Why it waits, once that is for a reason of this kind."""

    def is_that(page: Any) -> bool:
        return bool(page["rows"]) and (page["rows"][0]["reason"] or {}).get("kind") == kind

    return (await until_shown(server, is_that, "queue", "why", message))["rows"][0]["reason"]


async def test_a_day_with_policies(tmp_path: Path) -> None:
    """What an admin does takes effect with its answer, what is wrong does nothing, and nobody gets anything twice."""
    async with (
        ToyDns(ZONE) as dns,
        Sink([Profile(name="isp")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"isp": policy(f"{FAST}/s")}) as server,
    ):
        isp = sink.profiles["isp"]
        plan = Plan(port=server.smtp_port, messages=TOTAL, sessions=8, sizes=[500], domains=[Domain("isp.test")])
        sent = await load(plan)
        await sink.until(lambda: isp.messages >= FIRST)

        # Lower: what goes out after the answer keeps to it.
        server.write_policy("isp", policy(f"{SLOW}/s"))
        lowered = await run(server, "policy", "reload")
        lowered_s = monotonic()
        assert (lowered.status, lowered.out) == (0, "reloaded: 2 workers took it\n")

        # A mistake: told by file and line, and nothing is changed, though other commands go on working.
        server.write_policy("isp", policy(f"{FAST} a second"))
        wrong = await run(server, "policy", "reload")
        assert wrong.status == 1
        assert wrong.out.startswith("not reloaded, nothing was changed:\n")
        assert "policies/isp.toml:7: " in wrong.out
        assert f"{FAST} a second" in wrong.out

        # Why: the value that keeps it, and where it is written.
        last = await server.send("a@shop.test", ["anna@isp.test"])
        why = await reason(server, last, "rate")
        assert (why["limit"], why["value"]) == ("limits.rate", f"{SLOW}/s")
        assert why["origin"].endswith("policies/isp.toml:7")
        seen = len(isp.mail_times)
        await sink.until(lambda: len(isp.mail_times) >= seen + THEN)
        assert sum(ends(server.events()).values()) < TOTAL
        slow = [at_s for at_s in isp.mail_times if at_s >= lowered_s]
        assert len(slow) >= THEN
        assert most_beyond_rate(slow, SLOW) <= SLOW + CONNECTIONS

        # A rule fires: its mail waits until somebody ends that.
        server.write_policy("isp", policy("none"))
        assert (await run(server, "policy", "reload")).status == 0
        await server.until_told(lambda events: sum(ends(events).values()) == TOTAL + 1, "the rest")
        await server.send("a@shop.test", ["421.1@isp.test"])
        [rule] = (await until_shown(server, lambda page: bool(page["rules"]), "rule", "list"))["rules"]
        kept = await server.send("a@shop.test", ["otto@isp.test"])
        assert (await reason(server, kept, "rule"))["firing"] == rule["id"]
        assert isp.by_recipient()["otto@isp.test"] == 0
        assert (await run(server, "rule", "cancel", rule["id"], "--reason", "they called")).status == 0
        events = await server.until_told(lambda events: sum(ends(events).values()) == TOTAL + 3, "all of it")
        assert await server.stop() == 0

    assert len(sent.accepted) == TOTAL
    assert set(ends(events).values()) == {1}
    assert set(isp.by_recipient().values()) == {1}
    assert [(each["change"], each["by"].partition(":")[0]) for each in events if each["event"] == "rule"] == [
        ("fired", "rule"),
        ("cancelled", "command"),
    ]

    # Rehearsed: the same mail under the policy of the morning, and under one that is slower.
    slower = tmp_path / "slower"
    slower.mkdir()
    (slower / "isp.toml").write_text(policy("1/s"))
    done = await run(server, "policy", "replay", "--policies", str(slower), "--json")
    [isp_rows] = json.loads(done.out)["providers"]
    assert done.status == 0
    assert {name: isp_rows[name]["delivered"] for name in ("recorded", "now", "new")} == dict.fromkeys(
        ("recorded", "now", "new"), TOTAL + 3
    )
    assert isp_rows["recorded"]["deferred"] == 1
    assert isp_rows["new"]["drained_s"] > TOTAL * 0.9 > isp_rows["now"]["drained_s"]
    assert isp_rows["new"]["bound"][0]["limit"] == "limits.rate"
