"""Losses beside cross-entropy: scikit-learn's log loss, and focal loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastxent.arrays import as_floats, as_numpy
from fastxent.errors import ConfigError
from fastxent.inputs import check_reduction, input_of, per_class, reduce_rows
from fastxent.kernels.exact import exact_add, exact_ratio, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.rows import record as rows
from fastxent.records import row_statistics


def log_loss(
    probs: Any, target: Any, *, labels: Any = None, sample_weight: Any = None, clip_eps: float | None = None
) -> float:
    """Mean of -log p_y with p held within [eps, 1 - eps], in nats; eps is the dtype's own unless given.

    ``probs``: (N, C), columns in the order of the sorted ``labels``; or (N,), the probability of the second of two
    labels. ``target``: (N,) labels, of any sortable kind. Follows `sklearn.metrics.log_loss`.

    >>> import fastxent as fx
    >>> round(fx.log_loss([[0.9, 0.1], [0.2, 0.8]], ["ham", "spam"]), 6)
    0.164252
    """
    p, kind = as_floats(np.asarray(probs) if isinstance(probs, list | tuple) else probs, name="probs")
    p = widened(p, kind)
    eps = FLOAT_TYPES[kind].epsilon if clip_eps is None else clip_eps
    if not 0.0 <= eps < 0.5:
        raise ConfigError(f"clip_eps={eps}; it lies between 0 and 0.5")
    y = np.asarray(target if isinstance(target, list | tuple) else as_numpy(target, "target"))
    if p.ndim == 1:
        p = np.stack([1.0 - p.astype(np.float64), p.astype(np.float64)], axis=-1)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise ConfigError(f"probs of shape {p.shape} and target of shape {y.shape} do not fit")
    names = np.unique(y if labels is None else np.asarray(labels))
    if len(names) != p.shape[1]:
        raise ConfigError(f"{p.shape[1]} columns of probs and {len(names)} labels; name them all in labels=")
    index = np.minimum(np.searchsorted(names, y), len(names) - 1)
    if (unknown := np.flatnonzero(names[index] != y)).size:
        raise ConfigError(f"target {y[unknown[0]]!r} of row {unknown[0]} is not among the labels")
    s = np.ones(len(y)) if sample_weight is None else np.ascontiguousarray(as_numpy(sample_weight), np.float64)
    if s.shape != y.shape:
        raise ConfigError(f"sample_weight of shape {s.shape}; there is one for each row: {y.shape}")
    with np.errstate(divide="ignore"):
        rows_ = -np.log(np.clip(p[np.arange(len(y)), index].astype(np.float64), eps, 1.0 - eps))
    total, weights = exact_zeros(), exact_zeros()
    exact_add(total, rows_ * s)
    exact_add(weights, s)
    return exact_ratio(total, weights)


def focal_loss(
    logits: Any, target: Any, *, gamma: float = 2.0, alpha: Any = None, reduction: str = "mean", axis: int = -1
) -> Any:
    """α_y·(1 - p_y)^γ·(-log p_y), the mean over rows; ``alpha`` a number or one for each class. γ = 0 is cross-entropy.

    Shapes, dtypes and errors as in `cross_entropy`; no class id is ignored. Source: Lin et al. 2017, arXiv 1708.02002.

    >>> import math, numpy as np, fastxent as fx
    >>> fx.focal_loss(np.zeros((1, 2)), [0], gamma=1.0) == math.log(2) / 2
    True
    """
    check_reduction(reduction)
    x = input_of(logits, axis)
    record = row_statistics(logits, target, axis=axis, ignore_index=rows.NO_TARGET + 1)
    scale = np.ones(())
    if alpha is not None:
        table = per_class(np.broadcast_to(as_numpy(alpha, "alpha"), x.matrix.n_classes), x.matrix.n_classes, "alpha")
        assert table is not None
        scale = table[as_numpy(target)]
    with np.errstate(invalid="ignore", over="ignore"):
        loss = scale * (-np.expm1(-record.nll)) ** gamma * record.nll
    return reduce_rows(loss, reduction, x)
