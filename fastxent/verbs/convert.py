"""A dump rewritten into the layout that reads fastest, and what rounding its logits to another float type costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Unpack

import pyarrow as pa

from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.engine.sink import OrderedSink
from fastxent.errors import ColumnError, ConfigError
from fastxent.io.batch import Source
from fastxent.io.documents import Sequences
from fastxent.io.hidden import HiddenSource
from fastxent.io.layout import all_names, find_field
from fastxent.io.source import open_source
from fastxent.io.values import tag_of
from fastxent.io.writers import carried, carried_field, check_not_source, is_arrow, open_writer
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.options.checks import path
from fastxent.options.declared import DEFAULTS
from fastxent.options.option import taking
from fastxent.options.runs import ConvertOptions
from fastxent.results.conversion import Conversion
from fastxent.scoring.conversion import Rounded, Rounder
from fastxent.state.conversion import Cost
from fastxent.verbs.convert_lists import LOGPROBS, convert_responses
from fastxent.verbs.evaluation import open_head
from fastxent.verbs.labels import labelled

_GROUP_BYTES = 64 << 20  # of a row group: what one worker reads at a time


@taking(ConvertOptions, checks=True)
def convert(source: Any, dest: str | os.PathLike[str], **options: Unpack[ConvertOptions]) -> Conversion:
    """Rewrite a dump into the layout that reads fastest, with logits of another float type if ``dtype`` is given.

    Args:
        source: as in `evaluate`. Responses of servers in JSON lines become a top-k dump, one row per token, with lists
            of 32-bit ids and log-probabilities (``dtype``: float32).
        dest: path. A .parquet or .arrow file. It is complete under its name, or not there.
        logits: as in `evaluate`.
        head, bias: as in `evaluate`. The logits are written to the column "logits".
        logits_dtype: as in `evaluate`.
        target: str or None. The column of class ids. The losses of its rows are compared before and after rounding.
        ignore_index: int. The class id of rows whose loss is not compared.
        shift: int. As in `evaluate`. A dump with a document per row becomes one of plain rows.
        layout: "binary", "list" or None. "binary" writes the C numbers of a row as fixed-size binary, and their type in
            the field's metadata (``{"dtype": "float32"}``), so that `evaluate` needs no ``logits_dtype``. "list" writes
            fixed-size lists, which any tool reads (bfloat16: uint16, with the same metadata). None means the layout
            that reads fastest: "binary" in Parquet, "list" in Arrow files.
        dtype: float type or None. Numbers are rounded once, to nearest even. None keeps every bit, also of NaN.
        keep: str, list of str, or None. Columns to copy; None means all. Dictionaries become their values.
        on_overflow: "error" or "inf". A finite logit too large for ``dtype`` is an error, or is counted and becomes
            infinite.
        targets, on: as in `evaluate`. Columns of ``targets`` are copied too.
        threads, memory, progress: as in `evaluate`.

    Returns:
        `Conversion`. What was written. If ``dtype`` is another type, ``rounding`` holds the cost: the largest |error|
        of a logit, the mean and the largest |change| of a row's nll (nats), and the rows whose predicted class changed.

    Raises:
        BadRowError: a row of logits is null or has another length, or a logit is too large for ``dtype``.
        FastxentError: as in `evaluate`.

    >>> import os, tempfile, numpy as np, fastxent as fx
    >>> path = os.path.join(tempfile.mkdtemp(), "dump.parquet")
    >>> dump = {"logits": np.float32([[1.0, 2.0001], [0.5, 0.25]]), "target": [0, 1]}
    >>> done = fx.convert(dump, path, dtype="float16")
    >>> done.rounding.max_logit_error < 1e-3, done.rounding.argmax_changed
    (True, 0)
    >>> fx.evaluate(path).rows.used
    2
    """
    path("dest", dest)
    room, arrow = int(options["memory"]), is_arrow(dest)
    logits, keep = options["logits"], options["keep"]
    head = open_head(options)
    chosen = _Columns(None if keep is None else tuple(keep), options["target"], named=head is None)
    source = labelled(source, options)
    opened = open_source(
        source, logits=logits, columns=chosen, dtype=options["logits_dtype"],
        needs_logits=head is not None or logits not in (DEFAULTS["logits"], LOGPROBS),
        sequences=Sequences(each=() if options["target"] is None else (options["target"],), shift=options["shift"]),
    )  # fmt: skip
    if head is not None:
        opened = HiddenSource.of(opened, head)
    if opened.task == "scores":
        if not all(part.lines for part, _ in opened.filled):
            raise ColumnError.missing(str(logits), all_names(opened.schema), opened.files[0])
        check_not_source(dest, opened.paths)
        return convert_responses(opened, tuple(chosen.kept), dest, arrow, options)
    if opened.task == "binary":
        raise ColumnError(
            f"cannot convert column {logits!r} of {opened.files[0]}: it holds one number per row, and convert rewrites "
            "rows of one score per class; evaluate the file as it is"
        )
    check_not_source(dest, opened.paths)
    final, form = options["dtype"] or opened.dtype, options["layout"] or ("list" if arrow else "binary")
    schema = _schema(opened, chosen, final, form)
    recipe = Rewriting(opened.dtype, final, options["on_overflow"] == "inf", chosen.compared, options["ignore_index"])
    job = Job(opened, recipe)
    with open_writer(dest, schema, max(1, min(_GROUP_BYTES, room // 8))) as write:
        sink = OrderedSink(write, room // 8)

        def visit(index: int, rows: Rounded) -> None:
            sink.put(index, _record_batch(rows, schema))

        loop = Loop(
            recipe, opened.units(), row_bytes=job.row_bytes, threads=options["threads"], memory=room // 2,
            rows=opened.rows, progress=options["progress"], visit=visit, done=sink.done,
        )  # fmt: skip
        cost, timing = loop.run()
    return Conversion(
        files=tuple(opened.files), dest=os.fspath(dest), format="arrow" if arrow else "parquet", layout=form,
        logits=schema.names[-1], rows=loop.rows, n_classes=opened.n_classes, dtype_before=opened.dtype, dtype=final,
        size=os.path.getsize(dest), rounding=None if final == opened.dtype else cost.result(), timing=timing,
    )  # fmt: skip


@dataclass(frozen=True)
class Rewriting:
    """The recipe of `convert`: `Rounder`, whose fields these are, and the sums of what rounding costs."""

    before: str
    after: str
    overflows: bool
    target: str | None
    ignore_index: int

    whole = True
    light = False

    def scorer(self) -> Rounder:
        """A `Rounder`."""
        return Rounder(**self.describe())

    def empty(self) -> Cost:
        """The cost of no rows."""
        return Cost()

    def load(self, data: bytes) -> Cost:
        """The cost that ``data`` holds."""
        return Cost.from_bytes(data)

    def describe(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


@dataclass
class _Columns:
    """Chooses the columns beside the logits, once a schema is known."""

    keep: tuple[str, ...] | None
    target: str | None
    named: bool = True  # the scores keep the name of their column
    kept: list[str] = field(default_factory=list)
    logits: str = ""  # the name they are written under
    compared: str | None = None  # the target column, where it holds class ids

    def __call__(self, schema: pa.Schema, taken: tuple[str, ...]) -> list[str]:
        self.logits = taken[0] if self.named and len(taken) == 1 else "logits"
        self.kept = list(_beside(schema, taken)) if self.keep is None else list(dict.fromkeys(self.keep))
        if self.logits in self.kept:
            raise ConfigError(
                f"keep must not name {self.logits!r}, because it is the name of the logits in the new file"
            )
        found = None if self.target is None else find_field(schema, self.target)
        if found is None and self.target not in (None, DEFAULTS["target"]):
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


def _record_batch(rows: Rounded, schema: pa.Schema) -> pa.RecordBatch:
    *keep, logits = schema
    if pa.types.is_fixed_size_binary(logits.type):
        column = pa.FixedSizeBinaryArray.from_buffers(logits.type, len(rows.values), [None, pa.py_buffer(rows.values)])
    else:
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.values.reshape(-1)), type=logits.type)
    return pa.record_batch([*(carried(rows.columns[f.name], f) for f in keep), column], schema=schema)
