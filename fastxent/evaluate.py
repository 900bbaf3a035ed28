"""The streaming loop: units of a source, read, scored and summed by a pool of threads.

Every worker takes a unit (a row group, a file, a slice), reads it batch by batch, scores each batch and adds it to a
state of its own; the states merge at the end. Sums are exact, so nothing depends on who took what. Results that leave
the loop row by row (per-row files, transformed rows) pass an `OrderedSink`, which hands them on in the file's order.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.config import EvalConfig
from fastxent.errors import ConfigError
from fastxent.io.layout import find_field
from fastxent.io.parquet import NativeUnit
from fastxent.io.source import open_source
from fastxent.score import Scored, Scorer
from fastxent.scored import ScoredRows
from fastxent.sink import OrderedSink
from fastxent.sizes import parse_size
from fastxent.state import EvalState
from fastxent.threads import get_num_threads

if TYPE_CHECKING:
    import pyarrow as pa

    from fastxent.io.batch import Batch, Source, Unit
    from fastxent.result import EvalResult

Progress = Callable[[int, int | None, int, int | None], None]  # rows done, of, bytes of logits done, of
Names = str | Sequence[str] | None

_ROW_BYTES = 600  # a row's record, columns and temporaries, whatever its classes
_BATCH_BYTES = 8 << 20  # larger batches gain nothing
_STREAM_ROWS, _STREAM_BYTES = 65536, 32 << 20  # of a batch whose logits come part by part


def _names(value: Names) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def batch_bytes(memory: int, threads: int, row_bytes: int) -> int:
    """Logits a batch may hold, so that all workers stay within ``memory``.

    A batch of a list column takes about ten times its size while pyarrow assembles it.
    """
    share = memory // (threads * 10)
    return max(1, min(_BATCH_BYTES, share) * row_bytes // (row_bytes + _ROW_BYTES // 4))


@dataclass
class Job:
    """An opened source and the configuration it is evaluated under."""

    source: Source
    config: EvalConfig

    @classmethod
    def open(
        cls, source: Any, options: dict[str, Any], *, logits_dtype: str | None = None, columns: Iterable[str] = ()
    ) -> Job:
        """Open ``source`` for the keyword arguments of `evaluate`; ``columns`` are read besides."""
        values = dict(options)
        logits = values["logits"]
        values["logits"] = logits if isinstance(logits, str) else tuple(logits)
        for name in ("by", "metrics"):
            values[name] = _names(values[name])
        for name in ("top_k", "class_weight", "class_mask", "classes"):
            if values[name] is not None:
                values[name] = tuple(values[name] if name == "classes" else np.atleast_1d(values[name]).tolist())
        probe = EvalConfig(**{**values, "n_classes": 1, "class_weight": None, "class_mask": None, "classes": None})
        wanted = [*Scorer.columns(probe), *columns]
        opened = open_source(source, logits=logits, columns=wanted, dtype=logits_dtype)
        return cls(opened, EvalConfig(**{**values, "n_classes": opened.n_classes}))


@dataclass
class Worker:
    """One thread's part: its state, and where its time went."""

    state: EvalState
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "kernel": 0.0, "state": 0.0, "write": 0.0})


class Loop:
    """Runs a job over a pool of threads; ``visit`` sees each scored batch and its place (unit number)."""

    def __init__(
        self,
        job: Job,
        *,
        threads: int | None,
        memory: int,
        progress: Progress | None,
        visit: Callable[[int, Scored], None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self.job, self.progress, self.visit, self.done = job, progress, visit, done
        self.threads = get_num_threads() if threads is None else int(threads)
        if self.threads < 1:
            raise ConfigError(f"threads={threads}; at least one is needed")
        itemsize = {"float64": 8, "float32": 4}.get(job.source.dtype, 2)
        self.row_bytes = job.source.n_classes * itemsize
        self.batch_bytes = batch_bytes(memory, self.threads, self.row_bytes)
        self.scorer = Scorer(job.config)
        column = find_field(job.source.schema, job.config.target)
        self.streaming = visit is None and column is not None and self.scorer.streams(column.type)
        self._units: Iterator[Unit] = job.source.units()
        self._taken = 0
        self._lock = threading.Lock()
        self._failure: tuple[int, BaseException] | None = None
        self._rows = 0

    def run(self) -> tuple[EvalState, dict[str, Any]]:
        """(the merged state, timing). The error of the first unit in the order of the source, if any failed."""
        start = time.perf_counter()
        workers = [Worker(EvalState.empty(self.job.config)) for _ in range(self.threads)]
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
        state = workers[0].state
        for worker in workers[1:]:
            state = state.merge(worker.state)
        elapsed = time.perf_counter() - start
        nbytes = self._rows * self.row_bytes
        timing = {
            "seconds": elapsed,
            "rows_per_second": self._rows / elapsed,
            "gb_per_second": nbytes / elapsed / 1e9,
            "threads": self.threads,
            **{f"{name}_seconds": sum(w.seconds[name] for w in workers) for name in workers[0].seconds},
        }
        return state, timing

    def _fail(self, index: int, error: BaseException) -> None:
        with self._lock:
            if self._failure is None or index < self._failure[0]:
                self._failure = index, error
        if self.done is not None:
            self.done(-1)

    def _next(self) -> tuple[int, Unit] | None:
        """The next unit and its number. None past the last, or once one has failed: those before it have been taken
        and are finished, so that the error told is the first in the order of the source."""
        with self._lock:
            if self._failure is not None:
                return None
            try:
                unit = next(self._units, None)
            except BaseException as error:  # noqa: BLE001 - comes after all units taken so far
                self._failure = self._taken, error
                return None
            self._taken += 1
            return None if unit is None else (self._taken - 1, unit)

    def _work(self, worker: Worker) -> None:
        while (item := self._next()) is not None:
            index, unit = item
            try:
                self._unit(worker, index, unit)
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, interrupts included
                self._fail(index, error)

    def _stream(self, worker: Worker, index: int, batches: Iterator[Batch]) -> None:
        """A unit whose logits need not be in memory together: many rows share what a batch costs beside them."""
        clock = time.perf_counter
        with closing(batches):  # type: ignore[type-var]
            t0 = clock()
            for batch in batches:
                if self._failure is not None and self._failure[0] < index:
                    return
                rows = self.scorer.stream(batch)
                t1 = clock()
                worker.state.add(rows)
                t2 = clock()
                worker.seconds["kernel"] += t1 - t0
                worker.seconds["state"] += t2 - t1
                self._count(len(rows.status))
                t0 = t2
        if self.done is not None:
            self.done(index)

    def _unit(self, worker: Worker, index: int, unit: Unit) -> None:
        clock = time.perf_counter
        if self.streaming and isinstance(unit, NativeUnit):
            rows = max(1, min(_STREAM_ROWS, _STREAM_BYTES // self.row_bytes))
            self._stream(worker, index, unit.streams(rows, self.batch_bytes))
            return
        with closing(unit.batches(self.batch_bytes)) as batches:  # type: ignore[type-var]
            while True:
                if self._failure is not None and self._failure[0] < index:
                    return
                t0 = clock()
                batch: Batch | None = next(batches, None)
                t1 = clock()
                worker.seconds["read"] += t1 - t0
                if batch is None:
                    break
                scored = self.scorer(batch)
                t2 = clock()
                worker.state.add(scored.rows)
                t3 = clock()
                if self.visit is not None:
                    self.visit(index, scored)
                worker.seconds["kernel"] += t2 - t1
                worker.seconds["state"] += t3 - t2
                worker.seconds["write"] += clock() - t3
                self._count(batch.logits.shape[0])
        if self.done is not None:
            self.done(index)

    def _count(self, rows: int) -> None:
        with self._lock:
            self._rows += rows
            if self.progress is not None:
                source = self.job.source
                self.progress(self._rows, source.rows, self._rows * self.row_bytes, source.nbytes)


def score_batch(batch: dict[str, Any] | pa.RecordBatch, config: EvalConfig) -> list[ScoredRows]:
    """The scored rows of columns in memory, named as ``config`` names them; for `EvalState.update`, which adds all of
    them or, where one is bad, none."""
    source = open_source(batch, logits=config.logits, columns=Scorer.columns(config))
    if source.n_classes != config.n_classes:
        raise ConfigError(f"the batch has {source.n_classes} classes, the state {config.n_classes}")
    scorer = Scorer(config)
    size = batch_bytes(512 << 20, 1, source.n_classes * 4)
    return [scorer(part).rows for unit in source.units() for part in unit.batches(size)]


def evaluate(
    source: Any,
    *,
    logits: str | Sequence[str] = "logits",
    target: str = "target",
    input: str = "logits",
    metrics: str | Sequence[str] = "all",
    by: Names = None,
    cluster: str | None = None,
    id: str | None = None,
    weight: str | None = None,
    where: str | None = None,
    n_bytes: str | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    class_weight: Any = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Any = None,
    clip_eps: float | None = None,
    classes: Sequence[str] | None = None,
    logits_dtype: str | None = None,
    top_k: Sequence[int] = (1, 5),
    bins: int = 15,
    on_bad_row: str = "error",
    threads: int | None = None,
    memory: int | str = "512MB",
    per_row: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a dump of predictions: every metric, slice, bin and error bar from one read of the logits.

    Args:
        source: a path, glob, folder (hive partitions become columns), URL, or a list of them; a pyarrow Table,
            RecordBatchReader or Dataset; anything with ``__arrow_c_stream__`` (polars, duckdb, pandas); a dict of
            arrays.
        logits: the column of logits (lists, tensors, binary), or one column per class: names, or a glob "logit_*".
        target: class ids (any integer; strings with ``classes``), or lists of probabilities. Null means ignored.
        input: "logits", or "log_probs" or "probs", which are used as given (``clip_eps`` holds them in [eps, 1 - eps]).
        metrics: names, or "all". by: columns whose values make slices.
        cluster: rows that belong together, for clustered standard errors (Miller 2024, arXiv 2411.00640).
        weight, n_bytes, id: columns of sample weights, of bytes of text (adds bits_per_byte), of row names (per_row).
        where: a filter such as "kind == 'code' and n_bytes > 1".
        ignore_index, label_smoothing, class_weight, temperature, softcap, class_mask: as in `cross_entropy`.
        classes: class names, for string targets and for display. logits_dtype: what binary or 16-bit logits hold.
        top_k: the k of the top-k accuracies. bins: of the calibration, of equal width.
        on_bad_row: "error" raises `BadRowError` at the first bad row; "skip" counts them in ``rows.bad``.
        threads, memory: never change a figure; peak memory stays near ``memory`` plus a constant.
        per_row: a Parquet file to write nll, rank, predicted class, confidence and entropy of each row to, in order.
        progress: called with (rows, rows in all, bytes, bytes in all) as batches are done.

    Returns:
        `EvalResult`. Values in nats unless the name says bits; means with standard errors and 95 % intervals. The same
        bits for any number of threads, batch size, order of files, or split over workers.

    Raises:
        SourceError, ColumnError, ConfigError, BadRowError, OutputError: all `FastxentError`, with one line that says
        what, where, and what to do.

    >>> import numpy as np, fastxent as fx
    >>> result = fx.evaluate({"logits": np.eye(4, dtype=np.float32), "target": [0, 1, 2, 0]})
    >>> result.metrics["accuracy"].value
    0.75
    """
    options = dict(
        logits=logits, target=target, input=input, metrics=metrics, by=by, cluster=cluster, weight=weight, where=where,
        n_bytes=n_bytes, ignore_index=ignore_index, label_smoothing=label_smoothing, class_weight=class_weight,
        temperature=temperature, softcap=softcap, class_mask=class_mask, clip_eps=clip_eps, classes=classes,
        top_k=top_k, bins=bins, on_bad_row=on_bad_row,
    )  # fmt: skip
    room = parse_size(memory)
    job = Job.open(source, options, logits_dtype=logits_dtype, columns=_names(id))
    with ExitStack() as stack:
        visit = done = None
        if per_row is not None:
            from fastxent.per_row import per_row_batch, per_row_schema
            from fastxent.writers import check_not_source, open_writer

            check_not_source(per_row, job.source.files)
            schema = per_row_schema(job.source.schema, id)
            sink = OrderedSink(stack.enter_context(open_writer(per_row, schema)), room // 4)
            put, done = sink.put, sink.done

            def visit(index: int, scored: Scored) -> None:
                put(index, per_row_batch(scored, schema, id))

        loop = Loop(job, threads=threads, memory=room, progress=progress, visit=visit, done=done)
        state, timing = loop.run()
    return replace(state.result(timing=timing, files=job.source.files), state=state)
