"""The loop over chunks of rows: their record, then their losses, then what is written back.

The loop is compiled: with few classes a chunk takes less time than a call from Python.
"""

from __future__ import annotations

import functools
from typing import Any

from fastxent.kernels.exact import exact_add, exact_fold
from fastxent.kernels.jit import jit
from fastxent.kernels.rows.arguments import (
    Buffers, Goals, Into, LossOutput, Output, Rows, Shape, Soft, Targets, Terms,
)  # fmt: skip
from fastxent.kernels.rows.emit import GRADIENT, emit_kernel, narrow_emit_kernel
from fastxent.kernels.rows.fused import fused_kernel
from fastxent.kernels.rows.loss import count_losses, first_wrong, gradient_coefficients, loss_rows, plain_losses
from fastxent.kernels.rows.narrow import narrow_kernel
from fastxent.kernels.rows.record import BAD_TARGET
from fastxent.kernels.rows.short import short_kernel
from fastxent.kernels.rows.wide import wide_kernel


@functools.cache
def sweep_kernel(
    full: bool,
    flags: tuple[bool, bool, int],
    few: bool,
    short: bool,
    single: bool,
    output: tuple[int, bool, bool, int] | None,
    losses: bool,
) -> Any:
    """The loop over chunks, around a row kernel, the loss of its rows, and an emit kernel."""
    kernel = short_kernel
    if not short:
        kernel = narrow_kernel(full, *flags, single) if few else wide_kernel(full, *flags)
    writes = output is not None
    gradient = output is not None and output[0] == GRADIENT
    write = None
    if output is not None:
        write = (narrow_emit_kernel if few else emit_kernel)(*output)

    @jit
    def sweep(begin, end, chunk, read, held, written, summands, results):  # type: ignore[no-untyped-def]
        # Plain tuples come in: Numba takes a microsecond to find out the type of each named one, at each call.
        rows, targets, shape, soft = Rows(*read[0]), Targets(*read[1]), Shape(*read[2]), Soft(*read[3])
        buffers = Buffers(*held)
        out = Output(*written)
        if losses:
            terms = Terms(*summands)
            loss = LossOutput(*results)
        record = buffers.record
        wrong = -1
        for b in range(begin, end, chunk):
            n = min(chunk, end - b)
            at = buffers.offset + b if buffers.keeps else 0
            status = buffers.status[at : at + n]
            ids = targets.ids[b : b + n] if targets.given else targets.ids[:n]
            here = Rows(rows.address + b * rows.stride, rows.stride, n, rows.n_classes, rows.tag)
            aims = Targets(ids, targets.given, targets.ignore, targets.none)
            beside = Soft(soft.address + b * soft.stride, soft.stride)
            into = Into(record, buffers.ids, status, buffers.scratch, at)
            kernel(here, aims, shape, beside, into)
            if losses:
                if loss.plain and loss.results.size > 0:
                    wrong = plain_losses(b, n, record, status, loss.results[b : b + n], loss.unit)
                elif loss.plain:
                    wrong = plain_losses(b, n, record, status, loss.value, 1.0)
                    exact_fold(loss.total, loss.value[:n], loss.parts)
                    loss.share[0] = count_losses(n, status)
                    exact_add(loss.weights, loss.share[:1])
                else:
                    wrong = loss_rows(b, n, record, ids, status, terms, loss.value, loss.share)
                    if loss.results.size > 0:
                        for i in range(n):
                            loss.results[b + i] = loss.value[i] / loss.unit
                    else:
                        exact_fold(loss.total, loss.value[:n], loss.parts)
                        exact_fold(loss.weights, loss.share[:n], loss.parts)
                if wrong >= 0 and loss.strict:
                    break
                if gradient:
                    gradient_coefficients(b, n, record, ids, status, terms, loss.scale, out.coefficients)
            if writes:
                there = Output(out.address + b * out.stride, out.stride, out.streaming, out.coefficients)
                write(here, there, into, ids, shape, beside)
        return wrong

    return sweep


@functools.cache
def fused_sweep_kernel(output: int, losses: int, summed: bool, shaped: bool, mode: int) -> Any:
    """The loop over chunks around a fused kernel. summed: losses are added up, not kept."""
    kernel = fused_kernel(output, losses, shaped, mode)

    @jit
    def sweep(begin, end, chunk, read, held, written, _, results):  # type: ignore[no-untyped-def]
        rows, targets, shape = Rows(*read[0]), Targets(*read[1]), Shape(*read[2])
        scratch = Buffers(*held).scratch
        out = Output(*written)
        if losses:
            loss = LossOutput(*results)
        wrong = -1
        for b in range(begin, end, chunk):
            n = min(chunk, end - b)
            ids = targets.ids[b : b + n] if targets.given else targets.ids[:n]
            here = Rows(rows.address + b * rows.stride, rows.stride, n, rows.n_classes, rows.tag)
            aims = Targets(ids, targets.given, targets.ignore, targets.none)
            goals = Goals(0, out.address + b * out.stride, out.stride, 1.0, False)
            if losses:
                place = loss.value if summed else loss.results[b : b + n]
                goals = Goals(place.ctypes.data, goals.out, out.stride, loss.scale, loss.strict)
            worst, counted = kernel(here, aims, shape, goals, scratch)
            if losses:
                if worst == BAD_TARGET and wrong < 0:
                    wrong = b + first_wrong(ids, rows.n_classes, targets)
                    if loss.strict:
                        break
                if summed:
                    exact_fold(loss.total, loss.value[:n], loss.parts)
                    loss.share[0] = counted
                    exact_add(loss.weights, loss.share[:1])
        return wrong

    return sweep
