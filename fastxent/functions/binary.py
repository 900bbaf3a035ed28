"""Binary cross-entropy of probabilities and of logits, element by element, with gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.crossentropy import LossAndGrad
from fastxent.functions.inputs import OutRows, check_probabilities, check_reduction
from fastxent.io.interchange import as_floats, as_numpy, numbers
from fastxent.kernels.exact import exact_add, exact_round, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.rows.binary import binary_kernel
from fastxent.options.config import check_loss_options

_CHUNK = 16384


def _elements(values: Any, shape: tuple[int, ...], dtype: Any, name: str) -> np.ndarray | None:
    if values is None:
        return None
    array = numbers(values, name)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ConfigError(f"{name} of shape {array.shape} does not broadcast to {shape}") from None
    return np.ascontiguousarray(array, dtype).reshape(-1)


def _binary(
    values: Any, target: Any, weight: Any, pos_weight: Any, smoothing: float, reduction: str, with_logits: bool,
    with_grad: bool, dtype: str | None, out: Any,
) -> tuple[Any, np.ndarray | None]:  # fmt: skip
    check_reduction(reduction)
    smoothing = check_loss_options(smoothing, 1.0, None)[0]
    x, kind = as_floats(values, dtype, "logits" if with_logits else "probs")
    shape, n = x.shape, x.size
    flat = np.ascontiguousarray(x).reshape(-1)
    real, tag = FLOAT_TYPES[kind].compute, FLOAT_TYPES[kind].tag
    given = numbers(target, "target")
    if given.shape != shape:
        raise ConfigError(f"target of shape {given.shape}; the values have the shape {shape}")
    t = _elements(given, shape, real, "target")
    assert t is not None
    w, b = _elements(weight, shape, real, "weight"), _elements(pos_weight, shape, real, "pos_weight")
    scale = (1.0 / n if n else math.nan) if reduction == "mean" else 1.0
    grad = np.empty(n, flat.dtype) if with_grad else np.empty(0, flat.dtype)
    each = OutRows(shape, real, out, flat, t, w, b) if reduction == "none" else None
    if out is not None and each is None:
        raise ConfigError(f"out holds the losses of elements; reduction={reduction!r} makes one number of them")
    losses = None if each is None else each.rows
    kernel = binary_kernel(with_logits, losses is None, with_grad)

    def at(array: np.ndarray | None, i: int) -> int:
        return 0 if array is None else array.__array_interface__["data"][0] + i * array.itemsize

    outside: list[bool] = []

    def work(begin: int, end: int) -> np.ndarray:
        size, total = _CHUNK if losses is None else end - begin, exact_zeros()
        loss = np.empty(min(size, end - begin)) if losses is None else losses[begin:end]
        for i in range(begin, end, max(1, size)):
            k = min(size, end - i)
            outside.append(
                kernel(at(flat, i), k, tag, at(t, i), at(w, i), at(b, i), smoothing, scale, at(loss, 0), at(grad, i))
            )
            if losses is None:
                exact_add(total, loss[:k])
        return total

    sums = parallel_rows(work, n, 4 * real.itemsize)
    if any(outside):
        for name, array, tag in (("probs", flat, kind), ("target", t, real.name)):
            check_probabilities(array, tag, shape, name)
    if each is not None:
        value: Any = each.finish()
    else:
        value = exact_round(np.sum(sums, axis=0))
        if reduction == "mean":
            value = value / n if n else math.nan
    if not with_grad:
        return value, None
    result = grad.reshape(shape)
    if kind == "bfloat16" and str(as_numpy(values).dtype) == "bfloat16":
        import ml_dtypes

        result = result.view(ml_dtypes.bfloat16)
    return value, result


def binary_cross_entropy(
    probs: Any,
    target: Any,
    *,
    weight: Any = None,
    reduction: str = "mean",
    dtype: str | None = None,
    out: Any = None,
) -> Any:
    """-(t·log p + (1-t)·log(1-p)) of each element, times ``weight`` (broadcast), in nats; 0·log 0 = 0.

    ``target`` has the shape of ``probs``: 0, 1 or a probability. ConfigError (a ValueError) names the first number of
    either that is not from 0 to 1. What has the weight 0 costs 0. Returns a float, or for ``reduction="none"`` an
    array, float64 for float64 input, else float32; ``out`` if given. Follows
    `torch.nn.functional.binary_cross_entropy`, without its clamp of the logarithm at -100: a certain mistake costs
    +inf.

    >>> import math, numpy as np, fastxent as fx
    >>> fx.binary_cross_entropy(np.array([0.5, 1.0]), np.array([1.0, 1.0])) == math.log(2) / 2
    True
    """
    return _binary(probs, target, weight, None, 0.0, reduction, False, False, dtype, out)[0]


def binary_cross_entropy_with_grad(
    probs: Any, target: Any, *, weight: Any = None, reduction: str = "mean", dtype: str | None = None
) -> LossAndGrad:
    """`binary_cross_entropy` and its derivative with respect to ``probs``, in their dtype."""
    loss, grad = _binary(probs, target, weight, None, 0.0, reduction, False, True, dtype, None)
    assert grad is not None
    return LossAndGrad(loss, grad)


def binary_cross_entropy_with_logits(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    dtype: str | None = None,
    out: Any = None,
) -> Any:
    """(1-t)·softplus(x) + b·t·softplus(-x) of each element, times ``weight``; b is ``pos_weight``, both broadcast.

    ``target`` may be any number, as in torch. Label smoothing ε moves it to t·(1-ε) + ε/2. A NaN logit costs NaN.
    Shapes, dtypes, other errors and ``out`` as in `binary_cross_entropy`. Follows
    `torch.nn.functional.binary_cross_entropy_with_logits`.

    >>> import math, numpy as np, fastxent as fx
    >>> fx.binary_cross_entropy_with_logits(np.array([0.0]), np.array([1.0])) == math.log(2)
    True
    """
    return _binary(logits, target, weight, pos_weight, label_smoothing, reduction, True, False, dtype, out)[0]


def binary_cross_entropy_with_logits_with_grad(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    dtype: str | None = None,
) -> LossAndGrad:
    """`binary_cross_entropy_with_logits` and its derivative with respect to ``logits``, in their dtype."""
    loss, grad = _binary(logits, target, weight, pos_weight, label_smoothing, reduction, True, True, dtype, None)
    assert grad is not None
    return LossAndGrad(loss, grad)
