"""What a class adds to the divergences of two rows of float32 numbers, as vectors: see `rows.divergences`.

With d = log(q/p), where |d| <= `NEAR` in all lanes of a vector, one exponential and no q:

    KL(p‖q)   p·d²·A(d), A(d) = (exp d - 1 - d) / d²
    KL(q‖p)   p·d²·B(d), B(d) = 1 + d·A(d) - A(d)
    JS        p·d²·J(d), J(d) = (1 + exp d)·H(d²) / d²

for H(v) = (log 2 - the entropy of the outcomes 1/(1 + exp √v) and its rest) / 2. A and J are polynomials of the least
relative error, 1.6e-6 and 2.8e-6; A, B and J are above 0. In any other vector, without a branch or a division,

    KL(p‖q)   q - p - p·d, and where |d| < `_SMALL` p·d²·(1/2 + d²/24 + d·(1/6 + d²/120))
    KL(q‖p)   p - q + q·d, and where |d| < `_SMALL` q·d²·(1/2 + d²/24 - d·(1/6 + d²/120))
    JS        (p + q)·H(d²)

None is negative: p and q are right to 1e-6, and d² is at least 0.03 where the first form serves. H is a polynomial in
each of 16 intervals of v + 1, which the exponent and the first bit of its fraction number: fits of the least relative
error, which is 3e-6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.simd.elementary import exp_steps, lookup
from fastxent.kernels.simd.vector import I32, V, lanes_in

NEAR = 1.0
_SMALL = 0.1875
# Coefficients from that of d⁰ on, for |d| <= NEAR.
_A = (0.50000077, 0.1666659, 0.041652795, 0.008335255, 0.0014262545, 0.00019977672)
_J = (0.1250003, 0.06249916, 0.015619255, 0.0026076364, 0.00044992787, 8.382949e-05)
_MOST = 254.99  # v from which H is (log 2) / 2
# Coefficients of H from that of v⁰ on, for v + 1 from 1, 1.5, 2, 3, 4, 6, … 192 on.
_QUARTICS = (
    (0.0, 0.062499996, -0.0078122276, 0.0008653092, -8.325733e-05),
    (1.2867367e-06, 0.06249066, -0.007785577, 0.00082923117, -6.356526e-05),
    (2.9246696e-05, 0.062392347, -0.0076538934, 0.0007492769, -4.493498e-05),
    (0.00027817645, 0.061901018, -0.0072853747, 0.0006247333, -2.8934255e-05),
    (0.0015750999, 0.060289577, -0.006527526, 0.00046468756, -1.611855e-05),
    (0.0063471715, 0.056454714, -0.00536169, 0.00030578466, -7.927634e-06),
    (0.019351766, 0.049369145, -0.0039029391, 0.00017123032, -3.2345479e-06),
    (0.046730988, 0.0392444, -0.0024886546, 8.280736e-05, -1.1475331e-06),
    (0.091814, 0.02760536, -0.0013540037, 3.3294466e-05, -3.3147288e-07),
    (0.15174441, 0.016890418, -0.00063092425, 1.1473718e-05, -8.312352e-08),
    (0.21556821, 0.008819076, -0.0002456398, 3.2458454e-06, -1.6804572e-08),
    (0.27188706, 0.003839002, -7.95192e-05, 7.695162e-07, -2.8927776e-09),
    (0.31116855, 0.0013648464, -2.0718535e-05, 1.4464469e-07, -3.879645e-10),
    (0.3335216, 0.0003744034, -4.17424e-06, 2.1236701e-08, -4.1323646e-11),
    (0.34286088, 7.8241064e-05, -6.3239077e-07, 2.3092888e-09, -3.2004458e-12),
    (0.34585893, 1.1026245e-05, -6.4878876e-08, 1.718911e-10, -1.72524e-13),
)  # fmt: skip


def _spread(v: V) -> V:
    """H(v) for v from 0 to `_MOST`."""
    b = v.b
    place = b.lshr((v + 1.0).bits(), ir.Constant(ir.VectorType(I32, v.lanes), [22] * v.lanes))
    columns = []
    for column in zip(*_QUARTICS, strict=True):
        turned = (*column[2:], *column[:2])  # the bits of 1.0 number the interval 14 of 16
        columns.append(lookup([int(np.float32(c).view(np.uint32)) for c in turned], place, v))
    y = columns.pop()
    while columns:
        y = y.fma(v, columns.pop())
    return y


def _polynomial(coefficients: tuple[float, ...], x: V) -> V:
    y = x.const(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        y = y.fma(x, c)
    return y


def _fields(b: ir.IRBuilder, values: ir.Value) -> list[V]:
    return [V(b, b.extract_value(values, k)) for k in range(values.type.count)]


def _exp(z: V, magic: V, low: V) -> V:
    z = low.max(z)
    power, u = exp_steps(z, z, magic, None)
    return power.fma(u, power)


@intrinsic  # type: ignore[untyped-decorator]
def log_ratio(typingctx, x, y, gap, unlike):  # type: ignore[no-untyped-def]
    """(d, ``unlike`` with bits set where y - x is not ``gap[0]``). gap: two terms of what log(q/p) lacks to y - x."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        first, second = _fields(b, args[2])
        apart = (V(b, args[1]) - V(b, args[0])) - first
        seen = apart.from_bits(b.or_(apart.bits(), V(b, args[3]).bits()))
        return context.make_tuple(b, sig.return_type, [(apart - second).v, seen.v])

    return types.UniTuple(x, 2)(x, y, gap, unlike), codegen


@intrinsic  # type: ignore[untyped-decorator]
def lanes_unlike(typingctx, unlike):  # type: ignore[no-untyped-def]
    """In how many lanes of `log_ratio` something other than a sign is set. The bits may be those of NaN."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits = V(b, args[0]).bits()
        one = ir.Constant(bits.type, [1] * unlike.lanes)
        return lanes_in(b, b.icmp_unsigned("!=", b.shl(bits, one), ir.Constant(bits.type, [0] * unlike.lanes)))

    return types.int64(unlike), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_near(typingctx, sums, x, d, frames):  # type: ignore[no-untyped-def]
    """KL(p‖q), KL(q‖p) and JS of a vector whose lanes all have |d| <= `NEAR`, added to ``sums``.

    x: float32 logits. d: of `log_ratio`. frames: as in `add_far`.
    """

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        magic, low = _fields(b, args[3])[:2]
        d_ = V(b, args[2])
        weight = _exp(V(b, args[1]), magic, low) * (d_ * d_)
        a = _polynomial(_A, d_)
        terms = a, a.fma(d_, 1.0) - a, _polynomial(_J, d_)
        found = [weight.fma(term, total).v for term, total in zip(terms, _fields(b, args[0]), strict=True)]
        return context.make_tuple(b, sig.return_type, found)

    return types.UniTuple(x, 3)(sums, x, d, frames), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_far(typingctx, sums, x, y, d, frames):  # type: ignore[no-untyped-def]
    """KL(p‖q), KL(q‖p) and JS of a vector, added to ``sums``. Infinite or NaN if x or y is.

    x, y: float32 logits. d: of `log_ratio`. frames: (magic, low) of either row, of `exp_limits` and without a shift,
    and what q is multiplied by to have the unit of p, which is exp(x) in the frame.
    """

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        ab, ba, js = _fields(b, args[0])
        magic_x, low_x, magic_y, low_y, ratio = _fields(b, args[4])
        p, q = _exp(V(b, args[1]), magic_x, low_x), _exp(V(b, args[2]), magic_y, low_y) * ratio
        d_ = V(b, args[3])
        v = d_ * d_
        even, odd = v.fma(1 / 24, v.const(0.5)), v.fma(1 / 120, v.const(1 / 6))
        minus = V(b, b.fneg(d_.v))
        rise = q - p
        small = v < _SMALL * _SMALL
        minus_p, minus_rise = V(b, b.fneg(p.v)), V(b, b.fneg(rise.v))
        of_p = ((p * v) * d_.fma(odd, even)).where(small, minus_p.fma(d_, rise))
        of_q = ((q * v) * minus.fma(odd, even)).where(small, q.fma(d_, minus_rise))
        capped = v.where(v < _MOST, _MOST)
        both = (p + q).fma(_spread(capped), js)
        return context.make_tuple(b, sig.return_type, [(ab + of_p).v, (ba + of_q).v, both.v])

    assert x.elem is types.float32
    return types.UniTuple(x, 3)(sums, x, y, d, frames), codegen
