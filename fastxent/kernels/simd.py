"""Vectors for kernels: a Numba type of explicit width, and the arithmetic of softmax written once.

Kernels are written in vectors of 64 bytes of numbers (16 float32 or 8 float64), whatever the processor:
LLVM splits them into the widest registers there are. Two things follow. Wide registers are used where they
exist (left to itself LLVM prefers 256 bits on AVX-512 machines), and the order of additions in a row is fixed
by this file, not by the machine, so figures agree bit for bit between processors.

Memory is addressed by integers (bytes), since rows may be unaligned and read-only. A ``tag`` names what lies
there; only its type matters: float32, float64, uint16 = float16 bits, int16 = bfloat16 bits (Numba has no
16-bit floats). Half precision is widened to float32 on load and rounded to nearest even on store.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

# tag values by dtype name: pass one of these to a kernel
TAGS: dict[str, Any] = {
    "float32": np.float32(0), "float64": np.float64(0), "float16": np.uint16(0), "bfloat16": np.int16(0),
}  # fmt: skip

_F32, _F64, _HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(w) for w in (1, 8, 16, 32, 64))
_LLVM = {types.float32: _F32, types.float64: _F64, types.int32: _I32, types.int64: _I64}
_NAME = {types.float32: "f32", types.float64: "f64", types.int32: "i32", types.int64: "i64"}


class Vec(types.Type):
    """``lanes`` numbers in a register."""

    def __init__(self, elem: types.Type, lanes: int) -> None:
        self.elem, self.lanes = elem, lanes
        super().__init__(f"Vec({elem} x {lanes})")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(_LLVM[self.elem], self.lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.ir)


F32, F64 = Vec(types.float32, 16), Vec(types.float64, 8)
I32, I64 = Vec(types.int32, 16), Vec(types.int64, 8)
_COUNTS = {F32: I32, F64: I64}


def compute_type(tag: types.Type) -> Vec:
    """The vector a tag's memory is computed in."""
    return F64 if tag == types.float64 else F32


class V:
    """An LLVM vector value with the operators of arithmetic, so that formulas below read as formulas."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.b, self.v = builder, value
        self.lanes, self.elem = value.type.count, value.type.element

    def const(self, x: float) -> V:
        return V(self.b, ir.Constant(self.v.type, [x] * self.lanes))

    def _lift(self, x: Any) -> ir.Value:
        return x.v if isinstance(x, V) else self.const(x).v

    def __add__(self, o: Any) -> V:
        return V(self.b, self.b.fadd(self.v, self._lift(o)))

    def __sub__(self, o: Any) -> V:
        return V(self.b, self.b.fsub(self.v, self._lift(o)))

    def __mul__(self, o: Any) -> V:
        return V(self.b, self.b.fmul(self.v, self._lift(o)))

    def __truediv__(self, o: Any) -> V:
        return V(self.b, self.b.fdiv(self.v, self._lift(o)))

    def fma(self, a: Any, c: Any) -> V:
        """self·a + c, rounded once."""
        suffix = f"v{self.lanes}{'f64' if self.elem == _F64 else 'f32'}"
        kind = ir.FunctionType(self.v.type, [self.v.type] * 3)
        function = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.fma.{suffix}")
        return V(self.b, self.b.call(function, [self.v, self._lift(a), self._lift(c)]))

    def max(self, o: Any) -> V:
        """The larger; where self is NaN, o (a NaN is found in the sum, not in the maximum)."""
        other = self._lift(o)
        return V(self.b, self.b.select(self.b.fcmp_ordered(">", self.v, other), self.v, other))

    def where(self, mask: ir.Value, o: Any) -> V:
        """self where the mask holds, else o."""
        return V(self.b, self.b.select(mask, self.v, self._lift(o)))

    def __lt__(self, o: Any) -> ir.Value:
        return self.b.fcmp_ordered("<", self.v, self._lift(o))

    def bits(self) -> ir.Value:
        return self.b.bitcast(self.v, ir.VectorType(_I64 if self.elem == _F64 else _I32, self.lanes))

    def from_bits(self, i: ir.Value) -> V:
        return V(self.b, self.b.bitcast(i, self.v.type))

    def part(self, begin: int, count: int) -> V:
        return V(self.b, _shuffle(self.b, self.v, self.v, range(begin, begin + count)))

    def wide(self) -> list[V]:
        """As float64 vectors of eight."""
        if self.elem == _F64:
            return [self]
        d = ir.VectorType(_F64, 8)
        return [V(self.b, self.b.fpext(self.part(k, 8).v, d)) for k in (0, 8)]


def _shuffle(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: Any) -> ir.Value:
    index = list(lanes)
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(index)), index))


def _narrow(like: V, parts: list[V]) -> V:
    """The inverse of `V.wide`: rounds to the type of ``like``."""
    if like.elem == _F64:
        return parts[0]
    b, f = like.b, ir.VectorType(_F32, 8)
    low, high = (b.fptrunc(p.v, f) for p in parts)
    return V(b, _shuffle(b, low, high, range(16)))


# ---------------------------------------------------------------------------------------------------- arithmetic

# exp(x)·2^BIAS for x <= about 0. Round x/ln 2 to an integer n by adding a large constant whose low bits also carry
# the exponent offset; r = x - n·ln 2 in two terms; a minimax polynomial 1 + r + r²·q(r) (Lawson fit here, relative
# error 3.1e-9 and 3.6e-18); scale by 2^(n + BIAS), whose bits are the low bits of the rounded sum. The bias keeps
# everything normal down to results of 2^-149 / 2^-1074 after the caller divides by a sum that carries it too, and is
# small enough for sums of squares; what lies below ``low`` counts as a speck that rounds to 0 in any quotient.
# Degree 5 would save one instruction in 14 and costs 2.2 ulp instead of 0.9, with a drift of 0.15 ulp.
_EXP: dict[ir.Type, dict[str, Any]] = {
    _F32: dict(
        bias=56, mantissa=23, offset=127, low=-126.0, log2e=1.44269504,
        ln2=(0.693359375, -0.00021219444),
        q=(0.49999994, 0.16666521, 0.04166839, 0.008368718, 0.0013814586),
    ),
    _F64: dict(
        bias=256, mantissa=52, offset=1023, low=-885.0, log2e=1.4426950408889634,
        ln2=(0.6931471675634384, 1.2996506893889889e-08),
        q=(0.5000000000000011, 0.16666666666666413, 0.04166666666653012, 0.008333333333494421,
           0.0013888888943639236, 0.00019841269506707627, 2.4801493090145746e-05, 2.7557586234307953e-06,
           2.763025129459201e-07, 2.5000111328668498e-08),
    ),
}  # fmt: skip


def _exp_parts(x: V) -> tuple[V, V, V]:
    """(u, p, scale): exp(x)·2^bias = p·scale, p = 1 + u. NaN stays NaN; below ``low`` everything is the same speck."""
    k = _EXP[x.elem]
    magic = 1.5 * 2.0 ** k["mantissa"] + k["offset"] + k["bias"]
    x = x.const(k["low"]).max(x)
    t = x.fma(k["log2e"], x.const(magic))
    n = t - magic
    r = n.fma(-k["ln2"][0], x)
    r = n.fma(-k["ln2"][1], r)
    q = x.const(k["q"][-1])
    for c in reversed(k["q"][:-1]):
        q = q.fma(r, c)
    q = q.fma(r, 1.0)
    shift = ir.Constant(t.bits().type, [k["mantissa"]] * x.lanes)
    scale = x.from_bits(x.b.shl(t.bits(), shift))
    return q * r, q.fma(r, 1.0), scale


def _unbias(elem: ir.Type) -> float:
    return 2.0 ** -_EXP[elem]["bias"]


def _log(x: V) -> V:
    """Natural logarithm of float64 lanes, under 1 ulp: x = 2^k·m with m in [√½, √2), s = (m-1)/(m+1),
    log m = 2s + s·R(s²), R a minimax polynomial (relative error 2.5e-18). -> -inf at 0, NaN below."""
    b, i64 = x.b, ir.VectorType(_I64, 8)

    def ints(value: int) -> ir.Constant:
        return ir.Constant(i64, [value] * 8)

    tiny = x < 2.0**-1022
    scaled = (x * 2.0**54).where(tiny, x)
    bits = b.sub(scaled.bits(), ints(0x3FE6A09E667F3BCD))
    k = b.ashr(bits, ints(52))
    m = x.from_bits(b.sub(scaled.bits(), b.shl(k, ints(52))))
    k = b.sub(k, b.select(tiny, ints(54), ints(0)))
    # int64 -> float64 through the mantissa of 1.5·2^52: AVX2 has no such conversion
    kf = x.from_bits(b.add(k, ints(0x4338000000000000))) - 1.5 * 2.0**52
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    r = x.const(0.14796329799298988)
    for c in (0.15314013683976768, 0.18183565726481937, 0.2222219854691341,
              0.2857142874263905, 0.3999999999941355, 0.6666666666666735):  # fmt: skip
        r = r.fma(z, c)
    r = r * z
    half = f * f * 0.5
    low = s.fma(half + r, kf * 1.9082149292705877e-10)
    y = kf.fma(0.6931471803691238, f - (half - low))
    infinite = b.fcmp_ordered("==", x.v, x.const(float("inf")).v)
    y = x.where(infinite, y)
    y = x.const(float("-inf")).where(b.fcmp_ordered("==", x.v, x.const(0.0).v), y)
    return x.const(float("nan")).where(b.fcmp_unordered("<", x.v, x.const(0.0).v), y)


def _tanh(x: V) -> V:
    """tanh by expm1: e = exp(2|x|) - 1, e / (e + 2); accurate near 0, float64 lanes, within 3.5 ulp (3.2 seen)."""
    b = x.b
    sign = b.and_(x.bits(), ir.Constant(x.bits().type, [1 << 63] * 8))
    a = x.from_bits(b.xor(x.bits(), sign))
    y = a * 2.0
    y = y.where(y < 40.0, 40.0).where(b.fcmp_ordered("==", y.v, y.v), y)  # 1 - tanh(20) is 1e-17; NaN stays
    u, _, scale = _exp_parts(y)
    scale = scale * _unbias(x.elem)
    e = u.fma(scale, scale - 1.0)
    t = e / (e + 2.0)
    return x.from_bits(b.or_(t.bits(), sign))


def _tree(x: V, combine: Callable[[V, V], V]) -> ir.Value:
    """Fold the lanes in halves: a fixed order."""
    while x.lanes > 1:
        half = x.lanes // 2
        x = combine(x.part(0, half), x.part(half, half))
    return x.b.extract_element(x.v, _I32(0))


def _splat(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(scalar.type, lanes)
    v = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
    return _shuffle(b, v, v, [0] * lanes)


# ------------------------------------------------------------------------------------------------ loads and stores


def _memory(tag: types.Type) -> ir.Type:
    return {types.float32: _F32, types.float64: _F64, types.uint16: _HALF, types.int16: _I16}[tag]


def _widen(b: ir.IRBuilder, raw: ir.Value, tag: types.Type) -> ir.Value:
    if tag == types.uint16:
        return b.fpext(raw, F32.ir)
    if tag == types.int16:
        wide = b.zext(raw, I32.ir)
        return b.bitcast(b.shl(wide, ir.Constant(I32.ir, [16] * 16)), F32.ir)
    return raw


def _to_memory(b: ir.IRBuilder, v: ir.Value, tag: types.Type) -> ir.Value:
    if tag == types.uint16:
        return b.fptrunc(v, ir.VectorType(_HALF, 16))
    if tag == types.int16:
        # nearest even: add 0x7fff plus the lowest kept bit; a NaN keeps its top bits and gets the quiet one
        bits = b.bitcast(v, I32.ir)

        def ints(x: int) -> ir.Constant:
            return ir.Constant(I32.ir, [x] * 16)

        odd = b.and_(b.lshr(bits, ints(16)), ints(1))
        rounded = b.add(bits, b.add(odd, ints(0x7FFF)))
        bits = b.select(b.fcmp_unordered("uno", v, v), b.or_(bits, ints(0x400000)), rounded)
        return b.trunc(b.lshr(bits, ints(16)), ir.VectorType(_I16, 16))
    return v


def _lane_mask(b: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """Lanes below ``count`` (an int64)."""
    index = ir.Constant(ir.VectorType(_I64, lanes), list(range(lanes)))
    return b.icmp_signed("<", index, _splat(b, count, lanes))


def _mem_suffix(kind: ir.Type, lanes: int) -> str:
    names = {_F32: "f32", _F64: "f64", _HALF: "f16", _I16: "i16", _I8: "i8"}
    return f"v{lanes}{names[kind]}"


def _masked_load(b: ir.IRBuilder, address: ir.Value, count: ir.Value, kind: ir.Type, lanes: int, fill: Any) -> ir.Value:
    vec = ir.VectorType(kind, lanes)
    mask = _lane_mask(b, count, lanes)
    pointer = b.inttoptr(address, vec.as_pointer())
    signature_ = ir.FunctionType(vec, [pointer.type, _I32, mask.type, vec])
    name = f"llvm.masked.load.{_mem_suffix(kind, lanes)}.p0"
    function = cgutils.get_or_insert_function(b.module, signature_, name)
    return b.call(function, [pointer, _I32(1), mask, ir.Constant(vec, [fill] * lanes)])


_MINUS_INF = {_F32: float("-inf"), _F64: float("-inf"), _HALF: float("-inf"), _I16: 0xFF80 - 0x10000}


@intrinsic  # type: ignore[untyped-decorator]
def load(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """A full vector from memory of any alignment."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        vec = ir.VectorType(_memory(tag), out.lanes)
        raw = b.load(b.inttoptr(args[0], vec.as_pointer()), align=1)
        return _widen(b, raw, tag)

    return out(types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_first(typingctx, address, count, tag):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes from memory, -inf in the others, whose memory is not touched."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        kind = _memory(tag)
        return _widen(b, _masked_load(b, args[0], args[1], kind, out.lanes, _MINUS_INF[kind]), tag)

    return out(types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_flags(typingctx, address, count, like):  # type: ignore[no-untyped-def]
    """bytes -> 0.0 where zero, else 1.0; lanes from ``count`` on are 0. As many lanes as ``like``."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = _masked_load(b, args[0], args[1], _I8, like.lanes, 0)
        set_ = b.icmp_unsigned("!=", raw, ir.Constant(raw.type, [0] * like.lanes))
        return b.uitofp(set_, like.ir)

    return like(types.int64, types.int64, like), codegen


def _store(context: Any, b: ir.IRBuilder, address: ir.Value, v: ir.Value, tag: types.Type, streaming: bool) -> Any:
    raw = _to_memory(b, v, tag)
    width = raw.type.count * {_F32: 4, _F64: 8, _HALF: 2, _I16: 2}[raw.type.element]
    instruction = b.store(raw, b.inttoptr(address, raw.type.as_pointer()), align=width if streaming else 1)
    if streaming:
        instruction.set_metadata("nontemporal", b.module.add_metadata([_I32(1)]))
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def store(typingctx, address, v, tag):  # type: ignore[no-untyped-def]
    """A full vector to memory of any alignment."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _store(context, b, args[0], args[1], tag, False)

    return types.void(types.int64, v, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_streaming(typingctx, address, v, tag):  # type: ignore[no-untyped-def]
    """A full vector past the cache; the address is a multiple of the vector's size in memory."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _store(context, b, args[0], args[1], tag, True)

    return types.void(types.int64, v, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_first(typingctx, address, count, v, tag):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes to memory of any alignment; nothing beyond is touched."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = _to_memory(b, args[2], tag)
        pointer = b.inttoptr(args[0], raw.type.as_pointer())
        mask = _lane_mask(b, args[1], raw.type.count)
        kind = ir.FunctionType(ir.VoidType(), [raw.type, pointer.type, _I32, mask.type])
        name = f"llvm.masked.store.{_mem_suffix(raw.type.element, raw.type.count)}.p0"
        b.call(cgutils.get_or_insert_function(b.module, kind, name), [raw, pointer, _I32(1), mask])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, v, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typingctx, address):  # type: ignore[no-untyped-def]
    """Ask for a cache line that will be read soon; never faults."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        pointer = b.inttoptr(args[0], _I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        b.call(function, [pointer, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def fence(typingctx):  # type: ignore[no-untyped-def]
    """Make streaming stores of this thread visible before what follows."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        b.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_scalar(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """One number from memory of any alignment, widened."""
    out = compute_type(tag).elem

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = b.load(b.inttoptr(args[0], _memory(tag).as_pointer()), align=1)
        if tag == types.uint16:
            return b.fpext(raw, _F32)
        if tag == types.int16:
            return b.bitcast(b.shl(b.zext(raw, _I32), _I32(16)), _F32)
        return raw

    return out(types.int64, tag), codegen


# --------------------------------------------------------------------------------------- what kernels are written in


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
        return _narrow(x, [f(part) for part in x.wide()])

    build.__doc__ = f.__doc__
    return build


def _exp_biased(x: V) -> V:
    """exp(x)·2^56 (float32) or ·2^256 (float64), for x <= 0; see `unbias`."""
    _, p, scale = _exp_parts(x)
    return p * scale


exp_biased = _unary(_exp_biased)
log = _unary(_by_wide(_log))
tanh = _unary(_by_wide(_tanh))


def _lost(x: V, m: V, d: V) -> V:
    """x - m less d, its rounding; 0 where d is a speck's."""
    back = d - x
    lost = (x - (d - back)) - (m + back)
    return lost.where(d.const(_EXP[d.elem]["low"]) < d, 0.0)


@intrinsic  # type: ignore[untyped-decorator]
def add_exp(typingctx, total, x, m):  # type: ignore[no-untyped-def]
    """total + exp_biased(x - m) where they differ, total where x = m: the maximum's own term is counted, not summed."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        before, x_, m_ = (V(b, a) for a in args)
        d = x_ - m_
        _, p, scale = _exp_parts(d)
        if total is F64:  # in float32 a sum of many hides it, and it would cost a third of the speed
            p = _lost(x_, m_, d).fma(p, p)
        return before.where(b.fcmp_ordered("==", d.v, d.const(0.0).v), p.fma(scale, before)).v

    return total(total, x, m), codegen


@intrinsic  # type: ignore[untyped-decorator]
def count_zero(typingctx, counts, x):  # type: ignore[no-untyped-def]
    """counts + (x = 0), lanewise."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        held = b.fcmp_ordered("==", args[1], ir.Constant(args[1].type, [0.0] * x.lanes))
        return b.sub(args[0], b.sext(held, args[0].type))

    return counts(counts, x), codegen


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
def count_ge(typingctx, counts, a, x):  # type: ignore[no-untyped-def]
    """counts + (a >= x), lanewise; false where either is NaN."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        held = b.fcmp_ordered(">=", args[1], args[2])
        return b.sub(args[0], b.sext(held, args[0].type))

    return counts(counts, a, x), codegen


def _comparison(op: str) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def choose(typingctx, a, x, yes, no):  # type: ignore[no-untyped-def]
        def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
            return b.select(b.fcmp_ordered(op, args[0], args[1]), args[2], args[3])

        return yes(a, x, yes, no), codegen

    return choose


select_eq, select_ge, select_gt = _comparison("=="), _comparison(">="), _comparison(">")


@intrinsic  # type: ignore[untyped-decorator]
def splat(typingctx, scalar, like):  # type: ignore[no-untyped-def]
    """A scalar in every lane of a vector of ``like``'s kind (a tag or a vector)."""
    out = like if isinstance(like, Vec) else compute_type(like)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        x = context.cast(b, args[0], scalar, out.elem)
        return _splat(b, x, out.lanes)

    return out(scalar, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def counters(typingctx, like):  # type: ignore[no-untyped-def]
    """Zeros to count in, a lane for each of ``like``'s."""
    out = _COUNTS[compute_type(like)]

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(out.ir, [0] * out.lanes)

    return out(like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def sum_lanes(typingctx, v):  # type: ignore[no-untyped-def]
    """Sum of the lanes, in float64 (int64 for counters), in a fixed order."""
    integer = isinstance(v.elem, types.Integer)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        if integer:
            x = args[0]
            if v.lanes == 16:
                x = b.sext(x, ir.VectorType(_I64, 16))
            kind = ir.FunctionType(_I64, [x.type])
            name = f"llvm.vector.reduce.add.v{v.lanes}i64"
            return b.call(cgutils.get_or_insert_function(b.module, kind, name), [x])
        parts = V(b, args[0]).wide()
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return _tree(total, lambda x, y: x + y)

    return (types.int64 if integer else types.float64)(v), codegen


@intrinsic  # type: ignore[untyped-decorator]
def max_lanes(typingctx, v):  # type: ignore[no-untyped-def]
    """The largest lane that is not NaN."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _tree(V(b, args[0]), lambda x, y: x.max(y))

    return v.elem(v), codegen


@intrinsic  # type: ignore[untyped-decorator]
def lanes(typingctx, tag):  # type: ignore[no-untyped-def]
    """Lanes of a vector, or of the tag's vectors: a constant for the compiler."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _I64(tag.lanes if isinstance(tag, Vec) else compute_type(tag).lanes)

    return types.int64(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def itemsize(typingctx, tag):  # type: ignore[no-untyped-def]
    """Bytes of one number in memory, a constant for the compiler."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _I64({types.float32: 4, types.float64: 8}.get(tag, 2))

    return types.int64(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def lowest(typingctx, tag):  # type: ignore[no-untyped-def]
    """The lowest finite number of the tag's compute type."""
    out = compute_type(tag).elem

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_LLVM[out], float(np.finfo(out.name).min))

    return out(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def unbias(typingctx, tag):  # type: ignore[no-untyped-def]
    """2^-56 or 2^-256: what `exp_biased` carries too much."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return ir.Constant(_F64, _unbias(_LLVM[out.elem]))

    return types.float64(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def next_above(typingctx, x):  # type: ignore[no-untyped-def]
    """The smallest number above a finite or -inf scalar, for turning > into >=."""
    bits = {types.float32: types.int32, types.float64: types.int64}[x]

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        kind = _LLVM[bits]
        i = b.bitcast(args[0], kind)
        positive = b.icmp_signed(">=", i, kind(0))
        up = b.select(positive, b.add(i, kind(1)), b.sub(i, kind(1)))
        zero = b.fcmp_ordered("==", args[0], ir.Constant(args[0].type, 0.0))
        return b.bitcast(b.select(zero, kind(1), up), args[0].type)

    return x(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def floor_exp(typingctx, x):  # type: ignore[no-untyped-def]
    """x raised to the argument below which `exp_biased` is a speck: -inf becomes finite, NaN stays."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[0])
        return v.const(_EXP[v.elem]["low"]).max(v).v

    return x(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def restore(typingctx, e, x, m, d):  # type: ignore[no-untyped-def]
    """exp(x - m) from e = exp(d) where d is x - m rounded: what the rounding lost is worth up to |d|/2 ulp of e."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        e_, x_, m_, d_ = (V(b, a) for a in args)
        return _lost(x_, m_, d_).fma(e_, e_).v

    return e(e, x, m, d), codegen


@intrinsic  # type: ignore[untyped-decorator]
def times_exp(typingctx, scale, scale_low, x, m):  # type: ignore[no-untyped-def]
    """(scale + scale_low)·exp_biased(x - m), within 1 ulp: all but one rounding touch only what is added to 2^n."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        high, low, x_, m_ = (V(b, a) for a in args)
        d = x_ - m_
        d = d.const(_EXP[d.elem]["low"]).max(d)
        u, p, power = _exp_parts(d)
        u = _lost(x_, m_, d).fma(p, u)
        whole = power * high
        return (whole + whole.fma(u, power * low * p)).v

    return x(scale, scale_low, x, m), codegen


@intrinsic  # type: ignore[untyped-decorator]
def add_wide(typingctx, total, x, count):  # type: ignore[no-untyped-def]
    """total (float64 lanes) plus the first ``count`` lanes of x."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[1])
        v = v.where(_lane_mask(b, args[2], v.lanes), 0.0)
        out = V(b, args[0])
        for part in v.wide():
            out = out + part
        return out.v

    return total(total, x, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def keep_first(typingctx, x, count):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes of x, 0 in the others."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[0])
        return v.where(_lane_mask(b, args[1], v.lanes), 0.0).v

    return x(x, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def first_equal(typingctx, x, value):  # type: ignore[no-untyped-def]
    """The first lane equal to a scalar, or the number of lanes."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        held = b.fcmp_ordered("==", args[0], _splat(b, args[1], x.lanes))
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
        at = _splat(b, b.trunc(args[0], _I32), like.lanes)
        hot = b.icmp_signed("==", index, at)
        value = _splat(b, context.cast(b, args[1], scalar, like.elem), like.lanes)
        return b.select(hot, value, ir.Constant(like.ir, [0.0] * like.lanes))

    return like(types.int64, scalar, like), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_wide(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """Eight numbers of the tag's compute type, as float64."""
    kind = _LLVM[compute_type(tag).elem]

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = b.load(b.inttoptr(args[0], ir.VectorType(kind, 8).as_pointer()), align=4)
        return raw if kind == _F64 else b.fpext(raw, F64.ir)

    return F64(types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_targets(typingctx, address, count, n_classes, ignore_index, like):  # type: ignore[no-untyped-def]
    """Class ids (int64 in memory) as lanes of ``like``: -1 where ignored and from ``count`` on, -2 where out of range,
    -3 where there is none (the lowest int64)."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, count_, n, ignore = args[:4]
        kind = ir.VectorType(_I64, like.lanes)
        mask = _lane_mask(b, count_, like.lanes)
        pointer = b.inttoptr(where, kind.as_pointer())
        function = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(kind, [pointer.type, _I32, mask.type, kind]),
            f"llvm.masked.load.v{like.lanes}i64.p0",
        )  # fmt: skip
        skip = _splat(b, ignore, like.lanes)
        t = b.call(function, [pointer, _I32(1), mask, skip])
        inside = b.icmp_unsigned("<", t, _splat(b, n, like.lanes))
        small = b.trunc(t, ir.VectorType(_I32, like.lanes))

        def all_(x: int) -> ir.Constant:
            return ir.Constant(small.type, [x] * like.lanes)

        none = b.icmp_signed("==", t, ir.Constant(kind, [-(1 << 63)] * like.lanes))
        outside = b.select(none, all_(-3), all_(-2))
        small = b.select(b.icmp_signed("==", t, skip), all_(-1), b.select(inside, small, outside))
        return b.sitofp(small, like.ir)

    return like(types.int64, types.int64, types.int64, types.int64, like), codegen


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
            out[i] = _shuffle(b, x, y, [k if not k & width else n + (k ^ width) for k in range(n)])
            out[i | width] = _shuffle(b, x, y, [(k | width) if not k & width else n + k for k in range(n)])
        rows = out
        width *= 2
    return rows


@intrinsic  # type: ignore[untyped-decorator]
def load_columns(typingctx, address, stride, last, count, scratch, tag):  # type: ignore[no-untyped-def]
    """Turn a tile: L rows of ``count`` <= L numbers, ``stride`` bytes apart, into L columns of L rows at ``scratch``.

    Rows past ``last`` repeat row ``last``; columns from ``count`` on hold -inf. L is the number of lanes.
    """
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, stride_, last_, count_, scratch_, _ = args
        kind = _memory(tag)
        rows = []
        for r in range(out.lanes):
            row = b.select(b.icmp_signed("<", _I64(r), last_), _I64(r), last_)
            raw = _masked_load(b, b.add(where, b.mul(row, stride_)), count_, kind, out.lanes, _MINUS_INF[kind])
            rows.append(_widen(b, raw, tag))
        size = 64
        for k, column in enumerate(_transpose(b, rows)):
            b.store(column, b.inttoptr(b.add(scratch_, _I64(k * size)), out.ir.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_interleaved(typingctx, address, n_classes, scratch, tag):  # type: ignore[no-untyped-def]
    """`load_columns` of L whole rows of 1 to 4 numbers without gaps: C vectors, taken apart by C·(C-1) shuffles."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, count, scratch_, _ = args
        vec = ir.VectorType(_memory(tag), out.lanes)
        width = out.lanes * {_F32: 4, _F64: 8}.get(_memory(tag), 2)
        done = b.append_basic_block("interleaved")
        switch = b.switch(count, done)
        for n in (1, 2, 3, 4):
            block = b.append_basic_block(f"interleaved{n}")
            switch.add_case(_I64(n), block)
            b.position_at_end(block)
            parts = []
            for k in range(n):
                pointer = b.inttoptr(b.add(where, _I64(k * width)), vec.as_pointer())
                parts.append(_widen(b, b.load(pointer, align=1), tag))
            for c in range(n):
                column = parts[0]
                for k in range(n):  # lane r holds number r·n + c, which is in part (r·n + c) // L
                    lanes_ = [divmod(r * n + c, out.lanes) for r in range(out.lanes)]
                    pick = [out.lanes + at if part == k else r for r, (part, at) in enumerate(lanes_)]
                    column = _shuffle(b, column, parts[k], pick)
                b.store(column, b.inttoptr(b.add(scratch_, _I64(c * 64)), out.ir.as_pointer()), align=4)
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
            raw = _to_memory(b, row, tag)
            keep = b.select(b.icmp_signed("<", _I64(r), rows_), count_, _I64(0))
            mask = _lane_mask(b, keep, out.lanes)
            pointer = b.inttoptr(b.add(where, b.mul(_I64(r), stride_)), raw.type.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [raw.type, pointer.type, _I32, mask.type])
            name = f"llvm.masked.store.{_mem_suffix(raw.type.element, out.lanes)}.p0"
            b.call(cgutils.get_or_insert_function(b.module, kind, name), [raw, pointer, _I32(1), mask])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64, tag), codegen


_BINARY = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}


def _register(op: Any, instruction: str) -> None:
    @infer_global(op)
    class _Arithmetic(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args, kws):  # type: ignore[no-untyped-def]
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(op, Vec, Vec)  # type: ignore[untyped-decorator]
    def lower(context, builder, sig, args):  # type: ignore[no-untyped-def]
        integer = isinstance(sig.return_type.elem, types.Integer)
        return getattr(builder, instruction[1:] if integer else instruction)(*args)


for _op, _instruction in _BINARY.items():
    _register(_op, _instruction)


@intrinsic  # type: ignore[untyped-decorator]
def narrow_load(typingctx, address, count, tag):  # type: ignore[no-untyped-def]
    """The first ``count`` of a vector of float64 in memory, as lanes of the tag's compute type; 0 beyond."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        wide = _masked_load(b, args[0], args[1], _F64, out.lanes, 0.0)
        return b.fptrunc(wide, out.ir) if out is F32 else wide

    return out(types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_ints(typingctx, address, count, v, integer):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes, whole numbers, to memory as int64 or int8 (the type of ``integer``)."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.VectorType(ir.IntType(integer.bitwidth), v.lanes)
        raw = b.fptosi(args[2], kind)
        pointer = b.inttoptr(args[0], kind.as_pointer())
        mask = _lane_mask(b, args[1], v.lanes)
        call = ir.FunctionType(ir.VoidType(), [kind, pointer.type, _I32, mask.type])
        name = f"llvm.masked.store.v{v.lanes}i{integer.bitwidth}.p0"
        b.call(cgutils.get_or_insert_function(b.module, call, name), [raw, pointer, _I32(1), mask])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, v, integer), codegen


def _log1p(x: V) -> V:
    """log(1 + x) of float64 lanes for x >= -1: log u + (x - (u - 1)) / u with u = 1 + x rounded."""
    u = x + 1.0
    finite = x.b.fcmp_ordered("<", u.v, x.const(float("inf")).v)
    correction = ((x - (u - 1.0)) / u).where(x.b.and_(finite, x.const(0.0) < u), 0.0)
    return _log(u) + correction


log1p = _unary(_by_wide(_log1p))


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
def store_wide(typingctx, address, count, x):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes to memory, as float64."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        wide = b.fpext(args[2], ir.VectorType(_F64, x.lanes)) if x is F32 else args[2]
        pointer = b.inttoptr(args[0], wide.type.as_pointer())
        mask = _lane_mask(b, args[1], x.lanes)
        kind = ir.FunctionType(ir.VoidType(), [wide.type, pointer.type, _I32, mask.type])
        name = f"llvm.masked.store.v{x.lanes}f64.p0"
        b.call(cgutils.get_or_insert_function(b.module, kind, name), [wide, pointer, _I32(1), mask])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, x), codegen
