"""What an admin reads when the system refuses a file: where, what, and what to do."""

import errno
import os

import pytest

from mta import remedies


@pytest.mark.parametrize("number", remedies.REMEDIES, ids=errno.errorcode.get)
def test_a_remedy(number: int) -> None:
    """It stands behind what the system says, in the same line."""
    said = remedies.sentence(OSError(number, os.strerror(number), "/queue/0/LOCK"))

    assert said == f"/queue/0/LOCK: {os.strerror(number)}; {remedies.REMEDIES[number]}"
    assert "\n" not in said


def test_what_nobody_has_a_remedy_for() -> None:
    """Place and error alone; the error alone where the system does not say where."""
    assert remedies.sentence(OSError(errno.EADDRINUSE, "in use", "/x")) == "/x: in use"
    assert remedies.sentence(OSError(errno.EADDRINUSE, "in use"), "here") == "here: in use"
    assert remedies.sentence(OSError("a name that is too long")) == "a name that is too long"
