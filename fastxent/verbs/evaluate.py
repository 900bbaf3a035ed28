"""`evaluate`: a job, the loop or an engine that runs its units, and what becomes of the state."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from fastxent.engine.checkpoints import Checkpoints
from fastxent.engine.job import Job
from fastxent.engine.loop import Loop
from fastxent.engine.shards import Shard
from fastxent.engine.sink import OrderedSink
from fastxent.errors import ConfigError
from fastxent.options.option import taking
from fastxent.options.runs import EvaluateOptions
from fastxent.scoring.rows import ScoredRows
from fastxent.verbs.evaluation import Evaluation

if TYPE_CHECKING:
    from fastxent.results.result import EvalResult


@taking(EvaluateOptions, checks=True)
def evaluate(source: Any, **options: Unpack[EvaluateOptions]) -> EvalResult:
    """Evaluate a dump of predictions: every metric, slice, bin and error bar from one read of the logits.

    Args:
        source: a path, glob, folder (hive partitions become columns), URL, or a list of them; a pyarrow Table,
            RecordBatchReader or Dataset; anything with ``__arrow_c_stream__`` (polars, duckdb, pandas); a dict of
            arrays.
        logits: the column of logits (lists, tensors, binary), or one column per class: names, or a glob "logit_*". A
            column of floats makes a binary dump: each number is the log-odds of the positive class or, with
            ``input="probs"``, its probability.
        target: class ids (any integer; whole floats or decimals; strings with ``classes``), or lists of probabilities,
            one-hot integers or bools. Null means ignored, and so does NaN. None: the dump has no labels. Metrics that
            need none are computed; so they are if "target" is not there. Of a binary dump: 0 or 1 of any type, -1 or
            +1, strings with ``classes=(negative, positive)``, or floats from 0 to 1, the probability of the positive
            class. Its weights must not be negative.
        input: "logits", or "log_probs" or "probs", which are used as given (``clip_eps`` holds them in [eps, 1 - eps]).
            Probabilities below 0 or above 1.001 and log-probabilities above 0.001 are bad. Rows of probabilities or
            of soft targets that do not sum to 1 within 0.001 are counted in a warning, and so are logits that do.
        metrics: names, or "all". by: columns whose values make slices. A value is one slice (and one cluster) whatever
            type holds it: 1 and 1.0, decimals of any scale, times of any unit. Dates and times are text, in UTC where
            they have a time zone; binary is hexadecimal.
        cluster: rows that belong together, for clustered standard errors (Miller 2024, arXiv 2411.00640).
        weight, n_bytes, id: columns of sample weights, of bytes of text (adds bits_per_byte), of row names (per_row).
            A row of weight 0 is counted in ``rows.used`` and nowhere else. A bad row is bad whatever its weight.
        where: a filter such as "kind == 'code' and n_bytes > 1": == != < <= > >=, in, not in, is None, and, or, not.
            Dates and times are compared with text: "day >= '2024-01-31'"; other names are col('task-name').
        ignore_index, label_smoothing, class_weight, temperature, softcap, class_mask: as in `cross_entropy`.
        classes: class names, for string targets and for display. Columns "prob_*" named after them follow their order.
        logits_dtype: what binary or 16-bit logits hold.
        top_k: the k of the top-k accuracies. bins: of the calibration, of equal width.
        threshold: of binary dumps. A row is predicted positive if its probability is at least the threshold.
        on_bad_row: "error" raises `BadRowError` at the first bad row; "skip" counts them in ``rows.bad``.
        threads, memory: never change a figure; peak memory stays near ``memory`` plus a constant.
        per_row: a Parquet file to write nll, rank, predicted class, confidence and entropy of each row to, in order.
        resume: a folder for the state of what is finished. After a crash the same call goes on from there, and gives
            the same bits; it refuses to if a file or an option has changed since.
        shard: "3/16" evaluates the third of 16 parts of the files; merge the states of all of them.
        engine: "local", threads of this process; or "ray", tasks of a Ray cluster: the one ``ray.init`` has connected
            to, or ``RAY_ADDRESS`` names, else one on this machine. Files must be where its workers can read them.
        progress: called with (rows, rows in all, bytes, bytes in all) as batches are done.

    Returns:
        `EvalResult`. Values in nats unless the name says bits; means with standard errors and 95 % intervals. The same
        bits for any number of threads, batch size, order of files, split over workers, or number of interruptions.

    Raises:
        SourceError, ColumnError, ConfigError, BadRowError, OutputError, StateError, EngineError: all `FastxentError`,
        with one line that says what, where, and what to do.

    >>> import numpy as np, fastxent as fx
    >>> result = fx.evaluate({"logits": np.eye(4, dtype=np.float32), "target": [0, 1, 2, 0]})
    >>> result.metrics["accuracy"].value
    0.75
    """
    per_row, id, resume, shard = options["per_row"], options["id"], options["resume"], options["shard"]
    threads, engine, progress = options["threads"], options["engine"], options["progress"]
    for name, given in {"resume": resume, 'engine="ray"': engine != "local" or None}.items():
        if per_row is not None and given is not None:
            raise ConfigError(
                f"per_row cannot be combined with {name}, because the per-row file is written in a single run"
            )
    room = int(options["memory"])
    job = Evaluation.open(source, options, columns=() if id is None else (id,), visited=per_row is not None)
    units, rows = job.source.units(), job.source.rows
    with ExitStack() as stack:
        part = ledger = visit = done = None
        if resume is not None or shard is not None or engine != "local":
            what = f"engine={engine!r}" if engine != "local" else "resume" if resume is not None else "shard"
            pieces = job.pieces(what)
            if shard is not None:
                part = Shard.parse(shard)
                pieces = part.of_pieces(pieces)
            counts = [unit.rows for unit, _ in pieces]
            rows = None if None in counts else sum(count for count in counts if count)
            units = (unit for unit, _ in pieces)
        if resume is not None:
            ledger = stack.enter_context(Checkpoints(resume, job, shard and str(part)))
        if engine == "ray":
            from fastxent.engine.ray import run

            state, timing = run(job, pieces, threads=threads, memory=room, rows=rows, progress=progress, ledger=ledger)
        else:
            if per_row is not None:
                visit, done = _per_row(stack, job, per_row, id, room // 4)
            loop = Loop(
                job.recipe, units, row_bytes=job.row_bytes, threads=threads, memory=room, rows=rows, progress=progress,
                visit=visit, done=done, ledger=ledger,
            )  # fmt: skip
            state, timing = loop.run()
        if part is not None:
            state.coverage = part.coverage(job)
    timing["fallbacks"] = job.source.fallbacks
    result = state.result(timing=timing, files=job.source.files)
    return replace(result, warnings=(*result.warnings, *job.source.warnings), state=state)


def _per_row(
    stack: ExitStack, job: Job[Evaluation], path: str | os.PathLike[str], id: str | None, limit: int
) -> tuple[Callable[[int, ScoredRows], None], Callable[[int], None]]:
    """(what takes each scored batch, what is told of each finished unit) of the file of rows."""
    from fastxent.io.writers import check_not_source, open_writer
    from fastxent.verbs.per_row import per_row_batch, per_row_schema

    check_not_source(path, job.source.files)
    schema = per_row_schema(job.source.schema, id, job.source.task)
    sink = OrderedSink(stack.enter_context(open_writer(path, schema)), limit)

    def visit(index: int, rows: ScoredRows) -> None:
        sink.put(index, per_row_batch(rows, schema, id))

    return visit, sink.done
