"""Results of array functions: rows of C numbers, one number per row, or a sum over rows.

A result goes to the caller's ``out`` if there is one. Scalars are exact sums of the float64 loss of each row, rounded
once: they do not depend on the order of rows or on threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.functions.inputs import Input, classes_last
from fastxent.io.interchange import as_floats, as_numpy
from fastxent.kernels.exact import exact_add, exact_round, exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.matrix import Matrix

STREAM_BYTES = 4 << 20  # larger results are written past the cache


def place_of(out: Any) -> np.ndarray:
    """Return the memory of the caller's ``out``; TypeError if its numbers are held elsewhere."""
    if isinstance(out, list | tuple) or hasattr(out, "__arrow_c_array__") or hasattr(out, "__arrow_c_stream__"):
        raise TypeError(f"out must be a writable array, got a {type(out).__name__}")
    array = as_numpy(out, "out")
    if not array.dtype.isnative:
        raise ConfigError(f"out must be in native byte order, got {array.dtype}")
    if not array.flags.writeable:
        raise ConfigError("out must be a writable array, got a read-only one")
    return array


class Out:
    """The place of an (n, C) result: the caller's array itself if its memory allows, else a copy at the end."""

    def __init__(self, x: Input, out: Any) -> None:
        self._final: np.ndarray | None = None
        if out is None:
            target = np.empty(classes_last(x.array, x.axis).shape, x.array.dtype)
            self.result = target if x.axis in (-1, target.ndim - 1) else np.moveaxis(target, -1, x.axis)
        else:
            array, kind = as_floats(place_of(out), "bfloat16" if x.matrix.dtype == "bfloat16" else None, "out")
            if array.shape != x.array.shape or kind != x.matrix.dtype:
                raise ConfigError(
                    f"out must be {x.matrix.dtype} of shape {x.array.shape}, got {kind} of shape {array.shape}"
                )
            self.result = array
            target = classes_last(array, x.axis)
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
        """Write NaN to every number of these rows."""
        self._rows[rows] = FLOAT_TYPES[self.matrix.dtype].missing

    def finish(self, x: Input) -> np.ndarray:
        """Return the result in the shape and dtype of the logits, or the caller's array."""
        if self._final is not None:
            self._final[...] = self._rows.reshape(self._final.shape)
        if self._given is not None and isinstance(self._given, np.ndarray):
            return self._given
        if x.matrix.dtype == "bfloat16" and str(getattr(as_numpy(x.values), "dtype", "")) == "bfloat16":
            import ml_dtypes

            return self.result.view(ml_dtypes.bfloat16)
        return self.result


class OutRows:
    """The place of one number per row: the caller's array itself if its memory allows, else a copy at the end.

    beside: arrays. They are still read while results are written.
    """

    def __init__(self, lead: tuple[int, ...], dtype: np.dtype[Any], out: Any, *beside: np.ndarray | None) -> None:
        self._lead, self._given = lead, out
        self._final: np.ndarray | None = None
        if out is not None:
            array = self._final = place_of(out)
            if array.shape != lead or array.dtype != dtype:
                raise ConfigError(f"out must be {dtype} of shape {lead}, got {array.dtype} of shape {array.shape}")
            if array.flags.carray and not any(b is not None and np.may_share_memory(array, b) for b in beside):
                self.rows = array.reshape(-1)
                return
        self.rows = np.empty(math.prod(lead), dtype)

    def finish(self) -> Any:
        """Return the result in the leading shape of the logits, or the caller's array."""
        if self._final is None:
            return self.rows.reshape(self._lead) if self._lead else self.rows[0]
        if not np.may_share_memory(self._final, self.rows):
            self._final[...] = self.rows.reshape(self._lead)
        return self._given


def weighted(weight: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Return weight·loss. A weight of 0 makes an infinite loss 0; NaN stays NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        product: np.ndarray = np.where((weight == 0.0) & ~np.isnan(loss), 0.0, weight * loss)
    return product


def reduce_rows(loss: np.ndarray, reduction: str, x: Input) -> Any:
    """Return the losses ("none"), or their exact "sum" or "mean"."""
    if reduction == "none":
        return loss.astype(x.loss_dtype) if x.lead else x.loss_dtype.type(loss)
    total = exact_zeros()
    exact_add(total, np.ascontiguousarray(loss, np.float64).reshape(-1))
    value = exact_round(total)
    if reduction == "sum":
        return value
    return value / loss.size if loss.size else math.nan
