"""The compilations of Numba during a run: how many functions, for how long, and whether one runs now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_KIND = "numba:compile"  # Numba's event; not sent for code from the cache


class Compilations:
    """Counts of one run. Numba compiles under one lock, so only one thread changes them at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.changed: Callable[[], None] = lambda: None
        self._depth = 0  # compiling a function includes compiling those it calls
        self._since = self._seconds = 0.0

    @property
    def running(self) -> bool:
        return self._depth > 0

    @property
    def seconds(self) -> float:
        """The time spent so far."""
        return self._seconds + (time.perf_counter() - self._since if self.running else 0.0)

    def begin(self) -> None:
        if not self._depth:
            self._since = time.perf_counter()
        self._depth += 1
        self.count += 1
        self.changed()

    def end(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._seconds += time.perf_counter() - self._since
        self.changed()


@contextmanager
def compilations() -> Iterator[Compilations]:
    """Count the compilations of this process while the block runs."""
    from numba.core import event

    found = Compilations()

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            found.begin()

        def on_end(self, event: Any) -> None:
            found.end()

    listener = Listener()
    event.register(_KIND, listener)
    try:
        yield found
    finally:
        event.unregister(_KIND, listener)
