"""Health: what a transaction says about the peer. `mta_policies.backoff` leaves alone whoever is not well."""

from collections.abc import Sequence

from mta.model.outcome import Delivered, Outcome


def health_of(outcomes: Sequence[Outcome], is_first: bool) -> bool | None:
    """What a transaction says about the peer: True: it is well, False: it is not, None: nothing.

    An answer about the message is well, not so what the peer says of itself with 421 (RFC 5321 4.2.2). A connection
    that breaks after it took mail is just over; one that breaks with its first message (`is_first`) is trouble.
    """
    trouble = False
    for outcome in outcomes:
        if isinstance(outcome, Delivered):
            return True
        if outcome.from_peer:
            if outcome.reply.code != 421:
                return True
            trouble = True
        elif is_first and outcome.stage != "local":
            trouble = True
    return False if trouble else None
