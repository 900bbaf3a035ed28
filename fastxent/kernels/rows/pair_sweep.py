"""The loop over chunks of pairs of rows: the record of either row, then what sets the two apart.

The two records are those of `sweep`, bit for bit: the kernels are the same. The logits of a chunk are in the cache when
the divergences read them again.
"""

from __future__ import annotations

import functools
from typing import Any

from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.arguments import Buffers, Into, Rows, Shape, Soft, Targets
from fastxent.kernels.rows.divergences import divergences_kernel
from fastxent.kernels.rows.narrow import narrow_kernel
from fastxent.kernels.rows.wide import wide_kernel

Kind = tuple[bool, tuple[bool, bool, int], bool]  # of a `RowPass`: full, flags, narrow


@inline
def chunk_of(b, n, read, held):  # type: ignore[no-untyped-def]
    """What a row kernel is given for rows ``b`` .. ``b + n``. read, held: fields of `Rows`, …, and of `Buffers`."""
    rows, targets, shape, soft = Rows(*read[0]), Targets(*read[1]), Shape(*read[2]), Soft(*read[3])
    buffers = Buffers(*held)
    at = buffers.offset + b if buffers.keeps else 0
    ids = targets.ids[b : b + n] if targets.given else targets.ids[:n]
    here = Rows(rows.address + b * rows.stride, rows.stride, n, rows.n_classes, rows.tag)
    aims = Targets(ids, targets.given, targets.ignore, targets.none)
    beside = Soft(soft.address + b * soft.stride, soft.stride)
    into = Into(buffers.record, buffers.ids, buffers.status[at : at + n], buffers.scratch, at)
    return here, aims, shape, beside, into


@functools.cache
def pair_sweep_kernel(a: Kind, b: Kind, double: bool, floor: bool = False) -> Any:
    """The loop for two kinds of rows. double: the numbers of either are float64. floor: see `divergences`."""
    (full, flags, few), (full_b, flags_b, few_b) = a, b
    left_kernel = narrow_kernel(full, *flags) if few else wide_kernel(full, *flags)
    right_kernel = narrow_kernel(full_b, *flags_b) if few_b else wide_kernel(full_b, *flags_b)
    _, shaped, mode = flags
    divergences = divergences_kernel(shaped, mode, double, floor)

    @jit
    def sweep(end, chunk, read_a, held_a, read_b, held_b, out, column):  # type: ignore[no-untyped-def]
        for begin in range(0, end, chunk):
            n = min(chunk, end - begin)
            rows_a, aims_a, shape, beside_a, into_a = chunk_of(begin, n, read_a, held_a)
            rows_b, aims_b, shape_b, beside_b, into_b = chunk_of(begin, n, read_b, held_b)
            left_kernel(rows_a, aims_a, shape, beside_a, into_a)
            right_kernel(rows_b, aims_b, shape_b, beside_b, into_b)
            divergences(rows_a, rows_b, shape, into_a, into_b, out, column + begin)

    return sweep
