"""What a class adds to the divergences of two rows of float32 numbers, as vectors: see `rows.divergences`.

With d = log(q/p), and without a branch or a division,

    KL(p‖q)   q - p - p·d, and where |d| < NEAR p·d²·(1/2 + d²/24 + d·(1/6 + d²/120))
    KL(q‖p)   p - q + q·d, and where |d| < NEAR q·d²·(1/2 + d²/24 - d·(1/6 + d²/120))
    JS        (p + q)·J(d²), J(v) = (log 2 - H(1/(1 + exp √v))) / 2 for the entropy H of two outcomes

None is negative: p and q are right to 1e-6, and d² is at least 0.03 where the first form serves. J is a polynomial in
each of 16 intervals of v + 1, which the exponent and the first bit of its fraction number: fits of the least relative
error, which is 3e-6.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.simd.elementary import exp_steps, lookup
from fastxent.kernels.simd.vector import I16, I32, I64, V

NEAR = 0.1875
_MOST = 254.99  # v from which J is (log 2) / 2
# Coefficients of J from that of v⁰ on, for v + 1 from 1, 1.5, 2, 3, 4, 6, … 192 on.
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
    """J(v) for v from 0 to `_MOST`."""
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


@intrinsic  # type: ignore[untyped-decorator]
def add_apart(typingctx, sums, x, y, frames, gap):  # type: ignore[no-untyped-def]
    """(KL(p‖q), KL(q‖p), JS, the lanes with y - x unlike ``gap[0]``), added to the first three of ``sums``.

    x, y: float32 logits. frames: (magic, low) of either row, of `exp_limits` and without a shift, and what p is
    multiplied by to have the unit of q, which is exp(y) in the frame. gap: two terms of what log(q/p) lacks to y - x.
    Infinite or NaN if x or y is.
    """

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        def fields(values: ir.Value) -> list[V]:
            return [V(b, b.extract_value(values, k)) for k in range(values.type.count)]

        ab, ba, js = (V(b, b.extract_value(args[0], k)) for k in range(3))
        x_, y_ = V(b, args[1]), V(b, args[2])
        magic_x, low_x, magic_y, low_y, ratio = fields(args[3])
        first, second = fields(args[4])
        held = []
        for z, magic, low in ((x_, magic_x, low_x), (y_, magic_y, low_y)):
            z = low.max(z)
            power, u = exp_steps(z, z, magic, None)
            held.append(power.fma(u, power))
        p, q = held[0] * ratio, held[1]
        apart = y_ - x_
        d = (apart - first) - second
        v = d * d
        even, odd = v.fma(1 / 24, v.const(0.5)), v.fma(1 / 120, v.const(1 / 6))
        minus = V(b, b.fneg(d.v))
        rise = q - p
        near = v < NEAR * NEAR
        minus_p, minus_rise = V(b, b.fneg(p.v)), V(b, b.fneg(rise.v))
        of_p = ((p * v) * d.fma(odd, even)).where(near, minus_p.fma(d, rise))
        of_q = ((q * v) * minus.fma(odd, even)).where(near, q.fma(d, minus_rise))
        capped = v.where(v < _MOST, _MOST)
        both = (p + q).fma(_spread(capped), js)
        unlike = b.fcmp_unordered("!=", apart.v, first.v)
        mask = b.or_(b.zext(b.bitcast(unlike, I16), I64), b.extract_value(args[0], 3))
        return context.make_tuple(b, sig.return_type, [(ab + of_p).v, (ba + of_q).v, both.v, mask])

    assert x.elem is types.float32
    return types.Tuple((x, x, x, types.int64))(sums, x, y, frames, gap), codegen
