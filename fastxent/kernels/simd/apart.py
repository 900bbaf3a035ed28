"""What a class adds to the divergences of two rows of float32 numbers, as vectors: see `rows.divergences`.

With d = log(q/p), and without a branch or a division,

    KL(p‖q)   q - p - p·d, and where |d| < NEAR p·d²·(1/2 + d²/24 + d·(1/6 + d²/120))
    KL(q‖p)   p - q + q·d, and where |d| < NEAR q·d²·(1/2 + d²/24 - d·(1/6 + d²/120))
    JS        (p + q)·J(d²), J(v) = (log 2 - H(1/(1 + exp √v))) / 2 for the entropy H of two outcomes

None is negative: p and q are right to 1e-6, and d² is at least 0.03 where the first form serves. J is a cubic in each
of 16 intervals of v + 1, which the exponent and the first bit of its fraction number: fits of the least relative error,
which is 4e-5.
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
_CUBICS = (
    (0.0, 0.06249966472387314, -0.007800426334142685, 0.0008026809664443135),
    (1.8205933884019032e-05, 0.06239356845617294, -0.0075808241963386536, 0.0006411268841475248),
    (0.00022110150894150138, 0.061842214316129684, -0.007074188441038132, 0.00048316436004824936),
    (0.0013445550575852394, 0.06015194579958916, -0.0062169358134269714, 0.0003366401942912489),
    (0.0053467415273189545, 0.056368809193372726, -0.005015747621655464, 0.00020841610967181623),
    (0.016234613955020905, 0.04975229129195213, -0.0036659652832895517, 0.00011600582365645096),
    (0.0391947403550148, 0.040285445749759674, -0.0023568659089505672, 5.526733730221167e-05),
    (0.07850208878517151, 0.029332971200346947, -0.0013338049175217748, 2.3242273528012447e-05),
    (0.13258890807628632, 0.01879640854895115, -0.0006457958952523768, 8.180732947948854e-06),
    (0.1946992725133896, 0.010446231812238693, -0.0002697323798201978, 2.5094680040638195e-06),
    (0.25239333510398865, 0.004948968067765236, -9.42202823353e-05, 6.317120551102562e-07),
    (0.29764455556869507, 0.001942751812748611, -2.7356316422810778e-05, 1.34049969346961e-07),
    (0.3254776895046234, 0.0006226051482371986, -6.382153060258133e-06, 2.2436271507331185e-08),
    (0.3396205008029938, 0.00015190074918791652, -1.1408948239477468e-06, 2.9219462405194463e-09),
    (0.34479236602783203, 2.8432845283532515e-05, -1.5407459841298987e-07, 2.81921458400447e-10),
    (0.34627294540405273, 3.505065706121968e-06, -1.3817366806279097e-08, 1.8356312997402924e-11),
)  # fmt: skip


def _spread(v: V) -> V:
    """J(v) for v from 0 to `_MOST`."""
    b = v.b
    place = b.lshr((v + 1.0).bits(), ir.Constant(ir.VectorType(I32, v.lanes), [22] * v.lanes))
    columns = []
    for column in zip(*_CUBICS, strict=True):
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
