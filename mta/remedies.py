"""Remedies: what an admin can do where the system refuses a file that the server cannot do without."""

import errno

_FULL = "make room, or free inodes (df, df -i)"

REMEDIES = {
    errno.EROFS: "the file system is mounted read-only, which the system also does by itself when a disk fails (dmesg"
    " tells): see that the disk is sound, and mount it writable (mount -o remount,rw)",
    errno.EIO: "the disk fails (dmesg tells): see to it, and copy what it still gives",
    errno.EACCES: "it must belong to the user that the server runs as",
    errno.EPERM: "it must belong to the user that the server runs as, and must not be immutable (lsattr)",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.ENOTDIR: "something that is no folder is in the place of one",
}
"""errno -> what to do."""


def sentence(error: OSError, place: str = "") -> str:
    """Where, what and, where that is known, what to do, in one line; `place`: where the error does not say."""
    where = place or error.filename
    text = f"{where}: {error.strerror or error}" if where else str(error)
    remedy = REMEDIES.get(error.errno or 0)
    return f"{text}; {remedy}" if remedy else text
