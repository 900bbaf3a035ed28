"""What a class adds to the divergences of two rows of float32 numbers, as vectors: see `rows.divergences`.

With d = log(q/p), where |d| <= `NEAR` in all lanes of a block, one exponential and no q:

    KL(p‖q)   p·d²·A(d), A(d) = (exp d - 1 - d) / d²
    KL(q‖p)   p·d²·B(d), B(d) = 1 + d·A(d) - A(d)
    JS        p·d²·(2 + d + d²·A(d))·J(d²), J(v) = H(v) / v

for H(v) = (log 2 - the entropy of the outcomes 1/(1 + exp √v) and its rest) / 2. A and J are polynomials of the least
relative error, 2.2e-6 (of B too) and 1.1e-6; all factors are above 0. In any other block, without a branch or a
division,

    KL(p‖q)   q - p - p·d, and where |d| < `_SMALL` p·d²·(1/2 + d²/24 + d·(1/6 + d²/120))
    KL(q‖p)   p - q + q·d, and where |d| < `_SMALL` q·d²·(1/2 + d²/24 - d·(1/6 + d²/120))
    JS        (p + q)·H(d²)

None is negative: p and q are right to 3e-7, and d² is at least 0.03 where the first form serves. H is a polynomial in
each of 8 intervals of v + 1, which the exponent numbers: fits of the least relative error, which is 8e-7.

The exponentials have no table: permutations of a register cost more here than the terms of a polynomial. All constants
are loaded through an address that the compiler cannot see through. There are more of them than registers, and it would
make each anew in every round of a loop, with two instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.simd.elementary import EXP, lookup
from fastxent.kernels.simd.types import F32
from fastxent.kernels.simd.vector import F32 as _F32, I32, I64, V, broadcast, lane_mask

NEAR = 1.5
_SMALL = 0.1875
LN_2 = float(np.float32(math.log(2.0)))  # 2.7e-9 of it too much
_LOW, _BIAS, _MAGIC = EXP[_F32].low, EXP[_F32].bias, EXP[_F32].magic
# Coefficients from that of d⁰ or v⁰ on.
_A = (0.500000954, 0.166669235, 0.0416604578, 0.00832242426, 0.00139518583, 0.000208943049, 2.37002841e-05)
_J = (0.0624999329, -0.00781101687, 0.00086268445, -8.52101948e-05, 5.61309162e-06)
_EXP = (1.00000012, 0.999999702, 0.499988914, 0.166675791, 0.0419158749, 0.00829754025)  # for up to (ln 2) / 2: 7.5e-8
_MOST = 254.99  # v from which H is (log 2) / 2
# Coefficients of H from that of v⁰ on, for v + 1 from 1, 2, 4, … 128 on.
_SEXTICS = (
    (0.0, 0.0625, -0.0078124972, 0.00086802407, -9.209475e-05, 9.3406643e-06, -7.3683174e-07),
    (1.9500724e-06, 0.062491752, -0.0077977763, 0.00085359055, -8.3671963e-05, 6.4701985e-06, -2.7708742e-07),
    (0.00031662255, 0.06197786, -0.0074392413, 0.00071552495, -5.2445805e-05, 2.5121981e-06, -5.7006332e-08),
    (0.0079550305, 0.056185052, -0.0055534104, 0.00037658578, -1.6878084e-05, 4.4588216e-07, -5.2234577e-09),
    (0.058499973, 0.037090153, -0.0024509036, 9.8785065e-05, -2.4357648e-06, 3.3765161e-08, -2.0168213e-10),
    (0.17708763, 0.014182184, -0.00054985587, 1.218036e-05, -1.5867697e-07, 1.1347533e-09, -3.4452744e-12),
    (0.29280546, 0.0026348552, -5.6519246e-05, 6.6827914e-07, -4.5431103e-09, 1.6710328e-11, -2.5845809e-14),
    (0.33986631, 0.00018175953, -2.0927871e-06, 1.3018775e-08, -4.5930874e-11, 8.6842148e-14, -6.8576092e-17),
)  # fmt: skip
_SCALE = 1.0 / LN_2
_EVEN, _ODD = (1 / 2, 1 / 24), (1 / 6, 1 / 120)  # of (exp d - 1 - d) / d², from that of v⁰ on
_ENTRIES = tuple(dict.fromkeys((
    _SCALE, -LN_2, 1.0, 2.0, *_A, *_J, *_EXP, *_EVEN, *_ODD, _MOST, _SMALL * _SMALL,
)))  # fmt: skip


@intrinsic  # type: ignore[untyped-decorator]
def constants(typingctx):  # type: ignore[no-untyped-def]
    """The address of the constants of `add_near` and `add_far`, a vector each."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        data = ir.Constant(ir.ArrayType(_F32, len(_ENTRIES)), _ENTRIES)
        table = cgutils.global_constant(b.module, "fastxent.apart", data)
        place = b.ptrtoint(table, I64)
        return b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [place], side_effect=False)

    return types.int64(), codegen


class _Constants:
    """Vectors of the table at an address."""

    def __init__(self, b: ir.IRBuilder, address: ir.Value) -> None:
        self._b = b
        place = b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [address], side_effect=True)
        self._table = b.inttoptr(place, _F32.as_pointer())

    def __call__(self, x: float) -> V:
        place = self._b.gep(self._table, [I32(_ENTRIES.index(x))])
        return V(self._b, broadcast(self._b, self._b.load(place), F32.lanes))

    def polynomial(self, coefficients: tuple[float, ...], x: V) -> V:
        *rest, last = coefficients
        y = self(last)
        for c in reversed(rest):
            y = y.fma(x, self(c))
        return y

    def halved(self, coefficients: tuple[float, ...], x: V, square: V) -> V:
        """`polynomial` as those of even and of odd powers, which do not wait for each other."""
        return self.polynomial(coefficients[1::2], square).fma(x, self.polynomial(coefficients[::2], square))

    def exp(self, x: V, frame: list[V]) -> V:
        """exp(x) in a frame: see `frame_of_row`."""
        magic, low = frame
        x = low.max(x)  # -inf becomes finite, NaN stays
        t = x.fma(self(_SCALE), magic)
        r = (t - magic).fma(self(-LN_2), x)
        power = t.b.shl(t.bits(), ir.Constant(t.bits().type, [23] * t.lanes))
        return t.from_bits(t.b.add(self.halved(_EXP, r, r * r).bits(), power))


def _fields(b: ir.IRBuilder, values: ir.Value) -> list[V]:
    return [V(b, b.extract_value(values, k)) for k in range(values.type.count)]


def _spread(v: V, one: V) -> V:
    """H(v) for v from 0 to `_MOST`."""
    b = v.b
    place = b.lshr((v + one).bits(), ir.Constant(ir.VectorType(I32, v.lanes), [23] * v.lanes))
    columns = []
    for column in zip(*_SEXTICS, strict=True):
        turned = (*column[1:], *column[:1])  # the bits of 1.0 number the interval 7 of 8
        columns.append(lookup([int(np.float32(c).view(np.uint32)) for c in turned] * 2, place, v))
    y = columns.pop()
    while columns:
        y = y.fma(v, columns.pop())
    return y


def _log_ratio(b: ir.IRBuilder, args: Any) -> V:
    """log(q/p) of x and y with a gap, 0 in the lanes from ``count`` on, which so add 0."""
    x, y, gap, count = args
    first, second = _fields(b, gap)
    d = ((V(b, y) - V(b, x)) - first) - second
    return d.where(lane_mask(b, count, d.lanes), 0.0)


@intrinsic  # type: ignore[untyped-decorator]
def frame_limits(typingctx, tag):  # type: ignore[no-untyped-def]
    """(low, magic) of `frame_of_row`: what numbers are raised to, less the largest, and what is added to round to
    whole powers of 2."""

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return context.make_tuple(b, sig.return_type, [ir.Constant(ir.DoubleType(), x) for x in (_LOW, _MAGIC + _BIAS)])

    return types.UniTuple(types.float64, 2)(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_near(typingctx, sums, x, y, gap, count, frames, table):  # type: ignore[no-untyped-def]
    """KL(p‖q), KL(q‖p) and JS of the first ``count`` lanes, added to ``sums``, whose last is the largest d². Right if
    that comes to no more than `NEAR`², and infinite or NaN if x or y is.

    x, y: float32 logits. gap: two terms of what log(q/p) lacks to y - x. frames: as in `add_far`.
    table: of `constants`.
    """

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        ab, ba, js, most = _fields(b, args[0])
        k = _Constants(b, args[6])
        d = _log_ratio(b, args[1:5])
        v = d * d
        p = k.exp(V(b, args[1]), _fields(b, args[5])[:2])
        a = k.halved(_A, d, v)
        weight = p * v
        both = v.fma(a, d + k(2.0)) * weight
        found = weight.fma(a, ab), weight.fma(d.fma(a, k(1.0)) - a, ba), both.fma(k.polynomial(_J, v), js), v.max(most)
        return context.make_tuple(b, sig.return_type, [part.v for part in found])

    return types.UniTuple(x, 4)(sums, x, y, gap, types.int64, frames, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_far(typingctx, sums, x, y, gap, count, frames, table):  # type: ignore[no-untyped-def]
    """`add_near` for any d.

    frames: (magic, low) of either row, of `rows.divergences.frames_of`, and what q is multiplied by to have the unit
    of p.
    """

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        ab, ba, js, most = _fields(b, args[0])
        k = _Constants(b, args[6])
        *frame, magic_y, low_y, ratio = _fields(b, args[5])
        d = _log_ratio(b, args[1:5])
        v = d * d
        p = k.exp(V(b, args[1]), frame)
        q = k.exp(V(b, args[2]), [magic_y, low_y]) * ratio
        even, odd = (k.polynomial(part, v) for part in (_EVEN, _ODD))
        minus, minus_p = (V(b, b.fneg(z.v)) for z in (d, p))
        rise = q - p
        small = v < k(_SMALL * _SMALL)
        of_p = ((p * v) * d.fma(odd, even)).where(small, minus_p.fma(d, rise))
        of_q = ((q * v) * minus.fma(odd, even)).where(small, q.fma(d, V(b, b.fneg(rise.v))))
        capped = v.where(v < k(_MOST), k(_MOST))
        found = ab + of_p, ba + of_q, (p + q).fma(_spread(capped, k(1.0)), js), v.max(most)
        return context.make_tuple(b, sig.return_type, [part.v for part in found])

    return types.UniTuple(x, 4)(sums, x, y, gap, types.int64, frames, types.int64), codegen
