"""A run: one scenario against one engine, from nothing to figures.

A fresh folder, a fresh sink, a fresh name server, a fresh engine; some mail to warm up; then the load, and the wait
until the sink has every message; then the engine is ended, and what is still on its way would show as a duplicate.
Generator and runner are this process; everything else is a process of its own, on the same cores.
"""

import asyncio
import time
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import dkim
import msgspec

from bench.engines import Engine, EnginePlan, make
from bench.figures import Figures, Seen, Shape, figures
from bench.keys import KeyFile, make_key
from bench.load import Load, Plan, Result
from bench.processes import MemoryWatch, cpu_s_by_name
from bench.rig import Rig
from bench.scenarios import SENDER_DOMAIN, Options, Scenario, Setup
from mta.testing.ports import free_port

POLL_S = 0.1  # how often the sink is asked; when the last one came is known from its own clock
STALL_S = 30.0  # without a single arrival: whatever is still missing will not come
VERIFIED_MAX = 20  # dkimpy takes about a millisecond each; a wrong signature would be wrong in all
WARM_ID, LOAD_ID = "warm", "load"

Durability = Literal["fsync", "os"]


@runtime_checkable
class CountsSigning(Protocol):
    """An engine that knows what its signatures cost."""

    def signing_cpu_s(self) -> float:
        """CPU seconds that the signing alone has taken so far."""
        ...


class RunError(Exception):
    """The run has no figures: messages were lost, refused or doubled, or the engine failed."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run."""

    scenario: Scenario
    options: Options
    engine: str = "mta"
    signed: bool = False
    durability: Durability = "fsync"


async def run(order: Order, folder: Path) -> Figures:
    """One round in an empty folder on a real disk.

    Raises RunError, RigError where a process fails, and EngineError where the engine cannot do what is asked.
    """
    engine = make(order.engine)
    setup = order.scenario.setup(order.options)
    with Rig(folder) as rig:
        key = make_key(folder, SENDER_DOMAIN) if order.signed else None
        rig.start_sink(setup.profiles)
        rig.start_dns(setup.world.zone | (key.zone if key is not None else {}))
        engine.start(rig, _engine_plan(order, setup, rig, key))
        found = await _measure(order, setup, rig, engine, key)
    complaints = found.complaints()
    if complaints:
        raise RunError("; ".join(complaints))
    return found


async def _measure(order: Order, setup: Setup, rig: Rig, engine: Engine, key: KeyFile | None) -> Figures:
    warm = msgspec.structs.replace(setup.warm, port=engine.smtp_port, run_id=WARM_ID)
    plan = msgspec.structs.replace(setup.plan, port=engine.smtp_port, run_id=LOAD_ID)
    warmed = await _through(rig, warm, 0)
    pids = engine.pids()
    with MemoryWatch(lambda: pids) as watch:
        signing_s = _signing_cpu_s(order, engine)  # first and last, for to ask costs the engine something
        before_s, before = rig.cpu_of(pids), cpu_s_by_name(*pids)
        result = await _through(rig, plan, len(warmed.accepted))
        cpu_s, after = rig.cpu_of(pids) - before_s, cpu_s_by_name(*pids)
        signing_s = _signing_cpu_s(order, engine) - signing_s
    engine.stop()
    verified = verify(rig.samples(), key) if key is not None else 0
    seen = Seen(
        result=result,
        warm_ids=frozenset(warmed.accepted + warmed.uncertain),
        arrivals=rig.arrivals(),
        counts=rig.sink_counts(),
        cpu_s=cpu_s,
        memory=watch.most,
        verified=verified,
        cpu_s_by_process={name: used_s - before.get(name, 0.0) for name, used_s in after.items()},
        signature_cpu_s=signing_s,
    )
    return figures(shape_of(order, plan), seen)


def _signing_cpu_s(order: Order, engine: Engine) -> float:
    return engine.signing_cpu_s() if order.signed and isinstance(engine, CountsSigning) else 0.0


def shape_of(order: Order, plan: Plan) -> Shape:
    """What was run, for whoever reads the figures."""
    return Shape(
        scenario=order.scenario.name,
        engine=order.engine,
        signed=order.signed,
        messages=plan.messages,
        size=plan.sizes[0],
        sessions=plan.sessions,
        workers=order.options.workers,
        durability=order.durability,
        owners=order.options.owners,
        rate_asked_per_s=plan.rate_per_s,
    )


def _engine_plan(order: Order, setup: Setup, rig: Rig, key: KeyFile | None) -> EnginePlan:
    return EnginePlan(
        folder=rig.folder,
        smtp_port=free_port(),
        sink_port=rig.sink_port,
        dns_port=rig.dns_port,
        routes={domain: f"{address}:{rig.sink_port}" for domain, address in setup.world.routes.items()},
        destinations=setup.destinations,
        key=key,
        workers=order.options.workers,
        durability=order.durability,
        retry_s=setup.retry_s,
        idle_timeout_s=setup.idle_timeout_s,
    )


async def _through(rig: Rig, plan: Plan, arrived_before: int) -> Result:
    """Sends a plan, and waits until what was accepted has arrived, or nothing arrives any more."""
    result = await Load(plan).run()
    rig.check()
    if not result.accepted:
        raise RunError(f"the engine accepted nothing: {result.report()}")
    total, before, moved_s = arrived_before + len(result.accepted), -1, time.monotonic()
    while (now := sum(each.messages for each in rig.sink_counts().values())) < total:
        rig.check()
        if now != before:
            before, moved_s = now, time.monotonic()
        elif time.monotonic() - moved_s > STALL_S:
            break  # the figures say how many are missing
        await asyncio.sleep(POLL_S)
    return result


def verify(samples: list[bytes], key: KeyFile) -> int:
    """How many of the first samples carry a good signature of the key; raises RunError where one does not."""

    def record(name: bytes, timeout: int = 5) -> bytes:
        return key.record.encode() if name.decode().rstrip(".") == key.name else b""

    looked_at = samples[:VERIFIED_MAX]
    for content in looked_at:
        if not dkim.verify(content, dnsfunc=record):
            raise RunError(f"the signature of this message is not good:\n{content[:2_000].decode('utf-8', 'replace')}")
    return len(looked_at)
