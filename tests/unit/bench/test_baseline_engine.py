"""The baseline as an engine: a plan in its own words, and a process that is measured and ended like any other."""

from pathlib import Path

import msgspec
import pytest
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from bench.baseline_directions import Limits
from bench.engines import Destination, Engine, EngineError, EnginePlan, KeyFile, make
from bench.engines.baseline import arguments, limits
from bench.keys import make_key
from bench.load import Domain, Plan, run
from bench.rig import Rig
from bench.temper import Profile
from mta.testing.ports import free_port


def plan_for(folder: Path, **changed: object) -> EnginePlan:
    plain: dict[str, object] = {"smtp_port": 2525, "sink_port": 2526, "dns_port": 5353}
    return EnginePlan(folder=folder, **{**plain, **changed})  # pyright: ignore[reportArgumentType] - by name


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_it_relays_what_it_is_given(tmp_path: Path):
    """Started by name, with two processes; everything arrives, signed, and it ends cleanly."""
    (tmp_path / "engine").mkdir()
    engine: Engine = make("baseline")
    with Rig(tmp_path) as rig:
        sink_port = rig.start_sink([Profile(name="sink")])
        plan = plan_for(
            tmp_path / "engine", smtp_port=free_port(), sink_port=sink_port, dns_port=0,
            routes={"sink.test": f"127.0.0.2:{sink_port}"}, key=make_key(tmp_path, "load.test", bits=1_024),
        )  # fmt: skip
        engine.start(rig, plan)

        result = uvloop.run(run(Plan(port=engine.smtp_port, messages=20, domains=[Domain("sink.test")])))
        rig.wait("sink", lambda: rig.sink_counts()["sink"].messages == 20)

        counts, cpu_s = rig.sink_counts()["sink"], rig.cpu_of(engine.pids())
        engine.stop()
    assert len(result.accepted) == 20
    assert (counts.signed, counts.duplicates) == (20, 0)
    assert cpu_s > 0.0


def test_the_plan_is_told_in_its_words(tmp_path: Path):
    """Where to listen, whom to ask, when to try again."""
    words = arguments(plan_for(tmp_path, workers=3, durability="os", retry_s=1.5, idle_timeout_s=60.0))

    assert option(words, "--listen") == "127.0.0.1:2525"
    assert option(words, "--dns") == "127.0.0.1:5353"
    assert option(words, "--port") == "2526"
    assert option(words, "--processes") == "3"
    assert option(words, "--durability") == "os"
    assert option(words, "--retry-s") == "1.5"
    assert option(words, "--idle-s") == "5.0"
    assert "--key" not in words


def test_its_processes_share_the_connections(tmp_path: Path):
    """They know nothing of each other, so each gets its part, at least one; the last limits are for all others."""
    plan = plan_for(
        tmp_path,
        workers=4,
        destinations=(
            Destination(name="others", connections=8),
            Destination(name="big", mx=("*.big.test",), connections=40, messages_per_connection=20),
            Destination(name="small", domains=("small.test",), connections=2),
        ),
    )

    assert limits(plan) == [
        Limits(connections=10, messages_per_connection=20, mx=("*.big.test",)),
        Limits(connections=1, domains=("small.test",)),
        Limits(connections=2),
    ]


def test_without_a_name_server_it_has_routes(tmp_path: Path):
    """In a file, and where there are neither it says so."""
    words = arguments(plan_for(tmp_path, dns_port=0, routes={"a.test": "127.0.0.2:25"}))

    assert msgspec.json.decode(Path(option(words, "--routes")).read_bytes()) == {"a.test": "127.0.0.2:25"}
    with pytest.raises(EngineError, match="neither a name server nor routes"):
        arguments(plan_for(tmp_path, dns_port=0))


def test_the_key_is_written_as_dkimpy_reads_it(tmp_path: Path):
    """PKCS#1, and nobody else may read it."""
    key = make_key(tmp_path, "load.test", bits=1_024)

    words = arguments(plan_for(tmp_path, key=key))

    path = Path(option(words, "--key"))
    assert path.read_bytes().startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert path.stat().st_mode & 0o077 == 0
    assert (option(words, "--domain"), option(words, "--selector")) == ("load.test", "bench")


def test_a_key_that_dkimpy_cannot_use_is_refused(tmp_path: Path):
    """Ed25519 would need another library; what is no key is none."""
    path = tmp_path / "key"
    path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(EngineError, match="of another kind"):
        arguments(plan_for(tmp_path, key=KeyFile(path, "load.test", "s", "")))

    path.write_text("dear diary")
    with pytest.raises(EngineError, match="no private key"):
        arguments(plan_for(tmp_path, key=KeyFile(path, "load.test", "s", "")))


def test_one_that_was_never_started_is_stopped():
    """Nothing happens, and nothing is measured."""
    engine = make("baseline")

    engine.stop()

    assert engine.pids() == []
