"""SIGKILL to signing helpers under load: every message arrives, once and signed, and nothing of them stays behind."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.ledger import Ledger, Village
from bench.load import Plan
from bench.sink import Sink
from mta.testing.running_server import RunningServer
from mta.testing.signing_rig import rsa_key
from mta.testing.toy_dns import ToyDns

KEY = rsa_key("load.test", "s1")
MESSAGES = 2_500
KILLS = 8
SEED = 5
WITHIN_S = 120.0


def helper_pids(server: RunningServer) -> list[int]:
    """Processes of the server that sign."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    pids = []
    for child in children:
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"mta.signing.helper" in command:
            pids.append(int(child))
    return pids


async def ended(descriptors: Sequence[int]) -> None:
    """Wait until processes, each given by a descriptor of it, are gone."""
    loop = asyncio.get_running_loop()
    for descriptor in descriptors:
        is_gone = asyncio.Event()
        loop.add_reader(descriptor, is_gone.set)
        await asyncio.wait_for(is_gone.wait(), WITHIN_S)
        loop.remove_reader(descriptor)
        os.close(descriptor)


def dkim(folder: Path) -> str:
    """A key that signs everything, and the lines of mta.toml that say so."""
    (folder / "s1.pem").write_bytes(KEY.pem)
    return '[[dkim]]\ndomain = "load.test"\nselector = "s1"\nkey = "s1.pem"\nsign = "always"\n'


async def test_helpers_are_killed_under_load(tmp_path: Path) -> None:
    """Helpers die one after another, once all of them together: no message is lost, doubled or sent unsigned."""
    random = Random(SEED)
    village = Village(6)
    async with (
        ToyDns(village.zone) as dns,
        Sink(village.profiles(keep="contents")) as sink,
        RunningServer(
            tmp_path, dns=dns.address, port=sink.port, policies=village.policies(), more=dkim(tmp_path)
        ) as server,
    ):
        ledger = Ledger(sink)
        killed: set[int] = set()

        def kill() -> None:
            pids = helper_pids(server)
            for pid in pids if len(killed) == 4 else pids[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

        plan = Plan(
            port=server.smtp_port,
            messages=MESSAGES,
            sessions=20,
            sizes=[1_024, 6_000],
            domains=village.domains,
            recipients_per_message=2,
            seed=SEED,
        )
        load = await ledger.run(plan, at=dict.fromkeys(random.sample(range(1, MESSAGES - 200), KILLS), kill))
        await server.until(lambda: not ledger.missing(), "all mail arrived", WITHIN_S)
        await server.until(lambda: len(helper_pids(server)) == 2, "both helpers are back")
        status = await server.stop()

    assert status == 0
    assert len(load.result.accepted) == MESSAGES
    assert len(killed) >= KILLS // 2
    assert not ledger.twice()
    assert ledger.untold(server.events()) == []
    deliveries = [each for provider in sink.profiles.values() for each in provider.deliveries]
    assert all(each.content.startswith(b"DKIM-Signature: ") for each in deliveries)
    assert {each["dkim"] for each in server.events() if each["event"] == "delivered"} == {"load.test"}
    assert "signing helper" in server.log


async def test_helpers_end_with_the_server(tmp_path: Path) -> None:
    """After SIGTERM, and after SIGKILL to the supervisor alone, no helper is left."""
    async with (
        ToyDns({}) as dns,
        RunningServer(tmp_path, port=25, dns=dns.address, more=dkim(tmp_path)) as server,
    ):
        first = [os.pidfd_open(pid) for pid in helper_pids(server)]
        assert await server.stop() == 0
        await ended(first)
        assert not list((tmp_path / "queue" / "links").glob("signer-*"))

        await server.start()
        second = [os.pidfd_open(pid) for pid in helper_pids(server)]
        os.kill(server.pid, signal.SIGKILL)
        await ended(second)

    assert len(first) == len(second) == 2
