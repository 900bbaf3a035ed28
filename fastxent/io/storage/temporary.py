"""Temporary folders that are removed even if their process was killed: by the next process that needs one."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator

_PREFIX = "fastxent-"
_LOCK = "temporary-of-a-process"  # no name that a folder of anything else has


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder in TMPDIR that is removed when the block ends.

    A killed process cannot remove its own. It held the lock of a file in it, so that those with a free lock, which
    nobody uses any more, are removed first.
    """
    _remove_abandoned(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, open(os.path.join(folder, "new"), "wb") as file:
        if _is_locked(file.fileno()):  # only then by the name that others look for
            os.rename(file.name, os.path.join(folder, _LOCK))
        yield folder


def _remove_abandoned(parent: str) -> None:
    for path in glob.glob(os.path.join(glob.escape(parent), f"{_PREFIX}*", _LOCK)):
        with contextlib.suppress(OSError), open(path, "rb") as file:  # of another user, or removed meanwhile
            if _is_locked(file.fileno()):
                shutil.rmtree(os.path.dirname(path))


def _is_locked(descriptor: int) -> bool:
    """Whether this process has the lock of a file now: no other one holds it, and there are locks on this system."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
