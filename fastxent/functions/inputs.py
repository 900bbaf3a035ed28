"""Inputs of array functions: logits as a matrix, targets and weights, each checked.

An array is anything that supports DLPack, ``__array__`` or the Arrow PyCapsule interface. It holds float32, float64,
float16 or bfloat16 (ml_dtypes arrays; or 16-bit integers with ``dtype="bfloat16"``) and has any leading dimensions.
Half precision is computed in float32: losses are float32, gradients and softmax have the logits' dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.io.interchange import as_floats, as_numpy, numbers
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import MODES
from fastxent.kernels.matrix import Matrix
from fastxent.options.checks import one_of, real_number, shown, whole_number
from fastxent.options.declared import OPTIONS


@dataclass(frozen=True)
class Input:
    """Logits as a matrix, and the shape that results have.

    matrix: (n, C). The logits, one row per prediction.
    lead: shape. The dimensions of the logits without the class axis.
    axis: int. The class axis.
    array: array. The logits as given, bfloat16 as uint16.
    values: object. The user's own object.
    """

    matrix: Matrix
    lead: tuple[int, ...]
    axis: int
    array: np.ndarray
    values: Any

    @property
    def loss_dtype(self) -> np.dtype[Any]:
        """The dtype of one number per row: float64 for float64 logits, else float32."""
        return self.matrix.compute_dtype

    @property
    def row_bytes(self) -> int:
        """The bytes of a row of logits."""
        return self.matrix.n_classes * self.array.itemsize


def classes_last(array: np.ndarray, axis: int) -> np.ndarray:
    """Return a view of the array whose last axis is the class axis."""
    return array if axis in (-1, array.ndim - 1) else np.moveaxis(array, axis, -1)  # which takes 4 us in any case


def rows_last(array: np.ndarray, axis: int) -> np.ndarray:
    """Return the array as (n, C), a view if the memory allows."""
    moved = classes_last(array, axis)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


def input_of(values: Any, axis: int = -1, dtype: str | None = None, name: str = "logits") -> Input:
    """Return the logits as a matrix; ConfigError or TypeError if they have no classes or are not floating-point."""
    array, kind = as_floats(values, dtype, name)
    if array.ndim == 0:
        raise ConfigError(f"{name} must have a class axis, got a single number")
    d = array.ndim
    axis = whole_number("axis", axis, f"be one of the {d} dimensions of {name}, {-d}..{d - 1}", low=-d, high=d - 1)
    if array.shape[axis] == 0:
        raise ConfigError(f"{name} must have at least one class, got the shape {array.shape}")
    lead = classes_last(array, axis).shape[:-1]
    return Input(Matrix.of(rows_last(array, axis), kind), lead, axis, array, values)


def describe_row(lead: tuple[int, ...], row: int) -> str:
    """Return "row 3", or "row 1, 2" for more than one leading dimension."""
    index = np.unravel_index(row, lead) if len(lead) > 1 else (row,)
    return f"row {', '.join(str(int(i)) for i in index)}"


def invalid_target(x: Input, row: int, target: np.ndarray, ignore_index: int) -> ConfigError:
    """Return the error of a class id that is out of range."""
    return ConfigError(
        f"target of {describe_row(x.lead, row)} must be a class id from 0 to {x.matrix.n_classes - 1} or "
        f"ignore_index={ignore_index}, got {target.reshape(-1)[row]}"
    )


def class_ids(target: Any) -> np.ndarray:
    """Return int64 ids, one per row. An id too large for int64 stays out of range."""
    if target.dtype.kind not in "ui":
        raise TypeError(
            f"target must hold integer class ids, or probabilities in the logits' shape, got {target.dtype}"
        )
    if target.dtype.itemsize == 8 and target.dtype.kind == "u":
        target = np.minimum(target, np.uint64(np.iinfo(np.int64).max))
    return np.ascontiguousarray(target.reshape(-1), np.int64)


def targets_of(target: Any, x: Input) -> tuple[np.ndarray | None, Matrix | None, np.ndarray]:
    """Return (class ids, None, array as given) or (None, soft targets, array as given), depending on the shape."""
    array = as_numpy(target, "target")
    if array.shape == x.lead and array.ndim == x.array.ndim - 1:
        return class_ids(array), None, array
    if array.shape == x.array.shape:
        soft = rows_last(numbers(array, "target"), x.axis).astype(x.loss_dtype, order="C", copy=None)  # type: ignore[call-overload]
        return None, Matrix.of(soft), array
    raise ConfigError(
        f"target must have the shape {x.lead} of class ids or {x.array.shape} of probabilities, got {array.shape}"
    )


def per_class(values: Any, n_classes: int, name: str) -> np.ndarray | None:
    """Return the values as float64 (C,)."""
    if values is None:
        return None
    array = numbers(values, name)
    if array.shape != (n_classes,):
        raise ConfigError(
            f"{name} must have one entry for each of the {n_classes} classes, got the shape {array.shape}"
        )
    return np.ascontiguousarray(array, np.float64)


def mask_of(values: Any, n_classes: int) -> np.ndarray | None:
    """Return a class mask as uint8 (C,): 0 for an excluded class."""
    array = per_class(values, n_classes, "class_mask")
    if array is None:
        return None
    if (wrong := np.flatnonzero((array != 0.0) & (array != 1.0))).size:
        raise ConfigError(f"class_mask must hold True and False, or 1 and 0, got {shown(array[wrong[0]])}")
    return array.astype(np.uint8)


def per_row(values: Any, x: Input, name: str) -> np.ndarray:
    """Return the values as float64 (n,), or an empty array for None."""
    if values is None:
        return np.empty(0)
    array = numbers(values, name)
    if array.shape != x.lead:
        raise ConfigError(f"{name} must have one entry per row, so the shape {x.lead}, got {array.shape}")
    return np.ascontiguousarray(array.reshape(-1), np.float64)


def check_reduction(value: str, allowed: tuple[str, ...] = ("mean", "sum", "none")) -> str:
    """Return the reduction if it is one of the allowed words."""
    return one_of("reduction", value, allowed)


def unit_of(base: float | None) -> float:
    """Return the number of nats in one unit of the result."""
    if base is None:
        return 1.0
    rule = "be a finite number above 0 other than 1, or None"
    base = real_number("base", base, rule, above=0.0)
    if base == 1.0:
        raise ConfigError(f"base must {rule}, got 1.0")
    return math.log(base)


def clip_of(eps: Any) -> float:
    """Return a ``clip_eps`` that was given."""
    return float(OPTIONS["clip_eps"].check("clip_eps", eps))


def temperature_of(value: Any) -> float:
    """Return the temperature."""
    return float(OPTIONS["temperature"].check("temperature", value))


def mode_of(value: Any) -> int:
    """Return the kernels' code of ``input``."""
    return MODES[one_of("input", value, MODES)]


def check_probabilities(array: np.ndarray, kind: str, shape: tuple[int, ...], name: str) -> None:
    """Raise ConfigError for the first number that is NaN or not from 0 to 1; it names its place in ``shape``."""
    flat = widened(array, kind).reshape(-1)
    with np.errstate(invalid="ignore"):
        if flat.size and flat.min() >= 0.0 and flat.max() <= 1.0:
            return
        outside = np.flatnonzero(~((flat >= 0.0) & (flat <= 1.0)))
    if outside.size:
        at = np.unravel_index(int(outside[0]), shape)
        place = f" at [{', '.join(map(str, at))}]" if at else ""
        raise ConfigError(f"{name} must hold numbers from 0 to 1, got {flat[outside[0]]}{place}")


def largest(x: Input, row: int, mask: np.ndarray | None) -> float:
    """Return the maximum of a row with NaN or infinities."""
    values = widened(x.matrix.values[row], x.matrix.dtype)
    return float((values if mask is None else np.where(mask, values, -np.inf)).max())
