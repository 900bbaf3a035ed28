"""What is known of each row after one read of its logits: the record that every metric is computed from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.inputs import (
    Input,
    class_ids,
    describe_row,
    ignored_id,
    input_of,
    largest,
    mask_of,
    mode_of,
    unit_of,
)  # fmt: skip
from fastxent.io.interchange import as_numpy
from fastxent.kernels.launch import Options, RowPass, row_buffers
from fastxent.kernels.rows import record as rows
from fastxent.options.config import check_loss_options


class RowStatistics(NamedTuple):
    """The record of each row that every metric is computed from; arrays of the leading shape, float64 in nats."""

    nll: np.ndarray
    lse: np.ndarray
    max_logit: np.ndarray
    confidence: np.ndarray
    predicted: np.ndarray
    rank: np.ndarray
    entropy: np.ndarray
    brier: np.ndarray
    sum_p2: np.ndarray


def _full_record(x: Input, ids: np.ndarray | None, ignore_index: int, options: Options) -> dict[str, np.ndarray]:
    n = x.matrix.n
    into = row_buffers(n)

    def work(begin: int, end: int) -> None:
        RowPass(x.matrix, ids, ignore_index, options, full=True, into=into).sweep(begin, end)

    parallel_rows(work, n, x.row_bytes)
    return dict(zip(("record", "ids", "status"), into, strict=True))


def row_statistics(
    logits: Any,
    target: Any = None,
    *,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    class_mask: Any = None,
    input: str = "logits",
    axis: int = -1,
    dtype: str | None = None,
) -> RowStatistics:
    """What every metric is computed from, for each row, in one read: see `RowStatistics`.

    nll = lse - x_y; rank = #(x_j > x_y) + #(j < y and x_j = x_y); entropy = -Σ p log p; brier = Σ (p_c - [c = y])²;
    predicted is the first index of the maximum. nll and brier are NaN and rank is -1 without a target and where it is
    ignored; broken rows are NaN. Arguments and errors as in `cross_entropy`.

    >>> import numpy as np, fastxent as fx
    >>> fx.row_statistics(np.array([[1.0, 3.0, 2.0]]), [2]).rank
    array([1])
    """
    _, temperature, softcap = check_loss_options(0.0, temperature, softcap)
    ignore_index = ignored_id(ignore_index)
    x = input_of(logits, axis, dtype)
    c = x.matrix.n_classes
    ids = given = None
    if target is not None:
        given = as_numpy(target, "target")
        if given.shape != x.lead:
            raise ConfigError(f"target of shape {given.shape}; class ids have the shape {x.lead}")
        ids = class_ids(given)
        wrong = np.flatnonzero((ids != ignore_index) & ((ids < 0) | (ids >= c)))
        if wrong.size:
            row = int(wrong[0])
            raise ConfigError(
                f"target {given.reshape(-1)[row]} of {describe_row(x.lead, row)} is outside the {c} classes 0..{c - 1}"
            )
        # an ignored row has a record all the same, but for what concerns its target
        ids = np.where(ids == ignore_index, rows.NO_TARGET, ids)
    mask = mask_of(class_mask, c)
    options = Options(mode_of(input), softcap, temperature, mask)
    if options.mode != rows.LOGITS and options.shaped:
        raise ConfigError(f"temperature, softcap and class_mask shape logits; input is {input!r}")
    full = _full_record(x, ids, rows.NO_TARGET + 1, options)
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
    p: Any, *, input: str = "probs", base: float | None = None, axis: int = -1, dtype: str | None = None
) -> Any:
    """-Σ_c p_c log p_c of each row, in nats or to ``base``; 0·log 0 = 0.

    ``p``: probabilities, log-probabilities or logits, as ``input`` says; ``dtype="bfloat16"`` if 16-bit integers hold
    it. Returns float64 for float64 input, else float32. Follows `scipy.stats.entropy`, without its renormalisation.

    >>> import numpy as np, fastxent as fx
    >>> fx.entropy(np.array([0.5, 0.25, 0.25]), base=2)
    np.float64(1.5)
    """
    unit, mode = unit_of(base), mode_of(input)
    x = input_of(p, axis, dtype, name="p")
    full = _full_record(x, None, rows.NO_TARGET + 1, Options(mode=mode))
    value = full["record"][rows.ENTROPY]
    value[full["status"] != rows.USED] = np.nan
    result = (value / unit).astype(x.loss_dtype).reshape(x.lead)
    return result if x.lead else result[()]
