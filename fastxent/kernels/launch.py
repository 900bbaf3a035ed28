"""From arrays to kernels: proves shapes and ranges, picks the kernel, and hands out chunks of rows.

Everything a kernel assumes is established here. A launch works on a chunk of rows small enough for its results to stay
in the cache, so that a second sweep (a gradient) finds the chunk's logits there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.kernels import emit, narrow, record as r, rows
from fastxent.kernels.jit import jit
from fastxent.kernels.record import BAD_LOGITS, BAD_TARGET, LINEAR, LOG_SUM, LSE, NLL, SOFT, SOFT_WEIGHT, USED
from fastxent.kernels.simd import TAGS

MODES = {"logits": r.LOGITS, "log_probs": r.LOG_PROBS, "probs": r.PROBS}
CHUNK_BYTES = 1 << 20  # of logits, where a second sweep follows: what a core has of the caches beyond the first
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Matrix:
    """(n, C) numbers in memory: contiguous classes, rows ``stride`` bytes apart, any alignment."""

    values: np.ndarray  # keeps the memory alive; uint16 for bfloat16
    dtype: str

    @classmethod
    def of(cls, values: np.ndarray, dtype: str | None = None) -> Matrix:
        """From an (n, C) array of float32, float64, float16, or of 16-bit integers that hold bfloat16."""
        dtype = dtype or str(values.dtype)
        if values.ndim != 2 or dtype not in TAGS:
            raise TypeError(f"{values.ndim}-dimensional {dtype}; kernels take (n, C) of {', '.join(TAGS)}")
        if values.itemsize != TAGS[dtype].itemsize:
            raise TypeError(f"{values.dtype} cannot hold {dtype}")
        if values.shape[1] > 1 and values.strides[1] != values.itemsize:
            values = np.ascontiguousarray(values)
        return cls(values, dtype)

    @property
    def n(self) -> int:
        return self.values.shape[0]

    @property
    def n_classes(self) -> int:
        return self.values.shape[1]

    @property
    def address(self) -> int:
        return self.values.__array_interface__["data"][0]

    @property
    def stride(self) -> int:
        return self.values.strides[0]

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.dtype == "float64" else np.float32)


@dataclass(frozen=True)
class Options:
    """What shapes a row's numbers before anything is summed, and what else is summed over classes."""

    mode: int = r.LOGITS
    softcap: float | None = None
    temperature: float = 1.0
    class_mask: np.ndarray | None = None  # (C,) uint8, 0 = masked
    class_weight: np.ndarray | None = None  # (C,) float64
    smoothed: bool = False  # label smoothing: sums over all classes are wanted

    @property
    def shaped(self) -> bool:
        return self.softcap is not None or self.temperature != 1.0 or self.class_mask is not None


def _address(array: np.ndarray | None) -> int:
    return 0 if array is None else array.__array_interface__["data"][0]


class RowPass:
    """The row record of chunks of a matrix, into arrays that are used again for each chunk. One per thread.

    full: the whole record; otherwise nll and lse. twice: the chunk's logits are read again, by `Emit`. chunk: rows at a
    time, where the caller knows better.
    """

    def __init__(
        self,
        logits: Matrix,
        target: np.ndarray | None,
        ignore_index: int,
        options: Options,
        soft: Matrix | None = None,
        *,
        full: bool,
        twice: bool = False,
        chunk: int | None = None,
    ) -> None:
        self.logits, self.soft, self.options = logits, soft, options
        self.target, self.ignore_index = target, ignore_index
        n, c = logits.n, logits.n_classes
        if target is not None and (target.shape != (n,) or target.dtype != np.int64 or not target.flags.c_contiguous):
            raise TypeError("target is not a contiguous int64 array as long as the logits")
        if soft is not None and (soft.values.shape != (n, c) or TAGS[soft.dtype].dtype != logits.compute_dtype):
            raise TypeError("soft targets are not of the logits' shape and compute dtype")
        for array, dtype in ((options.class_mask, np.uint8), (options.class_weight, np.float64)):
            if array is not None and (array.shape != (c,) or array.dtype != dtype or not array.flags.c_contiguous):
                raise TypeError("class_mask or class_weight is not a contiguous (C,) array of its dtype")
        self._narrow = c <= rows.NARROW
        make = narrow.narrow_kernel if self._narrow else rows.wide_kernel
        self.flags = (options.smoothed or soft is not None, options.shaped, options.mode)
        self._kernel = make(full, *self.flags)
        cached = CHUNK_BYTES // (c * logits.values.itemsize) if twice else CHUNK_ROWS
        self.chunk = max(1, min(CHUNK_ROWS, n, cached)) if chunk is None else max(1, chunk)
        self.record = np.empty((r.FIELDS, self.chunk))
        self.ids = np.empty((2, self.chunk), np.int64)
        self.status = np.empty(self.chunk, np.int8)
        self._scratch = np.empty(narrow.scratch_bytes(c) if self._narrow else 0, np.uint8)
        self._no_target = np.full(self.chunk, r.NO_TARGET) if target is None else None

    def turn_to(self, logits: Matrix, target: np.ndarray) -> None:
        """Go on with other rows of the same kind."""
        same = logits.n_classes == self.logits.n_classes and logits.dtype == self.logits.dtype
        if not same or target.shape != (logits.n,) or target.dtype != np.int64 or self.soft is not None:
            raise TypeError("these rows are of another kind")
        self.logits, self.target = logits, np.ascontiguousarray(target)

    def targets(self, begin: int, end: int) -> np.ndarray:
        if self._no_target is not None:
            return self._no_target[: end - begin]
        assert self.target is not None
        return self.target[begin:end]

    def shape_arguments(self) -> tuple[Any, ...]:
        """The trailing arguments row and emit kernels share."""
        o = self.options
        return float(o.softcap or 0.0), float(o.temperature), _address(o.class_mask), _address(o.class_weight)

    def soft_rows(self, begin: int) -> tuple[int, int]:
        return (0, 0) if self.soft is None else (self.soft.address + begin * self.soft.stride, self.soft.stride)

    def __call__(self, begin: int, end: int) -> None:
        """Fill `record`, `ids` and `status` with rows ``begin``..``end``, at most `chunk` of them."""
        m = self.logits
        if not 0 <= begin <= end <= m.n or end - begin > self.chunk:
            raise IndexError(f"rows {begin}..{end} of {m.n}, {self.chunk} at a time")
        scratch = (_address(self._scratch),) if self._narrow else ()
        self._kernel(
            m.address + begin * m.stride, m.stride, end - begin, m.n_classes, TAGS[m.dtype], self.targets(begin, end),
            self.ignore_index, *self.shape_arguments(), *self.soft_rows(begin), self.record, self.ids, self.status,
            *scratch,
        )  # fmt: skip


class Emit:
    """Writes softmax, log-softmax or gradient rows of the chunk a `RowPass` has just taken."""

    def __init__(self, source: RowPass, out: Matrix, output: int, streaming: bool) -> None:
        if out.values.shape != source.logits.values.shape or out.dtype != source.logits.dtype:
            raise TypeError("out is not of the logits' shape and dtype")
        if not out.values.flags.writeable:
            raise TypeError("out is read-only")
        self.source, self.out, self.streaming = source, out, streaming
        flags = source.flags if output == emit.GRADIENT else (False, *source.flags[1:])
        self._kernel = emit.emit_kernel(output, *flags)
        self.coefficients = np.zeros((emit.COEFFICIENTS, source.chunk))

    def __call__(self, begin: int, end: int) -> None:
        s, m, out = self.source, self.source.logits, self.out
        self._kernel(
            m.address + begin * m.stride, m.stride, end - begin, m.n_classes, TAGS[m.dtype],
            out.address + begin * out.stride, out.stride, self.streaming, s.record, self.coefficients,
            s.targets(begin, end), s.status, *s.shape_arguments(), *s.soft_rows(begin),
        )  # fmt: skip


@dataclass(frozen=True)
class LossTerms:
    """How a row's loss is put together from its record."""

    n_classes: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    class_weight: np.ndarray | None = None
    soft: bool = False

    @property
    def weight_sum(self) -> float:
        return float(self.n_classes) if self.class_weight is None else math.fsum(self.class_weight)

    def arguments(self) -> tuple[Any, ...]:
        weight = np.empty(0) if self.class_weight is None else self.class_weight
        return weight, self.label_smoothing, self.n_classes, self.weight_sum, self.z_loss, self.soft


@jit
def loss_rows(begin, n, record, target, status, sample_weight, weight, smoothing, n_classes, weight_sum, z_loss, soft,
              loss, share):  # type: ignore[no-untyped-def]  # fmt: skip
    """loss[i] and share[i], its part of the denominator of a mean, of rows ``begin``.. of a whole.

    (1-ε)·w_y·nll + (ε/C)·Σ w_c·(lse - z_c) + λ·lse², times the sample weight; 0 where the row is ignored, NaN where it
    is broken. A weight of 0 makes a term 0, even an infinite one. Returns the first row whose target is out of range,
    or -1.
    """
    wrong = -1
    for i in range(n):
        if status[i] == USED:
            w = 1.0
            main = 0.0
            if soft:
                main = record[SOFT_WEIGHT, i] * record[LOG_SUM, i] - record[SOFT, i]
            else:
                if weight.size > 0:
                    w = weight[target[i]]
                if w != 0.0:
                    main = w * record[NLL, i]
            value = main
            if smoothing > 0.0:
                value = smoothing / n_classes * (weight_sum * record[LOG_SUM, i] - record[LINEAR, i])
                if smoothing < 1.0:
                    value += (1.0 - smoothing) * main
            if record[LSE, i] != record[LSE, i]:
                value = np.nan
            if z_loss != 0.0:
                value += z_loss * record[LSE, i] * record[LSE, i]
            s = 1.0
            if sample_weight.size > 0:
                s = sample_weight[begin + i]
            loss[i] = s * value if s != 0.0 or value != value else 0.0
            share[i] = s * w
        elif status[i] == BAD_TARGET:
            loss[i] = np.nan
            share[i] = np.nan
            if wrong < 0:
                wrong = begin + i
        else:
            broken = status[i] == BAD_LOGITS
            loss[i] = np.nan if broken else 0.0
            share[i] = 0.0
            if broken:
                share[i] = (1.0 if weight.size == 0 or soft else weight[target[i]]) * (
                    sample_weight[begin + i] if sample_weight.size > 0 else 1.0
                )
    return wrong


@jit
def gradient_coefficients(begin, n, record, target, status, sample_weight, weight, smoothing, n_classes, weight_sum,
                          z_loss, soft, scale, coefficients):  # type: ignore[no-untyped-def]  # fmt: skip
    """What `emit` multiplies p, the one-hot, the uniform and the soft target with; ``scale`` is d result / d row."""
    for i in range(n):
        if status[i] != USED:
            continue
        g = scale
        if sample_weight.size > 0:
            g *= sample_weight[begin + i]
        keep = 1.0 - smoothing
        hot = 0.0
        total = smoothing / n_classes * weight_sum
        if soft:
            total += keep * record[SOFT_WEIGHT, i]
        else:
            hot = keep * (weight[target[i]] if weight.size > 0 else 1.0)
            total += hot
        if z_loss != 0.0:
            total += 2.0 * z_loss * record[LSE, i]
        coefficients[emit.P, i] = g * total
        coefficients[emit.HOT, i] = g * hot
        coefficients[emit.UNIFORM, i] = g * smoothing / n_classes
        coefficients[emit.SOFT, i] = g * keep
