"""What array functions take and give: logits as a matrix, targets, weights, places for results, each checked.

Anything that speaks DLPack, ``__array__`` or the Arrow PyCapsule interface is taken, of float32, float64, float16 or
bfloat16 (ml_dtypes arrays; or 16-bit integers and ``dtype="bfloat16"``), with any leading dimensions. Half precision is
computed in float32: losses come back as float32, gradients and softmax in the logits' dtype. Scalars reduced over rows
are exact sums of the float64 loss of each row, rounded once: they depend on no order and no thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.io.interchange import as_floats, as_numpy, numbers
from fastxent.kernels.exact import exact_add, exact_round, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.launch import MODES
from fastxent.kernels.matrix import Matrix
from fastxent.options.checks import real_number, shown, whole_number

STREAM_BYTES = 4 << 20  # results larger than this go past the cache


@dataclass(frozen=True)
class Input:
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


def rows_last(array: np.ndarray, axis: int) -> np.ndarray:
    """(n, C), a view where the memory allows."""
    moved = np.moveaxis(array, axis, -1)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


def input_of(values: Any, axis: int = -1, dtype: str | None = None, name: str = "logits") -> Input:
    array, kind = as_floats(values, dtype, name)
    if array.ndim == 0:
        raise ConfigError(f"{name} is a single number; its class axis is missing")
    d = array.ndim
    axis = whole_number("axis", axis, f"be one of the {d} dimensions of {name}, {-d}..{d - 1}", low=-d, high=d - 1)
    if array.shape[axis] == 0:
        raise ConfigError(f"{name} of shape {array.shape} have no classes")
    moved = np.moveaxis(array, axis, -1)
    return Input(Matrix.of(rows_last(array, axis), kind), moved.shape[:-1], axis, array, values)


def describe_row(lead: tuple[int, ...], row: int) -> str:
    index = np.unravel_index(row, lead) if len(lead) > 1 else (row,)
    return f"row {', '.join(str(int(i)) for i in index)}"


def class_ids(target: Any) -> np.ndarray:
    """int64 ids, one for each row; what no class of the logits can have stays out of range."""
    if target.dtype.kind not in "ui":
        raise TypeError(f"target holds {target.dtype}; class ids are integers, probabilities have the logits' shape")
    if target.dtype.itemsize == 8 and target.dtype.kind == "u":
        target = np.minimum(target, np.uint64(np.iinfo(np.int64).max))
    return np.ascontiguousarray(target.reshape(-1), np.int64)


def targets_of(target: Any, x: Input) -> tuple[np.ndarray | None, Matrix | None, np.ndarray]:
    """(class ids, soft targets, the array as given): which of the two it is follows from the dimensions."""
    array = as_numpy(target, "target")
    if array.shape == x.lead and array.ndim == x.array.ndim - 1:
        return class_ids(array), None, array
    if array.shape == x.array.shape:
        soft = rows_last(numbers(array, "target"), x.axis).astype(x.loss_dtype, order="C", copy=None)  # type: ignore[call-overload]
        return None, Matrix.of(soft), array
    raise ConfigError(
        f"target of shape {array.shape} fits neither class ids {x.lead} nor probabilities {x.array.shape} "
        f"of logits {x.array.shape}"
    )


def per_class(values: Any, n_classes: int, name: str) -> np.ndarray | None:
    """float64, one for each class."""
    if values is None:
        return None
    array = numbers(values, name)
    if array.shape != (n_classes,):
        raise ConfigError(f"{name} of shape {array.shape}; there are {n_classes} classes")
    return np.ascontiguousarray(array, np.float64)


def mask_of(values: Any, n_classes: int) -> np.ndarray | None:
    """A class mask as uint8: 0 where the class is removed."""
    array = per_class(values, n_classes, "class_mask")
    if array is None:
        return None
    if not np.isin(array, (0.0, 1.0)).all():
        raise ConfigError("class_mask must hold True and False, or 1 and 0")
    return array.astype(np.uint8)


def per_row(values: Any, x: Input, name: str) -> np.ndarray:
    if values is None:
        return np.empty(0)
    array = numbers(values, name)
    if array.shape != x.lead:
        raise ConfigError(f"{name} of shape {array.shape}; there is one for each row: {x.lead}")
    return np.ascontiguousarray(array.reshape(-1), np.float64)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    allowed = tuple(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    raise ConfigError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}")


def check_reduction(value: str, allowed: tuple[str, ...] = ("mean", "sum", "none")) -> str:
    return one_of("reduction", value, allowed)


def unit_of(base: float | None) -> float:
    """Nats in one unit of the result."""
    if base is None:
        return 1.0
    rule = "be a finite number above 0 other than 1, or None"
    base = real_number("base", base, rule, above=0.0)
    if base == 1.0:
        raise ConfigError(f"base must {rule}, got 1.0")
    return math.log(base)


def clip_of(eps: float) -> float:
    return real_number("clip_eps", eps, "be a number from 0 to below 0.5", low=0.0, below=0.5)


def ignored_id(value: int) -> int:
    bounds = np.iinfo(np.int64)
    return whole_number("ignore_index", value, "be an integer of 64 bits", low=bounds.min, high=bounds.max)


def mode_of(value: str) -> int:
    return MODES[one_of("input", value, MODES)]


def place_of(out: Any) -> np.ndarray:
    """The memory of the caller's ``out``; TypeError for what keeps its numbers elsewhere."""
    if isinstance(out, list | tuple) or hasattr(out, "__arrow_c_array__") or hasattr(out, "__arrow_c_stream__"):
        raise TypeError(f"out must be a writable array, got a {type(out).__name__}")
    array = as_numpy(out, "out")
    if not array.dtype.isnative:
        raise ConfigError(f"out must be in native byte order, got {array.dtype}")
    if not array.flags.writeable:
        raise ConfigError("out is read-only")
    return array


def check_probabilities(array: np.ndarray, kind: str, shape: tuple[int, ...], name: str) -> None:
    """ConfigError that names the first number outside 0..1, or NaN, and its place in an array of ``shape``."""
    flat = widened(array, kind).reshape(-1)
    with np.errstate(invalid="ignore"):
        if flat.size and flat.min() >= 0.0 and flat.max() <= 1.0:
            return
        outside = np.flatnonzero(~((flat >= 0.0) & (flat <= 1.0)))
    if outside.size:
        at = np.unravel_index(int(outside[0]), shape)
        place = f" at [{', '.join(map(str, at))}]" if at else ""
        raise ConfigError(f"{name} must hold numbers from 0 to 1, got {flat[outside[0]]}{place}")


class Out:
    """Where an (n, C) result goes: the caller's array itself where its memory allows, else a copy at the end."""

    def __init__(self, x: Input, out: Any) -> None:
        self._final: np.ndarray | None = None
        if out is None:
            self.result = np.empty(np.moveaxis(x.array, x.axis, -1).shape, x.array.dtype)
            target = self.result
            self.result = np.moveaxis(self.result, -1, x.axis)
        else:
            array, kind = as_floats(place_of(out), "bfloat16" if x.matrix.dtype == "bfloat16" else None, "out")
            if array.shape != x.array.shape or kind != x.matrix.dtype:
                raise ConfigError(
                    f"out is {kind} of shape {array.shape}; the result is {x.matrix.dtype} of shape {x.array.shape}"
                )
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

    def undefine(self, rows: np.ndarray | slice) -> None:
        """NaN in every number of these rows."""
        self._rows[rows] = FLOAT_TYPES[self.matrix.dtype].missing

    def finish(self, x: Input) -> np.ndarray:
        if self._final is not None:
            self._final[...] = self._rows.reshape(self._final.shape)
        if self._given is not None and isinstance(self._given, np.ndarray):
            return self._given
        if x.matrix.dtype == "bfloat16" and str(getattr(as_numpy(x.values), "dtype", "")) == "bfloat16":
            import ml_dtypes

            return self.result.view(ml_dtypes.bfloat16)
        return self.result


class OutRows:
    """Where one number for each row goes: the caller's array itself where its memory allows, else a copy at the end.

    ``beside``: arrays that are still read while results are written.
    """

    def __init__(self, lead: tuple[int, ...], dtype: np.dtype[Any], out: Any, *beside: np.ndarray | None) -> None:
        self._lead, self._given = lead, out
        self._final: np.ndarray | None = None
        if out is not None:
            array = self._final = place_of(out)
            if array.shape != lead or array.dtype != dtype:
                raise ConfigError(f"out is {array.dtype} of shape {array.shape}; the result is {dtype} of shape {lead}")
            if array.flags.carray and not any(b is not None and np.may_share_memory(array, b) for b in beside):
                self.rows = array.reshape(-1)
                return
        self.rows = np.empty(math.prod(lead), dtype)

    def finish(self) -> Any:
        if self._final is None:
            return self.rows.reshape(self._lead) if self._lead else self.rows[0]
        if not np.may_share_memory(self._final, self.rows):
            self._final[...] = self.rows.reshape(self._lead)
        return self._given


def weighted(weight: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """weight·loss, where a weight of 0 leaves nothing of an infinite loss; NaN stays."""
    with np.errstate(invalid="ignore", over="ignore"):
        product: np.ndarray = np.where((weight == 0.0) & ~np.isnan(loss), 0.0, weight * loss)
    return product


def reduce_rows(loss: np.ndarray, reduction: str, x: Input) -> Any:
    if reduction == "none":
        return loss.astype(x.loss_dtype) if x.lead else x.loss_dtype.type(loss)
    total = exact_zeros()
    exact_add(total, np.ascontiguousarray(loss, np.float64).reshape(-1))
    value = exact_round(total)
    if reduction == "sum":
        return value
    return value / loss.size if loss.size else math.nan


def largest(x: Input, row: int, mask: np.ndarray | None) -> float:
    """The maximum of a row that is broken: an infinity or NaN."""
    values = widened(x.matrix.values[row], x.matrix.dtype)
    return float((values if mask is None else np.where(mask, values, -np.inf)).max())
