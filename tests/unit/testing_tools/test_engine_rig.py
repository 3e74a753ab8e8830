"""EngineRig: what it does to its workers is what could happen to real ones."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from mta.testing.engine_rig import EngineRig

RELOADS = 20  # within a millisecond each, where a worker may read one 50 ms late


def test_of_several_reloads_the_last_holds_in_every_worker(tmp_path: Path) -> None:
    """They come over one line from the supervisor, so that none overtakes another."""

    def ledger(clock: Any) -> Any:
        return MagicMock()

    with EngineRig(1, tmp_path, ledger, workers=2, policies={"default": ""}) as rig:
        rig.start_all()
        assert rig.run(60.0, lambda: rig.are_all_up)
        for _ in range(RELOADS):
            rig.reload({"default": ""}, "")
            rig.run(0.001)
        rig.run(1.0)

        assert rig.epoch == 1 + RELOADS
        assert [worker.claims.epoch for worker in rig.living()] == [rig.epoch, rig.epoch]
        assert all(worker.config is rig.config for worker in rig.living())
