"""Cross-entropy and its gradient: check, launch, reduce. Semantics of torch unless said otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.inputs import (
    Out,
    OutRows,
    check_reduction,
    clip_of,
    describe_row,
    ignored_id,
    input_of,
    mask_of,
    mode_of,
    per_class,
    per_row,
    targets_of,
    unit_of,
)  # fmt: skip
from fastxent.io.interchange import as_floats, as_numpy
from fastxent.kernels.exact import exact_add, exact_ratio, exact_round, exact_zeros
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import Emit, Losses, LossTerms, Options, RowPass
from fastxent.kernels.rows import emit, record as rows
from fastxent.options.checks import real_number
from fastxent.options.config import check_loss_options


class LossAndGrad(NamedTuple):
    """A loss, and its derivative with respect to the input, of the input's shape and dtype."""

    loss: Any
    grad: np.ndarray


@dataclass(frozen=True)
class _Loss:
    """The options of cross_entropy and its gradient, past the two arrays."""

    weight: Any = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    reduction: str = "mean"
    sample_weight: Any = None
    temperature: float = 1.0
    softcap: float | None = None
    z_loss: float = 0.0
    class_mask: Any = None
    base: float | None = None
    input: str = "logits"
    axis: int = -1
    clip_eps: float | None = None
    dtype: str | None = None


def _clipped(logits: Any, o: _Loss) -> tuple[Any, np.ndarray | None]:
    """Probabilities held within [eps, 1 - eps], and where a change of the input changes them."""
    if o.clip_eps is None:
        return logits, None
    if o.input == "logits":
        raise ConfigError("clip_eps applies to probabilities; pass input='probs' or 'log_probs'")
    eps = clip_of(o.clip_eps)
    array, kind = as_floats(logits, o.dtype)
    array = widened(array, kind)
    low, high = eps, 1.0 - eps
    if o.input == "log_probs":
        low, high = math.log(low) if low else -math.inf, math.log1p(-eps)
    return np.clip(array, low, high), (array >= low) & (array <= high)


def _cross_entropy(logits: Any, target: Any, o: _Loss, out: Any, with_grad: bool) -> tuple[Any, np.ndarray | None]:
    """The one implementation behind cross_entropy, nll_loss, and their gradient."""
    smoothing, temperature, softcap = check_loss_options(o.label_smoothing, o.temperature, o.softcap)
    z_loss, ignore_index = real_number("z_loss", o.z_loss), ignored_id(o.ignore_index)
    check_reduction(o.reduction)
    mode, unit = mode_of(o.input), unit_of(o.base)
    if mode != rows.LOGITS and (temperature != 1.0 or softcap is not None or o.class_mask is not None or z_loss):
        raise ConfigError(f"temperature, softcap, class_mask and z_loss shape logits; input is {o.input!r}")
    values, moves = _clipped(logits, o)
    x = input_of(values, o.axis, o.dtype if moves is None else None)
    ids, soft, given = targets_of(target, x)
    c, n = x.matrix.n_classes, x.matrix.n
    weight = per_class(o.weight, c, "weight")
    mask = mask_of(o.class_mask, c)
    sample = per_row(o.sample_weight, x, "sample_weight")
    options = Options(mode, softcap, temperature, mask, weight, smoothing > 0.0)
    terms = LossTerms(c, smoothing, z_loss, weight, soft is not None, sample)
    scale = 1.0 / unit
    if with_grad and o.reduction == "mean":
        denominator = _denominator(ids, sample, weight, ignore_index, n, c)
        scale = scale / denominator if denominator else math.nan
    result = Out(x, out) if with_grad else None
    per_row_loss = None
    if o.reduction == "none":
        place = None if with_grad else out
        beside = x.array, ids, sample, weight, mask, None if soft is None else soft.values
        per_row_loss = OutRows(x.lead, x.loss_dtype, place, *beside)
    elif out is not None and not with_grad:
        raise ConfigError(f"out holds the losses of rows; reduction={o.reduction!r} makes one number of them")
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
        row = min(wrong)
        raise ConfigError(
            f"target {given.reshape(-1)[row]} of {describe_row(x.lead, row)} is outside the {c} classes 0..{c - 1} "
            f"and is not ignore_index={ignore_index}"
        )
    if per_row_loss is not None:
        value: Any = per_row_loss.finish()
    else:
        total, weights = (
            sum(parts, exact_zeros()) for parts in zip(*((s.total, s.weights) for s in sums), strict=True)
        )
        value = (exact_ratio(total, weights) if o.reduction == "mean" else exact_round(total)) / unit
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
    """Σ of the rows' shares, from the targets and weights alone; ids out of range are found later and are an error."""
    if ids is None:
        share = sample if sample.size else np.ones(n)
    else:
        used = (ids != ignore) & (ids >= 0) & (ids < c)
        share = used.astype(np.float64) if weight is None else np.where(used, weight[np.where(used, ids, 0)], 0.0)
        if sample.size:
            share = np.where(used, share * sample, 0.0)
    total = exact_zeros()
    exact_add(total, share)
    return exact_round(total)


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    sample_weight: Any = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    class_mask: Any = None,
    base: float | None = None,
    input: str = "logits",
    axis: int = -1,
    clip_eps: float | None = None,
    dtype: str | None = None,
    out: Any = None,
) -> Any:
    """Cross-entropy of the softmax of ``logits`` with ``target``, in nats (or to ``base``).

    Class ids y: (1-ε)·w_y·(-log p_y) + (ε/C)·Σ_c w_c·(-log p_c) + λ·lse². Probabilities q: Σ_c w_c·((1-ε)·q_c + ε/C)·
    (-log p_c) + λ·lse². p is the softmax of softcap·tanh(x/softcap), then /temperature, then without masked classes.

    Args:
        logits: classes along ``axis``, any other dimensions; -inf is a masked class.
        target: class ids, one for each row, of any integer type; or probabilities of the logits' shape.
        weight: (C,) class weights w. ignore_index: the class id of rows that cost nothing.
        label_smoothing: ε in 0..1. z_loss: λ. class_mask: (C,), False removes a class.
        sample_weight: of each row, possibly negative.
        reduction: "mean" (Σ s·loss / Σ s·w_y over rows not ignored; Σ / Σ s for probabilities), "sum", or "none".
        input: "logits", or "log_probs" or "probs", which are used as given; ``clip_eps`` holds those within
            [eps, 1 - eps].
        dtype: "bfloat16" if 16-bit integers hold it.
        out: an array for the losses of "none", which a loop can use again: the first touch of fresh memory takes as
            long as some classes do. After an error it may hold some of them.

    Returns:
        A float; for "none" ``out``, or an array of the leading shape, float64 for float64 logits, else float32. NaN for
        a row with NaN or +inf or nothing but -inf, +inf for a target of probability 0. What has the weight 0 adds 0,
        even where its loss is infinite; a row that is NaN stays NaN unless it is ignored. The mean of no rows, or of
        rows whose weights add up to 0, is NaN.

    Raises:
        ConfigError: (a ValueError) a class id outside 0..C-1, naming its row; shapes or options that do not fit.
        TypeError: numbers that are not floating-point, class ids that are not integers.

    Follows `torch.nn.functional.cross_entropy`.

    >>> import numpy as np, fastxent as fx
    >>> fx.cross_entropy(np.zeros((2, 8), np.float32), [3, -100], base=2)
    3.0
    >>> fx.cross_entropy(np.zeros((2, 4)), np.array([0, 1]), reduction="none", class_mask=[True, True, False, False])
    array([0.69314718, 0.69314718])
    """
    o = _Loss(weight, ignore_index, label_smoothing, reduction, sample_weight, temperature, softcap, z_loss, class_mask,
              base, input, axis, clip_eps, dtype)  # fmt: skip
    return _cross_entropy(logits, target, o, out, False)[0]


def cross_entropy_with_grad(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    sample_weight: Any = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    class_mask: Any = None,
    base: float | None = None,
    input: str = "logits",
    axis: int = -1,
    clip_eps: float | None = None,
    dtype: str | None = None,
    out: Any = None,
) -> LossAndGrad:
    """`cross_entropy` and its derivative with respect to ``logits``, from one read of them.

    ``grad`` has the logits' shape and dtype; it is written to ``out`` if given, which may be ``logits`` itself. With
    ``reduction="none"`` row i of it is the derivative of loss i. Ignored rows are 0, broken ones NaN; where the mean is
    NaN because the weights add up to 0, all rows are NaN but the ignored. Arguments, errors and source as in
    `cross_entropy`. A class id out of range is found on the way: ``out`` may then hold some rows.

    >>> import numpy as np, fastxent as fx
    >>> loss, grad = fx.cross_entropy_with_grad(np.zeros((1, 4)), [2])
    >>> grad
    array([[ 0.25,  0.25, -0.75,  0.25]])
    """
    o = _Loss(weight, ignore_index, label_smoothing, reduction, sample_weight, temperature, softcap, z_loss, class_mask,
              base, input, axis, clip_eps, dtype)  # fmt: skip
    loss, grad = _cross_entropy(logits, target, o, out, True)
    assert grad is not None
    if out is not None and grad is not out and o.clip_eps is not None:
        as_numpy(out)[...] = grad
    return LossAndGrad(loss, grad)


def nll_loss(
    log_probs: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    sample_weight: Any = None,
    base: float | None = None,
    axis: int = -1,
    clip_eps: float | None = None,
    dtype: str | None = None,
    out: Any = None,
) -> Any:
    """`cross_entropy` of log-probabilities, which are used as given; arguments, ``out`` included, and errors are its.

    Follows `torch.nn.functional.nll_loss`.

    >>> import numpy as np, fastxent as fx
    >>> fx.nll_loss(np.log([[0.5, 0.5]]), [1], base=2)
    1.0
    """
    return cross_entropy(
        log_probs, target, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
        reduction=reduction, sample_weight=sample_weight, base=base, axis=axis, clip_eps=clip_eps, dtype=dtype,
        out=out, input="log_probs",
    )  # fmt: skip
