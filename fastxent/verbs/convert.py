"""A dump rewritten into the layout that reads fastest, and what rounding its logits to another float type costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.engine.job import Task, names
from fastxent.engine.loop import Loop, Progress, Worker
from fastxent.engine.sink import OrderedSink
from fastxent.errors import BadRowError, ColumnError, ConfigError
from fastxent.io.batch import Batch, Source, Unit
from fastxent.io.layout import all_names, find_field
from fastxent.io.source import open_source
from fastxent.io.values import tag_of
from fastxent.io.writers import carried, carried_field, check_not_source, is_arrow, open_writer
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.options.choices import FloatName, Layout, OnOverflow
from fastxent.options.config import EvalConfig, check_path
from fastxent.options.declared import Names
from fastxent.options.sizes import parse_size
from fastxent.state.conversion import Conversion, Cost

LAYOUTS = ("binary", "list")
_TARGET = "target"
_GROUP_BYTES = 64 << 20  # of a row group: what one worker reads at a time
_ADVICE = "fix the dump, or leave that row out"


def convert(
    source: Any,
    dest: str | os.PathLike[str],
    *,
    logits: str | Sequence[str] = "logits",
    target: str | None = _TARGET,
    layout: Layout | None = None,
    dtype: FloatName | None = None,
    keep: Names = None,
    on_overflow: OnOverflow = "error",
    ignore_index: int = -100,
    logits_dtype: FloatName | None = None,
    threads: int | None = None,
    memory: int | str = "512MB",
    progress: Progress | None = None,
) -> Conversion:
    """Rewrite a dump into the layout that reads fastest, with logits of another float type if asked.

    Args:
        source, logits, logits_dtype, threads, memory, progress: as in `evaluate`.
        dest: a .parquet or .arrow file; complete under its name, or not there.
        layout: "binary", rows of C numbers as fixed-size binary whose field's metadata name the float type
            (``{"dtype": "float32"}``), so that `evaluate` needs no ``logits_dtype``; or "list", fixed-size lists, which
            any tool reads (bfloat16: of uint16, tagged the same way). Unless given: what reads fastest, binary in
            Parquet and list in Arrow files.
        dtype: "float16", "bfloat16", "float32" or "float64", rounded once, to nearest even; as they are unless given,
            and then bit for bit, NaN and infinities too.
        keep: columns to carry over; all others unless given. Dictionaries become their values.
        on_overflow: of a finite logit that ``dtype`` has no number for: "error", or "inf", which counts them.
        target, ignore_index: of the rows whose loss is compared before and after, where there are class ids.

    Returns:
        `Conversion`: what was written, and where ``dtype`` is another, in ``rounding`` what that cost: the largest
        |error| of a logit, the mean and the largest |change| of a row's nll (nats), rows with another predicted class.

    Raises:
        BadRowError: a null or ragged row of logits, or a logit too large for ``dtype``. As `evaluate` besides.

    >>> import os, tempfile, numpy as np, fastxent as fx
    >>> path = os.path.join(tempfile.mkdtemp(), "dump.parquet")
    >>> dump = {"logits": np.float32([[1.0, 2.0001], [0.5, 0.25]]), "target": [0, 1]}
    >>> done = fx.convert(dump, path, dtype="float16")
    >>> done.rounding.max_logit_error < 1e-3, done.rounding.argmax_changed
    (True, 0)
    >>> fx.evaluate(path).rows.used
    2
    """
    check_path("dest", dest)
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r}; it is one of {', '.join(map(repr, LAYOUTS))}")
    if dtype is not None and dtype not in FLOAT_TYPES:
        raise ConfigError(f"dtype={dtype!r}; it is one of {', '.join(FLOAT_TYPES)}")
    if on_overflow not in ("error", "inf"):
        raise ConfigError(f"on_overflow={on_overflow!r}; it is 'error' or 'inf'")
    options = EvalConfig(n_classes=1, target=target, ignore_index=ignore_index)  # checks them
    room, arrow = parse_size(memory), is_arrow(dest)
    chosen = _Columns(None if keep is None else names(keep, "keep"), target)
    logits = logits if isinstance(logits, str) else names(logits, "logits")
    opened = open_source(source, logits=logits, columns=chosen, dtype=logits_dtype)
    check_not_source(dest, opened.files)
    final, form = dtype or opened.dtype, layout or ("list" if arrow else "binary")
    schema = _schema(opened, chosen, final, form)
    cost = None if final == opened.dtype else Cost(opened.dtype, final, on_overflow == "inf", options.ignore_index)
    task = Task(replace(options, n_classes=opened.n_classes), opened.dtype, soft=False)
    with open_writer(dest, schema, max(1, min(_GROUP_BYTES, room // 8))) as write:
        sink = OrderedSink(write, room // 8)

        def rewrite(index: int, batch: Batch) -> None:
            if batch.bad:
                row, reason = next(iter(batch.bad.items()))
                raise BadRowError(batch.where, row, reason, _ADVICE)
            values = _owned(batch.held.values) if cost is None else cost.rounded(batch, chosen.compared)
            sink.put(index, _record_batch(values, batch, schema))

        loop = _Rewriting(
            task, opened.units(), rewrite, threads=threads, memory=room // 2, rows=opened.rows, progress=progress,
            done=sink.done,
        )  # fmt: skip
        _, timing = loop.run()
    return Conversion(
        files=tuple(opened.files), dest=os.fspath(dest), format="arrow" if arrow else "parquet", layout=form,
        logits=schema.names[-1], rows=loop.rows, n_classes=opened.n_classes, dtype_before=opened.dtype, dtype=final,
        size=os.path.getsize(dest), rounding=None if cost is None else cost.result(), timing=timing,
    )  # fmt: skip


class _Rewriting(Loop):
    """The loop of `evaluate` where batches are not scored but handed on."""

    def __init__(self, task: Task, units: Iterator[Unit], rewrite: Callable[[int, Batch], None], **how: Any) -> None:
        super().__init__(task, units, **how)
        self.rewrite = rewrite

    @property
    def rows(self) -> int:
        return self._rows

    def _unit(self, worker: Worker, index: int, unit: Unit) -> bool:
        with closing(unit.batches(self.batch_bytes)) as batches:  # type: ignore[type-var]
            while (batch := worker.clock.next(batches)) is not None:
                if self._failure is not None and self._failure[0] < index:
                    return False
                start = time.perf_counter()
                self.rewrite(index, batch)
                worker.clock.write += time.perf_counter() - start
                self._count(batch.logits.shape[0])
        if self.done is not None:
            self.done(index)
        return True


@dataclass
class _Columns:
    """Chooses the columns beside the logits, once a schema is known."""

    keep: tuple[str, ...] | None
    target: str | None
    kept: list[str] = field(default_factory=list)
    logits: str = ""  # the name they are written under
    compared: str | None = None  # the target column, where it holds class ids

    def __call__(self, schema: pa.Schema, taken: tuple[str, ...]) -> list[str]:
        self.logits = taken[0] if len(taken) == 1 else "logits"
        self.kept = list(_beside(schema, taken)) if self.keep is None else list(dict.fromkeys(self.keep))
        if self.logits in self.kept:
            raise ConfigError(f"{self.logits!r} is the name of the logits in the new file; leave it out of keep")
        found = None if self.target is None else find_field(schema, self.target)
        if found is None and self.target not in (None, _TARGET):
            raise ColumnError.missing(self.target, all_names(schema))
        self.compared = self.target if found is not None and _holds_ids(found) else None
        return [*self.kept, *([self.compared] if self.compared else [])]


def _beside(schema: pa.Schema, taken: tuple[str, ...]) -> Iterator[str]:
    """Every column but ``taken``; of structs that hold one of those, the other fields."""
    for column in schema:
        if column.name in taken:
            continue
        if any(name.startswith(f"{column.name}.") for name in taken):
            yield from _beside(pa.schema([part.with_name(f"{column.name}.{part.name}") for part in column.type]), taken)
        else:
            yield column.name


def _holds_ids(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)
    return tag_of(field) is None and bool(whole or pa.types.is_float32(kind) or pa.types.is_float64(kind))


def _schema(source: Source, chosen: _Columns, dtype: str, layout: str) -> pa.Schema:
    """The columns carried over, then the logits. What the file says of itself is kept, but for pandas' column list."""
    kind = FLOAT_TYPES[dtype]
    rows = pa.list_(pa.type_for_alias(kind.arrow), source.n_classes)
    if layout == "binary":
        rows = pa.binary(source.n_classes * kind.width)
    tag = {"dtype": dtype} if layout == "binary" or kind.as_bits else None
    field = pa.field(chosen.logits, rows, nullable=False, metadata=tag)
    kept = {key: value for key, value in (source.schema.metadata or {}).items() if key != b"pandas"}
    return pa.schema([*(carried_field(source.schema, name) for name in chosen.kept), field], kept)


def _owned(values: np.ndarray) -> np.ndarray:
    """A copy in row order: the reader uses its memory again."""
    return values.copy(order="C")


def _record_batch(values: np.ndarray, batch: Batch, schema: pa.Schema) -> pa.RecordBatch:
    *keep, logits = schema
    if pa.types.is_fixed_size_binary(logits.type):
        rows = pa.FixedSizeBinaryArray.from_buffers(logits.type, len(values), [None, pa.py_buffer(values)])
    else:
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=logits.type)
    return pa.record_batch([*(carried(batch.columns[f.name], f) for f in keep), rows], schema=schema)
