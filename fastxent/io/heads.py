"""The output head of a model: (C, d) weights and a bias, multiplied with hidden states.

The weights are read, and half precision is widened, a panel of classes at a time; panels are kept within a limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastxent.errors import ConfigError
from fastxent.io.blas import libraries, one_thread
from fastxent.io.named_tensors import NamedTensor, named_tensor
from fastxent.io.storage.buffers import buffers, read_only
from fastxent.io.storage.files import File
from fastxent.io.storage.stored import StoredBytes
from fastxent.io.tensors import Stored
from fastxent.kernels.floats import FLOAT_TYPES, widened
from fastxent.kernels.halves import widen_halves

ROWS = 48  # of a product: a multiple of the rows that any kernel of BLAS takes together
_LEAST_WORK = 1 << 20  # multiplications of a product; for smaller ones OpenBLAS has other kernels
_TILE_BYTES, _MOST_ROWS = 8 << 20, 8192
_BEST_ROWS = 768  # from here on, reading and packing the weights for each product costs little
_PANEL_BYTES, _PANEL_CLASSES = 16 << 20, 64
_INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}  # the bits of infinity


@dataclass(frozen=True)
class Head:
    """Weights and a bias. Picklable if they are in files.

    weight: (C, d). bias: (C,) or None.
    dtype: "float32" | "float64". The float type of products and logits.
    room: bytes of the logits of one product. kept: bytes of widened panels that stay in memory.
    """

    weight: NamedTensor
    bias: NamedTensor | None
    dtype: str = "float32"
    room: int = 0
    kept: int = 0
    _panels: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:  # elsewhere panels are read again
        return {name: value for name, value in self.__dict__.items() if name != "_offsets"} | {"_panels": {}}

    @classmethod
    def open(cls, head: Any, bias: Any, memory: int, threads: int) -> Head:
        """Open a head and check that its numbers are finite.

        head, bias: as in `evaluate`.
        memory: int. Bytes; the logits of all products take up to half of it, and widened weights a quarter.
        threads: int. The number of products at a time.
        """
        libraries()
        weight, offsets = named_tensor("head", head), None if bias is None else named_tensor("bias", bias)
        n_classes, _ = check_shape(weight)
        if offsets is not None and offsets.array.shape != (n_classes,):
            raise ConfigError(f"bias must have {n_classes} numbers, one per class, got {offsets.array.shape}")
        found = cls(weight, offsets, room=memory // (2 * threads), kept=memory // 4)
        found._check(threads)
        return found

    def of_states(self, dtype: str) -> Head:
        """The head for states of a float type: products are of float64 if either is, else of float32."""
        return replace(self, dtype="float64" if "float64" in (dtype, self.weight.kind) else "float32", _panels={})

    @property
    def files(self) -> tuple[File, ...]:
        """The files of weights and bias; none if one of these is in memory."""
        each = [self.weight.files, *([] if self.bias is None else [self.bias.files])]
        return tuple(file for files in each for file in files) if all(each) else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may not be meant about the files."""
        beside = self.weight.bias
        if beside is None or self.bias is not None:
            return ()
        return (f"{self.weight.name}: there is also {beside!r}, which is not added; name it with bias (--bias)",)

    @property
    def n_classes(self) -> int:
        return self.weight.array.shape[0]

    @property
    def width(self) -> int:
        """Numbers of a hidden state."""
        return self.weight.array.shape[1]

    @property
    def compute(self) -> np.dtype[Any]:
        return FLOAT_TYPES[self.dtype].stored

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of logits."""
        return self.n_classes * self.compute.itemsize

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The classes of each panel. All have about as many: products with few classes use other kernels."""
        step = max(1, _PANEL_BYTES // (self.width * self.compute.itemsize * _PANEL_CLASSES)) * _PANEL_CLASSES
        edges = [*range(0, max(1, self.n_classes - step // 2), step), self.n_classes]
        return list(itertools.pairwise(edges))

    @cached_property
    def least_rows(self) -> int:
        """Rows of the smallest product."""
        fewest = min(end - begin for begin, end in self.spans)
        return whole_rows(_LEAST_WORK // (fewest * self.width) + 1)

    @cached_property
    def best_rows(self) -> int:
        """Rows of a product if memory is no limit."""
        small = _TILE_BYTES // ((self.n_classes + self.width) * self.compute.itemsize)
        return max(whole_rows(min(small, _MOST_ROWS)), _BEST_ROWS, self.least_rows)

    @cached_property
    def rows(self) -> int:
        """Rows of a product."""
        return max(self.least_rows, min(self.best_rows, self.room // self.row_bytes // ROWS * ROWS))

    def logits(self, states: np.ndarray) -> np.ndarray:
        """Return states · weightᵀ + bias, (n, C), for states (n, d) of the compute type.

        n is a multiple of `ROWS` and at least `least_rows`. The bits of a row then depend on its state and on its place
        modulo `ROWS` alone. BLAS takes some rows together, and the order of its additions may depend on the place of a
        row among these (in OpenBLAS for AVX2, 12 rows), on whether fewer are left over at the end, on whether the
        product is small, and on the number of threads.
        """
        n = len(states)
        out = buffers().take(n * self.row_bytes).view(self.compute).reshape(n, self.n_classes)
        with ExitStack() as stack, one_thread(), np.errstate(all="ignore"):  # what overflows is a bad row
            for (begin, end), panel in zip(self.spans, self._read(stack), strict=True):
                np.matmul(states, panel.T, out=out[:, begin:end])
                if self.bias is not None:
                    out[:, begin:end] += self._offsets[begin:end]
        return out

    def _read(self, stack: ExitStack) -> Iterator[np.ndarray]:
        """The panels in the compute type."""
        source: StoredBytes | None = None
        largest = max(end - begin for begin, end in self.spans) * self.width * self.compute.itemsize
        for k, (begin, end) in enumerate(self.spans):
            panel = self._panels.get(k)
            if panel is None:
                if source is None and isinstance(self.weight.array, Stored):
                    source = stack.enter_context(self.weight.array.opened())
                values = _numbers(self.weight, begin, end, source)
                panel = _widened(values, self.weight.kind, self.compute)
                if (k + 1) * largest <= self.kept and (source is not None or panel is not values):
                    self._panels[k] = panel
            yield panel

    @cached_property
    def _offsets(self) -> np.ndarray:
        assert self.bias is not None
        return widened(_numbers(self.bias, 0, self.n_classes), self.bias.kind).astype(self.compute)

    def _check(self, threads: int) -> None:
        """`ConfigError` if a weight is not finite, or a number of the bias is NaN or +inf."""
        step = -(-len(self.spans) // threads)
        shares = [self.spans[k : k + step] for k in range(0, len(self.spans), step)]
        with ThreadPoolExecutor(threads, thread_name_prefix="fastxent-head") as pool:
            for _ in pool.map(self._check_weights, shares):  # raises the error of the first weight
                pass
        if self.bias is not None:
            lost = np.isnan(self._offsets) | (self._offsets == np.inf)
            if lost.any():
                place = int(lost.argmax())
                raise ConfigError(
                    f"bias must hold numbers below infinity, got {self._offsets[place]} for class {place}"
                )

    def _check_weights(self, spans: list[tuple[int, int]]) -> None:
        """`ConfigError` for the first weight of some panels that is not finite."""
        name, kind, array = self.weight.name, self.weight.kind, self.weight.array
        with ExitStack() as stack:
            source = stack.enter_context(array.opened()) if isinstance(array, Stored) else None
            for begin, end in spans:
                values = _numbers(self.weight, begin, end, source)
                lost = _not_finite(values, kind)
                if lost.any():
                    row, column = np.argwhere(lost)[0].tolist()
                    value = widened(values[row, column : column + 1], kind)[0]
                    raise ConfigError(
                        f"head must hold finite numbers, got {value} in row {begin + row}, column {column} of {name}"
                    )


def check_shape(weight: NamedTensor) -> tuple[int, int]:
    """The numbers of classes and of a state; ConfigError if the weights are not (C, d)."""
    shape = weight.array.shape
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise ConfigError(f"head must be (C, d), d numbers for each of at least 2 classes, got {shape}")
    return shape[0], shape[1]


def whole_rows(rows: int) -> int:
    """The next multiple of `ROWS`."""
    return -(-rows // ROWS) * ROWS


def _numbers(tensor: NamedTensor, begin: int, end: int, source: StoredBytes | None = None) -> np.ndarray:
    """Rows of a tensor as they are stored: half precision in 16 bits."""
    array, width = tensor.array, tensor.array.shape[1] if len(tensor.array.shape) > 1 else None
    found = array.read(begin, end, width, source) if isinstance(array, Stored) else array.read(begin, end, width)
    flat = np.asarray(found if width is None else found.values)
    rows: np.ndarray = flat if width is None else flat.reshape(end - begin, width)
    return rows


def _not_finite(values: np.ndarray, kind: str) -> np.ndarray:
    lost: np.ndarray
    if values.dtype.kind == "f" and values.itemsize > 2:
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.dot(flat, flat)):  # the sum of squares, at the speed of the memory
                return np.zeros((0, 0), bool)
    if kind in _INFINITE:  # NumPy takes twenty times as long
        bits, infinite = values.view(np.uint16), _INFINITE[kind]
        if bits.view(np.int16).max(initial=0) < infinite and bits.max(initial=0) < 0x8000 + infinite:  # of either sign
            return np.zeros((0, 0), bool)
        lost = (bits & infinite) == infinite
        return lost
    lost = ~np.isfinite(widened(values, kind))
    return lost


def _widened(values: np.ndarray, kind: str, compute: np.dtype[Any]) -> np.ndarray:
    """Finite numbers in the compute type."""
    if compute != np.float32 or kind in ("float32", "float64"):
        return widened(values, kind).astype(compute, copy=False)
    out = buffers().take(4 * values.size).view(np.float32)
    widen_halves(read_only(values.reshape(-1).view(np.uint16)), FLOAT_TYPES[kind].tag, out)
    return out.reshape(values.shape)
