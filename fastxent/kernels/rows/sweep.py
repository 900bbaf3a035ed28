"""The loop over chunks of rows: their record, then their losses, then what is written back.

The loop is compiled: with few classes a chunk takes less time than a call from Python.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.exact import exact_add, exact_fold
from fastxent.kernels.jit import inline, jit
from fastxent.kernels.rows.arguments import (
    Buffers, Goals, Into, LossOutput, Output, Rows, Shape, Soft, Targets, Terms,
)  # fmt: skip
from fastxent.kernels.rows.called import call_emit, call_rows
from fastxent.kernels.rows.fused import run_tiles
from fastxent.kernels.rows.loss import count_losses, first_wrong, gradient_coefficients, loss_rows, plain_losses
from fastxent.kernels.rows.record import BAD_TARGET


@inline
def chunk_of(b, n, read, held):  # type: ignore[no-untyped-def]
    """What a row kernel is given for rows ``b`` .. ``b + n``. read, held: fields of `Rows`, …, and of `Buffers`."""
    # Plain tuples come in: Numba takes a microsecond to find out the type of each named one, at each call.
    rows, targets, shape, soft = Rows(*read[0]), Targets(*read[1]), Shape(*read[2]), Soft(*read[3])
    buffers = Buffers(*held)
    at = buffers.offset + b if buffers.keeps else 0
    ids = targets.ids[b : b + n] if targets.given else targets.ids[:n]
    here = Rows(rows.address + b * rows.stride, rows.stride, n, rows.n_classes, rows.tag)
    aims = Targets(ids, targets.given, targets.ignore, targets.none)
    beside = Soft(soft.address + b * soft.stride, soft.stride, soft.summed)
    into = Into(buffers.record, buffers.ids, buffers.status[at : at + n], buffers.scratch, at)
    return here, aims, shape, beside, into


@jit
def sum_losses(b, n, into, ids, terms, loss):  # type: ignore[no-untyped-def]
    """Sum the losses of a chunk, or keep them. Returns the first row whose target is out of range, or -1."""
    record, status = into.record, into.status
    if loss.plain and loss.results.size > 0:
        return plain_losses(b, n, record, status, loss.results[b : b + n], loss.unit)
    if loss.plain:
        wrong = plain_losses(b, n, record, status, loss.value, 1.0)
        exact_fold(loss.total, loss.value[:n], loss.parts)
        loss.share[0] = count_losses(n, status)
        exact_add(loss.weights, loss.share[:1])
        return wrong
    wrong = loss_rows(b, n, record, ids, status, terms, loss.value, loss.share)
    if loss.results.size > 0:
        for i in range(n):
            loss.results[b + i] = loss.value[i] / loss.unit
    else:
        exact_fold(loss.total, loss.value[:n], loss.parts)
        exact_fold(loss.weights, loss.share[:n], loss.parts)
    return wrong


@jit
def sweep(span, calls, read, held, written, summands, results):  # type: ignore[no-untyped-def]
    """Return the first row whose target is out of range, where there are losses, or -1.

    span: (first row, end, rows of a chunk). calls: (address of a row kernel, address of an emit kernel or 0, whether
    that writes the gradient). summands, results: fields of `Terms` and of `LossOutput`, or None twice.
    """
    begin, end, chunk = span
    kernel, write, gradient = calls
    out = Output(*written)
    wrong = -1
    for b in range(begin, end, chunk):
        n = min(chunk, end - b)
        here, aims, shape, beside, into = chunk_of(b, n, read, held)
        call_rows(kernel, (here, aims, shape, beside, into))
        if results is not None:
            terms, loss = Terms(*summands), LossOutput(*results)
            wrong = sum_losses(b, n, into, aims.ids, terms, loss)
            if wrong >= 0 and loss.strict:
                break
            if gradient:
                gradient_coefficients(b, n, into.record, aims.ids, into.status, terms, loss.scale, out.coefficients)
        if write != 0:
            there = Output(out.address + b * out.stride, out.stride, out.streaming, out.coefficients)
            call_emit(write, (here, there, into, aims.ids, shape, beside))
    return wrong


@jit
def fused_sweep(span, calls, read, held, written, results):  # type: ignore[no-untyped-def]
    """`sweep` without a record.

    calls: (address of `fused.group_of`, losses: 0 for none, 1 in the compute type, 2 in float64). results: fields of
    `LossOutput`, or None.
    """
    begin, end, chunk = span
    group, losses = calls
    rows, targets, shape = Rows(*read[0]), Targets(*read[1]), Shape(*read[2])
    scratch = Buffers(*held).scratch
    out = Output(*written)
    wrong = -1
    for b in range(begin, end, chunk):
        n = min(chunk, end - b)
        ids = targets.ids[b : b + n] if targets.given else targets.ids[:n]
        here = Rows(rows.address + b * rows.stride, rows.stride, n, rows.n_classes, rows.tag)
        aims = Targets(ids, targets.given, targets.ignore, targets.none)
        there = out.address + b * out.stride
        if results is None:
            run_tiles(group, here, aims, shape, Goals(0, there, out.stride, 1.0, False, losses), scratch)
        else:
            loss = LossOutput(*results)
            summed = loss.results.size == 0
            place = np.int64(loss.value.ctypes.data if summed else loss.results[b : b + n].ctypes.data)
            goals = Goals(place, there, out.stride, loss.scale, loss.strict, losses)
            worst, counted = run_tiles(group, here, aims, shape, goals, scratch)
            if worst == BAD_TARGET and wrong < 0:
                wrong = b + first_wrong(ids, rows.n_classes, targets)
                if loss.strict:
                    break
            if summed:
                exact_fold(loss.total, loss.value[:n], loss.parts)
                loss.share[0] = counted
                exact_add(loss.weights, loss.share[:1])
    return wrong
