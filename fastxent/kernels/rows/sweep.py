"""The loop over chunks of rows: their record, then their losses, then what is written back.

The loop is compiled: with few classes a chunk takes less time than a call from Python.
"""

from __future__ import annotations

import functools
from typing import Any

from fastxent.kernels.exact import exact_add, exact_fold
from fastxent.kernels.jit import jit
from fastxent.kernels.rows.emit import GRADIENT, emit_kernel, narrow_emit_kernel
from fastxent.kernels.rows.loss import bad_target, count_losses, gradient_coefficients, loss_rows, plain_losses
from fastxent.kernels.rows.narrow import narrow_kernel
from fastxent.kernels.rows.wide import wide_kernel


@functools.cache
def sweep_kernel(
    full: bool,
    flags: tuple[bool, bool, int],
    few: bool,
    single: bool,
    output: tuple[int, bool, bool, int] | None,
    losses: bool,
    alone: bool,
) -> Any:
    """The loop over chunks, around a row kernel, the loss of its rows, and an emit kernel. alone: the row kernel writes
    the losses itself."""
    kernel = narrow_kernel(full, *flags, single, alone) if few else wide_kernel(full, *flags)
    writes = output is not None
    gradient = output is not None and output[0] == GRADIENT
    write = None
    if output is not None:
        write = (narrow_emit_kernel if few else emit_kernel)(*output)

    @jit
    def sweep(begin, end, chunk, matrix, targets, shape, soft, buffers, out, loss):  # type: ignore[no-untyped-def]
        addr, stride, n_classes, tag = matrix
        target, given, ignore, none = targets
        softcap, temperature, mask_at, weight_at = shape
        q_at, q_stride = soft
        record, ids, status, scratch, keeps, offset = buffers
        out_at, out_stride, streaming, coefficients = out
        wrong = -1
        for b in range(begin, end, chunk):
            n = min(chunk, end - b)
            t = target[b : b + n] if given else target[:n]
            row = addr + b * stride
            q = q_at + b * q_stride
            at = offset + b if keeps else 0
            if losses:
                terms, plain, strict, value, share, parts, unit, results, total, weights, scale = loss
            into = results[b : b + n] if alone else record
            kernel(row, stride, n, n_classes, tag, t, ignore, none, softcap, temperature, mask_at, weight_at, q,
                   q_stride, into, ids, status[at : at + n], at, scratch)  # fmt: skip
            if alone:
                wrong = bad_target(b, n, status)
                if wrong >= 0 and strict:
                    break
            elif losses:
                if plain and results.size > 0:
                    wrong = plain_losses(b, n, record, status, results[b : b + n], unit)
                elif plain:
                    wrong = plain_losses(b, n, record, status, value, 1.0)
                    exact_fold(total, value[:n], parts)
                    share[0] = count_losses(n, status)
                    exact_add(weights, share[:1])
                else:
                    wrong = loss_rows(b, n, record, t, status, terms, value, share)
                    if results.size > 0:
                        for i in range(n):
                            results[b + i] = value[i] / unit
                    else:
                        exact_fold(total, value[:n], parts)
                        exact_fold(weights, share[:n], parts)
                if wrong >= 0 and strict:
                    break
                if gradient:
                    gradient_coefficients(b, n, record, t, status, terms, scale, coefficients)
            if writes:
                write(row, stride, n, n_classes, tag, out_at + b * out_stride, out_stride, streaming, record,
                      coefficients, t, status, softcap, temperature, mask_at, weight_at, q, q_stride,
                      scratch)  # fmt: skip
        return wrong

    return sweep
