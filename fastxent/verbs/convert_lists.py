"""Responses of servers and sequences of DistillKit rewritten as a top-k dump, one row per token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.engine.sink import OrderedSink
from fastxent.errors import ConfigError
from fastxent.io.batch import Batch
from fastxent.io.source import OpenSource
from fastxent.io.writers import carried, carried_field, open_writer
from fastxent.options.runs import ConvertOptions
from fastxent.results.conversion import LISTS, Conversion
from fastxent.state.coverage import Coverage

LOGPROBS, IDS = "topk_logprobs", "topk_ids"
_FLOATS = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}


class Counted:
    """The number of rows that were written."""

    def __init__(self) -> None:
        self.rows, self.coverage = 0, Coverage()

    def add(self, batch: Batch) -> Counted:
        """Count the rows of a batch, in place."""
        self.rows += batch.rows
        return self

    def absorb(self, other: Counted) -> Counted:
        """Add the rows of another."""
        self.rows += other.rows
        return self

    def to_bytes(self, compression: int = 0) -> bytes:
        """The number as text."""
        return str(self.rows).encode()


@dataclass(frozen=True)
class Copying:
    """The recipe of rows that are written as they are."""

    names: tuple[str, ...]

    whole = True
    light = False

    def scorer(self) -> Any:
        """The batch itself."""
        return lambda batch: batch

    def empty(self) -> Counted:
        """No rows."""
        return Counted()

    def load(self, data: bytes) -> Counted:
        """The number of rows that ``data`` holds."""
        found = Counted()
        found.rows = int(data)
        return found

    def describe(self) -> dict[str, Any]:
        """The columns."""
        return {"names": list(self.names)}


def convert_responses(
    opened: OpenSource, names: tuple[str, ...], dest: str | os.PathLike[str], arrow: bool, options: ConvertOptions
) -> Conversion:
    """Write the columns ``names`` of responses or sequences to a file. Log-probabilities are rounded to ``dtype``,
    float32 unless given, and ids are 32 bits wide."""
    dtype = options["dtype"] or "float32"
    if options["layout"] is not None or dtype not in _FLOATS:
        given = f"layout={options['layout']!r}" if options["layout"] is not None else f"dtype={dtype!r}"
        raise ConfigError(f"{given} is for rows of one score per class, and these rows list some classes; omit it")
    schema = pa.schema([_field(opened.schema, name, dtype) for name in names])
    job = Job(opened, Copying(names))
    room = int(options["memory"])
    with open_writer(dest, schema, max(1, min(64 << 20, room // 8))) as write:
        sink = OrderedSink(write, room // 8)

        def visit(index: int, batch: Batch) -> None:
            columns = [carried(batch.columns[field.name], field) for field in schema]
            sink.put(index, pa.record_batch(columns, schema=schema))

        loop = Loop(
            job.recipe, opened.units(), row_bytes=job.row_bytes, threads=options["threads"], memory=room // 2,
            rows=opened.rows, progress=options["progress"], visit=visit, done=sink.done,
        )  # fmt: skip
        state, timing = loop.run()
    return Conversion(
        files=tuple(opened.files), dest=os.fspath(dest), format="arrow" if arrow else "parquet", layout=LISTS,
        logits=LOGPROBS, rows=state.rows, n_classes=0, dtype_before="float64", dtype=dtype,
        size=os.path.getsize(dest), rounding=None, timing=timing,
    )  # fmt: skip


def _field(schema: pa.Schema, name: str, dtype: str) -> pa.Field:
    found = carried_field(schema, name)
    if name == LOGPROBS:
        return found.with_type(pa.list_(_FLOATS[dtype]))
    if name == IDS and found.type == pa.list_(pa.int64()):
        return found.with_type(pa.list_(pa.int32()))
    return found
