"""The streaming loop: units of a source, read, scored and summed by a pool of threads.

Every worker takes a unit (a row group, a file, a slice), reads it batch by batch, scores each batch and adds it to a
state of its own; the states merge at the end. Sums are exact, so nothing depends on who took what. Results that leave
the loop row by row (per-row files, transformed rows) pass an `OrderedSink`, which hands them on in the file's order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from fastxent.engine import timing
from fastxent.engine.job import Task
from fastxent.engine.pool import get_num_threads
from fastxent.errors import ConfigError
from fastxent.io.arrays import StoredUnit
from fastxent.io.arrow.part import IpcUnit
from fastxent.io.batch import LogitsStream, batch_bytes
from fastxent.io.parquet.part import NativeUnit
from fastxent.io.storage.buffers import kept
from fastxent.options.checks import shown, whole_number
from fastxent.scoring.rows import ScoredRows
from fastxent.scoring.scorer import Scored, Scorer
from fastxent.state.evaluation import EvalState

if TYPE_CHECKING:
    from fastxent.io.batch import Batch, Unit

Progress = Callable[[int, int | None, int, int | None], None]  # rows done, of, bytes of logits done, of
Key = tuple[str, int, int, int, int]  # file, row group (-1: none), first row, rows (-1: unknown), which of such units

MOST_THREADS = 1024
_WIDE_ROWS, _WIDE_BYTES = 65536, 32 << 20  # of a batch whose logits come part by part, or take no memory of their own


class Ledger(Protocol):
    """A record of finished units and of the state of their rows; `Checkpoints` keeps it on disk."""

    def claim(self, unit: Unit) -> Key | None:
        """Return the key of a unit; None if the unit is finished."""

    def keep(self, units: list[Key], state: EvalState, *, last: bool = True) -> bool:
        """Take over the state of some finished units if a write is due, or if it is the ``last``; return whether."""

    def result(self) -> EvalState:
        """Return the state of all finished units."""


@dataclass
class Worker:
    """One thread's part: its state, the finished units in it that are not on disk yet, and where its time went."""

    state: EvalState
    clock: timing.Clock = field(default_factory=timing.Clock)
    units: list[Key] = field(default_factory=list)
    whole: bool = True  # the state holds whole units only


class Loop:
    """Runs the units of a task over a pool of threads; ``visit`` sees each scored batch and its place (unit number).

    ``rows``: how many there are, if that is known. ``checkpoints``: where finished units are kept and looked up.
    """

    def __init__(
        self,
        task: Task,
        units: Iterator[Unit],
        *,
        threads: int | None,
        memory: int,
        rows: int | None = None,
        progress: Progress | None = None,
        visit: Callable[[int, Scored], None] | None = None,
        done: Callable[[int], None] | None = None,
        checkpoints: Ledger | None = None,
    ) -> None:
        self.task, self.progress, self.visit, self.done, self.checkpoints = task, progress, visit, done, checkpoints
        rule = f"be an integer from 1 to {MOST_THREADS}"
        given = get_num_threads() if threads is None else threads
        self.threads = whole_number("threads", given, rule, low=1, high=MOST_THREADS)
        if not (progress is None or callable(progress)):
            raise ConfigError(f"progress must be a function of four numbers, got {shown(progress)}")
        self.row_bytes = task.row_bytes
        self.batch_bytes = batch_bytes(memory, self.threads, self.row_bytes)
        self.scorer = Scorer(task.config)
        self.streaming = visit is None and self.scorer.streams and not task.soft
        self._units = units
        self._total = rows
        self._taken = 0
        self._lock = threading.Lock()
        self._failure: tuple[int, BaseException] | None = None
        self._rows = self._rows_read = 0

    def run(self) -> tuple[EvalState, dict[str, Any]]:
        """(the merged state, timing). The error of the first unit in the order of the source, if any failed."""
        try:
            return self._run()
        finally:
            if isinstance(self._units, Generator):  # lets go of what they read
                self._units.close()

    def _run(self) -> tuple[EvalState, dict[str, Any]]:
        start = time.perf_counter()
        workers = [Worker(EvalState.empty(self.task.config)) for _ in range(self.threads)]
        if self.threads == 1:
            self._work(workers[0])
        else:
            with ThreadPoolExecutor(self.threads, thread_name_prefix="fastxent") as pool:
                try:
                    for future in [pool.submit(self._work, worker) for worker in workers]:
                        future.result()
                except BaseException as error:  # an interrupt: before every unit, so that every worker ends its batch
                    self._fail(-1, error)
                    raise
        if self._failure is not None:
            raise self._failure[1]
        states = [worker.state for worker in workers] if self.checkpoints is None else [self.checkpoints.result()]
        state = states[0]
        for other in states[1:]:
            state.absorb(other)
        elapsed = time.perf_counter() - start
        spent = timing.summary([worker.clock for worker in workers], elapsed, self._rows_read, self.row_bytes)
        if self.checkpoints is not None:
            spent["resumed_rows"] = self._rows - self._rows_read
        return state, spent

    def _fail(self, index: int, error: BaseException) -> None:
        with self._lock:
            if self._failure is None or index < self._failure[0]:
                self._failure = index, error
        if self.done is not None:
            self.done(-1)

    def _next(self) -> tuple[int, Unit, Key | None] | None:
        """The next unit and its number. None past the last, or once one has failed: those before it have been taken
        and are finished, so that the error told is the first in the order of the source."""
        with self._lock:
            if self._failure is not None:
                return None
            try:
                while (unit := next(self._units, None)) is not None:
                    self._taken += 1
                    key = None if self.checkpoints is None else self.checkpoints.claim(unit)
                    if self.checkpoints is None or key is not None:
                        return self._taken - 1, unit, key
                    self._report(unit.rows or 0)
            except BaseException as error:  # noqa: BLE001 - comes after all units taken so far
                self._failure = self._taken, error
            return None

    def _work(self, worker: Worker) -> None:
        with kept():
            self._works(worker)

    def _works(self, worker: Worker) -> None:
        cpu = time.thread_time()
        while (item := self._next()) is not None:
            index, unit, key = item
            try:
                worker.whole = self._unit(worker, index, unit) and worker.whole
                if key is not None:
                    worker.units.append(key)
                    self._keep(worker, last=False)
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, interrupts included
                worker.whole = False
                self._fail(index, error)
        try:
            self._keep(worker, last=True)
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(self._taken, error)
        worker.clock.cpu += time.thread_time() - cpu

    def _keep(self, worker: Worker, *, last: bool) -> None:
        """Put what a worker has finished on disk, where that is asked for and due."""
        if self.checkpoints is None or not (worker.whole and worker.units):
            return
        start = time.perf_counter()
        if self.checkpoints.keep(worker.units, worker.state, last=last):
            worker.state, worker.units = EvalState.empty(self.task.config), []
            worker.clock.write += time.perf_counter() - start

    def _unit(self, worker: Worker, index: int, unit: Unit) -> bool:
        """Read, score and sum a unit. False if it was given up, since one before it has failed."""
        state, clock = worker.state, worker.clock
        with closing(self._batches(unit)) as batches:  # type: ignore[type-var]
            while (batch := clock.next(batches)) is not None:
                if self._failure is not None and self._failure[0] < index:
                    return False
                rows = self._scored(batch, index, clock)
                start = time.perf_counter()
                state.add(rows)
                clock.state += time.perf_counter() - start
                self._count(batch.logits.shape[0])
        if self.done is not None:
            self.done(index)
        return True

    def _batches(self, unit: Unit) -> Iterator[Batch]:
        """A unit in batches. Where nothing needs a batch's logits together they come part by part, so that many rows
        share what a batch costs beside them."""
        rows = max(1, min(_WIDE_ROWS, _WIDE_BYTES // self.row_bytes))
        if self.streaming and isinstance(unit, NativeUnit | IpcUnit | StoredUnit):
            count = max(1, int(unit.rows / rows + 0.75))  # equal ones: a small last one costs as much beside its rows
            return unit.streams(-(-unit.rows // count), self.batch_bytes)
        wide = unit.in_place and self.visit is None
        return unit.batches(rows * self.row_bytes if wide else self.batch_bytes)

    def _scored(self, batch: Batch, index: int, clock: timing.Clock) -> ScoredRows:
        start, reading = time.perf_counter(), clock.reading
        if isinstance(batch.logits, LogitsStream):
            parts = clock.each(batch.logits.parts)
            rows = self.scorer.stream(replace(batch, logits=replace(batch.logits, parts=parts)))
            clock.kernel += time.perf_counter() - start - (clock.reading - reading)
            return rows
        scored = self.scorer(batch)
        end = time.perf_counter()
        clock.kernel += end - start
        if self.visit is not None:
            self.visit(index, scored)
            clock.write += time.perf_counter() - end
        return scored.rows

    def _count(self, rows: int) -> None:
        with self._lock:
            self._rows_read += rows
            self._report(rows)

    def _report(self, rows: int) -> None:
        self._rows += rows
        if self.progress is not None:
            total = None if self._total is None else self._total * self.row_bytes
            self.progress(self._rows, self._total, self._rows * self.row_bytes, total)
