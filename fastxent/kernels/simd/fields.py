"""Loads and stores of the arrays beside the logits: float64 records, int64 class ids, flags of one byte."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.simd.memory import masked_load, masked_store
from fastxent.kernels.simd.types import F32, F64, LLVM, compute_type
from fastxent.kernels.simd.vector import F64 as _F64, I32 as _I32, I64 as _I64, I8 as _I8, broadcast, lane_mask


@intrinsic  # type: ignore[untyped-decorator]
def load_flags(typingctx, address, count, like):  # type: ignore[no-untyped-def]
    """bytes -> 0.0 where zero, else 1.0; lanes from ``count`` on are 0. As many lanes as ``like``."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = masked_load(b, args[0], args[1], _I8, like.lanes, 0)
        set_ = b.icmp_unsigned("!=", raw, ir.Constant(raw.type, [0] * like.lanes))
        return b.uitofp(set_, like.ir)

    return like(types.int64, types.int64, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_targets(typingctx, address, count, n_classes, ignore_index, none, like):  # type: ignore[no-untyped-def]
    """Class ids (int64 in memory) as lanes of ``like``: -1 where ignored and from ``count`` on, -2 where out of range,
    -3 where there is none, which the id ``none`` says."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, count_, n, ignore, none_ = args[:5]
        kind = ir.VectorType(_I64, like.lanes)
        mask = lane_mask(b, count_, like.lanes)
        pointer = b.inttoptr(where, kind.as_pointer())
        function = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(kind, [pointer.type, _I32, mask.type, kind]),
            f"llvm.masked.load.v{like.lanes}i64.p0",
        )  # fmt: skip
        skip = broadcast(b, ignore, like.lanes)
        t = b.call(function, [pointer, _I32(1), mask, skip])
        inside = b.icmp_unsigned("<", t, broadcast(b, n, like.lanes))
        small = b.trunc(t, ir.VectorType(_I32, like.lanes))

        def all_(x: int) -> ir.Constant:
            return ir.Constant(small.type, [x] * like.lanes)

        missing = b.icmp_signed("==", t, broadcast(b, none_, like.lanes))
        outside = b.select(missing, all_(-3), all_(-2))
        small = b.select(b.icmp_signed("==", t, skip), all_(-1), b.select(inside, small, outside))
        return b.sitofp(small, like.ir)

    return like(types.int64, types.int64, types.int64, types.int64, types.int64, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_wide(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """Eight numbers of the tag's compute type, as float64."""
    kind = LLVM[compute_type(tag).elem]

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = b.load(b.inttoptr(args[0], ir.VectorType(kind, 8).as_pointer()), align=4)
        return raw if kind == _F64 else b.fpext(raw, F64.ir)

    return F64(types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_eight(typingctx, address, x, tag):  # type: ignore[no-untyped-def]
    """The inverse of `load_wide`. Returns what was stored, as float64."""
    kind = LLVM[compute_type(tag).elem]

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = args[1] if kind == _F64 else b.fptrunc(args[1], ir.VectorType(kind, 8))
        b.store(raw, b.inttoptr(args[0], raw.type.as_pointer()), align=4)
        return args[1] if kind == _F64 else b.fpext(raw, F64.ir)

    return F64(types.int64, F64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_whole(typingctx, address, number):  # type: ignore[no-untyped-def]
    """An int64 to memory."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        b.store(args[1], b.inttoptr(args[0], _I64.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def narrow_load(typingctx, address, count, tag):  # type: ignore[no-untyped-def]
    """The first ``count`` of a vector of float64 in memory, as lanes of the tag's compute type; 0 beyond."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        wide = masked_load(b, args[0], args[1], _F64, out.lanes, 0.0)
        return b.fptrunc(wide, out.ir) if out is F32 else wide

    return out(types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_wide(typingctx, address, count, x):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes to memory, as float64."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        wide = b.fpext(args[2], ir.VectorType(_F64, x.lanes)) if x is F32 else args[2]
        masked_store(b, args[0], args[1], wide)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_ints(typingctx, address, count, v, integer):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes, whole numbers of 32 bits, to memory as int64 or int8 (the type of ``integer``)."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.VectorType(ir.IntType(integer.bitwidth), v.lanes)
        small = b.fptosi(args[2], ir.VectorType(_I32, v.lanes))  # AVX2 has no conversion to int64
        masked_store(b, args[0], args[1], (b.sext if integer.bitwidth > 32 else b.trunc)(small, kind))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, v, integer), codegen
