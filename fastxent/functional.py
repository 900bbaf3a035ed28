"""Array functions: check, launch, reduce. NumPy in, NumPy out; semantics of torch unless said otherwise.

Every function takes anything that speaks DLPack, ``__array__`` or the Arrow PyCapsule interface, of float32, float64,
float16 or bfloat16 (ml_dtypes arrays; or 16-bit integers and ``dtype="bfloat16"``), with any leading dimensions. Half
precision is computed in float32: losses come back as float32, gradients and softmax in the logits' dtype. Scalars
reduced over rows are exact sums of the float64 loss of each row, rounded once: they depend on no order and no thread.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastxent.arrays import as_floats, as_numpy
from fastxent.config import check_loss_options
from fastxent.errors import ConfigError
from fastxent.kernels import emit, record as rows
from fastxent.kernels.exact import exact_add, exact_ratio, exact_round, exact_zeros
from fastxent.kernels.launch import (
    MODES,
    Emit,
    LossTerms,
    Matrix,
    Options,
    RowPass,
    gradient_coefficients,
    loss_rows,
)  # fmt: skip
from fastxent.threads import parallel_rows

STREAM_BYTES = 4 << 20  # results larger than this go past the cache


class LossAndGrad(NamedTuple):
    """A loss, and its derivative with respect to the input, of the input's shape and dtype."""

    loss: Any
    grad: np.ndarray


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


# ------------------------------------------------------------------------------------------------------- arguments


@dataclass(frozen=True)
class _Input:
    """Logits as a matrix, and how to give results their shape back."""

    matrix: Matrix
    lead: tuple[int, ...]
    axis: int
    array: np.ndarray  # as given, bfloat16 as uint16
    values: Any  # the user's own object

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        return self.matrix.compute_dtype

    @property
    def row_bytes(self) -> int:
        return self.matrix.n_classes * self.array.itemsize


def _rows_last(array: np.ndarray, axis: int) -> np.ndarray:
    """(n, C), a view where the memory allows."""
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


def _input(values: Any, axis: int = -1, dtype: str | None = None, name: str = "logits") -> _Input:
    array, kind = as_floats(values, dtype, name)
    if array.ndim == 0:
        raise ConfigError(f"{name} is a single number; its class axis is missing")
    if not -array.ndim <= axis < array.ndim:
        raise ConfigError(f"axis={axis}; {name} has {array.ndim} dimensions")
    if array.shape[axis] == 0:
        raise ConfigError(f"{name} of shape {array.shape} have no classes")
    moved = np.moveaxis(array, axis, -1)
    return _Input(Matrix.of(_rows_last(array, axis), kind), moved.shape[:-1], axis, array, values)


def _describe(lead: tuple[int, ...], row: int) -> str:
    index = np.unravel_index(row, lead) if len(lead) > 1 else (row,)
    return f"row {', '.join(str(int(i)) for i in index)}"


def _class_ids(target: Any, x: _Input) -> np.ndarray:
    """int64 ids, one for each row; what no class of the logits can have stays out of range."""
    if target.dtype.kind not in "ui":
        raise TypeError(f"target holds {target.dtype}; class ids are integers, probabilities have the logits' shape")
    if target.dtype.itemsize == 8 and target.dtype.kind == "u":
        target = np.minimum(target, np.uint64(np.iinfo(np.int64).max))
    return np.ascontiguousarray(target.reshape(-1), np.int64)


def _targets(target: Any, x: _Input) -> tuple[np.ndarray | None, Matrix | None, np.ndarray]:
    """(class ids, soft targets, the array as given): which of the two it is follows from the dimensions."""
    array = as_numpy(target, "target")
    if array.shape == x.lead and array.ndim == x.array.ndim - 1:
        return _class_ids(array, x), None, array
    if array.shape == x.array.shape:
        soft = _rows_last(array, x.axis).astype(x.loss_dtype, order="C", copy=None)  # type: ignore[call-overload]
        return None, Matrix.of(soft), array
    raise ConfigError(
        f"target of shape {array.shape} fits neither class ids {x.lead} nor probabilities {x.array.shape} "
        f"of logits {x.array.shape}"
    )


def _per_class(values: Any, n_classes: int, name: str, dtype: Any = np.float64) -> np.ndarray | None:
    if values is None:
        return None
    array = np.ascontiguousarray(as_numpy(values, name), dtype)
    if array.shape != (n_classes,):
        raise ConfigError(f"{name} of shape {array.shape}; there are {n_classes} classes")
    return array


def _per_row(values: Any, x: _Input, name: str) -> np.ndarray:
    if values is None:
        return np.empty(0)
    array = as_numpy(values, name)
    if array.shape != x.lead:
        raise ConfigError(f"{name} of shape {array.shape}; there is one for each row: {x.lead}")
    return np.ascontiguousarray(array.reshape(-1), np.float64)


def _reduction(value: str, allowed: tuple[str, ...] = ("mean", "sum", "none")) -> str:
    if value not in allowed:
        raise ConfigError(f"reduction={value!r}; it is one of {', '.join(map(repr, allowed))}")
    return value


def _unit(base: float | None) -> float:
    """Nats in one unit of the result."""
    if base is None:
        return 1.0
    if not (base > 0 and base != 1 and math.isfinite(base)):
        raise ConfigError(f"base={base}; a logarithm's base is above 0 and not 1")
    return math.log(base)


def _mode(value: str) -> int:
    if value not in MODES:
        raise ConfigError(f"input={value!r}; it is one of {', '.join(map(repr, MODES))}")
    return MODES[value]


class _Out:
    """Where an (n, C) result goes: the caller's array itself where its memory allows, else a copy at the end."""

    def __init__(self, x: _Input, out: Any) -> None:
        self._final: np.ndarray | None = None
        if out is None:
            self.result = np.empty(np.moveaxis(x.array, x.axis, -1).shape, x.array.dtype)
            target = self.result
            self.result = np.moveaxis(self.result, -1, x.axis)
        else:
            array, kind = as_floats(out, "bfloat16" if x.matrix.dtype == "bfloat16" else None, "out")
            if array.shape != x.array.shape or kind != x.matrix.dtype:
                raise ConfigError(
                    f"out is {kind} of shape {array.shape}; the result is {x.matrix.dtype} of shape {x.array.shape}"
                )
            if not array.flags.writeable:
                raise ConfigError("out is read-only")
            self.result = array
            target = np.moveaxis(array, x.axis, -1)
            same = array.__array_interface__["data"] == x.array.__array_interface__["data"]
            inside = target.flags.c_contiguous and (
                (same and array.strides == x.array.strides) or not np.may_share_memory(array, x.array)
            )
            if not inside:
                self._final = target
                target = np.empty(target.shape, array.dtype)
        self._rows = target.reshape(x.matrix.n, x.matrix.n_classes)
        self.matrix = Matrix(self._rows, x.matrix.dtype)
        self.streaming = self._rows.nbytes > STREAM_BYTES
        self._given = out

    def finish(self, x: _Input) -> np.ndarray:
        if self._final is not None:
            self._final[...] = self._rows.reshape(self._final.shape)
        if self._given is not None and isinstance(self._given, np.ndarray):
            return self._given
        if x.matrix.dtype == "bfloat16" and str(getattr(as_numpy(x.values), "dtype", "")) == "bfloat16":
            import ml_dtypes

            return self.result.view(ml_dtypes.bfloat16)
        return self.result


# --------------------------------------------------------------------------------------------------------- softmax


def _softmax(values: Any, axis: int, temperature: float, out: Any, dtype: str | None, output: int) -> np.ndarray:
    check_loss_options(0.0, temperature, None)
    x = _input(values, axis, dtype)
    result = _Out(x, out)
    options = Options(temperature=temperature)

    def work(begin: int, end: int) -> None:
        take = RowPass(x.matrix, None, rows.NO_TARGET + 1, options, full=False, twice=True)
        write = Emit(take, result.matrix, output, result.streaming)
        for b in range(begin, end, take.chunk):
            e = min(end, b + take.chunk)
            take(b, e)
            write(b, e)

    parallel_rows(work, x.matrix.n, 2 * x.row_bytes)
    return result.finish(x)


def log_softmax(
    logits: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None, dtype: str | None = None
) -> np.ndarray:
    """Logarithm of the softmax: x_c/T - log Σ_j exp(x_j/T).

    ``logits``: any shape with classes along ``axis``. Returns an array of the same shape and dtype, or ``out`` (which may
    be the logits themselves). Rows that hold NaN or +inf, or nothing but -inf, are NaN; -inf stays -inf.
    Raises ConfigError (a ValueError) for C = 0 or an unfit ``out``. Follows `torch.nn.functional.log_softmax`.

    >>> import numpy as np, fastxent as fx
    >>> np.exp(fx.log_softmax(np.log([[1.0, 3.0]]))).round(12)
    array([[0.25, 0.75]])
    """
    return _softmax(logits, axis, temperature, out, dtype, emit.LOG_SOFTMAX)


def softmax(
    logits: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None, dtype: str | None = None
) -> np.ndarray:
    """exp(x_c/T) / Σ_j exp(x_j/T). Shapes, dtypes, errors and broken rows as in `log_softmax`.

    >>> import numpy as np, fastxent as fx
    >>> fx.softmax(np.array([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return _softmax(logits, axis, temperature, out, dtype, emit.SOFTMAX)


def _largest(x: _Input, row: int, mask: np.ndarray | None) -> float:
    """The maximum of a row that is broken: an infinity or NaN."""
    values = x.matrix.values[row]
    if x.matrix.dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return float((values if mask is None else np.where(mask, values, -np.inf)).max())


def logsumexp(
    logits: Any, *, axis: int = -1, temperature: float = 1.0, out: Any = None, dtype: str | None = None
) -> np.ndarray:
    """log Σ_c exp(x_c/T) of each row: float64 for float64 logits, else float32; or written to ``out``.

    -inf for a row of -inf, +inf for a row that holds it, NaN for a row with NaN. Follows `scipy.special.logsumexp`.

    >>> import numpy as np, fastxent as fx
    >>> round(float(fx.logsumexp(np.log([1.0, 2.0, 5.0]))), 12) == round(float(np.log(8)), 12)
    True
    """
    check_loss_options(0.0, temperature, None)
    x = _input(logits, axis, dtype)
    lse = np.empty(x.matrix.n)

    def work(begin: int, end: int) -> None:
        take = RowPass(x.matrix, None, rows.NO_TARGET + 1, Options(temperature=temperature), full=False)
        for b in range(begin, end, take.chunk):
            e = min(end, b + take.chunk)
            take(b, e)
            lse[b:e] = take.record[rows.LSE, : e - b]

    parallel_rows(work, x.matrix.n, x.row_bytes)
    for i in np.flatnonzero(np.isnan(lse)):
        top = _largest(x, int(i), None)
        lse[i] = top if np.isinf(top) else np.nan
    result = lse.reshape(x.lead).astype(x.loss_dtype)
    if out is None:
        return result if x.lead else result[()]
    array = as_numpy(out, "out")
    if array.shape != result.shape or array.dtype != result.dtype or not array.flags.writeable:
        raise ConfigError(
            f"out is {array.dtype} of shape {array.shape}; the result is {result.dtype} of {result.shape}"
        )
    array[...] = result
    return array


# --------------------------------------------------------------------------------------------------- cross-entropy


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
    if not 0.0 <= o.clip_eps < 0.5:
        raise ConfigError(f"clip_eps={o.clip_eps}; it lies between 0 and 0.5")
    array, kind = as_floats(logits, o.dtype)
    if kind == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    array = array.astype(np.float64 if kind == "float64" else np.float32, copy=False)
    low, high = o.clip_eps, 1.0 - o.clip_eps
    if o.input == "log_probs":
        low, high = math.log(low) if low else -math.inf, math.log1p(-o.clip_eps)
    return np.clip(array, low, high), (array >= low) & (array <= high)


def _cross_entropy(logits: Any, target: Any, o: _Loss, out: Any, with_grad: bool) -> tuple[Any, np.ndarray | None]:
    """The one implementation behind cross_entropy, nll_loss, and their gradient."""
    check_loss_options(o.label_smoothing, o.temperature, o.softcap)
    _reduction(o.reduction)
    mode, unit = _mode(o.input), _unit(o.base)
    if mode != rows.LOGITS and (o.temperature != 1.0 or o.softcap is not None or o.class_mask is not None or o.z_loss):
        raise ConfigError(f"temperature, softcap, class_mask and z_loss shape logits; input is {o.input!r}")
    if not math.isfinite(o.z_loss):
        raise ConfigError(f"z_loss={o.z_loss}; it is finite")
    values, moves = _clipped(logits, o)
    x = _input(values, o.axis, o.dtype if moves is None else None)
    ids, soft, given = _targets(target, x)
    c, n = x.matrix.n_classes, x.matrix.n
    weight = _per_class(o.weight, c, "weight")
    mask = _per_class(o.class_mask, c, "class_mask", np.bool_)
    sample = _per_row(o.sample_weight, x, "sample_weight")
    options = Options(
        mode, o.softcap, o.temperature, None if mask is None else mask.view(np.uint8), weight, o.label_smoothing > 0.0
    )
    terms = LossTerms(c, o.label_smoothing, o.z_loss, weight, soft is not None)
    scale = 1.0 / unit
    if with_grad and o.reduction == "mean":
        denominator = _denominator(ids, sample, weight, o.ignore_index, n, c)
        scale = scale / denominator if denominator else math.nan
    result = _Out(x, out) if with_grad else None
    losses = np.empty(n, x.loss_dtype) if o.reduction == "none" else None
    sums: list[tuple[np.ndarray, np.ndarray]] = []
    lock = threading.Lock()

    def work(begin: int, end: int) -> int:
        take = RowPass(x.matrix, ids, o.ignore_index, options, soft, full=False, twice=with_grad)
        write = Emit(take, result.matrix, emit.GRADIENT, result.streaming) if result is not None else None
        loss, share = np.empty(take.chunk), np.empty(take.chunk)
        total, weights = exact_zeros(), exact_zeros()
        for b in range(begin, end, take.chunk):
            e = min(end, b + take.chunk)
            take(b, e)
            tail = (take.record, take.targets(b, e), take.status, sample, *terms.arguments())
            wrong = loss_rows(b, e - b, *tail, loss, share)
            if wrong >= 0:
                return int(wrong)
            if losses is not None:
                np.divide(loss[: e - b], unit, out=losses[b:e], casting="same_kind")
            else:
                exact_add(total, loss[: e - b])
                exact_add(weights, share[: e - b])
            if write is not None:
                gradient_coefficients(b, e - b, *tail, scale, write.coefficients)
                write(b, e)
        with lock:
            sums.append((total, weights))
        return -1

    with np.errstate(over="ignore"):
        wrong = [row for row in parallel_rows(work, n, x.row_bytes * (2 if with_grad else 1)) if row >= 0]
    if wrong:
        row = min(wrong)
        raise ConfigError(
            f"target {given.reshape(-1)[row]} of {_describe(x.lead, row)} is outside the {c} classes 0..{c - 1} "
            f"and is not ignore_index={o.ignore_index}"
        )
    if losses is not None:
        value: Any = losses.reshape(x.lead) if x.lead else losses.reshape(())[()]
    else:
        total, weights = (sum((s[k] for s in sums), exact_zeros()) for k in (0, 1))
        value = (exact_ratio(total, weights) if o.reduction == "mean" else exact_round(total)) / unit
    if result is None:
        return value, None
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

    Returns:
        A float, or an array of the leading shape for "none": float64 for float64 logits, else float32. NaN for a row
        with NaN or +inf or nothing but -inf, +inf for a target of probability 0; the mean of no rows is NaN.

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
    return _cross_entropy(logits, target, o, None, False)[0]


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
    ``reduction="none"`` row i of it is the derivative of loss i. Ignored rows are 0, broken ones NaN. Arguments, errors
    and source as in `cross_entropy`.

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
) -> Any:
    """`cross_entropy` of log-probabilities, which are used as given. Follows `torch.nn.functional.nll_loss`.

    >>> import numpy as np, fastxent as fx
    >>> fx.nll_loss(np.log([[0.5, 0.5]]), [1], base=2)
    1.0
    """
    return cross_entropy(
        log_probs, target, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
        reduction=reduction, sample_weight=sample_weight, base=base, axis=axis, clip_eps=clip_eps, dtype=dtype,
        input="log_probs",
    )  # fmt: skip


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
    if kind == "bfloat16":
        p = (p.astype(np.uint32) << 16).view(np.float32)
        eps = 2.0**-7
    else:
        eps = float(np.finfo(p.dtype).eps)
    eps = eps if clip_eps is None else clip_eps
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

    >>> import numpy as np, fastxent as fx
    >>> fx.focal_loss(np.zeros((1, 2)), [0], gamma=1.0) == np.log(2) / 2
    True
    """
    _reduction(reduction)
    x = _input(logits, axis)
    record = row_statistics(logits, target, axis=axis, ignore_index=rows.NO_TARGET + 1)
    scale = np.ones(())
    if alpha is not None:
        table = _per_class(np.broadcast_to(as_numpy(alpha, "alpha"), x.matrix.n_classes), x.matrix.n_classes, "alpha")
        assert table is not None
        scale = table[as_numpy(target)]
    with np.errstate(invalid="ignore", over="ignore"):
        loss = scale * (-np.expm1(-record.nll)) ** gamma * record.nll
    return _reduce(loss, reduction, x)


def _reduce(loss: np.ndarray, reduction: str, x: _Input) -> Any:
    if reduction == "none":
        return loss.astype(x.loss_dtype) if x.lead else x.loss_dtype.type(loss)
    total = exact_zeros()
    exact_add(total, np.ascontiguousarray(loss, np.float64).reshape(-1))
    value = exact_round(total)
    if reduction == "sum":
        return value
    return value / loss.size if loss.size else math.nan


# --------------------------------------------------------------------------------------- rows, entropy, divergences


def _full_record(x: _Input, ids: np.ndarray | None, ignore_index: int, options: Options) -> dict[str, np.ndarray]:
    n = x.matrix.n
    record, numbers, status = np.empty((rows.FIELDS, n)), np.empty((2, n), np.int64), np.empty(n, np.int8)

    def work(begin: int, end: int) -> None:
        take = RowPass(x.matrix, ids, ignore_index, options, full=True)
        for b in range(begin, end, take.chunk):
            e = min(end, b + take.chunk)
            take(b, e)
            record[:, b:e], numbers[:, b:e] = take.record[:, : e - b], take.ids[:, : e - b]
            status[b:e] = take.status[: e - b]

    parallel_rows(work, n, x.row_bytes)
    return {"record": record, "ids": numbers, "status": status}


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
    check_loss_options(0.0, temperature, softcap)
    x = _input(logits, axis, dtype)
    c = x.matrix.n_classes
    ids = given = None
    if target is not None:
        given = as_numpy(target, "target")
        if given.shape != x.lead:
            raise ConfigError(f"target of shape {given.shape}; class ids have the shape {x.lead}")
        ids = _class_ids(given, x)
        wrong = np.flatnonzero((ids != ignore_index) & ((ids < 0) | (ids >= c)))
        if wrong.size:
            raise ConfigError(
                f"target {given.reshape(-1)[wrong[0]]} of {_describe(x.lead, int(wrong[0]))} is outside the {c} classes"
            )
        # an ignored row has a record all the same, but for what concerns its target
        ids = np.where(ids == ignore_index, rows.NO_TARGET, ids)
    mask = _per_class(class_mask, c, "class_mask", np.bool_)
    options = Options(_mode(input), softcap, temperature, None if mask is None else mask.view(np.uint8))
    if options.mode != rows.LOGITS and options.shaped:
        raise ConfigError(f"temperature, softcap and class_mask shape logits; input is {input!r}")
    full = _full_record(x, ids, rows.NO_TARGET + 1, options)
    record, numbers = full["record"], full["ids"]
    broken = np.flatnonzero(full["status"] != rows.USED)
    record[:, broken] = np.nan
    for i in broken:
        record[rows.MAX, i] = _largest(x, int(i), mask)
    return RowStatistics(
        *(
            array.reshape(x.lead)
            for array in (
                record[rows.NLL], record[rows.LSE], record[rows.MAX], record[rows.CONFIDENCE],
                numbers[rows.PREDICTED], numbers[rows.RANK], record[rows.ENTROPY], brier(record), record[rows.SUM_P2],
            )
        )
    )  # fmt: skip


def brier(record: np.ndarray) -> np.ndarray:
    """Σ_c (p_c - [c = y])² = (Σ p² - p_y²) + (1 - p_y)²; NaN where the row has no target."""
    nll = record[rows.NLL]
    p = np.exp(-nll)
    return np.maximum(record[rows.SUM_P2] - p * p, 0.0) + np.expm1(-nll) ** 2


def entropy(p: Any, *, input: str = "probs", base: float | None = None, axis: int = -1) -> Any:
    """-Σ_c p_c log p_c of each row, in nats or to ``base``; 0·log 0 = 0.

    ``p``: probabilities, log-probabilities or logits, as ``input`` says. Returns float64 for float64 input, else
    float32. Follows `scipy.stats.entropy`, without its renormalisation.

    >>> import numpy as np, fastxent as fx
    >>> fx.entropy(np.array([0.5, 0.25, 0.25]), base=2)
    np.float64(1.5)
    """
    unit, mode = _unit(base), _mode(input)
    x = _input(p, axis, name="p")
    full = _full_record(x, None, rows.NO_TARGET + 1, Options(mode=mode))
    value = full["record"][rows.ENTROPY]
    value[full["status"] != rows.USED] = np.nan
    result = (value / unit).astype(x.loss_dtype).reshape(x.lead)
    return result if x.lead else result[()]
