"""Limits across destinations: one tenant's mail to several destinations, each with a worker of its own."""

from pathlib import Path

from bench.load import Domain, Plan, run
from bench.sink import Profile, Sink
from bench.temper import most_beyond_rate
from mta.handoff.placement import lender
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

RATE = 40
MESSAGES = 90
BEFORE_KILL = 50
TENANT = f"""
[[tenant]]
name = "shop"
senders = ["*@sender.test"]
[[limit]]
per = "tenant"
rate = "{RATE}/s"
"""


def policy(domain: str) -> str:
    """One connection: no more than one MAIL is on its way."""
    return f'match = {{ domains = ["{domain}"] }}\ntls = "none"\n[limits]\nconnections = 1\nconnection_rate = "none"\n'


async def test_a_tenants_rate_holds_over_two_workers_one_of_which_is_killed(tmp_path: Path) -> None:
    """Not more than the rate and its burst go to both destinations together, also while the worker that keeps the
    account is killed and restarted; everything arrives."""
    zone = {
        "one.test": {"MX": ["10 mx.one.test."]},
        "two.test": {"MX": ["10 mx.two.test."]},
        "mx.one.test": {"A": ["127.0.0.2"]},
        "mx.two.test": {"A": ["127.0.0.3"]},
    }
    policies = {"one": policy("one.test"), "two": policy("two.test")}
    async with (
        ToyDns(zone) as dns,
        Sink([Profile(name="one"), Profile(name="two")]) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=policies, more=TENANT) as server,
    ):
        domains = [Domain("one.test"), Domain("two.test")]
        plan = Plan(port=server.smtp_port, messages=MESSAGES, sizes=[1_024], domains=domains, sender="a@sender.test")
        result = await run(plan)
        await sink.until(lambda: sink.messages >= BEFORE_KILL, 60)
        server.kill_worker(lender("tenant shop", 2))
        arrived = [provider.ids for provider in sink.profiles.values()]
        await server.until(lambda: sum(len(ids()) for ids in arrived) == MESSAGES, "all mail arrived")
        told = await server.until_told(lambda events: {each["worker"] for each in events if "host" in each} == {0, 1})
        mail_times = sorted(time_s for provider in sink.profiles.values() for time_s in provider.mail_times)

    assert len(result.accepted) == MESSAGES
    assert {each["tenant"] for each in told} == {"shop"}
    assert most_beyond_rate(mail_times, RATE) <= RATE + len(domains)
