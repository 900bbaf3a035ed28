"""The loop over chunks of pairs of rows: the record of either row, then what sets the two apart.

The two records are those of `sweep`, bit for bit: the kernels are the same. The logits of a chunk are in the cache when
the divergences read them again.
"""

from __future__ import annotations

from fastxent.kernels.jit import jit
from fastxent.kernels.rows.called import call_divergences, call_rows
from fastxent.kernels.rows.sweep import chunk_of


@jit
def pair_sweep(span, kernels, read_a, held_a, read_b, held_b, out, column):  # type: ignore[no-untyped-def]
    """All rows of both. span: (number of rows, rows of a chunk). kernels: addresses of the row kernel of either, and of
    the divergences kernel."""
    end, chunk = span
    kernel_a, kernel_b, divergences = kernels
    for begin in range(0, end, chunk):
        n = min(chunk, end - begin)
        rows_a, aims_a, shape, beside_a, into_a = chunk_of(begin, n, read_a, held_a)
        rows_b, aims_b, shape_b, beside_b, into_b = chunk_of(begin, n, read_b, held_b)
        call_rows(kernel_a, (rows_a, aims_a, shape, beside_a, into_a))
        call_rows(kernel_b, (rows_b, aims_b, shape_b, beside_b, into_b))
        call_divergences(divergences, (rows_a, rows_b, shape, into_a, into_b, out, column + begin))
