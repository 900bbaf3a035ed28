"""exp, log and tanh of vectors, each written once: the same operations on every processor, so the same bits.

exp and log look up a table of 16 entries by four bits of the argument, which leaves so small a remainder that few terms
of a polynomial do. A lookup is one permutation of a register where there are wide ones, and costs less than the terms
it saves. Polynomials are minimax fits made for these ranges (Lawson's iteration, weighted for relative error).
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

from fastxent.kernels.simd.vector import F32, F64, I1, I32, I64, V, shuffle

ENTRIES = 16
_LN2 = 0.6931471805599453


def processor() -> str:
    """LLVM's name of the processor that code is being made for."""
    return str(cpu_target.target_context.codegen().magic_tuple()[1])


def has(feature: str) -> bool:
    """Whether code is being made for a processor with this feature."""
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def lookup(table: list[int], index: ir.Value, like: V) -> V:
    """``table[index mod 16]`` in each lane; entries are bit patterns."""
    b, vec = like.b, like.v.type
    kind = I64 if like.elem == F64 else I32

    def constant(values: list[int]) -> ir.Value:
        return b.bitcast(ir.Constant(ir.VectorType(kind, len(values)), values), ir.VectorType(like.elem, len(values)))

    def call(name: str, *args: ir.Value) -> ir.Value:
        function = ir.FunctionType(args[0].type, [a.type for a in args])
        return b.call(cgutils.get_or_insert_function(b.module, function, name), args)

    if has("avx512f"):
        if like.elem == F64:
            low, high = constant(table[:8]), constant(table[8:])
            return V(b, call("llvm.x86.avx512.vpermi2var.pd.512", low, index, high))
        return V(b, call("llvm.x86.avx512.permvar.sf.512", constant(table), index))
    if has("avx2") and like.elem == F32:
        halves = []
        for first in (0, 8):
            at = shuffle(b, index, index, range(first, first + 8))
            low, high = (call("llvm.x86.avx2.permps", constant(table[k : k + 8]), at) for k in (0, 8))
            upper = b.trunc(b.lshr(at, ir.Constant(at.type, [3] * 8)), ir.VectorType(I1, 8))
            halves.append(low if table[:8] == table[8:] else b.select(upper, high, low))
        return V(b, shuffle(b, halves[0], halves[1], range(16)))
    data = ir.Constant(ir.ArrayType(kind, ENTRIES), table)
    name = f"fastxent.table.{crc32(repr(table).encode()):08x}"
    entries = b.module.globals.get(name) or cgutils.global_constant(b.module, name, data)
    out = ir.Constant(ir.VectorType(kind, like.lanes), ir.Undefined)
    index = b.and_(index, ir.Constant(index.type, [ENTRIES - 1] * like.lanes))
    for lane in range(like.lanes):
        at = b.extract_element(index, I32(lane))
        out = b.insert_element(out, b.load(b.gep(entries, [at.type(0), at], inbounds=True)), I32(lane))
    return V(b, b.bitcast(out, vec))


def _bits(x: float, elem: ir.Type) -> int:
    return int(np.float64(x).view(np.uint64)) if elem == F64 else int(np.float32(x).view(np.uint32))


# 2^(j/16), and what its rounding to float64 left, as a fraction of it
_POWERS = (
    1.0, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916, 1.189207115002721, 1.241857812073484,
    1.2968395546510096, 1.3542555469368927, 1.4142135623730951, 1.4768261459394993, 1.5422108254079407,
    1.6104903319492543, 1.681792830507429, 1.7562521603732995, 1.8340080864093424, 1.9152065613971474,
)  # fmt: skip
_POWERS_LEFT = (
    0.0, 8.1893176381955148e-17, -2.7939114859515733e-17, 7.8265732586360762e-17, 3.3484623336251524e-17,
    3.7508542013031272e-17, 1.9572585293112036e-17, 5.68648095791174e-17, -6.835808657661922e-17,
    -2.3591094770850053e-17, 5.1548301170786783e-17, 1.5341410053603723e-17, 4.8751605262270617e-17,
    1.6854872906289731e-17, 1.7901269076045131e-17, -5.5450656186394267e-17,
)  # fmt: skip


@dataclass(frozen=True)
class _Exp:
    """exp(x)·2^bias of one type, for x <= about 0; ``low`` is the smallest argument that is told from others.

    The bias keeps everything normal down to results of 2^-149 (2^-1074) after the caller has divided by a sum that
    carries it too, and is small enough for sums of squares. What lies below ``low`` counts as a speck that rounds to 0
    in any quotient. step: ln 2 / 16 in two terms. q: exp r = 1 + r + r²·(q0 + q1·r + ...), |r| <= ln 2 / 32.
    """

    elem: ir.Type
    bias: int
    mantissa: int
    low: float
    step: tuple[float, float]
    q: tuple[float, ...]

    @property
    def magic(self) -> float:
        """Added to a small number, leaves it rounded to an integer in the lowest bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def scale(self) -> float:
        """16 / ln 2"""
        step = 1.0 / (self.step[0] + self.step[1])
        return step if self.elem == F64 else float(np.float32(step))

    @property
    def width(self) -> int:
        return 64 if self.elem == F64 else 32

    @property
    def slack(self) -> float:
        """How much too large, as a fraction of itself, the float32 is that `exp_steps` takes for a step where no single
        result is wanted."""
        step = _LN2 / ENTRIES
        return (float(np.float32(step)) - step) / step

    @property
    def tables(self) -> tuple[list[int], list[int]]:
        """2^(j/16)·2^bias less j and the magic number's bits, where j will be added with the exponent; what is left."""
        shift = self.mantissa - 4
        rounded = [t if self.elem == F64 else float(np.float32(t)) for t in _POWERS]
        lift = (self.bias << self.mantissa) - (_bits(self.magic, self.elem) << shift)
        powers = [(_bits(t, self.elem) - (j << shift) + lift) % (1 << self.width) for j, t in enumerate(rounded)]
        left = [(t - r) / t + rest for t, r, rest in zip(_POWERS, rounded, _POWERS_LEFT, strict=True)]
        return powers, [_bits(x, self.elem) for x in left]


EXP = {
    F32: _Exp(F32, 56, 23, -125.0, (0.0433197021484375, 1.9966364561696537e-06),
              (0.5000162124633789, 0.1666678935289383)),
    F64: _Exp(F64, 256, 52, -885.0, (0.04332169867120683, 1.1378974990650914e-10),
              (0.5000000000000003, 0.16666666666666655, 0.04166666666188336, 0.008333333333827868,
               0.0013889092676004956, 0.0001984133796989706)),
}  # fmt: skip


def exp_parts(x: V) -> tuple[V, V]:
    """(power, u) with exp(x)·2^bias = power·(1 + u). NaN stays NaN; below ``low`` everything is the same speck."""
    k = EXP[x.elem]
    x = x.const(k.low).max(x)
    return exp_steps(x, x, x.const(k.magic), x.const(0.0))


def exp_steps(x: V, near: V, magic: V, left: V | None) -> tuple[V, V]:
    """(power, u) with exp(x - a)·2^bias = power·(1 + u), without x - a ever being rounded; a = m·(ln 2)/16 + ``left``
    for a whole number m.

    x = n·(ln 2)/16 + r. n is rounded by adding a large number, whose low bits then, with m taken off, index the table
    and, shifted, are the exponent: ``magic`` is the large number less m. ``near`` is what n - m is rounded from, x - a
    as it comes out. Where there is no ``left``, in float32, many results will be added up, and less care is taken: near
    is x, and power + power·u the exponential of x·(1 - slack) - a within 1.1 ulp; 0.6 otherwise.
    """
    k = EXP[x.elem]
    t = near.fma(k.scale, magic if left is None else k.magic)
    n = t - magic
    powers, lost = k.tables
    if left is None:
        r = n.fma(-float(np.float32(_LN2 / ENTRIES)), x)
    else:
        r = n.fma(-k.step[1], n.fma(-k.step[0], x)) - left
    q = x.const(k.q[-1])
    for c in reversed(k.q[:-1]):
        q = q.fma(r, c)
    u = (q * r).fma(r, r)
    if left is not None:
        u = u + lookup(lost, t.bits(), x)
    shift = ir.Constant(t.bits().type, [k.mantissa - 4] * x.lanes)
    power = lookup(powers, t.bits(), x).bits()
    return x.from_bits(x.b.add(power, x.b.shl(t.bits(), shift))), u


def frame(a: V) -> tuple[V, V, V, V, V]:
    """(shift, base, low, magic, left) for exp(x - a): what takes part in `exp_steps` of x - shift, where a - shift is
    ``base`` and what is not above ``low`` counts as ``low``.

    Nothing is shifted while a is small. Where it is not, any x that is not a speck is at least half of it, or at most
    twice, and x - a is exact.
    """
    k = EXP[a.elem]
    size = a.from_bits(a.b.and_(a.bits(), ir.Constant(a.bits().type, [(1 << (k.width - 1)) - 1] * a.lanes)))
    shift = a.const(0.0).where(size < -2.0 * k.low, a)
    base = a - shift
    n = base.fma(k.scale, k.magic) - k.magic
    left = n.fma(-k.step[1], n.fma(-k.step[0], base))
    return shift, base, base + k.low, a.const(k.magic) - n, left


def unbiased(elem: ir.Type) -> float:
    """What `exp_parts` carries too much, to multiply with."""
    return 2.0 ** -EXP[elem].bias


# Reciprocals c of the middles of 16 intervals that cover [0.698, 1.396), of nine bits; 1 where the interval holds 1, so
# that a logarithm near 0 keeps its digits.
_RECIPROCALS = (
    1.40234375, 1.341796875, 1.2890625, 1.23828125, 1.193359375, 1.150390625, 1.109375, 1.072265625, 1.037109375, 1.0,
    0.951171875, 0.896484375, 0.849609375, 0.806640625, 0.767578125, 0.732421875,
)  # fmt: skip


@dataclass(frozen=True)
class _Log:
    """The logarithm of one type. first: bits of where the first interval begins. high, low: -log c in two terms, the
    first a multiple of a power of 2, like that of ln 2, so that n·ln 2 - log c is exact. p: log(1 + r) = r - r²/2 +
    r³·(p0 + p1·r + ...), |r| <= 0.0305."""

    elem: ir.Type
    integer: ir.Type
    mantissa: int
    first: int
    normal: float  # the smallest normal number, and what lifts smaller ones above it
    lift: int
    ln2: tuple[float, float]
    high: tuple[float, ...]
    low: tuple[float, ...]
    p: tuple[float, ...]


LOG = {
    F32: _Log(
        F32, I32, 23, 0x3F32AAAA, 2.0**-126, 25, (0.693115234375, 3.194618329871446e-05),
        (-0.338134765625, -0.2939453125, -0.25390625, -0.213623046875, -0.1767578125, -0.14013671875, -0.103759765625,
         -0.06982421875, -0.036376953125, 0.0, 0.050048828125, 0.109375, 0.1630859375, 0.21484375, 0.264404296875,
         0.311279296875),
        (-1.0178383490710985e-05, -6.435468094423413e-05, -8.959980732470285e-06, -0.00010128252324648201,
         -1.4521631783281919e-05, 3.51601374859456e-05, -3.702805770444684e-05, 5.0402279157424346e-05,
         -6.044307883712463e-05, 0.0, 1.1673831977532245e-05, -0.00010058502084575593, -0.0001073435487342067,
         3.328207822050899e-05, 0.00011071629705838859, 0.00011930219625355676),
        (0.3333333134651184, -0.25013428926467896, 0.20015111565589905),
    ),
    F64: _Log(
        F64, I64, 52, 0x3FE6555555555555, 2.0**-1022, 54, (0.6931471806019545, -4.2009150726810846e-11),
        (-0.338144944049418, -0.2940096671227366, -0.25391521002165973, -0.21372432936914265, -0.1767723341472447,
         -0.14010155852884054, -0.10379679361358285, -0.06977381650358438, -0.03643739619292319, 0.0,
         0.05006050202064216, 0.10927441506646574, 0.16297859395854175, 0.2148770319763571, 0.2645150132011622,
         0.3113985990639776),
        (4.070157485446135e-11, -6.010498186209243e-11, 4.0696287727605904e-11, -2.8575487303982835e-11,
         1.5157153729405864e-11, -8.323837934350305e-11, -6.806071532349833e-11, 3.3561538131422405e-11,
         -9.507860441918063e-12, 0.0, -6.372416734414547e-11, -8.750310511566708e-11, -7.718059332085458e-12,
         1.0211792663958197e-10, -3.0915669837126544e-11, 5.119370413583923e-12),
        (0.33333333333332865, -0.2499999999999937, 0.20000000004890497, -0.16666666672299452, 0.1428569832175939,
         -0.1249998341467941, 0.11131640256680893, -0.10019849094362625),
    ),
}  # fmt: skip


def log(x: V, lost: V | None = None, inside: bool = False) -> V:
    """Natural logarithm, or that of x + lost where a sum lost something in rounding; within 0.7 ulp.

    x = 2^n·m with m in one of 16 intervals, r = m·c - 1 for the reciprocal c of its middle:
    log x = n·ln 2 - log c + log(1 + r). No division. -inf at 0, NaN below. ``inside``: x is known to be a normal number
    above 0; a third less work, and anything for what is none.
    """
    b, f = x.b, LOG[x.elem]
    magic = 1.5 * 2.0**f.mantissa

    def ints(value: int) -> ir.Constant:
        return ir.Constant(ir.VectorType(f.integer, x.lanes), [value] * x.lanes)

    def entries(values: tuple[float, ...]) -> V:
        return lookup([_bits(v, f.elem) for v in values], index, x)

    scaled, tiny = x, None
    if not inside:
        tiny = x < f.normal
        scaled = (x * 2.0**f.lift).where(tiny, x)
    place = b.sub(scaled.bits(), ints(f.first))
    k = b.ashr(place, ints(f.mantissa))
    index = b.lshr(place, ints(f.mantissa - 4))
    power = b.shl(k, ints(f.mantissa))
    c = entries(_RECIPROCALS)
    m = x.from_bits(b.sub(scaled.bits(), power))
    product = m * c
    left = m.fma(c, product * -1.0)
    if lost is not None:  # no more than a rounding of x; 0 where x is so large that its reciprocal is no number
        more = lost.fma(x.from_bits(b.sub(c.bits(), power)), left)
        left = more if inside else left.where(b.fcmp_ordered("==", lost.v, x.const(0.0).v), more)
    r = product - 1.0  # exact
    if tiny is not None:
        k = b.sub(k, b.select(tiny, ints(f.lift), ints(0)))
    # integer -> float through the mantissa of a large number: AVX2 has no such conversion of 64 bits
    n = x.from_bits(b.add(k, ints(_bits(magic, f.elem)))) - magic
    high = n.fma(f.ln2[0], entries(f.high))  # exact
    low = n.fma(f.ln2[1], entries(f.low))
    y = high + r
    low = low + ((high - y) + r) + (left - left * r)
    p = x.const(f.p[-1])
    for a in reversed(f.p[:-1]):
        p = p.fma(r, a)
    y = y + (r * r).fma(p.fma(r, -0.5), low)
    if inside:
        return y
    y = x.where(b.fcmp_ordered("==", x.v, x.const(float("inf")).v), y)
    y = x.const(float("-inf")).where(b.fcmp_ordered("==", x.v, x.const(0.0).v), y)
    return x.const(float("nan")).where(b.fcmp_unordered("<", x.v, x.const(0.0).v), y)


def log1p(x: V, inside: bool = False) -> V:
    """log(1 + x) for x >= -1, without the loss of a small x in the sum. ``inside``: x is known to be from 0 to 1000."""
    u = x + 1.0
    lost = x - (u - 1.0)
    if inside:
        return log(u, lost, inside)
    finite = x.b.fcmp_ordered("<", u.v, x.const(float("inf")).v)
    return log(u, lost.where(x.b.and_(finite, x.const(0.0) < u), 0.0))


def tanh(x: V) -> V:
    """tanh by expm1: e = exp(2|x|) - 1, e / (e + 2); accurate near 0, float64 lanes."""
    b = x.b
    sign = b.and_(x.bits(), ir.Constant(x.bits().type, [1 << 63] * 8))
    a = x.from_bits(b.xor(x.bits(), sign))
    y = a * 2.0
    y = y.where(y < 40.0, 40.0).where(b.fcmp_ordered("==", y.v, y.v), y)  # 1 - tanh(20) is 1e-17; NaN stays
    power, u = exp_parts(y)
    power = power * unbiased(x.elem)
    e = u.fma(power, power - 1.0)
    t = e / (e + 2.0)
    return x.from_bits(b.or_(t.bits(), sign))
