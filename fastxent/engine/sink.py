"""Results of several workers, passed on in the order of their units, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


class OrderedSink:
    """Results of the first unfinished unit are written at once. Results of later units wait, up to ``limit`` bytes.

    A worker past the limit waits until its unit is in front. Units are taken in order, so the one in front always has
    a worker, which never waits.
    """

    def __init__(self, write: Callable[[pa.RecordBatch], None], limit: int) -> None:
        self._write, self._limit = write, limit
        self._front = 0
        self._waiting: dict[int, list[pa.RecordBatch]] = {}
        self._finished: set[int] = set()
        self._held = 0
        self._failed = False
        self._turn = threading.Condition()

    def put(self, unit: int, batch: pa.RecordBatch) -> None:
        """Take a batch of a unit, whose batches come in order."""
        with self._turn:
            while unit != self._front and self._held + batch.nbytes > self._limit and not self._failed:
                self._turn.wait()
            if self._failed:
                return
            if unit != self._front:
                self._waiting.setdefault(unit, []).append(batch)
                self._held += batch.nbytes
                return
            self._write(batch)

    def done(self, unit: int) -> None:
        """Note that a unit is complete. -1: a worker failed, and nothing more is written."""
        with self._turn:
            if unit < 0:
                self._failed = True
            self._finished.add(unit)
            while self._front in self._finished and not self._failed:
                self._finished.discard(self._front)
                self._front += 1
                for batch in self._waiting.pop(self._front, []):
                    self._held -= batch.nbytes
                    self._write(batch)
            self._turn.notify_all()
