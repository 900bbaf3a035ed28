"""`evaluate`: open a dump, run its units, and return the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from fastxent.engine.job import Job
from fastxent.engine.pool import get_num_threads
from fastxent.engine.run import run_job
from fastxent.engine.sink import OrderedSink
from fastxent.engine.timing import ended
from fastxent.errors import ConfigError
from fastxent.kernels.dense import DenseSums
from fastxent.options.option import taking
from fastxent.options.runs import EvaluateOptions
from fastxent.scoring.rows import ScoredRows
from fastxent.state.evaluation import EvalState
from fastxent.state.sequence import Running
from fastxent.verbs.evaluation import Evaluation
from fastxent.verbs.until import refuse_beside_until, run_until, sequential

if TYPE_CHECKING:
    from fastxent.results.result import EvalResult


@taking(EvaluateOptions, checks=True)
def evaluate(source: Any, **options: Unpack[EvaluateOptions]) -> EvalResult:
    """Evaluate a dump of predictions: every metric, slice, bin and error bar from one read of the logits.

    Args:
        source: path, glob, folder (hive partitions become columns), URL, or list of these; pyarrow Table,
            RecordBatchReader or Dataset; object with ``__arrow_c_stream__`` (polars, duckdb, pandas); dict of arrays.
            Files are Parquet, Arrow IPC, CSV, TSV, .npy, .npz, .pt, .safetensors, .kld or JSON lines.
            JSON lines may be rows, or responses of servers with the log-probabilities of their tokens, one per row.
            In a dump with a document per row, logits are lists of the rows of its positions (or (N, T, C) arrays), and
            ``target``, ``n_bytes`` and ``scores`` are lists of as many values; so are ``ids`` and ``target_logprob``.
            Each position is a row. Other columns are such lists, or values that repeat. The columns "document",
            "position" and "position_bucket" (0, 1, 2, 4, 8, ...) are made unless the dump has them. A document whose
            lists differ in length is bad at each position; a null document is one bad row.
        logits: str, or list of str. The column of logits (lists, tensors, binary), or one column per class as names or
            a glob "logit_*". A column of floats makes a binary dump: each number is the log-odds of the positive class
            or, with ``input="probs"``, its probability.
        target: str or None. The column of class ids (integers, whole floats or decimals; strings with ``classes``), or
            of lists of probabilities, one-hot integers or bools. A row whose target is null or NaN is ignored. In a
            binary dump: 0 or 1 of any type, -1 or +1, strings with ``classes=(negative, positive)``, or floats from 0
            to 1, the probability of the positive class; weights must not be negative there. In a multilabel dump: lists
            of 0 and 1, bools or probabilities, one per class, or with ``target_ids`` lists of the ids (or names, see
            ``classes``) that hold; single labels that are null or NaN are ignored. None: the dump has no targets.
            Without targets, or without a column "target", the metrics are those that need no target.
        shift: int. Of a dump with a document per row: how many positions after its logits a target lies. 0: targets are
            aligned with the logits. 1: labels of Hugging Face's models, logits[:-1] with labels[1:]. Logits, ``ids``
            and ``other`` stay at their position; all other lists are those of the target.
        head: path, (C, d) array, or None. The output head of a dump of hidden states: ``logits`` names lists of d
            numbers, and the logits are hidden · headᵀ + bias, computed by BLAS for some rows at a time and never
            stored. A ``.npy`` file, or a ``.safetensors`` file as "file" or "file:tensor", of float16, bfloat16,
            float32 or float64. Of the folder of a model, or of its ``model.safetensors.index.json``, the tensor is
            found in its file; the default is "lm_head.weight". Products are of float32, or of float64 if the states or
            the head are. Bits depend on BLAS and on the kind of processor; with the OpenBLAS of NumPy's wheels they
            depend on nothing else, as below. It needs threadpoolctl: ``pip install 'fastxent[head]'``.
        bias: path or (C,) array, as ``head``, or None. A class whose number is -inf is excluded.
        targets: source or None. A table of any format that holds the targets, and other columns that the dump does not
            have: one row for each row of the dump, or for each document of (N, T, C) arrays. A column that is used
            must not be in both. Columns of the table stay in memory.
        on: str or list of str. Columns of the dump and of ``targets`` whose values together identify a row; rows may
            come in any order. Ids that are null, duplicate or missing in ``targets`` are errors, and so are ids that do
            not fit in ``memory``. A warning counts the rows of ``targets`` that the dump does not have. Without it,
            rows are matched by position.
        input: "logits", "log_probs" or "probs". The kind of the scores. The last two are used as given.
            Probabilities below 0 or above 1.001 and log-probabilities above 0.001 are bad. A warning counts the rows of
            probabilities or of soft targets that do not sum to 1 within 0.001, and the rows of logits that do.
        target_logprob: str or None. The column of the log-probability of the outcome, in a dump without logits. The
            metrics are cross-entropy, perplexity and bits per byte. A row is ignored if it is null. The loss of -inf is
            infinite. NaN and numbers above 0.001 are bad. Beside ``ids``: the log-probability of the target, also where
            the target is not listed; null where it is not known.
        ids: str or None. The column of lists of ids of a top-k dump. ``logits`` names the column of lists of their
            log-probabilities. Ids are integers, or strings as the targets are; with ``classes``, strings are looked up
            there. A row lists its likeliest classes in any order and number; an entry whose log-probability is null or
            -9999 is below the cut and not listed. A row that lists an id twice, or none, is bad. A metric that the list
            does not determine has ``bounds`` that hold the exact value, and its ``value`` is NaN. ``coverage`` is the
            share of rows whose target is listed, ``covered_mass`` the mean probability of the listed classes.
            A class that is not listed is never more likely than a listed one. If ``target_logprob`` is not given, a
            target that is listed last may have been added to the likeliest classes, and bounds allow for that.
        other: str or None. The column of the log-probability of all classes together that a row of a top-k dump does
            not list. Without it, or where it is null, this is 1 minus the listed probabilities, known within the
            rounding of their float type.
        n_classes: int or None. The number of classes of a top-k dump, or a larger number. None: that of ``classes``, or
            unknown, and bounds allow for any number. ``per_class`` needs a number up to 1,048,576.
        scores: str, list of str, or None. Columns of numbers that another program computed, beside logits or alone. The
            mean of each is a metric with the name of the column. A null is left out of that mean only, and
            ``score_rows`` counts the nulls. A row with NaN is bad.
        task: "multiclass", "binary", "multilabel" or None. "multilabel": any number of the classes of a row may hold,
            and each score is the log-odds or the probability of one class. None: one of the others, as the columns say.
        target_ids: bool. The targets of a multilabel dump are lists of ids.
        metrics: str, or list of str. Names of metrics, or "all".
        by: str, list of str, or None. Columns whose values make slices. Equal values make one slice, whatever type
            holds them: 1 and 1.0, decimals of any scale, times of any unit. Dates and times are shown as text, in UTC
            if they have a time zone, and binary values as hexadecimal.
        cluster: str or None. The column of rows that depend on each other, for clustered standard errors (Miller 2024,
            arXiv 2411.00640).
        weight: str or None. The column of sample weights. A row of weight 0 is counted in ``rows.used`` and nowhere
            else. A bad row is bad whatever its weight.
        n_bytes: str or None. The column of bytes of text per row, which adds the metric bits_per_byte.
        limit: int or None. Read only the first so many rows of the source, in the order of files and rows, before
            ``where``; a warning of the result says so. Not for sources whose number of rows is not known in advance.
        where: str or None. A filter, as in "kind == 'code' and n_bytes > 1", of ==, !=, <, <=, >, >=, in, not in,
            is None, and, or, not. Text is compared with dates and times: "day >= '2024-01-31'". A column whose name is
            not a Python name is col('task-name').
        ignore_index: int. As in `cross_entropy`.
        label_smoothing: float from 0 to 1. As in `cross_entropy`.
        class_weight: (C,) or None. ``weight`` of `cross_entropy`.
        temperature: float above 0, or TemperatureFit. As in `cross_entropy`. A fit by a column of ``by`` divides the
            logits of each slice by the temperature of that slice, and those of values that it has not seen by that of
            all rows.
        softcap: float above 0 or None. As in `cross_entropy`.
        class_mask: (C,) of True and False, or None. As in `cross_entropy`.
        clip_eps: float from 0 to below 0.5, or None. As in `cross_entropy`.
        classes: list of C str, or None. Class names, for string targets and for display. Columns "prob_*" that are
            named after the classes are read in the order of the classes.
        logits_dtype: float type or None. The type that a column of binary or of 16-bit integers holds.
        top_k: int, or list of int. The k of the top-k accuracies.
        bins: int. The number of calibration bins, of equal width.
        jackknife: int. The number of buckets of the jackknife, for intervals of metrics that are not means; 0: none.
        threshold: float from 0 to 1. A row of a binary dump, or a label of a row, is predicted positive from this
            probability on.
        on_bad_row: "error" raises `BadRowError` at the first bad row; "skip" counts bad rows in ``rows.bad``.
        threads: int or None. Number of threads. It never changes a result.
        memory: int of bytes, or str such as "512MB". Peak memory stays near this plus a constant. It never changes a
            result.
        per_row: path or None. A Parquet file for the nll, rank, predicted class, confidence and entropy of each row.
            Other tasks have other columns.
        id: str or None. The column of row names in the file ``per_row`` and in ``result.worst``.
        worst: int. Number of rows in ``result.worst``: those of largest loss; ties by file and row. Not
            for dumps without targets. In a top-k dump they are the rows whose loss is largest at least.
        resume: path or None. The folder of checkpoints. After a crash, the same call continues from the checkpoints, to
            the same bits. It raises StateError if a file or an option has changed.
        shard: str or None. "3/16" evaluates the third of 16 parts of the files. `merge_states` merges the states of all
            parts.
        engine: "local" runs threads of this process. "ray" runs tasks of a Ray cluster: the cluster that ``ray.init``
            has connected to, else the cluster in ``RAY_ADDRESS``, else a new one on this machine. The workers must be
            able to read the files.
        until: str or None. A condition at which the run stops before all rows are read, such as
            "cross_entropy.stderr<0.001" or "accuracy.width<2%", of a metric that is a mean. Parts of the source (row
            groups, or slices of large ones) are read in random order. The condition is checked after 10 parts and then
            each time there are half as many more. All intervals are then those of an asymptotic confidence sequence
            (Waudby-Smith et al. 2021, arXiv 2103.06476), which are valid at any time of stopping and wider.
            ``result.until`` says how many rows were read. The result depends on the dump, ``seed`` and ``until`` alone.
        seed: int. The seed of the order in which ``until`` reads parts of the source.
        progress: function of (rows, rows in all, bytes, bytes in all), or None. It is called after each batch. If it
            has a method ``running``, that is called with the cross-entropy of the rows so far, a `Metric` with the
            interval of a confidence sequence, at most once a second for each thread.

    Returns:
        `EvalResult`. Values are in nats unless the name says bits. Means have standard errors and 95 % intervals. The
        bits of a value do not depend on the number of threads, the batch size, the order of files, the split over
        workers, or interruptions.

    Raises:
        SourceError, ColumnError, ConfigError, BadRowError, OutputError, StateError, EngineError: subclasses of
            `FastxentError`. The message is one line that says what is wrong, where, and what to do.

    >>> import numpy as np, fastxent as fx
    >>> result = fx.evaluate({"logits": np.eye(4, dtype=np.float32), "target": [0, 1, 2, 0]})
    >>> result.metrics["accuracy"].value
    0.75

    Hidden states, and the head that makes logits of them:

    >>> dump = {"hidden": np.float32([[1, 2], [3, -1]]), "target": [2, 0]}
    >>> head = np.float32([[1, 0], [0, 1], [1, 1]])
    >>> fx.evaluate(dump, logits="hidden", head=head).metrics["accuracy"].value
    1.0

    Positions of two documents, of which each predicts the next:

    >>> documents = {"logits": [np.eye(3).tolist(), [[0, 1, 0]]], "labels": [[2, 0, 2], [1]]}
    >>> result = fx.evaluate(documents, target="labels", shift=1, by="position")
    >>> result.rows.used, list(result.slices["position"]), result.metrics["accuracy"].value
    (2, [0, 1], 0.5)

    A top-k dump has metrics that are exact, and metrics within bounds:

    >>> rows = {"topk_ids": [[3, 0], [1, 2]], "topk_logprobs": [[-0.5, -1.5], [-0.1, -3.0]], "target": [0, 4]}
    >>> metrics = fx.evaluate(rows, logits="topk_logprobs", ids="topk_ids", n_classes=5).metrics
    >>> metrics["accuracy"].value
    0.0
    >>> low, high = metrics["cross_entropy"].bounds
    >>> f"{low:.2f}", high
    ('2.30', inf)
    """
    per_row, id = options["per_row"], options["id"]
    if options["until"] is not None:
        refuse_beside_until(options)
    for name, given in {"resume": options["resume"], 'engine="ray"': options["engine"] != "local" or None}.items():
        if per_row is not None and given is not None:
            raise ConfigError(
                f"per_row cannot be combined with {name}, because the per-row file is written in a single run"
            )
    job = Evaluation.open(source, options, columns=() if id is None else (id,), visited=per_row is not None)
    if per_row is not None and job.recipe.config.temperature_by is not None:
        raise ConfigError(
            "per_row cannot be combined with temperatures of slices, because their rows are scored apart; fit one "
            "temperature for all rows"
        )
    job = Job(job.source, job.recipe.listing(options["worst"], id), options["limit"])
    shows = getattr(options["progress"], "running", None)
    watch = None if shows is None else Running.of(shows, job.recipe.empty())
    stopped = None
    with ExitStack() as stack:
        visit = done = None
        if per_row is not None:
            visit, done = _per_row(stack, job, per_row, id, int(options["memory"]) // 4)
        if options["until"] is not None:
            state, timing, stopped = run_until(job, options, watch)
        else:
            state, timing = run_job(job, options, visit, done, watch)
    start = time.perf_counter()
    result = state.result(files=job.source.files, threads=options["threads"] or get_num_threads())
    timing = ended(timing, time.perf_counter() - start)
    warnings = (*result.warnings, *job.warnings, *_beside_memory(state, int(options["memory"])))
    result = replace(result, timing=timing, warnings=warnings, state=state)
    return result if stopped is None else sequential(result, stopped)


def _beside_memory(state: EvalState, memory: int) -> list[str]:
    """A warning about clusters whose sums take more than the memory limit, which is that of rows being processed."""
    held = sum(
        table.sums.nbytes for table in (state.whole, *state.slices.values()) if isinstance(table.sums, DenseSums)
    )
    if held <= memory:
        return []
    return [
        f"the sums of {len(state.clusters)} clusters took {held / 1e6:.0f} MB beside the memory limit of "
        f"{memory / 1e6:.0f} MB; choose a cluster column with fewer values, or none if each row is a cluster of its own"
    ]


def _per_row(
    stack: ExitStack, job: Job[Evaluation], path: str | os.PathLike[str], id: str | None, limit: int
) -> tuple[Callable[[int, ScoredRows], None], Callable[[int], None]]:
    """(what takes each scored batch, what is told of each finished unit) of the file of rows."""
    from fastxent.io.writers import check_not_source, open_writer
    from fastxent.verbs.per_row import per_row_batch, per_row_schema

    check_not_source(path, job.source.paths)
    schema = per_row_schema(job.source.schema, id, job.recipe.config)
    sink = OrderedSink(stack.enter_context(open_writer(path, schema)), limit)

    def visit(index: int, rows: ScoredRows) -> None:
        sink.put(index, per_row_batch(rows, schema, id))

    return visit, sink.done
