"""A worker's start, in whole machines of one thread."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from mta.testing.engine_rig import EngineRig
from mta.worker import LINKS_WAIT_S
from mta_policies.answers import Answer
from mta_policies.rulebook import Action


def test_a_worker_hears_what_rules_set_off_while_it_starts(tmp_path: Path) -> None:
    """It has read the file of what was in force, and waits for a worker that is down."""

    def ledger(clock: Any) -> Any:
        return MagicMock()

    with EngineRig(1, tmp_path, ledger, workers=3, policies={"default": ""}) as rig:
        rig.start_all()
        assert rig.run(60.0, lambda: rig.are_all_up)
        rig.kill(1)
        rig.kill(2)
        rig.start(1)
        rig.run(1.0)
        first, starting = rig.workers[:2]
        assert first is not None
        assert starting is not None
        fired = first.dispatcher.restraints.firings.fire(
            "default", "fast", Action("suspend", for_s=60.0), "site mx.x > a.test", Answer(421, "", "", "mail"),
            rig.clock.wall_s(), "f1", scope="site",
        )  # fmt: skip
        first.simulated_loop.call_soon(first.dispatcher.restraints.made, [fired])
        rig.run(LINKS_WAIT_S / 2)

        assert not starting.is_up
        assert [firing.id for firing in starting.dispatcher.restraints.firings.all()] == ["f1"]
