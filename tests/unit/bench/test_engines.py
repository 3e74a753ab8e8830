"""Engines: what a plan says becomes the configuration of the server that is measured."""

from pathlib import Path

import pytest

from bench.engines import ENGINES, Destination, EngineError, EnginePlan, make
from bench.engines.mta_engine import MtaEngine, policies
from bench.rig import Rig
from mta_policies import layers, units

SHARED = Destination(name="big", mx=("*.mx-big.test",), connections=40, messages_per_connection=20, owners=2)
ALONE = Destination(name="own", domains=("own.test", "*.own.test"), rate_per_s=12.5, connections=3)
REST = Destination(name="rest", connections=2)


def plan(folder: Path, *destinations: Destination, **fields: object) -> EnginePlan:
    return EnginePlan(folder=folder, smtp_port=1, sink_port=2, dns_port=3, destinations=destinations, **fields)  # pyright: ignore[reportArgumentType]


def test_an_unknown_engine_is_told_with_those_that_there_are():
    """A typing error gets a sentence."""
    with pytest.raises(EngineError, match="no engine 'exim'; there are mta, baseline, postfix"):
        make("exim")


def test_what_an_engine_needs_and_lacks_is_told(monkeypatch: pytest.MonkeyPatch):
    """A library that is not installed is no traceback."""
    monkeypatch.setitem(ENGINES, "odd", "bench.engines.not_there:Odd")

    with pytest.raises(EngineError, match="the engine odd needs a library that is not installed"):
        make("odd")


def test_our_own_engine_is_made():
    """By its name."""
    assert make("mta").name == "mta"


def test_policies_are_what_the_plan_allows(tmp_path: Path):
    """Limits, owners and retry of each destination, as the server itself reads them."""
    texts = policies(plan(tmp_path, SHARED, ALONE, REST, retry_s=1.5))
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)

    read = layers.load(tmp_path, []).policies
    big, own, rest = read["bench-big"], read["bench-own"], read["default"]

    assert set(texts) == {"bench-big", "bench-own", "default"}
    assert (big.limits.connections, big.limits.messages_per_connection, big.owners) == (40, 20, 2)
    assert (own.limits.connections, own.owners) == (3, 1)
    assert own.limits.rate == (units.rate("45000/h"),)
    assert rest.limits.connections == 2
    assert big.retry.schedule == own.retry.schedule == rest.retry.schedule == (1.5,)


def test_there_is_a_default_policy_without_a_destination_for_the_rest(tmp_path: Path):
    """It says when deferred mail comes again."""
    assert 'schedule = ["2s"]' in policies(plan(tmp_path, SHARED))["default"]


def test_no_more_owners_than_workers(tmp_path: Path):
    """A destination cannot be shared out among workers that do not run."""
    assert "owners = 1" in policies(plan(tmp_path, SHARED, workers=1))["bench-big"]


def test_our_engine_needs_a_dns(tmp_path: Path):
    """Said before anything runs."""
    engine = MtaEngine()

    with pytest.raises(EngineError, match="the plan has none"):
        engine.start(Rig(tmp_path), EnginePlan(folder=tmp_path, smtp_port=1, sink_port=2))
