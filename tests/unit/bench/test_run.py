"""A run: figures where each message arrived exactly once, and a sentence where not."""

import sys
from pathlib import Path

import dkim
import msgspec
import pytest
import uvloop

from bench import run as runner
from bench.__main__ import build_parser, default_name, in_turn, listing, main
from bench.engines import EnginePlan
from bench.keys import make_key
from bench.rig import Rig, is_listening
from bench.run import Order, RunError, run, verify
from bench.scenarios import Options, load

FORWARDER = """
import asyncio, sys

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

async def forward(reader, writer):
    there_reader, there_writer = await asyncio.open_connection("127.0.0.2", int(sys.argv[2]))
    await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

async def serve():
    server = await asyncio.start_server(forward, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(serve())
"""
CONTENT = b"From: <a@load.test>\r\nSubject: x\r\n\r\nbody\r\n"


class Forwarder:
    """An engine that is nothing but a pipe into the sink: what it accepts has arrived."""

    name = "forwarder"

    def __init__(self) -> None:
        self.smtp_port = 0

    def command(self, plan: EnginePlan) -> list[str]:
        return [sys.executable, "-c", FORWARDER, str(plan.smtp_port), str(plan.sink_port)]

    def start(self, rig: Rig, plan: EnginePlan) -> None:
        self.rig, self.plan, self.smtp_port = rig, plan, plan.smtp_port
        rig.start(self.name, self.command(plan))
        rig.wait(self.name, lambda: is_listening("127.0.0.1", plan.smtp_port, greeting=b"220"))

    def pids(self) -> list[int]:
        return [self.rig.pid(self.name)]

    def stop(self) -> None:
        self.rig.stop(self.name)


class Loser(Forwarder):
    """An engine that says 250 and keeps everything to itself."""

    def command(self, plan: EnginePlan) -> list[str]:
        listen = f"127.0.0.1:{plan.smtp_port}"
        return [sys.executable, "-m", "bench.sink", "--listen", listen, "--report", ""]


def order(**fields: object) -> Order:
    options = Options(messages=200, sessions=5)
    return msgspec.structs.replace(Order(scenario=load("relay"), options=options), **fields)


@pytest.fixture
def forwarder(monkeypatch: pytest.MonkeyPatch) -> Forwarder:
    engine = Forwarder()
    monkeypatch.setattr(runner, "make", lambda name: engine)
    return engine


def test_a_run_has_figures(forwarder: Forwarder, tmp_path: Path):
    """Each message is there once; times, CPU and memory were measured."""
    found = uvloop.run(run(order(), tmp_path))

    assert (found.messages, found.missing, found.duplicates, found.strangers, found.refused) == (200, 0, 0, 0, 0)
    assert 0 < found.latency_p50_ms <= found.latency_p90_ms <= found.latency_p99_ms <= found.latency_max_ms
    assert found.delivered_per_s > 0
    assert found.memory_mb > 1
    assert found.connections >= 5


def test_an_engine_is_told_everything(forwarder: Forwarder, tmp_path: Path):
    """Where to listen, where the sink and the name server are, every route, and no key where nothing is signed."""
    uvloop.run(run(order(durability="os"), tmp_path))

    plan = forwarder.plan
    assert dict(plan.routes) == {"sink.test": f"127.0.0.2:{plan.sink_port}"}
    assert plan.dns_port
    assert plan.key is None
    assert (plan.durability, plan.workers, plan.folder) == ("os", 2, tmp_path)
    assert [each.name for each in plan.destinations] == ["sink"]


def test_mail_that_does_not_arrive_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """When nothing has come for a while, the rest is missing."""
    monkeypatch.setattr(runner, "make", lambda name: Loser())
    monkeypatch.setattr(runner, "STALL_S", 0.2)

    with pytest.raises(RunError, match="200 of 200 messages were accepted and did not arrive"):
        uvloop.run(run(order(), tmp_path))


def test_mail_without_a_signature_fails_a_signed_run(forwarder: Forwarder, tmp_path: Path):
    """The engine has got a key, and does not use it."""
    with pytest.raises(RunError, match="signature"):
        uvloop.run(run(order(signed=True), tmp_path))

    assert forwarder.plan.key is not None
    assert forwarder.plan.key.path.exists()


def test_an_open_load_keeps_its_rate(forwarder: Forwarder, tmp_path: Path):
    """Never more than was asked for; how late the generator was is told."""
    scenario = load("latency")

    found = uvloop.run(run(order(scenario=scenario, options=Options(messages=100, rate_per_s=500.0)), tmp_path))

    assert found.rate_asked_per_s == 500.0
    assert found.accepted_per_s <= 510.0
    assert found.generator_late_p99_ms > 0.0


def test_signatures_are_verified(tmp_path: Path):
    """A good one counts, a changed message fails."""
    key = make_key(tmp_path, "load.test", bits=1_024)
    signed = dkim.sign(CONTENT, key.selector.encode(), b"load.test", key.path.read_bytes()) + CONTENT

    assert verify([signed, signed], key) == 2
    with pytest.raises(RunError, match="not good"):
        verify([signed, signed.replace(b"body", b"bodi")], key)


def test_a_message_signed_by_somebody_else_is_not_good(tmp_path: Path):
    """Only the key that was given counts."""
    key = make_key(tmp_path, "load.test", bits=1_024)
    other = make_key(tmp_path, "other.test", bits=1_024)
    signed = dkim.sign(CONTENT, other.selector.encode(), b"other.test", other.path.read_bytes()) + CONTENT

    with pytest.raises(RunError, match="not good"):
        verify([signed], key)


def test_engines_take_turns_in_balanced_order():
    """Neither is always the first."""
    assert in_turn(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]
    assert in_turn(["a"], 2) == ["a", "a"]


def test_figures_are_kept_under_what_was_run():
    """Our own engine needs no name, for most figures are of it."""
    assert default_name("relay", ["mta"], signed=False) == "relay"
    assert default_name("mix", ["mta"], signed=True) == "mix-signed"
    assert default_name("relay", ["mta", "baseline"], signed=True) == "relay-mta-baseline-signed"
    assert default_name("burst", ["postfix"], signed=False) == "burst-postfix"


def test_the_list_names_everything():
    """Scenarios with what they are, and the engines."""
    text = listing()

    assert [
        name for name in ("relay", "mix", "latency", "burst", "mta", "baseline", "postfix") if name not in text
    ] == []


def test_the_command_prints_json(forwarder: Forwarder, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An entry a round, and nothing else on standard output; the folder is empty afterwards."""
    status = main(["run", "relay", "--messages", "60", "--sessions", "2", "--json", "--folder", str(tmp_path)])

    rounds = msgspec.json.decode(capsys.readouterr().out)
    assert status == 0
    assert [each["messages"] for each in rounds] == [60]
    assert list(tmp_path.iterdir()) == []


def test_the_command_compares(forwarder: Forwarder, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A line a round, then both beside each other."""
    small = ["--messages", "60", "--sessions", "2", "--folder", str(tmp_path)]

    status = main(["run", "relay", "--against", "baseline", *small])

    out = capsys.readouterr().out
    assert status == 0
    assert "ratio" in out
    assert [line.split(":")[0].strip() for line in out.splitlines()[:2]] == ["mta", "baseline"]


def test_the_command_fails_loudly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Status 1 and a sentence on standard error."""
    monkeypatch.setattr(runner, "make", lambda name: Loser())
    monkeypatch.setattr(runner, "STALL_S", 0.2)

    status = main(["run", "relay", "--messages", "50", "--sessions", "2", "--folder", str(tmp_path)])

    assert status == 1
    assert "did not arrive" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [[], ["walk"], ["run", "nothing"], ["run", "relay", "--messages", "0"], ["run", "relay", "--engine", "x"]]
)
def test_wrong_usage_is_told(wrong: list[str], capsys: pytest.CaptureFixture[str]):
    """Status 2, as everywhere."""
    with pytest.raises(SystemExit) as error:
        main(wrong)

    assert error.value.code == 2
    assert "usage: python -m bench" in capsys.readouterr().err


def test_a_run_without_a_scenario_relays():
    """`python -m bench run --engine baseline` is a whole sentence."""
    args = build_parser().parse_args(["run", "--engine", "baseline"])

    assert (args.scenario, args.engine) == ("relay", "baseline")
