"""A whole server against a provider that blocks it, as Google does: silence, one connection, then one more."""

import itertools
from pathlib import Path

from bench.ledger import Village
from bench.load import Plan
from bench.load import run as load
from bench.sink import Sink
from mta.testing.commands import run
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns
from mta_policies.answers import Answer, Subject
from mta_policies.provider_model import Google

SILENCE_S = 1.0
STEP_MESSAGES = 10
MESSAGES = 600  # some wait for every step: a second connection is opened for them alone, however late it comes
POLICY = """
[limits]
connections = 2
messages_per_connection = 1000
[[rule]]
name = "blocked"
when = { code = "421", enhanced = "4.7.28" }
then = [{ action = "probe", silence = "1s", scope = "source" }]
"""


class Blocking(Google):
    """Its block lasts until the test has seen enough of it."""

    is_blocking = True

    def answer(self, subject: Subject, now_s: float) -> Answer | None:
        if self.is_blocking:
            self.block(subject, now_s)
        return super().answer(subject, now_s)


async def test_a_block_that_outlasts_the_first_silence(tmp_path: Path) -> None:
    """A probe is refused and nothing more is tried for as long again; the next one is taken, and the second connection
    comes when ten messages were. Then all is well, and nothing is in force any more."""
    village = Village(1)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(times=True, latency_s=0.02)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies={"default": POLICY}) as server,
    ):
        provider = sink.profiles["d0.test"]
        # That connections come one at a time is seen below by what was delivered, not by this machine's speed.
        provider.model = model = Blocking(0.001, silence_s=SILENCE_S, wants_ramp=False)
        await server.send("a@shop.test", ["first@d0.test"])
        await server.until_told(lambda events: any(event["event"] == "rule" for event in events))
        explained = await run(server, "policy", "explain", "x@d0.test")
        await load(Plan(port=server.smtp_port, messages=MESSAGES, sessions=10, sizes=[1_024], domains=village.domains))
        await sink.until(lambda: provider.replies["DOT 421"] >= 2)
        model.is_blocking = False
        await server.until_told(lambda events: any(event.get("change") == "ended" for event in events), "all is well")
        status = await server.stop()

    assert status == 0
    refused = provider.replies["DOT 421"]
    changes = [event["reason"].partition(":")[0] for event in server.events() if event["event"] == "rule"]
    assert changes[1:] == [
        *(refused - 1) * ["one connection is tried", "refused again"],
        "one connection is tried",
        "2 connections",
        "2 connections carry mail",
    ]
    assert model.punished == 0
    knocks = list(provider.mail_times)[: refused + 1]
    assert all(later - earlier >= SILENCE_S for earlier, later in itertools.pairwise(knocks))
    assert provider.connections_total == refused + 2
    assert list(provider.connection_times)[-1] >= [each.at_s for each in provider.deliveries][STEP_MESSAGES - 1]
    assert "in force for it now, by rules" in explained.out
    assert "blocked  source system > mx.d0.test" in explained.out
