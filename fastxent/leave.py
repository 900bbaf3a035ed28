"""How the program ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM


def leave(code: int) -> NoReturn:
    """End the process with ``code``; from here on, impatience does not break it off.

    One that was interrupted is not torn down by the interpreter: modules may be there in half, and C++ libraries abort
    where they find threads or statics as they did not expect them. Files and locks have been seen to on the way here.
    CPython, too, kills itself by SIGINT if the interrupt met code made from a string (any dataclass), though it was
    caught.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code not in (INTERRUPTED, TERMINATED):
        sys.exit(code)
    atexit._run_exitfuncs()  # what others started, such as a cluster, ends with us
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
