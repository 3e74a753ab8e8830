"""Retelling: after a crash the queue's records tell again what the event log may lack, in the same words."""

import msgspec

from mta.model import envelope as envelopes
from mta.reporting.dsn import notice_envelope
from mta.reporting.events import Events, fates_of
from mta_queue.recovered import Untold


def tell_again(events: Events, untold: Untold, hostname: str) -> bool:
    """One record's lines: `received` of an item; each recipient's fate, and before these the notification that the
    sender got of them. False: it was written by a version that is gone, and nobody knows what it says."""
    try:
        envelope = envelopes.decode(untold.meta)
        fates = fates_of(untold.note, untold.parts) if untold.kind != "item" else []
    except msgspec.DecodeError:
        return False
    if untold.kind == "item" and envelope.told_recipients is not None:
        events.received(envelope)
    told = ""
    for part, fate in fates:
        if fate.is_repeated:
            continue
        if fate.dsn and fate.dsn != told:
            told = fate.dsn
            events.received(notice_envelope(envelope, fate.dsn, (), fate.time_s, fate.dsn_bytes, hostname))
        events.fate(envelope, envelope.recipients[part], fate)
    return True
