"""Lanewise arithmetic, comparisons, and what a vector's lanes become together (a sum, a maximum, a count)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.simd.types import Vec, compute_type
from fastxent.kernels.simd.vector import (
    F64 as _F64, I1 as _I1, I32 as _I32, I64 as _I64, broadcast, fold, lane_mask, lanes_in, narrow, V,
)  # fmt: skip


@intrinsic  # type: ignore[untyped-decorator]
def splat(typingctx, scalar, like):  # type: ignore[no-untyped-def]
    """A scalar in every lane of a vector of ``like``'s kind (a tag or a vector)."""
    out = like if isinstance(like, Vec) else compute_type(like)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        x = context.cast(b, args[0], scalar, out.elem)
        return broadcast(b, x, out.lanes)

    return out(scalar, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fma(typingctx, a, x, c):  # type: ignore[no-untyped-def]
    """a·x + c, rounded once."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return V(b, args[0]).fma(V(b, args[1]), V(b, args[2])).v

    return a(a, x, c), codegen


@intrinsic  # type: ignore[untyped-decorator]
def vmax(typingctx, a, x):  # type: ignore[no-untyped-def]
    """Lanewise maximum; where ``a`` is NaN, ``x``."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return V(b, args[0]).max(V(b, args[1])).v

    return a(a, x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def vmin(typingctx, a, x):  # type: ignore[no-untyped-def]
    """Lanewise minimum; where ``a`` is NaN, ``x``."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return b.select(b.fcmp_ordered("<", args[0], args[1]), args[0], args[1])

    return a(a, x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def absolute(typingctx, x):  # type: ignore[no-untyped-def]
    """|x|, lanewise."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[0])
        bits = v.bits()
        keep = (1 << (63 if v.elem == _F64 else 31)) - 1
        return v.from_bits(b.and_(bits, ir.Constant(bits.type, [keep] * v.lanes))).v

    return x(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def floor(typingctx, x):  # type: ignore[no-untyped-def]
    """The largest whole number that is not above x, lanewise; x is float64."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(x.ir, [x.ir])
        return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.floor.v{x.lanes}f64"), [args[0]])

    return x(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def nll(typingctx, top, here, log_sum):  # type: ignore[no-untyped-def]
    """(top - here) + log_sum, in float64, rounded once."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        like = V(b, args[0])
        parts = zip(*(V(b, a).wide() for a in args), strict=True)
        return narrow(like, [(m - x) + rest for m, x, rest in parts]).v

    return top(top, here, log_sum), codegen


def _comparison(op: str) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def choose(typingctx, a, x, yes, no):  # type: ignore[no-untyped-def]
        def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
            return b.select(b.fcmp_ordered(op, args[0], args[1]), args[2], args[3])

        return yes(a, x, yes, no), codegen

    return choose


select_eq, select_ge, select_gt = _comparison("=="), _comparison(">="), _comparison(">")


@intrinsic  # type: ignore[untyped-decorator]
def count_ge(typingctx, a, x):  # type: ignore[no-untyped-def]
    """In how many lanes a >= x; not where either is NaN."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return lanes_in(b, b.fcmp_ordered(">=", *args))

    return types.int64(a, x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def keep_first(typingctx, x, count):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes of x, 0 in the others."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[0])
        return v.where(lane_mask(b, args[1], v.lanes), 0.0).v

    return x(x, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def first_equal(typingctx, x, value):  # type: ignore[no-untyped-def]
    """The first lane equal to a scalar, or the number of lanes."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        held = b.fcmp_ordered("==", args[0], broadcast(b, args[1], x.lanes))
        bits = b.zext(b.bitcast(held, ir.IntType(x.lanes)), _I64)
        bits = b.or_(bits, _I64(1 << x.lanes))
        kind = ir.FunctionType(_I64, [_I64, _I1])
        return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.cttz.i64"), [bits, _I1(0)])

    return types.int64(x, x.elem), codegen


@intrinsic  # type: ignore[untyped-decorator]
def one_hot(typingctx, position, scalar, like):  # type: ignore[no-untyped-def]
    """``scalar`` in lane ``position``, 0 in the others (in all of them where there is no such lane)."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        index = ir.Constant(ir.VectorType(_I32, like.lanes), list(range(like.lanes)))
        at = broadcast(b, b.trunc(args[0], _I32), like.lanes)
        hot = b.icmp_signed("==", index, at)
        value = broadcast(b, context.cast(b, args[1], scalar, like.elem), like.lanes)
        return b.select(hot, value, ir.Constant(like.ir, [0.0] * like.lanes))

    return like(types.int64, scalar, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_wide(typingctx, total, x, count):  # type: ignore[no-untyped-def]
    """total (float64 lanes) plus the first ``count`` lanes of x."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[1])
        v = v.where(lane_mask(b, args[2], v.lanes), 0.0)
        out = V(b, args[0])
        for part in v.wide():
            out = out + part
        return out.v

    return total(total, x, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def sum_lanes(typingctx, v):  # type: ignore[no-untyped-def]
    """Sum of the lanes, in float64, in a fixed order."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        parts = V(b, args[0]).wide()
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return fold(total, lambda x, y: x + y)

    return types.float64(v), codegen


@intrinsic  # type: ignore[untyped-decorator]
def max_lanes(typingctx, v):  # type: ignore[no-untyped-def]
    """The largest lane that is not NaN."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return fold(V(b, args[0]), lambda x, y: x.max(y))

    return v.elem(v), codegen


@intrinsic  # type: ignore[untyped-decorator]
def next_above(typingctx, x):  # type: ignore[no-untyped-def]
    """The smallest number above a finite or -inf scalar, for turning > into >=."""
    kind = {types.float32: _I32, types.float64: _I64}[x]

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        i = b.bitcast(args[0], kind)
        positive = b.icmp_signed(">=", i, kind(0))
        up = b.select(positive, b.add(i, kind(1)), b.sub(i, kind(1)))
        zero = b.fcmp_ordered("==", args[0], ir.Constant(args[0].type, 0.0))
        return b.bitcast(b.select(zero, kind(1), up), args[0].type)

    return x(x), codegen
