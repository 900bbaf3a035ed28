"""Tiles of a few rows: rows of memory become columns of registers, one row per lane, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.simd.memory import MINUS_INF, masked_load, masked_store, to_memory, widen
from fastxent.kernels.simd.types import F64, compute_type, memory_type
from fastxent.kernels.simd.vector import F32 as _F32, F64 as _F64, I64 as _I64, shuffle, V


def _transpose(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """L vectors of L lanes -> their transpose, by log2 L rounds of two-input shuffles."""
    n = len(rows)
    width = 1
    while width < n:
        out: list[Any] = [None] * n
        for i in range(n):
            if i & width:
                continue
            x, y = rows[i], rows[i | width]
            out[i] = shuffle(b, x, y, [k if not k & width else n + (k ^ width) for k in range(n)])
            out[i | width] = shuffle(b, x, y, [(k | width) if not k & width else n + k for k in range(n)])
        rows = out
        width *= 2
    return rows


def _load_columns(b: ir.IRBuilder, tag: types.Type, rows: list[ir.Value], count: ir.Value, scratch: ir.Value) -> None:
    """Rows at these addresses, of ``count`` numbers each, become columns at ``scratch``."""
    out, kind = compute_type(tag), memory_type(tag)
    raw = [widen(b, masked_load(b, row, count, kind, out.lanes, MINUS_INF[kind]), tag) for row in rows]
    for k, column in enumerate(_transpose(b, raw)):
        b.store(column, b.inttoptr(b.add(scratch, _I64(k * 64)), out.ir.as_pointer()), align=4)


@intrinsic  # type: ignore[untyped-decorator]
def load_columns(typingctx, address, stride, last, count, scratch, tag):  # type: ignore[no-untyped-def]
    """Turn a tile: L rows of ``count`` <= L numbers, ``stride`` bytes apart, into L columns of L rows at ``scratch``.

    Rows past ``last`` repeat row ``last``; columns from ``count`` on hold -inf. L is the number of lanes.
    """
    n = compute_type(tag).lanes

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, stride_, last_, count_, scratch_, _ = args
        held = [b.select(b.icmp_signed("<", _I64(r), last_), _I64(r), last_) for r in range(n)]
        _load_columns(b, tag, [b.add(where, b.mul(row, stride_)) for row in held], count_, scratch_)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_whole_columns(typingctx, address, stride, count, scratch, tag):  # type: ignore[no-untyped-def]
    """`load_columns` of L rows that are all there: fifteen comparisons less."""
    n = compute_type(tag).lanes

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        rows = [args[0]]
        for _ in range(n - 1):
            rows.append(b.add(rows[-1], args[1]))
        _load_columns(b, tag, rows, args[2], args[3])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_interleaved(typingctx, address, n_classes, scratch, tag):  # type: ignore[no-untyped-def]
    """`load_columns` of L whole rows of 1 to 4 numbers without gaps: C vectors, taken apart by C·(C-1) shuffles."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, count, scratch_, _ = args
        vec = ir.VectorType(memory_type(tag), out.lanes)
        width = out.lanes * {_F32: 4, _F64: 8}.get(memory_type(tag), 2)
        done = b.append_basic_block("interleaved")
        switch = b.switch(count, done)
        for n in (1, 2, 3, 4):
            block = b.append_basic_block(f"interleaved{n}")
            switch.add_case(_I64(n), block)
            b.position_at_end(block)
            parts = []
            for k in range(n):
                pointer = b.inttoptr(b.add(where, _I64(k * width)), vec.as_pointer())
                parts.append(widen(b, b.load(pointer, align=1), tag))
            for c in range(n):
                column = parts[0]
                for k in range(n):  # lane r holds number r·n + c, which is in part (r·n + c) // L
                    lanes_ = [divmod(r * n + c, out.lanes) for r in range(out.lanes)]
                    pick = [out.lanes + at if part == k else r for r, (part, at) in enumerate(lanes_)]
                    column = shuffle(b, column, parts[k], pick)
                b.store(column, b.inttoptr(b.add(scratch_, _I64(c * 64)), out.ir.as_pointer()), align=4)
            b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_interleaved(typingctx, address, n_classes, scratch, tag):  # type: ignore[no-untyped-def]
    """The inverse of `load_interleaved`."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, count, scratch_, _ = args
        width = out.lanes * {_F32: 4, _F64: 8}.get(memory_type(tag), 2)
        done = b.append_basic_block("interleaved")
        switch = b.switch(count, done)
        for n in (1, 2, 3, 4):
            block = b.append_basic_block(f"interleaved{n}")
            switch.add_case(_I64(n), block)
            b.position_at_end(block)
            columns = [
                b.load(b.inttoptr(b.add(scratch_, _I64(c * 64)), out.ir.as_pointer()), align=4) for c in range(n)
            ]
            for k in range(n):  # lane j holds number k·L + j, which is column (k·L + j) mod n of row (k·L + j) // n
                lanes_ = [divmod(k * out.lanes + j, n) for j in range(out.lanes)]
                part = columns[0]
                for c in range(n):
                    pick = [out.lanes + row if column == c else j for j, (row, column) in enumerate(lanes_)]
                    part = shuffle(b, part, columns[c], pick)
                raw = to_memory(b, part, tag)
                b.store(raw, b.inttoptr(b.add(where, _I64(k * width)), raw.type.as_pointer()), align=1)
            b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_columns(typingctx, address, stride, rows, count, scratch, tag):  # type: ignore[no-untyped-def]
    """The inverse of `load_columns`: L columns at ``scratch`` become the first ``rows`` rows of ``count`` numbers."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, stride_, rows_, count_, scratch_, _ = args
        columns = [
            b.load(b.inttoptr(b.add(scratch_, _I64(k * 64)), out.ir.as_pointer()), align=4) for k in range(out.lanes)
        ]
        for r, row in enumerate(_transpose(b, columns)):
            raw = to_memory(b, row, tag)
            keep = b.select(b.icmp_signed("<", _I64(r), rows_), count_, _I64(0))
            masked_store(b, b.add(where, b.mul(_I64(r), stride_)), keep, raw)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64, tag), codegen


def _fold_rows(vectors: list[V], combine: Callable[[V, V], V]) -> ir.Value:
    """L vectors of L lanes -> one, with in lane r what the lanes of vector r become, folded in halves: at each step,
    the halves of two vectors side by side."""
    n, left = len(vectors), len(vectors)
    while left > 1:
        left //= 2  # lanes of a row from now on
        at = [[2 * left * r + j for r in range(n // (2 * left)) for j in range(left)]]
        at.append([lane + left for lane in at[0]])
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            combine(*(V(x.b, shuffle(x.b, x.v, y.v, [*half, *(n + lane for lane in half)])) for half in at))
            for x, y in pairs
        ]
    return vectors[0].v


@intrinsic  # type: ignore[untyped-decorator]
def largest_of_rows(typingctx, scratch, tag):  # type: ignore[no-untyped-def]
    """The largest lane of each of L vectors at ``scratch``, none of which is NaN."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where = [b.inttoptr(b.add(args[0], _I64(k * 64)), out.ir.as_pointer()) for k in range(out.lanes)]
        return _fold_rows([V(b, b.load(pointer, align=4)) for pointer in where], lambda x, y: x.max(y))

    return out(types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def sums_of_rows(typingctx, scratch, tag):  # type: ignore[no-untyped-def]
    """`sum_lanes` of each of eight vectors at ``scratch``."""
    kind = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where = [b.inttoptr(b.add(args[0], _I64(k * 64)), kind.ir.as_pointer()) for k in range(8)]
        wide = [V(b, b.load(pointer, align=4)).wide() for pointer in where]
        return _fold_rows([w[0] if len(w) == 1 else w[0] + w[1] for w in wide], lambda x, y: x + y)

    return F64(types.int64, tag), codegen
