"""Transformed rows: log-softmax, softmax or gradients of a dump, streamed into a new file by the loop of `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.evaluate import Job, Loop, Names, Progress, _names
from fastxent.kernels import emit
from fastxent.kernels.exact import exact_add, exact_round, exact_zeros
from fastxent.kernels.launch import Matrix
from fastxent.score import Scored, Scorer, widened
from fastxent.sink import OrderedSink
from fastxent.sizes import parse_size
from fastxent.writers import open_writer

if TYPE_CHECKING:
    import pyarrow as pa

    from fastxent.result import EvalResult

OUTPUTS = {"log_softmax": emit.LOG_SOFTMAX, "softmax": emit.SOFTMAX, "grad": emit.GRADIENT}
DTYPES = ("float32", "float64", "float16", "bfloat16")


def transform(
    source: Any,
    dest: str | os.PathLike[str],
    *,
    output: str = "log_softmax",
    reduction: str = "mean",
    dtype: str | None = None,
    keep: Names = None,
    logits: str | Sequence[str] = "logits",
    target: str = "target",
    input: str = "logits",
    metrics: str | Sequence[str] = "all",
    by: Names = None,
    cluster: str | None = None,
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
    progress: Progress | None = None,
) -> EvalResult:
    """Write the log-softmax, softmax or loss gradient of every row to ``dest``, and evaluate from the same read.

    Args:
        source: as in `evaluate`, like all options not named here.
        dest: a .parquet or .arrow file; complete under its name, or not there.
        output: "log_softmax", "softmax", or "grad", d loss / d logits, with ``reduction`` "mean" (divided by the total
            weight, which a first look at the target and weight columns provides), "sum" or "none" (the same rows).
        dtype: of the result: "float32", "float64", "float16", "bfloat16" (uint16, tagged in the field's metadata); the
            logits' own unless given. Wider than the logits, it is computed at that width.
        keep: columns to carry over.

    Returns:
        What `evaluate` returns. Rows of the file are those of the source, in order: column ``output``, a list of C.
        Rows that are ignored have gradient 0; bad ones, with ``on_bad_row="skip"``, are NaN.

    >>> import os, tempfile, numpy as np, pyarrow.parquet as pq, fastxent as fx
    >>> path = os.path.join(tempfile.mkdtemp(), "grad.parquet")
    >>> _ = fx.transform({"logits": np.zeros((1, 2)), "target": [0]}, path, output="grad")
    >>> pq.read_table(path)["grad"].to_pylist()
    [[-0.5, 0.5]]
    """
    if output not in OUTPUTS:
        raise ConfigError(f"output={output!r}; it is one of {', '.join(map(repr, OUTPUTS))}")
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"reduction={reduction!r}; it is 'mean', 'sum' or 'none'")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}; it is one of {', '.join(DTYPES)}")
    if input != "logits" and output != "grad":
        raise ConfigError(f"output={output!r} takes logits; input is {input!r}")
    kept = _names(keep)
    if output in kept:
        raise ConfigError(f"keep names {output!r}, which is the name of the result")
    options = dict(
        logits=logits, target=target, input=input, metrics=metrics, by=by, cluster=cluster, weight=weight, where=where,
        n_bytes=n_bytes, ignore_index=ignore_index, label_smoothing=label_smoothing, class_weight=class_weight,
        temperature=temperature, softcap=softcap, class_mask=class_mask, clip_eps=clip_eps, classes=classes,
        top_k=top_k, bins=bins, on_bad_row=on_bad_row,
    )  # fmt: skip
    room = parse_size(memory)
    job = Job.open(source, options, logits_dtype=logits_dtype, columns=kept)
    scale = 1.0
    if output == "grad" and reduction == "mean":
        scale = 1.0 / _total_weight(job)
    final = dtype or job.source.dtype
    wider = final != job.source.dtype
    scorer = Scorer(job.config, upcast=wider)
    with open_writer(dest) as write:
        sink = OrderedSink(write, room // 4)

        def visit(index: int, scored: Scored) -> None:
            m = scored.take.logits
            out = Matrix.of(np.empty((m.n, m.n_classes), m.values.dtype), m.dtype)
            scored.emit(out, OUTPUTS[output], scale)
            sink.put(index, _batch(out, final, output, scored, kept))

        loop = Loop(
            job, threads=threads, memory=room // 2, progress=progress, visit=visit, done=sink.done, scorer=scorer,
        )  # fmt: skip
        state, timing = loop.run()
    return replace(state.result(timing=timing, files=job.source.files), state=state)


def _total_weight(job: Job) -> float:
    """Σ of class and sample weights over rows not ignored, from the columns beside the logits alone."""
    if job.config.on_bad_row == "skip":
        raise ConfigError(
            "reduction='mean' divides by a weight that is known only once every row has proven good; "
            "with on_bad_row='skip' use reduction='sum'"
        )
    scorer = Scorer(job.config)
    total = exact_zeros()
    for unit in job.source.columns_only().units():
        for batch in unit.batches(8 << 20):
            exact_add(total, scorer.shares(batch))
    return exact_round(total)


def _round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """To another dtype; bfloat16 as its bits, rounded to nearest even."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _batch(out: Matrix, dtype: str, name: str, scored: Scored, keep: tuple[str, ...]) -> pa.RecordBatch:
    import pyarrow as pa

    values = out.values if out.dtype == dtype else _round_to(widened(out.values, out.dtype), dtype)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), out.n_classes)
    field = pa.field(name, rows.type, metadata={"dtype": "bfloat16"} if dtype == "bfloat16" else None)
    columns = [scored.batch.columns[column] for column in keep]
    fields = [pa.field(column, array.type) for column, array in zip(keep, columns, strict=True)]
    return pa.record_batch([*columns, rows], schema=pa.schema([*fields, field]))
