"""Threads that fetch bytes, and how long a test waits for them."""

from __future__ import annotations

import threading

MB = 1 << 20
WAIT = 300  # seconds until a test gives up; none waits for long


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastxent-fetch")]
