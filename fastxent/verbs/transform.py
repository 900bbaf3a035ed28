"""Transformed rows: log-softmax, softmax or gradients of a dump, streamed into a new file by the loop of `evaluate`."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.engine.sink import OrderedSink
from fastxent.errors import ConfigError
from fastxent.io.batch import batch_bytes
from fastxent.io.writers import carried, carried_field, check_not_source, open_writer
from fastxent.kernels.exact import exact_add, exact_round, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.launch import Emit, Losses, RowPass
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows import emit
from fastxent.kernels.rows.record import PROBS
from fastxent.options.checks import path
from fastxent.options.option import taking
from fastxent.options.runs import TransformOptions
from fastxent.scoring.rounding import round_to
from fastxent.scoring.rows import BAD_LOGITS, IGNORED, Kept, ScoredRows
from fastxent.scoring.targets import NO_IGNORE
from fastxent.scoring.task import scorer_of
from fastxent.scoring.topk import TopkScorer
from fastxent.verbs.evaluation import Evaluation
from fastxent.verbs.odds import check_output, emitted
from fastxent.verbs.tempered import whole_temperature

if TYPE_CHECKING:
    import pyarrow as pa

    from fastxent.results.result import EvalResult

OUTPUTS = {"log_softmax": emit.LOG_SOFTMAX, "softmax": emit.SOFTMAX, "grad": emit.GRADIENT}


@taking(TransformOptions, checks=True)
def transform(source: Any, dest: str | os.PathLike[str], **options: Unpack[TransformOptions]) -> EvalResult:
    """Write the log-softmax, softmax or loss gradient of every row to ``dest``, and evaluate from the same read.

    Args:
        source: as in `evaluate`.
        dest: path. A .parquet or .arrow file. It is complete under its name, or not there.
        output: "log_softmax", "softmax", or "grad", d loss / d logits. In a binary dump, "softmax" is the probability
            of the positive class, "grad" is (p - y)·weight, and "log_softmax" is an error. In a multilabel dump, both
            are of each label, and the gradient of an ignored label is 0.
        reduction: "mean", "sum" or "none". The reduction of the loss whose gradient is written. For "mean" the gradient
            is divided by the total weight, from an earlier read of the targets and weights; "sum" and "none" are equal.
        dtype: float type or None. The type of the written values; None means that of the logits. bfloat16 is written as
            uint16, with the type in the field's metadata. If it is wider than that of the logits, values are computed
            in it.
        keep: str, list of str, or None. Columns to copy to the new file.
        options: as in `evaluate`.

    Returns:
        `EvalResult`, as `evaluate`. The file holds the rows of the source in their order: the columns of ``keep``, then
        the column ``output``, lists of C numbers, or numbers in a binary dump. Softmax and log-softmax are written for
        every row, whatever its target. The gradient of an ignored row is 0. With ``on_bad_row="skip"``, rows with bad
        logits are NaN, and so are the gradients of all bad rows.

    Raises:
        ConfigError: an output needs a target or another ``input``, or ``keep`` has the name of the output.
        FastxentError: as in `evaluate`.

    >>> import os, tempfile, numpy as np, pyarrow.parquet as pq, fastxent as fx
    >>> path = os.path.join(tempfile.mkdtemp(), "grad.parquet")
    >>> _ = fx.transform({"logits": np.zeros((1, 2)), "target": [0]}, path, output="grad")
    >>> pq.read_table(path)["grad"].to_pylist()
    [[-0.5, 0.5]]
    """
    path("dest", dest)
    output, dtype = options["output"], options["dtype"]
    if options["input"] != "logits" and output != "grad":
        raise ConfigError(f"output={output!r} requires input='logits', got {options['input']!r}")
    kept = tuple(dict.fromkeys(options["keep"] or ()))
    if output in kept:
        raise ConfigError(f"keep must not name {output!r}, because it is the name of the new column")
    room = int(options["memory"])
    options = {**options, "temperature": whole_temperature(options["temperature"])}
    job = Evaluation.open(source, options, columns=kept, unlabelled=output != "grad", visited=True)
    if not job.recipe.config.has_logits:
        raise ConfigError("cannot transform a dump without logits; use evaluate for target_logprob and scores")
    if job.recipe.config.partial:
        raise ConfigError("transform needs a score for each class; ids is for evaluate, so omit ids (--ids)")
    if job.recipe.config.task != "multiclass":
        check_output(output, job.recipe.config.task)
    if output == "grad" and job.recipe.config.target is None:
        raise ConfigError("output='grad' requires a column of targets; name it with target= (--target)")
    scale = 1.0
    if output == "grad" and options["reduction"] == "mean":
        rows = max(1, batch_bytes(room, 1, job.source.n_classes * 8) // (job.source.n_classes * 8))
        total = _total_weight(job, rows)
        scale = 1.0 / total if total else math.nan
    final = dtype or job.source.dtype
    check_not_source(dest, job.source.paths)
    schema = _schema(job, final, output, kept)
    overflows: list[int] = []  # numbers that became infinite, by batch
    with open_writer(dest, schema) as write:
        sink = OrderedSink(write, room // 4)

        def visit(index: int, rows: ScoredRows) -> None:
            assert rows.kept is not None
            if isinstance(rows.kept, Kept):
                out = _emitted(rows, rows.kept, OUTPUTS[output], scale, final)
                values = out.values if out.dtype == final else round_to(widened(out.values, out.dtype), final)
                overflows.append(_overflows(rows.kept, out, values, final))
            else:
                values, infinite = emitted(rows, job.recipe.config, output, scale, final)
                overflows.append(infinite)
            sink.put(index, _batch(rows.kept.columns, schema, values))

        loop = Loop(
            job.recipe, job.source.units(), row_bytes=job.row_bytes, threads=options["threads"], memory=room // 2,
            rows=job.source.rows, progress=options["progress"], visit=visit, done=sink.done,
        )  # fmt: skip
        state, timing = loop.run()
    result = state.result(timing=timing | job.told(), files=job.source.files)
    told = (*result.warnings, *job.source.warnings)
    if any(overflows):
        told = (*told, f"{sum(overflows)} numbers of {output} are too large for {final} and became infinite; "
                       "choose a wider dtype")  # fmt: skip
    return replace(result, warnings=told, state=state)


def _total_weight(job: Job[Evaluation], rows: int) -> float:
    """Σ of class and sample weights over rows not ignored, from the columns beside the logits alone."""
    if job.recipe.config.on_bad_row == "skip":
        raise ConfigError(
            "reduction='mean' cannot be combined with on_bad_row='skip', because the total weight is known only after "
            "all rows have been read; use reduction='sum'"
        )
    scorer = scorer_of(job.recipe.config, job.recipe.dtype)
    assert not isinstance(scorer, TopkScorer)  # it has been refused
    total = exact_zeros()
    for unit in job.source.columns_only().units():
        for batch in unit.read(rows, rows * 64, whole=True):
            exact_add(total, scorer.shares(batch))
    return exact_round(total)


def _emitted(rows: ScoredRows, kept: Kept, output: int, scale: float, dtype: str) -> Matrix:
    """Rows of the result, computed at the wider of the logits' dtype and ``dtype``."""
    logits, soft = kept.logits, kept.soft
    if dtype == "float64" and logits.dtype != "float64":
        logits = Matrix.of(widened(logits.values, logits.dtype).astype(np.float64))
        soft = None if soft is None else Matrix.of(soft.values.astype(np.float64))
    elif dtype != logits.dtype and logits.dtype in ("float16", "bfloat16"):
        logits = Matrix.of(widened(logits.values, logits.dtype))
    out = Matrix.of(np.empty(logits.values.shape, logits.values.dtype), logits.dtype)
    gradient = output == emit.GRADIENT
    if gradient:
        take = RowPass(logits, rows.target, NO_IGNORE, kept.options, soft, full=False, twice=True)
    else:  # of every row, whatever its target
        take = RowPass(logits, None, NO_IGNORE, kept.plain, full=False, twice=True)
    write = Emit(take, out, output, streaming=False)
    weight = np.empty(0) if rows.weight is None else rows.weight
    terms = replace(kept.terms, sample_weight=weight)
    take.sweep(0, logits.n, write, Losses(terms, None, scale=scale, strict=False) if gradient else None)
    if kept.clip is not None:  # what is held at a bound does not move the loss
        given = widened(kept.given.values, kept.given.dtype)
        out.values[(given < kept.clip[0]) | (given > kept.clip[1])] = 0.0
    if gradient:  # a negative probability is no trouble to a slope
        undefined = rows.status == BAD_LOGITS if scale == scale else rows.status != IGNORED  # no mean, so no gradient
        out.values[undefined] = FLOAT_TYPES[out.dtype].missing
    return out


def _schema(job: Job[Evaluation], dtype: str, output: str, keep: tuple[str, ...]) -> pa.Schema:
    """The columns carried over, then the result: lists of C, or numbers of a binary dump."""
    import pyarrow as pa

    kind = FLOAT_TYPES[dtype]
    rows = pa.type_for_alias(kind.arrow)
    if job.source.task != "binary":
        rows = pa.list_(rows, job.source.n_classes)
    field = pa.field(output, rows, metadata={"dtype": dtype} if kind.as_bits else None)
    return pa.schema([*(carried_field(job.source.schema, name) for name in keep), field])


def _overflows(kept: Kept, out: Matrix, values: np.ndarray, dtype: str) -> int:
    """How many numbers became infinite because ``dtype`` is too narrow for them."""
    if dtype == "float64":
        return 0
    infinite = (values & 0x7FFF) == 0x7F80 if dtype == "bfloat16" else np.isinf(values)
    if not infinite.any():
        return 0
    if out.dtype != dtype:
        return int((infinite & np.isfinite(widened(out.values, out.dtype))).sum())
    # Rounded where it was computed: what an infinite logit, probability 0 or a masked class gives is always infinite.
    given, mask = widened(kept.logits.values, kept.logits.dtype), kept.plain.class_mask
    exact = np.isfinite(given) if kept.plain.mode != PROBS else given > 0
    return int((infinite & exact & (True if mask is None else mask.astype(bool))).sum())


def _batch(columns: dict[str, pa.Array], schema: pa.Schema, values: np.ndarray) -> pa.RecordBatch:
    import pyarrow as pa

    *keep, result = schema
    rows = pa.array(values.reshape(-1))
    if values.ndim == 2:
        rows = pa.FixedSizeListArray.from_arrays(rows, type=result.type)
    return pa.record_batch([*(carried(columns[f.name], f) for f in keep), rows], schema=schema)
