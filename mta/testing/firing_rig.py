"""Firings in a delivery rig: rules that fire at what a peer says, and firings that another worker's rule set off.

rig = rig_for(loop, tmp_path, sink, default=rule('action = "suspend", for = "2h"'))
firing = await fire(rig, "tenant shop > mx.a.test", "probe", 86_400.0, silence_s=600.0)
"""

import itertools
from pathlib import Path
from typing import Any

from bench.sink import Sink
from mta.reporting.questions import Rules
from mta.testing.delivery_rig import PLAIN, DeliveryRig
from mta.testing.swift_loop import SwiftLoop
from mta_policies.answers import Answer
from mta_policies.firing import Change, Firing
from mta_policies.firings import Firings
from mta_policies.rulebook import Action

SAID = "421 4.7.28 unusual rate of mail"
COUNT = itertools.count(1)


def rule(then: str, trigger: str = "") -> str:
    """A default policy that does this where a reply says `SAID`."""
    return PLAIN + f'[[rule]]\nname = "unusual"\nwhen = {{ text = "unusual rate" }}\n{trigger}\nthen = [{{ {then} }}]\n'


def micro(then: str, **tables: str) -> str:
    """A provider with all domains of d*.test."""
    more = "".join(f"[{name}]\n{text}\n" for name, text in tables.items())
    return f'match = {{ domains = ["*.test"] }}\n{more}' + rule(then).removeprefix(PLAIN)


def rig_for(loop: SwiftLoop, tmp_path: Path, sink: Sink, **options: Any) -> DeliveryRig:
    """With the domains of all providers of a sink."""
    rig = DeliveryRig(loop, tmp_path, port=sink.port, **options)
    rig.domains_of(sink.profiles)
    return rig


def told(rig: DeliveryRig) -> list[str]:
    """What became of firings, one after another."""
    return [line["change"] for line in rig.events("rule")]


def delivered_to(rig: DeliveryRig, domain: str) -> list[float]:
    """When each of its recipients got mail: Unix seconds."""
    return [line["time"] for line in rig.events("delivered") if line["domain"] == domain]


async def fire(
    rig: DeliveryRig, key: str, action: str, within_s: float = 600.0, policy: str = "default", **effect: Any
) -> Firing:
    """As another worker's rule does."""
    scope: Any = key.partition(" ")[0]
    other = Firings()
    done = Action(action, for_s=within_s, scope=scope, **effect)  # type: ignore[arg-type]
    answer = Answer(421, "4.7.28", "too fast", "mail")
    change = other.fire(policy, "elsewhere", done, key, answer, rig.loop.wall_s(), f"g{next(COUNT)}", scope=scope)
    assert await rig.clerk.answer(Rules([change])) is None
    assert change.firing is not None
    return change.firing


async def cancel(rig: DeliveryRig, firing: Firing, *, tells: bool = True) -> None:
    """As an admin does."""
    change = Change("cancelled", rig.loop.wall_s(), firing, by="command: kim")
    assert await rig.clerk.answer(Rules([change], tells=tells)) is None


SLOWED = [
    ("site mx.a.test > mx.a.test", 1),
    ("provider micro", 2),
    ("source s1 > micro", 2),
    ("netblock 127.0.1.0/24 > micro", 2),
]
"""Keys of firings that hold for connections, and how many sites of a provider feel them."""

OF_MESSAGES = [
    ("tenant shop > mx.a.test", {"tenant": "shop"}),
    ("campaign shop/spring > mx.a.test", {"tenant": "shop", "campaign": "spring"}),
    ("recipient r0@a.test > mx.a.test", {"tenant": "shop"}),
    ("spf-domain shop.test > mx.a.test", {"tenant": "shop"}),
    ("path system - mx.a.test > mx.a.test", {"tenant": "shop"}),
    ("dkim-domain shop.test > mx.a.test", {"tenant": "shop"}),
]
"""Keys of those that hold for single messages, and the fields of mail that they hold."""
