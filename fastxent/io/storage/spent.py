"""Seconds that each thread has spent on reading."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Spent(threading.local):
    read = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count the time of the block as reading, on this thread."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.read += time.perf_counter() - start


SPENT = _Spent()
