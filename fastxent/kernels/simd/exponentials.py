"""Exponentials against a maximum, logarithms and tanh of vectors, as kernels call them; see `elementary`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.simd import elementary
from fastxent.kernels.simd.types import F64, LLVM, compute_type
from fastxent.kernels.simd.vector import F32 as _F32, F64 as _F64, lanes_in, narrow, V


def _unary(build: Callable[[V], V]) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def operation(typingctx, x):  # type: ignore[no-untyped-def]
        def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
            return build(V(b, args[0])).v

        return x(x), codegen

    operation.__doc__ = build.__doc__
    return operation


def _by_wide(f: Callable[[V], V]) -> Callable[[V], V]:
    """Apply a float64 function to a vector of either width."""

    def build(x: V) -> V:
        return narrow(x, [f(part) for part in x.wide()])

    build.__doc__ = f.__doc__
    return build


def _exp_biased(x: V) -> V:
    """exp(x)·2^56 (float32) or ·2^256 (float64), for x <= 0; see `unbias`."""
    power, u = elementary.exp_parts(x)
    return power.fma(u, power)


exp_biased = _unary(_exp_biased)

log = _unary(_by_wide(elementary.log))

log1p = _unary(_by_wide(elementary.log1p))

# In the vector's own precision.
own_log = _unary(elementary.log)
own_log1p = _unary(elementary.log1p)
log1p_inside = _unary(functools.partial(elementary.log1p, inside=True))

tanh = _unary(_by_wide(elementary.tanh))


@intrinsic  # type: ignore[untyped-decorator]
def unbias(typingctx, tag):  # type: ignore[no-untyped-def]
    """2^-56 or 2^-256: what `exp_biased` carries too much."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_F64, elementary.unbiased(LLVM[out.elem]))

    return types.float64(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def floor_exp(typingctx, x):  # type: ignore[no-untyped-def]
    """x raised to the argument below which `exp_biased` is a speck: -inf becomes finite, NaN stays."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[0])
        return v.const(elementary.EXP[v.elem].low).max(v).v

    return x(x), codegen


def _fields(b: ir.IRBuilder, values: ir.Value) -> list[V]:
    """The vectors of a tuple."""
    return [V(b, b.extract_value(values, k)) for k in range(values.type.count)]


def _exp_framed(x: V, frame: list[V], many: bool = False) -> tuple[V, V, V, V]:
    """(y, base, power, u): exp_biased(x - m) = power·(1 + u) for the maximum m of a frame, whose shift has been taken
    off both; x - m is y - base, no less than a speck's. ``many``: for sums; in float32 power·(1 + u) is then
    exp_biased(x - (m - left))."""
    base, low, magic, left = frame
    y = low.max(x)  # -inf becomes finite, NaN stays
    if many and base.elem == _F32:
        return y, base, *elementary.exp_steps(y, y, magic, None)
    return y, base, *elementary.exp_steps(y, y - base, magic, left)


@intrinsic  # type: ignore[untyped-decorator]
def exp_limits(typingctx, tag):  # type: ignore[no-untyped-def]
    """(low, magic, slack, steps) for the frame of a row: see `elementary.EXP`; steps of (ln 2)/16 that its reference is
    a multiple of, and slack 0 where that is 1."""
    k = elementary.EXP[LLVM[compute_type(tag).elem]]
    one = compute_type(tag) is F64

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        numbers = k.low, k.magic, 0.0 if one else k.slack, 1.0 if one else 16.0
        return context.make_tuple(b, sig.return_type, [ir.Constant(_F64, x) for x in numbers])

    return types.UniTuple(types.float64, 4)(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_exp(typingctx, s, x, frame):  # type: ignore[no-untyped-def]
    """(s + e where x is not the maximum, in how many lanes it is not): the maximum's own term is counted, not summed.
    NaN differs from everything. x is shifted; e is exp_biased(x - a) for the ``frame`` of a row, see `rows.frame_of`.
    """

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        before = V(b, args[0])
        y, base, power, u = _exp_framed(V(b, args[1]), _fields(b, args[2]), many=True)
        other = b.fcmp_unordered("!=", y.v, base.v)
        total = (before + power.fma(u, power)).where(other, before)
        return context.make_tuple(b, sig.return_type, [total.v, lanes_in(b, other)])

    return types.Tuple((s, types.int64))(s, x, frame), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_record(typingctx, s, sd, s2, x, z, frame, threshold):  # type: ignore[no-untyped-def]
    """(s, sd, s2, others, above): `add_exp` of z; also sd + e·(z - maximum), s2 + e² where z is not the maximum, and in
    how many lanes x >= threshold."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        s_, sd_, s2_ = (V(b, a) for a in args[:3])
        x_, threshold_ = V(b, args[3]), V(b, args[6])
        y, base, power, u = _exp_framed(V(b, args[4]), _fields(b, args[5]), many=True)
        d = y - base
        e = power.fma(u, power)
        other = b.fcmp_unordered("!=", y.v, base.v)
        held = b.fcmp_ordered(">=", x_.v, threshold_.v)
        return context.make_tuple(b, sig.return_type, [
            (s_ + e).where(other, s_).v, e.fma(d, sd_).v, e.fma(e, s2_).where(other, s2_).v,
            lanes_in(b, other), lanes_in(b, held),
        ])  # fmt: skip

    return types.Tuple((s, sd, s2, types.int64, types.int64))(s, sd, s2, x, z, frame, threshold), codegen


@intrinsic  # type: ignore[untyped-decorator]
def frames(typingctx, m):  # type: ignore[no-untyped-def]
    """The frame of each lane's own maximum, for `exp_framed`."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(b, sig.return_type, [part.v for part in elementary.frame(V(b, args[0]))])

    return types.UniTuple(m, 5)(m), codegen


@intrinsic  # type: ignore[untyped-decorator]
def exp_framed(typingctx, x, frame):  # type: ignore[no-untyped-def]
    """(x - m, power, u) with exp_biased(x - m) = power·(1 + u) for the m of `frames`; -inf becomes finite, NaN stays.
    What x - m loses in rounding is not lost to the exponential."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        shift, *frame_ = _fields(b, args[1])
        y, base, power, u = _exp_framed(V(b, args[0]) - shift, frame_)
        return context.make_tuple(b, sig.return_type, [(y - base).v, power.v, u.v])

    return types.UniTuple(x, 3)(x, frame), codegen


def _scaled(high: V, low: V, power: V, u: V) -> V:
    """(high + low)·power·(1 + u): all but one rounding touch only what is added to 2^n."""
    whole = power * high
    left = power.fma(high, whole * -1.0)
    return whole + whole.fma(u, power.fma(low, left))


@intrinsic  # type: ignore[untyped-decorator]
def scale_exp(typingctx, scale, scale_low, power, u):  # type: ignore[no-untyped-def]
    """`times_exp` of what `exp_framed` found."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _scaled(*(V(b, a) for a in args)).v

    return power(scale, scale_low, power, u), codegen


@intrinsic  # type: ignore[untyped-decorator]
def times_exp(typingctx, scale, scale_low, x, frame):  # type: ignore[no-untyped-def]
    """(scale + scale_low)·exp_biased(x - m) for the m of `frames`, within 1 ulp."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        high, low, z = (V(b, a) for a in args[:3])
        shift, *frame_ = _fields(b, args[3])
        return _scaled(high, low, *_exp_framed(z - shift, frame_)[2:]).v

    return x(scale, scale_low, x, frame), codegen
