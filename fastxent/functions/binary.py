"""Binary cross-entropy of probabilities and of logits, for each element, with gradients."""

from __future__ import annotations

import math
from typing import Any, Literal, Unpack, overload

import numpy as np

from fastxent.engine.pool import parallel_rows
from fastxent.errors import ConfigError
from fastxent.functions.crossentropy import LossAndGrad
from fastxent.functions.inputs import check_probabilities, check_reduction
from fastxent.functions.keywords import BinaryLogitsOptions, BinaryOptions, checked
from fastxent.functions.outputs import OutRows
from fastxent.io.interchange import as_floats, as_numpy, numbers
from fastxent.kernels.exact import exact_add, exact_round, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.rows.arguments import Elements
from fastxent.kernels.rows.binary import binary_kernel
from fastxent.options.choices import Reduction
from fastxent.options.declared import default
from fastxent.options.option import taking

_CHUNK = 16384


def _elements(values: Any, shape: tuple[int, ...], dtype: Any, name: str) -> np.ndarray | None:
    """Return the values broadcast to a shape and flat, or None."""
    if values is None:
        return None
    array = numbers(values, name)
    if array.shape != shape:
        try:
            array = np.broadcast_to(array, shape)
        except ValueError:
            raise ConfigError(f"{name} must broadcast to the shape {shape}, got {array.shape}") from None
    return np.ascontiguousarray(array, dtype).reshape(-1)


def _of_probs(probs: Any, target: Any, given: BinaryOptions, **how: Any) -> tuple[Any, np.ndarray | None]:
    o = checked(BinaryOptions, given)
    return _binary("probs", probs, target, o.weight, o.dtype, **how)


def _of_logits(logits: Any, target: Any, given: BinaryLogitsOptions, **how: Any) -> tuple[Any, np.ndarray | None]:
    o = checked(BinaryLogitsOptions, given)
    how.update(pos_weight=o.pos_weight, smoothing=o.label_smoothing)
    return _binary("logits", logits, target, o.weight, o.dtype, **how)


def _binary(
    name: str,
    values: Any,
    target: Any,
    weight: Any,
    dtype: str | None,
    *,
    pos_weight: Any = None,
    smoothing: float = default("label_smoothing"),
    reduction: str,
    with_grad: bool = False,
    out: Any = None,
) -> tuple[Any, np.ndarray | None]:
    """Return the loss of "probs" or "logits", the ``name`` of the values, and, if asked for, its gradient."""
    check_reduction(reduction)
    with_logits = name == "logits"
    x, kind = as_floats(values, dtype, name)
    shape, n = x.shape, x.size
    flat = np.ascontiguousarray(x).reshape(-1)
    real, tag = FLOAT_TYPES[kind].compute, FLOAT_TYPES[kind].tag
    targets = numbers(target, "target")
    if targets.shape != shape:
        raise ConfigError(f"target must have the shape of {name}, {shape}, got {targets.shape}")
    t = _elements(targets, shape, real, "target")
    assert t is not None
    w, b = _elements(weight, shape, real, "weight"), _elements(pos_weight, shape, real, "pos_weight")
    scale = (1.0 / n if n else math.nan) if reduction == "mean" else 1.0
    grad = np.empty(n, flat.dtype) if with_grad else np.empty(0, flat.dtype)
    each = OutRows(shape, real, out, flat, t, w, b) if reduction == "none" else None
    if out is not None and each is None:
        raise ConfigError(f"out must be None for reduction={reduction!r}, which returns one number")
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
            given = Elements(at(flat, i), tag, at(t, i), at(w, i), at(b, i), smoothing, scale, at(loss, 0), at(grad, i))
            outside.append(kernel(k, tuple(given)))
            if losses is None:
                exact_add(total, loss[:k])
        return total

    sums = parallel_rows(work, n, 4 * real.itemsize)
    if any(outside):
        for what, array, tag in (("probs", flat, kind), ("target", t, real.name)):
            check_probabilities(array, tag, shape, what)
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


@overload
def binary_cross_entropy(
    probs: Any,
    target: Any,
    *,
    reduction: Literal["mean", "sum"] = ...,
    out: None = None,
    **options: Unpack[BinaryOptions],
) -> float: ...
@overload
def binary_cross_entropy(
    probs: Any, target: Any, *, reduction: Literal["none"], out: Any = None, **options: Unpack[BinaryOptions]
) -> np.ndarray: ...
@taking(BinaryOptions)
def binary_cross_entropy(
    probs: Any, target: Any, *, reduction: Reduction = "mean", out: Any = None, **options: Unpack[BinaryOptions]
) -> Any:
    """Return the binary cross-entropy -w·(t·log p + (1-t)·log(1-p)) of each element, in nats; 0·log 0 = 0.

    Args:
        probs: floating-point, any shape. Numbers p from 0 to 1.
        target: numbers t from 0 to 1, of the shape of ``probs``; computed with in float32 unless ``probs`` are float64.
        weight: number or array that broadcasts to that shape, or None. w; a weight of 0 makes any loss 0.
        reduction: "mean" over elements, "sum", or "none", the loss of each element.
        dtype: float type or None. "bfloat16" reads 16-bit integers as bfloat16.
        out: array or None. The place of the losses for ``reduction="none"``.

    Returns:
        float; for "none" ``out``, or an array of the shape of ``probs``, float64 for float64 input, else float32.

    Raises:
        ConfigError: (a ValueError) a number of ``probs`` or ``target`` is not from 0 to 1 (the error names the first),
            or shapes or options do not match.
        TypeError: ``probs`` are not floating-point.

    Source: `torch.nn.functional.binary_cross_entropy`, which clamps the logarithm at -100; here p = 0 with t = 1
    costs +inf.

    >>> import math, numpy as np, fastxent as fx
    >>> fx.binary_cross_entropy(np.array([0.5, 1.0]), np.array([1.0, 1.0])) == math.log(2) / 2
    True
    """
    return _of_probs(probs, target, options, reduction=reduction, out=out)[0]


@overload
def binary_cross_entropy_with_grad(
    probs: Any, target: Any, *, reduction: Literal["mean", "sum"] = ..., **options: Unpack[BinaryOptions]
) -> LossAndGrad[float]: ...
@overload
def binary_cross_entropy_with_grad(
    probs: Any, target: Any, *, reduction: Literal["none"], **options: Unpack[BinaryOptions]
) -> LossAndGrad[np.ndarray]: ...
@taking(BinaryOptions)
def binary_cross_entropy_with_grad(
    probs: Any, target: Any, *, reduction: Reduction = "mean", **options: Unpack[BinaryOptions]
) -> LossAndGrad[Any]:
    """Return `binary_cross_entropy` and its gradient with respect to ``probs``.

    Args:
        probs, target, reduction, options: as in `binary_cross_entropy`.

    Returns:
        `LossAndGrad`. The gradient has the shape and dtype of ``probs``.

    Raises:
        ConfigError, TypeError: as in `binary_cross_entropy`.

    Source: as in `binary_cross_entropy`.

    >>> import numpy as np, fastxent as fx
    >>> fx.binary_cross_entropy_with_grad(np.array([0.5]), np.array([1.0])).grad
    array([-2.])
    """
    loss, grad = _of_probs(probs, target, options, reduction=reduction, with_grad=True)
    assert grad is not None
    return LossAndGrad(loss, grad)


@overload
def binary_cross_entropy_with_logits(
    logits: Any,
    target: Any,
    *,
    reduction: Literal["mean", "sum"] = ...,
    out: None = None,
    **options: Unpack[BinaryLogitsOptions],
) -> float: ...
@overload
def binary_cross_entropy_with_logits(
    logits: Any, target: Any, *, reduction: Literal["none"], out: Any = None, **options: Unpack[BinaryLogitsOptions]
) -> np.ndarray: ...
@taking(BinaryLogitsOptions)
def binary_cross_entropy_with_logits(
    logits: Any, target: Any, *, reduction: Reduction = "mean", out: Any = None, **options: Unpack[BinaryLogitsOptions]
) -> Any:
    """Return the binary cross-entropy w·((1-t)·softplus(x) + b·t·softplus(-x)) of each element, in nats.

    Label smoothing ε replaces t by t·(1-ε) + ε/2.

    Args:
        logits: floating-point, any shape. Numbers x; NaN gives NaN.
        target: numbers t of the shape of ``logits``; computed with in float32 unless ``logits`` are float64. Any number
            is valid, as in torch.
        weight: number or array that broadcasts to that shape, or None. w; a weight of 0 makes an infinite loss 0.
        pos_weight: number or array that broadcasts to that shape, or None. b.
        label_smoothing: float from 0 to 1. ε.
        reduction, dtype, out: as in `binary_cross_entropy`.

    Returns:
        As `binary_cross_entropy`.

    Raises:
        ConfigError: (a ValueError) shapes or options do not match.
        TypeError: ``logits`` are not floating-point.

    Source: `torch.nn.functional.binary_cross_entropy_with_logits`.

    >>> import math, numpy as np, fastxent as fx
    >>> fx.binary_cross_entropy_with_logits(np.array([0.0]), np.array([1.0])) == math.log(2)
    True
    """
    return _of_logits(logits, target, options, reduction=reduction, out=out)[0]


@overload
def binary_cross_entropy_with_logits_with_grad(
    logits: Any, target: Any, *, reduction: Literal["mean", "sum"] = ..., **options: Unpack[BinaryLogitsOptions]
) -> LossAndGrad[float]: ...
@overload
def binary_cross_entropy_with_logits_with_grad(
    logits: Any, target: Any, *, reduction: Literal["none"], **options: Unpack[BinaryLogitsOptions]
) -> LossAndGrad[np.ndarray]: ...
@taking(BinaryLogitsOptions)
def binary_cross_entropy_with_logits_with_grad(
    logits: Any, target: Any, *, reduction: Reduction = "mean", **options: Unpack[BinaryLogitsOptions]
) -> LossAndGrad[Any]:
    """Return `binary_cross_entropy_with_logits` and its gradient with respect to ``logits``.

    Args:
        logits, target, reduction, options: as in `binary_cross_entropy_with_logits`.

    Returns:
        `LossAndGrad`. The gradient has the shape and dtype of ``logits``.

    Raises:
        ConfigError, TypeError: as in `binary_cross_entropy_with_logits`.

    Source: as in `binary_cross_entropy_with_logits`.

    >>> import numpy as np, fastxent as fx
    >>> fx.binary_cross_entropy_with_logits_with_grad(np.array([0.0]), np.array([1.0])).grad
    array([-0.5])
    """
    loss, grad = _of_logits(logits, target, options, reduction=reduction, with_grad=True)
    assert grad is not None
    return LossAndGrad(loss, grad)
