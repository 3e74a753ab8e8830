"""Reasons in sentences, as `mta queue why` and `mta policy explain` tell them: which value keeps mail, where that is
written, and what an admin can do about it."""

from collections.abc import Iterator

from mta.reporting.waiting import Reason

_OF_NO_POLICY = ("limit ", "warmup ")
"""How values of the configuration itself begin."""

_REMEDIES = {
    "rule": "`mta rule show {firing}` tells all about it, `mta rule cancel {firing}` ends it.",
    "warmup": "`mta policy warmup` shows how far each source is.",
    "suspended": "`mta suspend list` shows it, `mta suspend resume` ends it.",
}

_REMEDIES_BY_ID = {
    "held": "`mta queue release --id {id}` lets it go.",
    "exported": "`mta queue release --id {id}` lets it go from here; whoever imported the file would send it twice.",
    "schedule": "`mta queue retry --id {id}` tries at once.",
    "down": "`mta queue retry --id {id}` tries at once.",
    "lookup": "`mta queue retry --id {id}` looks again at once.",
}


def cause(reason: Reason, policy: str) -> Iterator[str]:
    """The value that keeps it, with its place; nothing where no value does."""
    origin = f", {_written(reason.origin)}" if reason.origin else ""
    if reason.kind == "rule":
        yield f"The {reason.limit} of the policy {policy} set that off{origin}."
    elif reason.limit:
        value = f" = {reason.value}" if reason.value else ""
        whose = "" if reason.limit.startswith(_OF_NO_POLICY) else f" of the policy {policy}"
        owners = f", of which each of {reason.owners} workers has its share" if reason.owners > 1 else ""
        yield f"That is {reason.limit}{value}{whose}{origin}{owners}."


def _written(origin: str) -> str:
    return "which no file says otherwise" if origin == "built in" else f"written in {origin}"


def remedy(reason: Reason, message_id: str = "") -> str:
    """What ends it; "" where nothing does. `message_id`: of the message that waits, "" where it is none yet."""
    known = _REMEDIES.get(reason.kind, "")
    if message_id:
        known = known or _REMEDIES_BY_ID.get(reason.kind, "")
    return known.format(id=message_id, firing=reason.firing)
