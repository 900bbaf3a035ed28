"""What kernels are given, by name. Numba compiles a NamedTuple as a structure: a field costs what a variable costs.

Addresses are integers, 0 for what is not given; arrays are NumPy's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Rows of numbers in memory.

    address: int. The first row.
    stride: int. Bytes from one row to the next.
    n: int. The number of rows.
    n_classes: int. The numbers of a row, which are contiguous.
    tag: scalar. The type of the numbers: see `floats.FloatType`.
    """

    address: int
    stride: int
    n: int
    n_classes: int
    tag: Any


class Targets(NamedTuple):
    """The class id of each row.

    ids: int64 (n,). Where there are no targets, some rows of `NO_TARGET` that stand for all.
    given: bool. Whether there are targets.
    ignore: int. The id of rows that are ignored.
    none: int. The id of rows that have no target.
    """

    ids: np.ndarray
    given: bool
    ignore: int
    none: int


class Shape(NamedTuple):
    """What shapes the numbers of a row.

    softcap: float. 0 for none.
    temperature: float.
    mask_at: address of uint8 (C,). 0 excludes a class.
    weight_at: address of float64 (C,). Class weights.
    """

    softcap: float
    temperature: float
    mask_at: int
    weight_at: int


class Soft(NamedTuple):
    """Target probabilities, of the compute type, and what else is summed over classes.

    address: int. The first row.
    stride: int. Bytes from one row to the next.
    summed: bool. Whether sums over all classes are wanted: for target probabilities and for label smoothing.
    """

    address: int
    stride: int
    summed: bool


class Buffers(NamedTuple):
    """Room for the records of rows, and scratch memory.

    record: float64 (FIELDS, rows). ids: int64 (2, rows). status: int8 (rows,).
    scratch: address of `fused.fused_bytes`, `short.SCRATCH` or `blocks.SCRATCH` bytes.
    keeps: bool. Whether every row has a column, the first of the matrix column ``offset``; else a chunk fits.
    offset: int.
    """

    record: np.ndarray
    ids: np.ndarray
    status: np.ndarray
    scratch: int
    keeps: bool
    offset: int


class Into(NamedTuple):
    """Where a row kernel writes: row i goes to ``status[i]`` and to column ``at + i`` of ``record`` and ``ids``."""

    record: np.ndarray
    ids: np.ndarray
    status: np.ndarray
    scratch: int
    at: int


class Output(NamedTuple):
    """Where rows of C numbers are written.

    address: int. The first row.
    stride: int. Bytes from one row to the next.
    streaming: bool. Whether to store past the cache.
    coefficients: float64 (COEFFICIENTS, chunk). What a gradient row is made with.
    """

    address: int
    stride: int
    streaming: bool
    coefficients: np.ndarray


class Goals(NamedTuple):
    """What becomes of rows of few classes.

    loss: address. The losses. out: address. The first row of outputs, 0 for none. stride: int. Bytes from one of them
    to the next. scale: float. The factor of a gradient. strict: bool. Nothing is written beside a target out of range.
    losses: int. 0 for none, 1 in the compute type, 2 in float64.
    """

    loss: int
    out: int
    stride: int
    scale: float
    strict: bool
    losses: int


class Terms(NamedTuple):
    """How the loss of a row is computed from its record.

    sample_weight: float64 (n,) or empty. class_weight: float64 (C,) or empty.
    smoothing: float. n_classes: int. weight_sum: float, of class_weight. z_loss: float. soft: bool.
    """

    sample_weight: np.ndarray
    class_weight: np.ndarray
    smoothing: float
    n_classes: int
    weight_sum: float
    z_loss: float
    soft: bool


class LossOutput(NamedTuple):
    """What becomes of the losses of rows.

    plain: bool. A loss is the nll of its row.
    strict: bool. A target out of range ends the sweep.
    value, share: float64 (chunk,). parts: float64 (8,). Room for the losses of a chunk.
    unit: float. What losses are divided by.
    results: float (n,) or empty. Where losses go; empty: they are summed.
    total, weights: exact sums.
    scale: float. The derivative of the result with respect to the loss of a row.
    """

    plain: bool
    strict: bool
    value: np.ndarray
    share: np.ndarray
    parts: np.ndarray
    unit: float
    results: np.ndarray
    total: np.ndarray
    weights: np.ndarray
    scale: float


class Elements(NamedTuple):
    """Contiguous elements of a binary cross-entropy: addresses, 0 for what is not given.

    values: the numbers, of the type of ``tag``. target, weight, positive: of the compute type.
    smoothing: float. scale: float. The factor of the slopes.
    loss: of the compute type, or float64. grad: of the type of ``tag``.
    """

    values: int
    tag: Any
    target: int
    weight: int
    positive: int
    smoothing: float
    scale: float
    loss: int
    grad: int


class Side(NamedTuple):
    """One of two distributions: rows of float64 and their record.

    address: int. The first row. record: float64 (FIELDS, rows). status: int8 (rows,).
    """

    address: int
    record: np.ndarray
    status: np.ndarray
