"""What moved here and was found arriving after a crash: only what still lives of it is taken up."""

from pathlib import Path

from mta.handoff.mover import PartState
from mta.model import envelope as envelopes
from mta.resolve.errors import no_domain
from mta.testing.delivery_rig import DeliveryRig
from mta.testing.swift_loop import SwiftLoop, swiftly
from mta_queue.store import Origin


@swiftly
async def test_the_second_recipient_goes_where_the_first_is_done(loop: SwiftLoop, tmp_path: Path):
    """A power loss may keep the record that one of them is finished and lose the one that the item had arrived."""
    rig = DeliveryRig(loop, tmp_path, port=1)
    rig.resolver.found["a.test"] = no_domain("a.test")
    envelope = rig.envelope("done@a.test", "waits@a.test")

    def arrived(seq: int) -> None:
        rig.store.finish(seq, [0], b"")
        rig.store.arrive(seq)
        found = rig.store.load(seq)
        assert found is not None
        rig.dispatcher.arrived(seq, [PartState(part.due_s, part.note) for part in found.parts])

    rig.store.append(
        envelope.id, envelopes.encode(envelope), 2, b"content", arrived, lambda error: None, Origin(1, 1), 0.0
    )
    await rig.until(lambda: rig.finals > 0, 60.0)
    await rig.stop()

    assert rig.fates() == {(envelope.id, "waits@a.test"): ["bounced"]}
    assert rig.store.items == 0
