"""Further losses: scikit-learn's log loss, and focal loss."""

from __future__ import annotations

import warnings
from typing import Any, Literal, overload

import numpy as np

from fastxent.errors import ConfigError
from fastxent.functions.inputs import (
    check_probabilities,
    check_reduction,
    clip_of,
    input_of,
    per_class,
)  # fmt: skip
from fastxent.functions.outputs import reduce_rows, weighted
from fastxent.functions.row_statistics import row_statistics
from fastxent.io.interchange import as_floats, as_numpy, numbers
from fastxent.kernels.exact import exact_add, exact_ratio, exact_zeros
from fastxent.kernels.floats import widened
from fastxent.kernels.rows import record as rows
from fastxent.options.checks import real_number, shown
from fastxent.options.choices import Reduction


def _columns_of(probs: Any) -> tuple[np.ndarray, float]:
    """Return the probabilities as (N, C) and the spacing of their type at 1; (N,) are those of the second label."""
    p = numbers(probs, "probs")
    if p.dtype.kind in "iub":
        p = p.astype(np.float64)
    p, kind = as_floats(p, name="probs")
    p = widened(p, kind)
    check_probabilities(p, p.dtype.name, p.shape, "probs")
    eps = 2.0**-7 if kind == "bfloat16" else float(np.finfo(p.dtype).eps)
    if p.ndim == 2 and p.shape[1] == 1:
        p = p[:, 0]
    if p.ndim == 1:
        p = p.astype(np.float64)
        return np.stack([1.0 - p, p], axis=-1), eps
    if p.ndim != 2:
        raise ConfigError(f"probs must have the shape (N, C) or (N,), got {p.shape}")
    sums = p.sum(axis=-1, dtype=np.float64)
    if (off := np.flatnonzero(np.abs(sums - 1.0) > eps**0.5)).size:
        warnings.warn(
            f"probs of {off.size} rows do not sum to 1: the sum of row {off[0]} is {sums[off[0]]:.6g}", stacklevel=3
        )
    return p, eps


def _labels_of(labels: Any, target: np.ndarray, c: int) -> np.ndarray:
    """Return the labels in the order of the columns, each once."""
    given = target if labels is None else as_numpy(labels, "labels")
    try:
        names = np.unique(given)
    except TypeError:
        name = "target" if labels is None else "labels"
        raise ConfigError(f"{name} must hold labels of one sortable type") from None
    if len(names) != c:
        raise ConfigError(
            f"labels must have one entry for each of the {c} columns of probs, got {len(names)}; pass labels="
        )
    if labels is not None and not np.array_equal(names, given):
        warnings.warn(
            f"columns of probs belong to the sorted labels {shown(names.tolist())}, not to labels={shown(labels)}",
            stacklevel=3,
        )
    return names


def _columns_named(probs: Any, names: np.ndarray) -> None:
    """Raise ConfigError if the columns of a frame have the names of the labels in another order."""
    columns = [str(c) for c in getattr(probs, "columns", ())]
    expected = [str(name) for name in names.tolist()]
    if columns != expected and sorted(columns) == sorted(expected):
        raise ConfigError(
            f"columns of probs must be in the order of the sorted labels {shown(expected)}, got {shown(columns)}"
        )


def _index_of(target: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return the place of each label among the sorted names."""
    if "O" in (names.dtype.kind, target.dtype.kind):
        names, target = names.astype(object), target.astype(object)
    try:
        index = np.minimum(np.searchsorted(names, target), len(names) - 1)
        unknown = np.flatnonzero(names[index] != target)
    except TypeError:  # text among numbers
        unknown = np.zeros(1, np.intp)
    if names.dtype.kind in "US" and target.dtype.kind not in "US" and target.size:
        unknown = np.zeros(1, np.intp)
    if unknown.size:
        raise ConfigError(f"target of row {unknown[0]} must be one of the labels, got {shown(target[unknown[0]])}")
    return index


def log_loss(
    probs: Any, target: Any, *, labels: Any = None, sample_weight: Any = None, clip_eps: float | None = None
) -> float:
    """Return the mean of -log p_y with p clipped to [eps, 1 - eps], in nats.

    Args:
        probs: (N, C) numbers from 0 to 1, columns in the order of the sorted labels; or (N,) or (N, 1), the
            probability of the second of two labels.
        target: (N,) labels of any sortable type, or (N, C) one-hot rows.
        labels: (C,) or None. All labels, if ``target`` does not contain each of them.
        sample_weight: (N,) or None. Row weights; a row of weight 0 adds 0.
        clip_eps: float from 0 to below 0.5, or None. eps; None means the spacing of the dtype at 1.

    Returns:
        float.

    Raises:
        ConfigError: (a ValueError) numbers are not from 0 to 1, labels are unknown, or shapes do not match.

    Warns:
        UserWarning: rows do not sum to 1, or ``labels`` are not sorted.

    Source: `sklearn.metrics.log_loss`.

    >>> import fastxent as fx
    >>> round(fx.log_loss([[0.9, 0.1], [0.2, 0.8]], ["ham", "spam"]), 6)
    0.164252
    """
    p, eps = _columns_of(probs)
    n, c = p.shape
    if clip_eps is not None:
        eps = clip_of(clip_eps)
    y = as_numpy(target, "target")
    if y.ndim == 2 and y.shape[1] == 1 and c > 1:
        y = y[:, 0]
    one_hot = y.ndim == 2
    if y.shape != ((n, c) if one_hot else (n,)):
        raise ConfigError(f"target must have the shape {(n,)} of labels or {(n, c)} of one-hot rows, got {y.shape}")
    names = _labels_of(labels, np.arange(c) if one_hot else y, c)
    _columns_named(probs, names)
    if one_hot:
        y = numbers(y, "target")
        if (wrong := np.flatnonzero(((y != 0) & (y != 1)).any(axis=-1) | (y.sum(axis=-1) != 1))).size:
            raise ConfigError(f"target must hold labels, or rows of one 1 and otherwise 0, got {shown(y[wrong[0]])}")
        index = y.argmax(axis=-1)
    else:
        index = _index_of(y, names)
    s = np.ones(n) if sample_weight is None else np.ascontiguousarray(numbers(sample_weight, "sample_weight"), float)
    if s.shape != (n,):
        raise ConfigError(f"sample_weight must have one entry per row, so the shape {(n,)}, got {s.shape}")
    with np.errstate(divide="ignore"):
        losses = -np.log(np.clip(p[np.arange(n), index].astype(np.float64), eps, 1.0 - eps))
    total, weights = exact_zeros(), exact_zeros()
    exact_add(total, weighted(s, losses))
    exact_add(weights, s)
    return exact_ratio(total, weights)


@overload
def focal_loss(
    logits: Any,
    target: Any,
    *,
    gamma: float = ...,
    alpha: Any = None,
    reduction: Literal["mean", "sum"] = ...,
    axis: int = ...,
) -> float: ...
@overload
def focal_loss(
    logits: Any, target: Any, *, gamma: float = ..., alpha: Any = None, reduction: Literal["none"], axis: int = ...
) -> np.ndarray: ...
def focal_loss(
    logits: Any, target: Any, *, gamma: float = 2.0, alpha: Any = None, reduction: Reduction = "mean", axis: int = -1
) -> Any:
    """Return the focal loss α_y·(1 - p_y)^γ·(-log p_y), in nats. γ = 0 is cross-entropy.

    Args:
        logits: floating-point (..., C, ...), classes along ``axis``.
        target: integers of the leading shape. Class ids; none is ignored.
        gamma: float of at least 0. γ.
        alpha: float, (C,) or None. α, for all classes or for each class.
        reduction: "mean" over rows, "sum", or "none", the loss of each row.
        axis: int. The class axis.

    Returns:
        float; for "none" an array of the leading shape, float64 for float64 logits, else float32. An α of 0 makes an
        infinite loss 0.

    Raises:
        ConfigError, TypeError: as in `cross_entropy`.

    Source: Lin et al. 2017, arXiv 1708.02002.

    >>> import math, numpy as np, fastxent as fx
    >>> fx.focal_loss(np.zeros((1, 2)), [0], gamma=1.0) == math.log(2) / 2
    True
    """
    check_reduction(reduction)
    gamma = real_number("gamma", gamma, "be a finite number of at least 0", low=0.0)
    x = input_of(logits, axis)
    record = row_statistics(logits, target, axis=axis, ignore_index=rows.NO_TARGET + 1)
    scale = np.ones(())
    if alpha is not None:
        c = x.matrix.n_classes
        alpha = numbers(alpha, "alpha")
        table = per_class(np.full(c, alpha.reshape(())) if alpha.size == 1 else alpha, c, "alpha")
        assert table is not None
        scale = table[as_numpy(target)]
    loss = weighted(scale * (-np.expm1(-record.nll)) ** gamma, record.nll)
    return reduce_rows(loss, reduction, x)
