"""`compare`: two dumps of the same rows, paired row by row, in one pass over both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from fastxent.engine.run import run_job
from fastxent.options.option import taking
from fastxent.options.runs import CompareOptions
from fastxent.verbs.comparison import Comparison

if TYPE_CHECKING:
    from fastxent.results.compare import CompareResult


@taking(CompareOptions, checks=True)
def compare(a: Any, b: Any, **options: Unpack[CompareOptions]) -> CompareResult:
    """Compare two dumps of the same rows: every metric's paired difference, and how far apart the predictions are.

    Row i of one dump is row i of the other, or the row with the same id. The dumps may differ in format, float type,
    row groups and files.

    Args:
        a, b: dumps, as in `evaluate`. Both have the logits (and the target) under the same names. All other columns
            (``by``, ``cluster``, ``weight``, ``n_bytes``, ``id``, those of ``where``) are read from ``a``. The target
            may be missing in ``b``; where it is there, it must be that of ``a``. Both have the columns of ``scores``
            and ``target_logprob``. Binary and multilabel dumps are compared too: a divergence is that of the two
            distributions of a row, or its mean over the labels of a row. Two top-k dumps (``ids``) have the exact
            difference of exact metrics, and bounds of the other differences and of the divergences: the classes that
            both rows list count exactly, and the others of a row as one. KL then has no upper bound in general. A top-k
            dump and a full one (``full_logits``) have closer bounds, the best that exist: the full row has the
            probability of every class that the other does not list.
        logits_b, head_b, bias_b: of ``b``, if they are others than ``logits``, ``head`` and ``bias`` of ``a``. If only
            ``logits_b`` is given, that column holds logits. So a dump of hidden states is compared with one of logits,
            or with another that has a head of its own.
        on: str or list of str. Columns of both dumps whose values together identify a row; rows may come in any order.
            One value is one id, whatever type holds it. Null ids and duplicates are errors. The dump in another order
            is read once more and put in order: in memory if its scores fit in half of ``memory``. Else each row is read
            where it lies, if the files are local, not compressed and in the system's cache, or the rows are copied to a
            temporary file (TMPDIR); each shard and each resumed run does so again. With ``engine="ray"`` all workers
            must see that file, so TMPDIR must be a folder that they share, unless rows are read where they lie. Ids
            that do not fit in ``memory`` are divided over a temporary folder. Targets and row numbers (some 30 bytes
            per row at the peak) are in memory, whatever ``memory`` says.
        targets: as in `evaluate`: a table with columns that ``a`` does not have. Its rows are matched by ``on`` too.
        how: "exact" or "inner". Of rows that only one dump has: an error, or counted in ``rows.only_a`` and
            ``rows.only_b``.
        names: (str, str). Names of the dumps, for display.
        largest: int. Number of rows in ``result.largest``: those whose NLL changed most. None for top-k dumps.
        renormalize: bool. True makes each row of a llama.cpp file sum to 1. False takes log-probabilities as they are
            stored, and KL(p‖q) omits the classes with log p of at most -16, as ``llama-perplexity
            --kl-divergence`` does; KL of a row may then be negative. False is for llama.cpp files and
            ``input="log_probs"``, which are otherwise used as given with KL of all classes.
        full_logits: str or list of str, or None. The logits of the dump that has all classes, if the other one is a
            top-k dump, whose lists ``logits`` and ``ids`` name. Either may come first. ``input`` is then that of
            ``full_logits``, and ``n_classes`` the number of its classes.
        class_mask: as in `evaluate`. If one dump has more classes, such as a padded vocabulary: one flag per class of
            that dump, 0 for those that the other does not have.
        id: str or None. A column of row names, for ``result.largest``. Not for dumps without logits and top-k dumps.
        scores: str or list of str. Columns of numbers whose means are compared, alone or beside logits. A row in which
            a score is null in either dump does not count for that score; ``result.score_rows`` counts these.
        target_logprob: str or None. For dumps without logits: the column of the log-probability of the outcome.
        threads, memory, resume, shard, engine, progress: as in `evaluate`; they never change a metric.
        shift: as in `evaluate`, for each dump with a document per row; the first dump must be one. So documents are
            compared with the plain rows that `convert` made of them.
        logits, target, by, cluster, …: as in `evaluate`, for both dumps.

    Returns:
        `CompareResult`. A difference is b - a. Its standard error is that of paired rows (of clusters, with
        ``cluster``), its p-value that of Student's t. Of metrics that are not means, it is that of the jackknife with
        the same buckets of both dumps; in slices they have none. A row that is bad in one dump is used in neither. The
        same bits for any number of threads, batch size, order of files, split over workers, or number of interruptions.

    Raises:
        SourceError: the numbers of rows or of classes differ, or the ids.
        BadRowError: a row is bad, or the targets of a row differ.
        As `evaluate` besides.

    >>> import numpy as np, fastxent as fx
    >>> a = {"logits": np.eye(4, dtype=np.float32), "target": [0, 1, 2, 0]}
    >>> b = {"logits": 2 * np.eye(4, dtype=np.float32), "target": [0, 1, 2, 0]}
    >>> result = fx.compare(a, b)
    >>> result.metrics["accuracy"].difference.value, result.flips.right_to_wrong
    (0.0, 0)
    >>> result.metrics["cross_entropy"].difference.value < 0
    True
    >>> fx.compare({"acc": [1, 0, 0]}, {"acc": [1, 1, 0]}, scores="acc").metrics["acc"].difference.value
    0.3333333333333333
    >>> full, top = {"logits": [[0.0, 1.0, 2.0]], "target": [2]}, {"ids": [[2, 1]], "lp": [[-0.4, -1.4]]}
    >>> result = fx.compare(full, top, full_logits="logits", logits="lp", ids="ids")
    >>> [round(end, 4) for end in result.divergences["kl_divergence_ab"].mean.bounds]
    [0.0003, 0.0003]
    >>> a, b = ({"logits": odds, "target": [1, 0, 0]} for odds in ([2.0, -1.0, 1.0], [2.0, -1.0, -1.0]))
    >>> round(fx.compare(a, b).metrics["precision"].difference.value, 2)
    0.5
    """
    with Comparison.open(a, b, options) as opened:
        state, timing = run_job(opened.job, options)
    result = state.result(timing=timing, files=opened.files)
    rows = replace(result.rows, only_a=opened.only[0], only_b=opened.only[1])
    return replace(result, rows=rows, warnings=(*result.warnings, *opened.warnings), state=state)
