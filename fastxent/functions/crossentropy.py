"""Cross-entropy and its gradient: check the arguments, run the kernels, reduce. The semantics are those of torch."""

from __future__ import annotations

import math
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Unpack, overload

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.inputs import (
    check_reduction,
    input_of,
    invalid_target,
    mask_of,
    per_class,
    per_row,
    targets_of,
    unit_of,
)  # fmt: skip
from fastxent.functions.keywords import CrossEntropyOptions, NllOptions, checked
from fastxent.functions.outputs import Out, OutRows
from fastxent.io.interchange import as_floats, as_numpy
from fastxent.kernels.exact import exact_add, exact_ratio, exact_round, exact_zeros
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import Emit, Losses, LossTerms, RowOptions, RowPass
from fastxent.kernels.rows import emit
from fastxent.options.choices import Reduction
from fastxent.options.option import taking
from fastxent.scoring.clip import bounds_of

Loss = TypeVar("Loss")


class LossAndGrad(NamedTuple, Generic[Loss]):
    """A loss and its gradient.

    loss: float, or an array for ``reduction="none"``.
    grad: array of the input's shape and dtype. The derivative of the loss with respect to the input.
    """

    loss: Loss
    grad: np.ndarray


def _clipped(values: Any, bounds: tuple[float, float] | None, dtype: str | None) -> tuple[Any, np.ndarray | None]:
    """Return scores clipped to the bounds, and True where a change of the input changes the loss."""
    if bounds is None:
        return values, None
    low, high = bounds
    array, kind = as_floats(values, dtype)
    array = widened(array, kind)
    return np.clip(array, low, high), (array >= low) & (array <= high)


def _cross_entropy(
    logits: Any, target: Any, given: CrossEntropyOptions, reduction: str, out: Any, with_grad: bool
) -> tuple[Any, np.ndarray | None]:
    """Return the loss and, if asked for, its gradient: `cross_entropy`, `nll_loss` and `cross_entropy_with_grad`."""
    o = checked(CrossEntropyOptions, given)
    check_reduction(reduction)
    unit, ignore_index = unit_of(o.base), o.ignore_index
    values, moves = _clipped(logits, bounds_of(o.clip_eps, o.input), o.dtype)
    x = input_of(values, o.axis, o.dtype if moves is None else None)
    ids, soft, array = targets_of(target, x)
    c, n = x.matrix.n_classes, x.matrix.n
    weight = per_class(o.weight, c, "weight")
    mask = mask_of(o.class_mask, c)
    sample = per_row(o.sample_weight, x, "sample_weight")
    options = RowOptions.of(o, mask, weight, o.label_smoothing > 0.0)
    terms = LossTerms(c, o.label_smoothing, o.z_loss, weight, soft is not None, sample)
    scale = 1.0 / unit
    if with_grad and reduction == "mean":
        denominator = _denominator(ids, sample, weight, ignore_index, n, c)
        scale = scale / denominator if denominator else math.nan
    result = Out(x, out) if with_grad else None
    per_row_loss = None
    if reduction == "none":
        place = None if with_grad else out
        beside = x.array, ids, sample, weight, mask, None if soft is None else soft.values
        per_row_loss = OutRows(x.lead, x.loss_dtype, place, *beside)
    elif out is not None and not with_grad:
        raise ConfigError(f"out must be None for reduction={reduction!r}, which returns one number")
    losses = None if per_row_loss is None else per_row_loss.rows
    sums: list[Losses] = []

    def work(begin: int, end: int) -> int:
        take = RowPass(
            x.matrix, ids, ignore_index, options, soft, full=False, none=ignore_index, twice=with_grad,
            single=losses is not None and losses.dtype == np.float32,
        )  # fmt: skip
        write = Emit(take, result.matrix, emit.GRADIENT, result.streaming) if result is not None else None
        part = Losses(terms, losses, unit, scale)
        sums.append(part)
        return take.sweep(begin, end, write, part)

    with np.errstate(over="ignore"):
        wrong = [row for row in parallel_rows(work, n, x.row_bytes * (2 if with_grad else 1)) if row >= 0]
    if wrong:
        raise invalid_target(x, min(wrong), array, ignore_index)
    if per_row_loss is not None:
        value: Any = per_row_loss.finish()
    else:
        total, weights = (
            sum(parts, exact_zeros()) for parts in zip(*((s.total, s.weights) for s in sums), strict=True)
        )
        value = (exact_ratio(total, weights) if reduction == "mean" else exact_round(total)) / unit
    if result is None:
        return value, None
    if math.isnan(scale):  # the mean is undefined, and so is the slope of every number that takes part, masked or not
        result.undefine(slice(None) if ids is None else ids != ignore_index)
    grad = result.finish(x)
    if moves is not None:
        grad = (grad * moves).astype(as_floats(logits, o.dtype)[0].dtype, copy=False)
    return value, grad


def _denominator(
    ids: np.ndarray | None, sample: np.ndarray, weight: np.ndarray | None, ignore: int, n: int, c: int
) -> float:
    """Return the sum of the rows' weights, from targets and weights alone. The kernels find ids out of range later."""
    if not sample.size and (ids is None or weight is None):
        return float(n if ids is None else _count_used(ids, ignore, c))
    if ids is None:
        share = sample
    else:
        used = (ids != ignore) & (ids >= 0) & (ids < c)
        share = used.astype(np.float64) if weight is None else np.where(used, weight[np.where(used, ids, 0)], 0.0)
        if sample.size:
            share = np.where(used, share * sample, 0.0)
    total = exact_zeros()
    exact_add(total, share)
    return exact_round(total)


def _count_used(ids: np.ndarray, ignore: int, c: int) -> int:
    """Return the number of ids that are a class and not ``ignore``."""

    def count(begin: int, end: int) -> int:
        some = ids[begin:end]
        used = (some >= 0) & (some < c)
        return int(np.count_nonzero(used & (some != ignore) if 0 <= ignore < c else used))

    return sum(parallel_rows(count, len(ids), ids.itemsize))


@overload
def cross_entropy(
    logits: Any,
    target: Any,
    *,
    reduction: Literal["mean", "sum"] = ...,
    out: None = None,
    **options: Unpack[CrossEntropyOptions],
) -> float: ...
@overload
def cross_entropy(
    logits: Any, target: Any, *, reduction: Literal["none"], out: Any = None, **options: Unpack[CrossEntropyOptions]
) -> np.ndarray: ...
@taking(CrossEntropyOptions)
def cross_entropy(
    logits: Any, target: Any, *, reduction: Reduction = "mean", out: Any = None, **options: Unpack[CrossEntropyOptions]
) -> Any:
    """Return the cross-entropy of the softmax of ``logits`` with ``target``, in nats or to ``base``.

    Class ids y: (1-ε)·w_y·(-log p_y) + (ε/C)·Σ_c w_c·(-log p_c) + λ·lse².
    Probabilities q: Σ_c w_c·((1-ε)·q_c + ε/C)·(-log p_c) + λ·lse².
    p is the softmax of the logits after softcap, temperature and class mask, in this order.

    Args:
        logits: floating-point (..., C, ...), classes along ``axis``. -inf excludes a class from its row.
        target: integers of the leading shape, class ids; or numbers of the logits' shape, probabilities.
        weight: (C,) or None. Class weights w.
        sample_weight: leading shape or None. Row weights s; they may be negative.
        ignore_index: int. The class id of rows without a loss.
        label_smoothing: float from 0 to 1. ε.
        z_loss: float. λ, the weight of the squared log-sum-exp.
        temperature: float above 0. Divisor of the logits.
        softcap: float above 0 or None. Logits become softcap·tanh(logits/softcap), before the temperature.
        class_mask: (C,) of True and False, or None. Classes with False are excluded.
        clip_eps: float from 0 to below 0.5, or None. Probabilities and log-probabilities are clipped to
            [clip_eps, 1 - clip_eps].
        input: "logits", "log_probs" or "probs". The last two are used as given, without a softmax.
        reduction: "mean", Σ s·loss / Σ s·w_y over rows that are not ignored (Σ s·loss / Σ s for probabilities);
            "sum", Σ s·loss; or "none", the loss of each row.
        base: float above 0 other than 1, or None. Base of the logarithm; None means nats.
        axis: int. The class axis.
        dtype: float type or None. "bfloat16" reads 16-bit integers as bfloat16.
        out: array or None. The place of the losses for ``reduction="none"``. A loop that reuses it saves the first
            touch of fresh memory. After an error it may hold some losses.

    Returns:
        float for "mean" and "sum"; for "none" ``out``, or an array of the leading shape, float64 for float64 logits,
        else float32. A row with NaN, +inf or only -inf gives NaN. A target with probability 0 gives +inf. A weight of 0
        makes an infinite loss 0; a NaN row stays NaN unless it is ignored. The mean of no rows, or of weights that add
        up to 0, is NaN.

    Raises:
        ConfigError: (a ValueError) a class id is invalid (the error names its row), or shapes or options do not match.
        TypeError: logits are not floating-point, or class ids are not integers.

    Source: `torch.nn.functional.cross_entropy`.

    >>> import numpy as np, fastxent as fx
    >>> fx.cross_entropy(np.zeros((2, 8), np.float32), [3, -100], base=2)
    3.0
    >>> fx.cross_entropy(np.zeros((2, 4)), np.array([0, 1]), reduction="none", class_mask=[True, True, False, False])
    array([0.69314718, 0.69314718])
    """
    return _cross_entropy(logits, target, options, reduction, out, False)[0]


@overload
def cross_entropy_with_grad(
    logits: Any,
    target: Any,
    *,
    reduction: Literal["mean", "sum"] = ...,
    out: Any = None,
    **options: Unpack[CrossEntropyOptions],
) -> LossAndGrad[float]: ...
@overload
def cross_entropy_with_grad(
    logits: Any, target: Any, *, reduction: Literal["none"], out: Any = None, **options: Unpack[CrossEntropyOptions]
) -> LossAndGrad[np.ndarray]: ...
@taking(CrossEntropyOptions)
def cross_entropy_with_grad(
    logits: Any, target: Any, *, reduction: Reduction = "mean", out: Any = None, **options: Unpack[CrossEntropyOptions]
) -> LossAndGrad[Any]:
    """Return `cross_entropy` and its gradient with respect to ``logits``, from one read of the logits.

    Args:
        logits, target, options: as in `cross_entropy`.
        reduction: as in `cross_entropy`. For "none", row i of the gradient is the derivative of loss i.
        out: array of the logits' shape and dtype, or None. The place of the gradient; ``logits`` itself is allowed.
            After an error it may hold some rows.

    Returns:
        `LossAndGrad`. The gradient has the logits' shape and dtype. It is 0 in ignored rows and NaN in rows with NaN,
        +inf or only -inf. If the mean is NaN because the weights add up to 0, it is NaN in all rows that are not
        ignored.

    Raises:
        ConfigError, TypeError: as in `cross_entropy`.

    Source: as in `cross_entropy`.

    >>> import numpy as np, fastxent as fx
    >>> loss, grad = fx.cross_entropy_with_grad(np.zeros((1, 4)), [2])
    >>> grad
    array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    loss, grad = _cross_entropy(logits, target, options, reduction, out, True)
    assert grad is not None
    if out is not None and grad is not out and options["clip_eps"] is not None:
        as_numpy(out)[...] = grad
    return LossAndGrad(loss, grad)


@overload
def nll_loss(
    log_probs: Any,
    target: Any,
    *,
    reduction: Literal["mean", "sum"] = ...,
    out: None = None,
    **options: Unpack[NllOptions],
) -> float: ...
@overload
def nll_loss(
    log_probs: Any, target: Any, *, reduction: Literal["none"], out: Any = None, **options: Unpack[NllOptions]
) -> np.ndarray: ...
@taking(NllOptions)
def nll_loss(
    log_probs: Any, target: Any, *, reduction: Reduction = "mean", out: Any = None, **options: Unpack[NllOptions]
) -> Any:
    """Return `cross_entropy` of log-probabilities, which are used as given, without a softmax.

    Args:
        log_probs: floating-point (..., C, ...), classes along ``axis``.
        target, reduction, out, options: as in `cross_entropy`.

    Returns:
        As `cross_entropy`.

    Raises:
        ConfigError, TypeError: as in `cross_entropy`.

    Source: `torch.nn.functional.nll_loss`.

    >>> import numpy as np, fastxent as fx
    >>> fx.nll_loss(np.log([[0.5, 0.5]]), [1], base=2)
    1.0
    """
    return cross_entropy(log_probs, target, reduction=reduction, out=out, input="log_probs", **options)
