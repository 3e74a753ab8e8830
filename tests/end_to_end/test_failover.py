"""Failover: the next host where one is down, patience where all are, and an end where there is nowhere to send to."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from bench.load import Domain, Plan, run
from bench.sink import Profile, Sink
from mta.testing.running_server import Event, RunningServer, free_port
from mta.testing.scripted_peer import Close, Say, ScriptedPeer
from mta.testing.toy_dns import ToyDns

FINAL = {"delivered", "bounced", "expired"}
FIRST_ROUND_S = 0.5
"""Who is down is left alone for at least 0.8 s: what comes sooner belongs to the first attempt."""
POLICY = """
tls = "none"
[limits]
connections = 10
connection_rate = "none"
messages_per_connection = 0
rate = "none"
[retry]
schedule = ["1s"]
jitter = "0%"
"""


def load(server: RunningServer, messages: int, domain: str) -> Plan:
    return Plan(port=server.smtp_port, messages=messages, sessions=20, sizes=[1_024], domains=[Domain(domain)])


def all_final(count: int) -> Callable[[list[Event]], bool]:
    """Whether so many recipients have their final fate."""
    return lambda events: sum(each["event"] in FINAL for each in events) == count


def only(events: list[Event], kind: str) -> list[Event]:
    return [each for each in events if each["event"] == kind]


async def test_the_next_host_takes_the_mail_of_one_that_is_down(tmp_path: Path) -> None:
    """Mail goes to the best host that takes connections, without waiting and without a `deferred`, also where a host
    closes with a greeting of 421; and to the best host again, not to the next, while that one is up."""
    zone = {
        "three.test": {"MX": ["10 mx1.three.test.", "20 mx2.three.test.", "30 mx3.three.test."]},
        "mx1.three.test": {"A": ["127.0.0.2"]},
        "mx2.three.test": {"A": ["127.0.0.3"]},
        "mx3.three.test": {"A": ["127.0.0.4"]},
        "well.test": {"MX": ["10 mx3.three.test.", "20 mx2.three.test."]},
    }
    profiles = [Profile(name="down", down=True), Profile(name="full", connections_max=1), Profile(name="last")]
    async with ToyDns(zone) as dns, Sink(profiles) as sink:
        full, last = sink.profiles["full"], sink.profiles["last"]
        _, blocker = await asyncio.open_connection(full.address, sink.port)  # the one connection that it takes
        async with RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": POLICY}) as server:
            await run(load(server, 20, "three.test"))
            await run(load(server, 20, "well.test"))
            await sink.until(lambda: sink.messages == 40)
            events = await server.until_told(all_final(40))
            blocker.close()

    assert last.messages == 40
    assert full.mails == 0
    assert only(events, "deferred") == []
    assert {each["host"] for each in only(events, "delivered")} == {"mx3.three.test"}


async def test_after_the_final_dot_no_other_host_is_asked(tmp_path: Path) -> None:
    """What the best host refuses for now at RCPT or at the dot, or does not answer at the dot, waits for its turn:
    the next host does not get it instead."""
    zone = {
        "two.test": {"MX": ["10 mx1.two.test.", "20 mx2.two.test."]},
        "mx1.two.test": {"A": ["127.0.0.2"]},
        "mx2.two.test": {"A": ["127.0.0.3"]},
    }
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="first"), Profile(name="second")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": POLICY}) as server,
    ):
        for recipient in ("tempfail.1@two.test", "deferdot.1@two.test", "dropdot.1@two.test"):
            await server.send("a@shop.test", [recipient])
        await server.until_told(all_final(3))
        first, second = sink.profiles["first"], sink.profiles["second"]

    assert first.messages == 3
    assert set(first.attempts.values()) == {2}
    assert second.connections_total == 0


async def test_a_site_that_is_down_is_asked_by_one_connection_at_a_time(tmp_path: Path) -> None:
    """While a site turns every connection away it sees one at a time after the first few, one message a round tells
    `deferred` and no attempt is counted; as soon as it takes mail everything flows."""
    began_s: list[float] = []
    at_once: list[int] = []
    open_now = 0

    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        began_s.append(monotonic())
        at_once.append(open_now)
        writer.write(b"421 4.3.2 Not now\r\n")
        await asyncio.sleep(0.05)  # connections at the same time would meet here
        writer.close()
        open_now -= 1

    def first_round() -> int:
        return sum(time_s < began_s[0] + FIRST_ROUND_S for time_s in began_s)

    port = free_port()
    zone = {"down.test": {"MX": ["10 mx.down.test."]}, "mx.down.test": {"A": ["127.0.0.2"]}}
    async with (
        ToyDns(zone) as dns,
        RunningServer(tmp_path, dns=dns.address, port=port, policies={"default": POLICY}) as server,
    ):
        async with await asyncio.start_server(turn_away, "127.0.0.2", port):
            await run(load(server, 200, "down.test"))
            await server.until(lambda: len(began_s) >= first_round() + 2, "two probes")
            await server.until_told(lambda told: len(only(told, "deferred")) >= 2)
        deferred = only(server.events(), "deferred")
        async with Sink([Profile(name="down", address="127.0.0.2")], port=port) as sink:
            await sink.until(lambda: sink.messages == 200, 60)
            times_s = [each.at_s for each in sink.profiles["down"].deliveries]
            events = await server.until_told(all_final(200))

    assert first_round() <= 10
    assert set(at_once[first_round() :]) == {1}
    assert 2 <= len(began_s) - first_round() <= 4
    assert len(deferred) <= 5
    assert {(each["stage"], each["code"], each["attempt"]) for each in deferred} == {("greeting", 421, 0)}
    assert {each["attempt"] for each in only(events, "delivered")} == {1}
    assert times_s[-1] - times_s[0] < 10


async def test_where_no_mail_can_go_it_bounces_at_once(tmp_path: Path) -> None:
    """A domain that does not exist, one that takes no mail (null MX), and MX hosts at prohibited addresses end a
    message with a code that says why; a route and an address literal know no MX."""
    zone = {
        "null.test": {"MX": ["0 ."]},
        "inside.test": {"MX": ["10 mx.inside.test."]},
        "mx.inside.test": {"A": ["127.0.0.2", "10.0.0.1"]},
        "routed.test": {"MX": ["10 mx.inside.test."]},
    }
    route_policy = POLICY.replace('"none"', '"none"', 1)
    async with ToyDns(zone) as dns, Sink([Profile(name="inside")]) as sink:
        route = f'[[route]]\ndomains = ["routed.test"]\nhosts = ["127.0.0.2:{sink.port}"]\npolicy = "inhouse"\n'
        quiet = '[[tenant]]\nname = "quiet"\nsenders = ["*@shop.test"]\ndsn = "never"\n'
        server = RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies={"inhouse": route_policy}, more=route + quiet
        )
        text = server.config.read_text()
        server.config.write_text(text.replace("_networks = []", '_networks = ["127.0.0.0/8", "10.0.0.0/8"]'))
        recipients = ["a@nowhere.test", "a@null.test", "a@inside.test", "a@[127.0.0.2]", "a@routed.test"]
        async with server:
            for recipient in recipients:
                await server.send("a@shop.test", [recipient])
            events = await server.until_told(all_final(5))
            inside = sink.profiles["inside"]

    fates = {each["recipient"]: (each["event"], each["code"], each["enhanced"]) for each in events if "code" in each}
    assert fates["a@nowhere.test"] == ("bounced", 550, "5.1.2")
    assert fates["a@null.test"] == ("bounced", 556, "5.1.10")
    assert fates["a@inside.test"] == ("bounced", 550, "5.4.4")
    assert fates["a@[127.0.0.2]"] == ("bounced", 550, "5.4.4")
    assert fates["a@routed.test"][0] == "delivered"
    assert inside.by_recipient() == {"a@routed.test": 1}
    (delivered,) = only(events, "delivered")
    assert (delivered["policy"], delivered["address"]) == ("inhouse", "127.0.0.2")


async def test_an_address_literal_is_a_host_of_its_own(tmp_path: Path) -> None:
    """Mail for `user@[127.0.0.2]` goes there, if that is allowed, without a question to the DNS."""
    async with (
        ToyDns() as dns,
        Sink([Profile(name="literal")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port) as server,
    ):
        await server.send("a@shop.test", ["user@[127.0.0.2]"])
        await sink.until(lambda: sink.messages == 1)

    assert sink.profiles["literal"].by_recipient() == {"user@[127.0.0.2]": 1}
    assert dns.queries.total() == 0


async def test_mail_waits_for_the_dns(tmp_path: Path) -> None:
    """SERVFAIL is no proof of anything: mail is deferred, without an attempt, and delivered when the DNS is back."""
    zone = {"late.test": {"MX": ["10 mx.late.test."]}, "mx.late.test": {"A": ["127.0.0.2"]}}
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="late")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": POLICY}) as server,
    ):
        dns.behave("servfail", "late.test")
        for _ in range(5):
            await server.send("a@shop.test", ["user@late.test"])
        deferred = only(await server.until_told(lambda told: bool(only(told, "deferred"))), "deferred")
        dns.behave("answer", "late.test")
        await sink.until(lambda: sink.messages == 5, 120)
        events = await server.until_told(all_final(5))

    assert [(each["stage"], each["code"], each["enhanced"]) for each in deferred] == [("dns", 451, "4.4.3")]
    assert deferred[0]["attempt"] == 0
    assert {each["attempt"] for each in only(events, "delivered")} == {1}


async def test_a_peer_that_greets_with_a_refusal_is_not_asked_for_each_message(tmp_path: Path) -> None:
    """A greeting of 554 is about the host and not about the mail: nothing bounces, one message tells."""
    async with (
        ScriptedPeer([Say("554 5.3.2 No service here"), Close()], address="127.0.0.2") as peer,
        ToyDns({"refusing.test": {"MX": ["10 mx.refusing.test."]}, "mx.refusing.test": {"A": ["127.0.0.2"]}}) as dns,
        RunningServer(tmp_path, dns=dns.address, port=peer.port, policies={"default": POLICY}) as server,
    ):
        await run(load(server, 100, "refusing.test"))
        events = await server.until_told(lambda told: len(only(told, "deferred")) >= 2)
        connections = len(peer.commands)

    assert only(events, "bounced") == []
    assert connections <= 10 + 3
    assert {(each["stage"], each["code"]) for each in only(events, "deferred")} == {("greeting", 554)}
