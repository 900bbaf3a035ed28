"""From arrays to kernels: proves shapes and ranges, picks the kernel, and runs it over rows.

Everything a kernel assumes is established here. Rows go through in chunks small enough for the chunk's results to stay
in the cache, and its logits too where a second sweep (a gradient) reads them again.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np

from fastxent.kernels.rows import blocks, called, emit, fused, record as r, short, wide
from fastxent.kernels.rows.arguments import (
    Buffers, LossOutput, Output, Rows, Shape, Soft, Targets, Terms,
)  # fmt: skip
from fastxent.kernels.exact import exact_zeros
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.matrix import Matrix, address_of, like_any
from fastxent.kernels.rows.narrow import narrow_kernel
from fastxent.kernels.rows.sweep import fused_sweep, sweep

MODES = {"logits": r.LOGITS, "log_probs": r.LOG_PROBS, "probs": r.PROBS}
CHUNK_BYTES = 1 << 19  # of logits, where a second sweep follows: what a core has of the caches beyond the first
CHUNK_ROWS = 256  # whose record stays in the first-level cache
NO_OUTPUT = Output(0, 0, False, np.empty((0, 0)))


@dataclass(frozen=True)
class RowOptions:
    """What shapes a row's numbers before anything is summed, and what else is summed over classes."""

    mode: int = r.LOGITS
    softcap: float | None = None
    temperature: float = 1.0
    class_mask: np.ndarray | None = None  # (C,) uint8, 0 = masked
    class_weight: np.ndarray | None = None  # (C,) float64
    smoothed: bool = False  # label smoothing: sums over all classes are wanted

    @classmethod
    def of(
        cls, given: Any, mask: np.ndarray | None, weight: np.ndarray | None = None, smoothed: bool = False
    ) -> RowOptions:
        """``given``: an object with the options of a verb or function as attributes."""
        return cls(MODES[given.input], given.softcap, given.temperature, mask, weight, smoothed)

    @property
    def shaped(self) -> bool:
        return self.softcap is not None or self.temperature != 1.0 or self.class_mask is not None


def row_buffers(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for the records, class ids and statuses of ``n`` rows."""
    return np.empty((r.FIELDS, n)), np.empty((2, n), np.int64), np.empty(n, np.int8)


@functools.cache
def _row_kernel_at(few: bool, flags: tuple[bool | int, ...] | None, dtype: str) -> int:
    """Address of the row kernel for one set of compile-time flags. flags: None for `short.short_kernel`."""
    if flags is None:
        kernel = short.short_kernel
    else:
        kernel = (narrow_kernel if few else wide.wide_kernel)(*flags)  # type: ignore[arg-type]
    return called.address(kernel, called.row_types(numba.typeof(FLOAT_TYPES[dtype].tag)))


@functools.cache
def _emit_at(few: bool, flags: tuple[int, bool, bool, int], dtype: str) -> int:
    """Address of the emit kernel for one set of compile-time flags: those of `emit.emit_kernel`."""
    output, _, shaped, mode = flags
    kernel = emit.narrow_emit_kernel(output, shaped, mode) if few else emit.emit_kernel(*flags)
    return called.address(kernel, called.emit_types(numba.typeof(FLOAT_TYPES[dtype].tag)))


@functools.cache
def _group_at(flags: tuple[int, bool, int], dtype: str) -> int:
    """Address of `fused.group_of` for one set of compile-time flags."""
    return called.address(fused.group_of(*flags), called.group_types(numba.typeof(FLOAT_TYPES[dtype].tag)), called.PAIR)


class RowPass:
    """The row record of rows of a matrix. One per thread.

    full: the whole record; otherwise nll and lse. none: the class id that says there is no target. twice: the logits
    of a chunk are read again, by `Emit`. single: losses are wanted in the compute type only. chunk: rows at a time,
    where the caller knows better. into: arrays (record, ids, status) that keep every row, the matrix's first in column
    ``offset``; without them there is room for a chunk, used again for the next.
    """

    def __init__(
        self,
        logits: Matrix,
        target: np.ndarray | None,
        ignore_index: int,
        options: RowOptions,
        soft: Matrix | None = None,
        *,
        full: bool,
        none: int = r.NO_TARGET,
        twice: bool = False,
        single: bool = False,
        chunk: int | None = None,
        into: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.logits, self.soft, self.options = logits, soft, options
        self.target = target
        self.ignore_index, self.none = (ignore_index, none) if target is not None else (r.NO_TARGET + 1, r.NO_TARGET)
        n, c = logits.n, logits.n_classes
        if target is not None and (target.shape != (n,) or target.dtype != np.int64 or not target.flags.c_contiguous):
            raise TypeError("target is not a contiguous int64 array as long as the logits")
        if soft is not None and (soft.values.shape != (n, c) or FLOAT_TYPES[soft.dtype].stored != logits.compute_dtype):
            raise TypeError("soft targets are not of the logits' shape and compute dtype")
        for array, dtype in ((options.class_mask, np.uint8), (options.class_weight, np.float64)):
            if array is not None and (array.shape != (c,) or array.dtype != dtype or not array.flags.c_contiguous):
                raise TypeError("class_mask or class_weight is not a contiguous (C,) array of its dtype")
        self.narrow, self.full = c <= wide.NARROW, full
        self.single = single and self.narrow
        self.flags = (options.smoothed or soft is not None, options.shaped, options.mode)
        self.short = not (self.narrow or full) and c <= short.SHORT and self.flags == (False, False, r.LOGITS)
        cached = CHUNK_BYTES // (c * logits.values.itemsize) if twice else CHUNK_ROWS
        self.chunk = max(1, min(CHUNK_ROWS, n, cached)) if chunk is None else max(1, chunk)
        self.record, self.ids, self.status = row_buffers(self.chunk) if into is None else into
        self.keeps, self.offset = into is not None, 0
        self._scratch = np.empty(fused.fused_bytes(c) if self.narrow else max(blocks.SCRATCH, short.SCRATCH), np.uint8)
        self._scratch_at = address_of(self._scratch)
        o = options
        self._shape = tuple(
            Shape(float(o.softcap or 0.0), float(o.temperature), address_of(o.class_mask), address_of(o.class_weight))
        )
        self._soft = tuple(Soft(0, 0, self.flags[0]) if soft is None else Soft(soft.address, soft.stride, True))
        self._no_target = np.full(self.chunk if target is None else 0, r.NO_TARGET)

    def turn_to(self, logits: Matrix, target: np.ndarray, offset: int = 0) -> None:
        """Go on with other rows of the same kind."""
        same = logits.n_classes == self.logits.n_classes and logits.dtype == self.logits.dtype
        if not same or target.shape != (logits.n,) or target.dtype != np.int64 or self.soft is not None:
            raise TypeError("these rows are of another kind")
        self.logits, self.target, self.offset = logits, np.ascontiguousarray(target), offset

    def check(self, begin: int, end: int) -> None:
        if not 0 <= begin <= end <= self.logits.n:
            raise IndexError(f"rows {begin}..{end} of {self.logits.n}")

    def arguments(self) -> tuple[tuple[Any, ...], ...]:
        """Fields of `Rows`, `Targets`, `Shape` and `Soft`: what kernels need to know of the rows."""
        m = self.logits
        rows = Rows(m.address, m.stride, m.n, m.n_classes, FLOAT_TYPES[m.dtype].tag)
        ids = self._no_target if self.target is None else like_any(self.target)
        targets = Targets(ids, self.target is not None, self.ignore_index, self.none)
        return tuple(rows), tuple(targets), self._shape, self._soft

    def buffers(self) -> Buffers:
        """Where kernels leave what they find."""
        return Buffers(self.record, self.ids, self.status, self._scratch_at, self.keeps, self.offset)

    def sweep(self, begin: int, end: int, write: Emit | None = None, losses: Losses | None = None) -> int:
        """Rows ``begin``..``end``, chunk by chunk: their record, then their losses, then what is written back.

        Returns the first row whose target is out of range, where there are losses, or -1.
        """
        self.check(begin, end)
        room = len(self.status) if self.keeps else self.chunk
        if self.keeps and (self.offset < 0 or self.offset + end > room or losses is not None or write is not None):
            raise IndexError(f"rows {self.offset + begin}..{self.offset + end} of {room} kept")
        if write is not None:
            write.check(self)
        if losses is not None:
            losses.check(self.logits)
        out = tuple(NO_OUTPUT if write is None else write.arguments())
        into = None if losses is None else tuple(losses.arguments(self.chunk, self.logits.compute_dtype))
        held = tuple(self.buffers())
        span = begin, end, self.chunk
        alone = self._fused(write, losses)
        if alone is not None:
            flags, kind = alone
            group = _group_at(flags, self.logits.dtype)
            return int(fused_sweep(span, (group, kind), self.arguments(), held, out, into))
        terms = None if losses is None else tuple(losses.terms.arguments())
        write_at = 0 if write is None else _emit_at(self.narrow, write.flags, self.logits.dtype)
        gradient = write is not None and write.flags[0] == emit.GRADIENT
        calls = self.kernel_at(), write_at, gradient
        return int(sweep(span, calls, self.arguments(), held, out, terms, into))

    def kernel_at(self) -> int:
        """Address of the row kernel."""
        mixed, shaped, mode = self.flags
        logged = self.single and not self.full and mode == r.LOGITS
        flags = (self.full, shaped, mode, logged) if self.narrow else (self.full, mixed, shaped, mode)
        return _row_kernel_at(self.narrow, None if self.short else flags, self.logits.dtype)

    def _fused(self, write: Emit | None, losses: Losses | None) -> tuple[tuple[int, bool, int], int] | None:
        """Flags of `fused.group_of` and the kind of losses, where no record is wanted and it can do all that is."""
        mixed, shaped, mode = self.flags
        output = fused.NOTHING if write is None else write.flags[0]
        if not self.narrow or self.full or mixed or (write is None and losses is None):
            return None
        if output == emit.GRADIENT and (losses is None or shaped or mode != r.LOGITS):
            return None
        flags = output, shaped, mode
        if losses is None:
            return flags, 0
        summed = losses.results.size == 0
        if not losses.terms.plain or output not in (fused.NOTHING, emit.GRADIENT) or not (summed or losses.unit == 1.0):
            return None
        if summed or losses.results.dtype == np.float64:
            return flags, 2
        return (flags, 1) if self.single and self.logits.compute_dtype == np.float32 else None

    def __call__(self, begin: int, end: int) -> None:
        """Fill `record`, `ids` and `status` with rows ``begin``..``end``, at most `chunk` of them."""
        if end - begin > self.chunk:
            raise IndexError(f"{end - begin} rows, {self.chunk} at a time")
        self.sweep(begin, end)


class Emit:
    """Where softmax, log-softmax or gradient rows of a `RowPass` are written, for its `sweep`. One per thread."""

    def __init__(self, source: RowPass, out: Matrix, output: int, streaming: bool) -> None:
        if not out.values.flags.writeable:
            raise TypeError("out is read-only")
        self.out, self.streaming = out, streaming
        self.flags = (output, *(source.flags if output == emit.GRADIENT else (False, *source.flags[1:])))
        self.coefficients = np.zeros((emit.COEFFICIENTS, source.chunk))

    def check(self, source: RowPass) -> None:
        """Prove that there is room for all that is written of these rows."""
        logits = source.logits
        if self.out.values.shape != logits.values.shape or self.out.dtype != logits.dtype:
            raise TypeError("out is not of the logits' shape and dtype")
        if self.coefficients.shape[1] < source.chunk:
            raise TypeError("out was prepared for smaller chunks of rows")

    def arguments(self) -> Output:
        return Output(self.out.address, self.out.stride, self.streaming, self.coefficients)


@dataclass(frozen=True)
class LossTerms:
    """How a row's loss is put together from its record."""

    n_classes: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    class_weight: np.ndarray | None = None
    soft: bool = False
    sample_weight: np.ndarray = field(default_factory=lambda: np.empty(0))  # of every row, or empty

    @property
    def plain(self) -> bool:
        """A row's loss is its nll."""
        free = self.class_weight is None and not self.sample_weight.size
        return free and not self.soft and self.label_smoothing == 0.0 and self.z_loss == 0.0

    def arguments(self) -> Terms:
        weight = np.empty(0) if self.class_weight is None else like_any(self.class_weight)
        weight_sum = float(self.n_classes) if self.class_weight is None else math.fsum(weight)
        sample = like_any(self.sample_weight)
        return Terms(sample, weight, self.label_smoothing, self.n_classes, weight_sum, self.z_loss, self.soft)


class Losses:
    """What becomes of the rows' losses in a sweep: each divided by ``unit`` into ``results``, or summed exactly.

    ``scale`` is the derivative of the result with respect to a row's loss. ``strict``: a target that is out of range
    ends the sweep. One per thread.
    """

    def __init__(
        self, terms: LossTerms, results: np.ndarray | None, unit: float = 1.0, scale: float = 1.0, strict: bool = True
    ) -> None:
        self.terms, self.unit, self.scale, self.strict = terms, unit, scale, strict
        self.results = np.empty(0, np.float32) if results is None else results
        self.total, self.weights = exact_zeros(), exact_zeros()

    def check(self, logits: Matrix) -> None:
        """Prove that what is looked up by row and by class is as long as these logits are."""
        t = self.terms
        by_row = (self.results, t.sample_weight)
        if any(a.size and (a.shape != (logits.n,) or not a.flags.c_contiguous) for a in by_row):
            raise TypeError("losses or sample weights are not contiguous and one for each row")
        if t.n_classes != logits.n_classes or (t.class_weight is not None and t.class_weight.shape != (t.n_classes,)):
            raise TypeError("the terms of the loss are for another number of classes")

    def arguments(self, chunk: int, dtype: np.dtype[Any]) -> LossOutput:
        """``dtype``: of results that are kept. An array of none is of that type too: one kind of kernel for both."""
        results = self.results
        if not results.size and results.dtype != dtype:
            results = np.empty(0, dtype)
        return LossOutput(
            self.terms.plain, self.strict, np.empty(chunk), np.empty(chunk), np.empty(8),
            self.unit, results, self.total, self.weights, self.scale,
        )  # fmt: skip
