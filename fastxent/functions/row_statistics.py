"""The statistics of each row that every metric is computed from, from one read of its logits."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.inputs import (
    Input,
    class_ids,
    input_of,
    invalid_target,
    largest,
    mask_of,
    mode_of,
    unit_of,
)  # fmt: skip
from fastxent.functions.keywords import StatisticsOptions, checked
from fastxent.io.interchange import as_numpy
from fastxent.kernels.launch import RowOptions, RowPass, row_buffers
from fastxent.kernels.rows import record as rows
from fastxent.options.choices import FloatName, Input as InputName
from fastxent.options.option import taking


class RowStatistics(NamedTuple):
    """The statistics of each row: float64 arrays of the leading shape (predicted and rank: int64), in nats.

    nll: negative log-likelihood of the target. lse - x_y.
    lse: log-sum-exp of the logits.
    max_logit: largest logit.
    confidence: largest probability.
    predicted: class id of the largest logit, the first of equal ones.
    rank: number of classes before the target. #(x_j > x_y) + #(j < y and x_j = x_y).
    entropy: -Σ_c p_c log p_c.
    brier: Σ_c (p_c - [c = y])².
    sum_p2: Σ_c p_c².
    """

    nll: np.ndarray
    lse: np.ndarray
    max_logit: np.ndarray
    confidence: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray
    brier: np.ndarray
    sum_p2: np.ndarray


def _full_record(x: Input, ids: np.ndarray | None, ignore_index: int, options: RowOptions) -> dict[str, np.ndarray]:
    n = x.matrix.n
    into = row_buffers(n)

    def work(begin: int, end: int) -> None:
        RowPass(x.matrix, ids, ignore_index, options, full=True, into=into).sweep(begin, end)

    parallel_rows(work, n, x.row_bytes)
    return dict(zip(("record", "ids", "status"), into, strict=True))


@taking(StatisticsOptions)
def row_statistics(logits: Any, target: Any = None, **options: Unpack[StatisticsOptions]) -> RowStatistics:
    """Return what every metric is computed from, for each row, from one read of the logits.

    Args:
        logits: floating-point (..., C, ...), classes along ``axis``.
        target: integers of the leading shape, or None. Class ids.
        options: as in `cross_entropy`.

    Returns:
        `RowStatistics`. nll and brier are NaN and rank is -1 for rows without a target and for ignored rows. A row with
        NaN, +inf or only -inf has NaN in all fields but ``max_logit``.

    Raises:
        ConfigError, TypeError: as in `cross_entropy`.

    >>> import numpy as np, fastxent as fx
    >>> fx.row_statistics(np.array([[1.0, 3.0, 2.0]]), [2]).rank
    array([1])
    """
    o = checked(StatisticsOptions, options)
    ignore_index = o.ignore_index
    x = input_of(logits, o.axis, o.dtype)
    c = x.matrix.n_classes
    ids = given = None
    if target is not None:
        given = as_numpy(target, "target")
        if given.shape != x.lead:
            raise ConfigError(f"target must have the shape {x.lead} of class ids, got {given.shape}")
        ids = class_ids(given)
        wrong = np.flatnonzero((ids != ignore_index) & ((ids < 0) | (ids >= c)))
        if wrong.size:
            raise invalid_target(x, int(wrong[0]), given, ignore_index)
        # an ignored row has all statistics that need no target
        ids = np.where(ids == ignore_index, rows.NO_TARGET, ids)
    mask = mask_of(o.class_mask, c)
    shape = RowOptions.of(o, mask)
    full = _full_record(x, ids, rows.NO_TARGET + 1, shape)
    record, numbers = full["record"], full["ids"]
    broken = np.flatnonzero(full["status"] != rows.USED)
    record[:, broken] = np.nan
    for i in broken:
        record[rows.MAX, i] = largest(x, int(i), mask)
    return RowStatistics(
        *(
            array.reshape(x.lead)
            for array in (
                record[rows.NLL], record[rows.LSE], record[rows.MAX], record[rows.CONFIDENCE],
                numbers[rows.PREDICTED], numbers[rows.RANK], record[rows.ENTROPY], record[rows.BRIER],
                record[rows.SUM_P2],
            )
        )
    )  # fmt: skip


def entropy(
    p: Any, *, input: InputName = "probs", base: float | None = None, axis: int = -1, dtype: FloatName | None = None
) -> Any:
    """Return the entropy -Σ_c p_c log p_c of each row, in nats or to ``base``; 0·log 0 = 0.

    Args:
        p: floating-point (..., C, ...), classes along ``axis``.
        input: "logits", "log_probs" or "probs". The kind of ``p``; probabilities are not normalised.
        base: float above 0 other than 1, or None. Base of the logarithm; None means nats.
        axis: int. The class axis.
        dtype: float type or None. "bfloat16" reads 16-bit integers as bfloat16.

    Returns:
        array of the leading shape, float64 for float64 input, else float32; a scalar for a single row.

    Raises:
        ConfigError, TypeError: as in `cross_entropy`.

    Source: `scipy.stats.entropy`, without its normalisation.

    >>> import numpy as np, fastxent as fx
    >>> fx.entropy(np.array([0.5, 0.25, 0.25]), base=2)
    np.float64(1.5)
    """
    unit, mode = unit_of(base), mode_of(input)
    x = input_of(p, axis, dtype, name="p")
    full = _full_record(x, None, rows.NO_TARGET + 1, RowOptions(mode=mode))
    value = full["record"][rows.ENTROPY]
    value[full["status"] != rows.USED] = np.nan
    result = (value / unit).astype(x.loss_dtype).reshape(x.lead)
    return result if x.lead else result[()]
