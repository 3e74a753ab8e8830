"""The shipped policies in a whole server, as they are: what a provider says sets off the rule that is meant for it."""

from pathlib import Path

from bench.sink import Profile, Sink
from mta.testing.commands import until_shown
from mta.testing.running_server import Event, RunningServer
from mta.testing.toy_dns import ToyDns

ZONE = {
    "elsewhere.test": {"MX": ["10 mx.elsewhere.test."]},
    "mx.elsewhere.test": {"A": ["127.0.0.2"]},
    "yahoo.com": {"MX": ["10 mta5.am0.yahoodns.net."]},
    "mta5.am0.yahoodns.net": {"A": ["127.0.0.3"]},
    "swift.test": {"MX": ["10 mx.swift.test."]},
    "mx.swift.test": {"A": ["127.0.0.4"]},
}
TOO_MANY = "421 4.7.0 Too many concurrent SMTP connections from this IP address; please try again later."
COMPLAINTS = "421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred due to user complaints"


def fired(events: list[Event]) -> set[tuple[str, str, str]]:
    """What rules set off."""
    return {
        (event["policy"], event["rule"], event["action"])
        for event in events
        if event["event"] == "rule" and event["change"] == "fired"
    }


def answered(events: list[Event]) -> dict[str, tuple[str, str]]:
    """Domain -> the policy that held, and the rule that matched what was said there."""
    return {event["domain"]: (event["policy"], event.get("rule", "")) for event in events if "domain" in event}


async def test_what_providers_say_sets_off_their_rules(tmp_path: Path) -> None:
    """One of default's rules for a provider without a policy, one of its own for one that has; others' mail goes."""
    profiles = [
        Profile(name="elsewhere", address="127.0.0.2", deferred_percent=100.0, deferred_reply=TOO_MANY),
        Profile(name="yahoo", address="127.0.0.3", deferred_percent=100.0, deferred_reply=COMPLAINTS),
        Profile(name="swift", address="127.0.0.4"),
    ]
    async with (
        ToyDns(ZONE) as dns,
        Sink(profiles) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, shipped=True) as server,
    ):
        for domain in ("elsewhere.test", "yahoo.com", "swift.test"):
            await server.send("a@shop.test", [f"b@{domain}"])
        events = await server.until_told(lambda events: len(fired(events)) >= 3 and len(answered(events)) == 3)
        page = await until_shown(
            server, lambda page: "suspend" in {rule["action"] for rule in page["rules"]}, "rule", "list"
        )
        later = await server.send("a@shop.test", ["c@yahoo.com"])
        shown = await until_shown(
            server, lambda page: page["rows"][0]["reason"]["kind"] == "rule", "queue", "show", later
        )
        assert await server.stop() == 0

    assert answered(events) == {
        "elsewhere.test": ("default", "any-too-many-connections"),
        "yahoo.com": ("yahoo", "yahoo-complaints"),
        "swift.test": ("default", ""),
    }
    assert fired(events) == {
        ("default", "any-too-many-connections", "slow"),
        ("yahoo", "yahoo-complaints", "suspend"),
        ("yahoo", "yahoo-complaints", "alert"),
    }
    [rule] = [rule for rule in page["rules"] if rule["action"] == "suspend"]
    assert "yahoo.toml:" in rule["written"]
    assert shown["rows"][0]["reason"]["firing"] == rule["id"]
