"""The streaming loop: units of a source, read, scored and summed by a pool of threads.

Each worker takes a unit (a row group, a file, a slice), reads it batch by batch, scores each batch and adds it to a
state of its own; the states merge at the end. Sums are exact, so the result does not depend on which worker took what.
Rows that leave the loop one by one (per-row files, transformed rows) go to an `OrderedSink` in the order of the file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic

from fastxent.engine import timing
from fastxent.engine.pool import get_num_threads
from fastxent.engine.recipe import Deferring, Key, Ledger, Recipe, S, Watch
from fastxent.io.batch import batch_bytes
from fastxent.io.storage.buffers import kept
from fastxent.kernels.dense import spent
from fastxent.options.runs import THREADS, Progress

if TYPE_CHECKING:
    from fastxent.io.batch import Batch, Unit


_WIDE_ROWS, _WIDE_BYTES = 65536, 128 << 20  # of a batch: what it costs beside its logits is shared by many rows
_NARROW_BYTES = 1 << 20  # of logits in a batch, even if they are more rows than that
_LIGHT_ROWS = 1 << 20  # of a batch of a light recipe


@dataclass
class Worker(Generic[S]):
    """One thread's share: its state, the finished units in it that are not on disk yet, and its times."""

    state: S
    score: Callable[[Batch], Any]
    clock: timing.Clock = field(default_factory=timing.Clock)
    units: list[Key] = field(default_factory=list)
    whole: bool = True  # the state holds whole units only


class Loop(Generic[S]):
    """Runs units through a recipe on a pool of threads.

    recipe: `Recipe`. Scores batches and gives empty states.
    units: iterator of `Unit`. In the order of the source.
    row_bytes: int. Bytes of a row of logits in memory.
    threads: int or None. None: `get_num_threads`.
    memory: int. Bytes for the rows that are being processed.
    rows: int or None. Number of rows, if it is known.
    progress: function of (rows, rows in all, bytes, bytes in all), called after each batch.
    visit: function of (number of the unit, scored rows), called for each batch.
    done: function of the number of a finished unit, or of -1 after an error.
    ledger: `Ledger` or None. Looks up finished units and keeps their states.
    watch: `Watch` or None. Follows the states of workers.
    """

    def __init__(
        self,
        recipe: Recipe[S],
        units: Iterator[Unit],
        *,
        row_bytes: int,
        threads: int | None,
        memory: int,
        rows: int | None = None,
        progress: Progress | None = None,
        visit: Callable[[int, Any], None] | None = None,
        done: Callable[[int], None] | None = None,
        ledger: Ledger[S] | None = None,
        watch: Watch[S] | None = None,
    ) -> None:
        self.recipe, self.progress, self.visit, self.done, self.ledger = recipe, progress, visit, done, ledger
        self.watch = watch
        self.threads = THREADS("threads", get_num_threads() if threads is None else threads)
        self.row_bytes = row_bytes
        self.block_bytes = batch_bytes(memory, self.threads, row_bytes)
        self.rows = 0  # done so far, in earlier runs too
        self._units = units
        self._total = rows
        self._taken = 0
        self._lock = threading.Lock()
        self._failure: tuple[int, BaseException] | None = None
        self._rows_read = 0

    def run(self) -> tuple[S, dict[str, Any]]:
        """(the merged state, timing). The error of the first unit in the order of the source, if any failed."""
        try:
            return self._run()
        finally:
            if isinstance(self._units, Generator):  # lets go of what they read
                self._units.close()

    def _run(self) -> tuple[S, dict[str, Any]]:
        start = time.perf_counter()
        workers = [Worker(self.recipe.empty(), self.recipe.scorer()) for _ in range(self.threads)]
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
        states = [worker.state for worker in workers] if self.ledger is None else [self.ledger.result()]
        state, clock = states[0], workers[0].clock
        merging, cpu = time.perf_counter(), time.thread_time()
        with spent():
            for other in states[1:]:
                state.absorb(other)
        clock.state += time.perf_counter() - merging
        clock.cpu += time.thread_time() - cpu
        elapsed = time.perf_counter() - start
        times = timing.summary([worker.clock for worker in workers], elapsed, self._rows_read, self.row_bytes)
        if self.ledger is not None:
            times["resumed_rows"] = self.rows - self._rows_read
        return state, times

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
                    key = None if self.ledger is None else self.ledger.claim(unit)
                    if self.ledger is None or key is not None:
                        return self._taken - 1, unit, key
                    self._report(unit.rows or 0)
            except BaseException as error:  # noqa: BLE001 - comes after all units taken so far
                self._failure = self._taken, error
            return None

    def _work(self, worker: Worker[S]) -> None:
        with kept():
            self._works(worker)

    def _works(self, worker: Worker[S]) -> None:
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
            if isinstance(worker.state, Deferring) and self._failure is None:
                start = time.perf_counter()
                worker.state.settle()
                worker.clock.state += time.perf_counter() - start
            self._keep(worker, last=True)
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(self._taken, error)
        worker.clock.cpu += time.thread_time() - cpu

    def _keep(self, worker: Worker[S], *, last: bool) -> None:
        """Pass a worker's finished units to the ledger, if there is one and enough time has passed."""
        if self.ledger is None or not (worker.whole and worker.units):
            return
        start = time.perf_counter()
        if self.ledger.keep(worker.units, worker.state, last=last):
            if self.watch is not None:
                self.watch.look(id(worker), worker.state, left=True)
            worker.state, worker.units = self.recipe.empty(), []
            worker.clock.write += time.perf_counter() - start

    def _unit(self, worker: Worker[S], index: int, unit: Unit) -> bool:
        """Read, score and sum a unit. Return False if it was abandoned because an earlier unit failed."""
        state, clock = worker.state, worker.clock
        rows = _LIGHT_ROWS if self.recipe.light else max(_WIDE_ROWS, _NARROW_BYTES // self.row_bytes)
        rows = max(1, min(rows, _WIDE_BYTES // self.row_bytes))
        with closing(unit.read(rows, self.block_bytes, self.recipe.whole)) as batches:  # type: ignore[type-var]
            while (batch := clock.next(batches)) is not None:
                if self._failure is not None and self._failure[0] < index:
                    return False
                start, reading = time.perf_counter(), clock.reading
                scored = worker.score(replace(batch, blocks=clock.each(batch.blocks)))
                end = time.perf_counter()
                clock.kernel += end - start - (clock.reading - reading)
                if self.visit is not None:
                    self.visit(index, scored)
                    start, end = end, time.perf_counter()
                    clock.write += end - start
                state.add(scored)
                if self.watch is not None:
                    self.watch.look(id(worker), state)
                clock.state += time.perf_counter() - end
                self._count(batch.rows)
        if self.done is not None:
            self.done(index)
        return True

    def _count(self, rows: int) -> None:
        with self._lock:
            self._rows_read += rows
            self._report(rows)

    def _report(self, rows: int) -> None:
        self.rows += rows
        if self.progress is not None:
            total = None if self._total is None else self._total * self.row_bytes
            self.progress(self.rows, self._total, self.rows * self.row_bytes, total)
