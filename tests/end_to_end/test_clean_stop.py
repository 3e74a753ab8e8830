"""SIGTERM: what is under way ends, nothing new begins, and the next start goes on where this one stopped."""

import asyncio
import os
import signal
from pathlib import Path
from time import monotonic

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.toy_dns import ToyDns

WITHIN_S = 120.0
STOP_S_MAX = 30.0


async def greeting(port: int) -> str:
    """What a new client hears first; "" where it is refused or hung up on."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return (await reader.readline()).decode()
        finally:
            writer.close()
    except OSError:
        return ""


async def test_sigterm_lets_a_transaction_end_and_turns_new_clients_away(tmp_path: Path) -> None:
    """A delivery that takes seconds is finished and told before the server ends with 0; meanwhile nobody is let in."""
    village = Village(2)
    slow = "slow.3@d0.test"
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles()) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        await server.send("a@shop.test", [slow])
        await server.until(lambda: sink.profiles["d0.test"].attempts[slow] == 1, "the slow delivery began")
        began_s = monotonic()
        stopping = asyncio.create_task(server.stop())
        heard = await asyncio.wait_for(greeting(server.smtp_port), STOP_S_MAX)
        while heard.startswith("220"):  # the signal is on its way
            heard = await asyncio.wait_for(greeting(server.smtp_port), STOP_S_MAX)
        was_stopping = not stopping.done()
        status = await stopping
        took_s = monotonic() - began_s

    events = server.events()
    assert status == 0
    assert took_s < STOP_S_MAX
    assert was_stopping
    assert heard == "" or heard.startswith("421")
    assert sink.profiles["d0.test"].by_recipient() == {slow: 1}
    assert [each["recipient"] for each in events if each["event"] == "delivered"] == [slow]
    assert server.log.endswith("stopped\n")


async def test_a_stop_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Every client is answered before the server ends, and after the next start everything arrives once."""
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(latency_s=0.02)) as sink,
        RunningServer(tmp_path, dns=dns.address, port=sink.port, policies=village.policies()) as server,
    ):
        ledger = Ledger(sink)
        statuses = []
        for number, moment in enumerate((1, 700)):
            plan = Plan(
                port=server.smtp_port,
                messages=3_000,
                domains=village.domains,
                recipients_per_message=3,
                seed=number,
            )
            load = await ledger.run(plan, at={moment: lambda: os.kill(server.pid, signal.SIGTERM)})
            assert load.result.uncertain == []
            statuses.append(await server.stop())
            await server.start()
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        statuses.append(await server.stop())

    assert statuses == [0, 0, 0]
    assert len(ledger.accepted) >= 701
    assert ledger.twice() == {}
    assert ledger.strangers() == set()
    assert ledger.untold(server.events()) == []
