"""How many processors there are. Not fastxent's own count: benchmarks also run with older versions of it."""

from __future__ import annotations

import os


def available_cpus() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1
