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

import functools
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

from fastxent.kernels.simd import elementary
from fastxent.kernels.simd.vector import F32 as _F32, F64 as _F64, HALF as _HALF, I1 as _I1, I8 as _I8, I16 as _I16
from fastxent.kernels.simd.vector import I32 as _I32, I64 as _I64, V, narrow, shuffle

# tag values by dtype name: pass one of these to a kernel
TAGS: dict[str, Any] = {
    "float32": np.float32(0), "float64": np.float64(0), "float16": np.uint16(0), "bfloat16": np.int16(0),
}  # fmt: skip

_LLVM = {types.float32: _F32, types.float64: _F64, types.int16: _I16}


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
HALVES = Vec(types.int16, 32)  # the bits of


def compute_type(tag: types.Type) -> Vec:
    """The vector a tag's memory is computed in."""
    return F64 if tag == types.float64 else F32


def _tree(x: V, combine: Callable[[V, V], V]) -> ir.Value:
    """Fold the lanes in halves: a fixed order."""
    while x.lanes > 1:
        half = x.lanes // 2
        x = combine(x.part(0, half), x.part(half, half))
    return x.b.extract_element(x.v, _I32(0))


def _splat(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(scalar.type, lanes)
    v = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
    return shuffle(b, v, v, [0] * lanes)


# ------------------------------------------------------------------------------------------------ loads and stores


def _memory(tag: types.Type) -> ir.Type:
    return {types.float32: _F32, types.float64: _F64, types.uint16: _HALF, types.int16: _I16}[tag]


def _widen(b: ir.IRBuilder, raw: ir.Value, tag: types.Type) -> ir.Value:
    if tag == types.uint16:
        return b.fpext(raw, F32.ir)
    if tag == types.int16:
        ints = ir.VectorType(_I32, 16)
        wide = b.zext(raw, ints)
        return b.bitcast(b.shl(wide, ir.Constant(ints, [16] * 16)), F32.ir)
    return raw


def _to_memory(b: ir.IRBuilder, v: ir.Value, tag: types.Type) -> ir.Value:
    if tag == types.uint16:
        return b.fptrunc(v, ir.VectorType(_HALF, 16))
    if tag == types.int16:
        # nearest even: add 0x7fff plus the lowest kept bit; a NaN keeps its top bits and gets the quiet one
        bits = b.bitcast(v, ir.VectorType(_I32, 16))

        def ints(x: int) -> ir.Constant:
            return ir.Constant(bits.type, [x] * 16)

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
def load_two(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """Two full vectors, one behind the other, from memory of any alignment."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        pointer = b.inttoptr(args[0], ir.VectorType(_memory(tag), out.lanes).as_pointer())
        loaded = [b.load(b.gep(pointer, [_I32(k)]), align=1) for k in (0, 1)]
        return context.make_tuple(b, sig.return_type, [_widen(b, x, tag) for x in loaded])

    return types.UniTuple(out, 2)(types.int64, tag), codegen


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


def _prefetching(locality: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def prefetch(typingctx, address):  # type: ignore[no-untyped-def]
        """Ask for a cache line that will be read; never faults."""

        def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
            pointer = b.inttoptr(args[0], _I8.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
            function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
            b.call(function, [pointer, _I32(0), _I32(locality), _I32(1)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return prefetch


prefetch, prefetch_far = _prefetching(3), _prefetching(2)  # into the first-level cache, into the second


@intrinsic  # type: ignore[untyped-decorator]
def goes_on_in_page(typingctx):  # type: ignore[no-untyped-def]
    """Whether the processor fetches the rest of a page by itself once its first lines were asked for: a constant for
    the compiler. Intel's does, and gains 5 to 20 % where it is left to; of AMD's the far lines gained a quarter."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _I1(not elementary.processor().startswith(("znver", "bdver", "btver", "amdfam")))

    return types.boolean(), codegen


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
log1p_inside = _unary(functools.partial(elementary.log1p, inside=True))  # in the vector's own precision
tanh = _unary(_by_wide(elementary.tanh))


def _fields(b: ir.IRBuilder, values: ir.Value) -> list[V]:
    """The vectors of a tuple."""
    return [V(b, b.extract_value(values, k)) for k in range(values.type.count)]


def _lanes_in(b: ir.IRBuilder, held: ir.Value) -> ir.Value:
    """How many lanes a mask holds: one move and one instruction beside the vectors' own."""
    kind = ir.IntType(held.type.count)
    count = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind]), f"llvm.ctpop.i{kind.width}")
    return b.zext(b.call(count, [b.bitcast(held, kind)]), _I64)


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
def add_exp(typingctx, s, x, frame):  # type: ignore[no-untyped-def]
    """(s + e where x is not the maximum, in how many lanes it is not): the maximum's own term is counted, not summed.
    NaN differs from everything. x is shifted; e is exp_biased(x - a) for the ``frame`` of a row, see `rows.frame_of`.
    """

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        before = V(b, args[0])
        y, base, power, u = _exp_framed(V(b, args[1]), _fields(b, args[2]), many=True)
        other = b.fcmp_unordered("!=", y.v, base.v)
        total = (before + power.fma(u, power)).where(other, before)
        return context.make_tuple(b, sig.return_type, [total.v, _lanes_in(b, other)])

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
            _lanes_in(b, other), _lanes_in(b, held),
        ])  # fmt: skip

    return types.Tuple((s, sd, s2, types.int64, types.int64))(s, sd, s2, x, z, frame, threshold), codegen


@intrinsic  # type: ignore[untyped-decorator]
def nll(typingctx, top, here, log_sum):  # type: ignore[no-untyped-def]
    """(top - here) + log_sum, in float64, rounded once."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        like = V(b, args[0])
        parts = zip(*(V(b, a).wide() for a in args), strict=True)
        return narrow(like, [(m - x) + rest for m, x, rest in parts]).v

    return top(top, here, log_sum), codegen


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


def _extremes(tag: types.Type) -> types.UniTuple:
    """What `peak` keeps: of float32 and float64 two vectors of the largest numbers so far. Of halves (largest, least)
    of their bits: the largest as signed integers is the largest number that is not negative, the least as unsigned
    ones, where there is none, the largest of the negative. One operation for 16 numbers, where widening takes three.
    """
    return types.UniTuple(HALVES if _memory(tag) in (_HALF, _I16) else compute_type(tag), 2)


@intrinsic  # type: ignore[untyped-decorator]
def no_peak(typingctx, tag):  # type: ignore[no-untyped-def]
    """What `peak` starts from."""
    out = _extremes(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        least = (-(1 << 15), -1) if out.dtype is HALVES else 2 * (float(np.finfo(out.dtype.elem.name).min),)
        values = [ir.Constant(out.dtype.ir, [x] * out.dtype.lanes) for x in least]
        return context.make_tuple(b, sig.return_type, values)

    return out(tag), codegen


def _higher(b: ir.IRBuilder, kind: Vec, one: list[ir.Value], other: list[ir.Value]) -> list[ir.Value]:
    """What `peak` keeps of both."""
    if kind is not HALVES:
        return [V(b, x).max(V(b, m)).v for x, m in zip(one, other, strict=True)]
    signs = zip(one, other, (b.icmp_signed(">", one[0], other[0]), b.icmp_unsigned("<", one[1], other[1])), strict=True)
    return [b.select(held, x, m) for x, m, held in signs]


@intrinsic  # type: ignore[untyped-decorator]
def peak(typingctx, found, address, tag):  # type: ignore[no-untyped-def]
    """``found`` with two vectors' worth of numbers at an address; NaN is passed over."""
    kind = found.dtype

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        before = [b.extract_value(args[0], k) for k in (0, 1)]
        pointer = b.inttoptr(args[1], kind.ir.as_pointer())
        if kind is HALVES:
            loaded = [b.load(pointer, align=1)] * 2
        else:
            loaded = [b.load(b.gep(pointer, [_I32(k)]), align=1) for k in (0, 1)]
        return context.make_tuple(b, sig.return_type, _higher(b, kind, loaded, before))

    return found(found, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def higher(typingctx, found, more):  # type: ignore[no-untyped-def]
    """What `peak` would have found in the numbers of both."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        one, other = ([b.extract_value(a, k) for k in (0, 1)] for a in args)
        return context.make_tuple(b, sig.return_type, _higher(b, found.dtype, one, other))

    return found(found, found), codegen


@intrinsic  # type: ignore[untyped-decorator]
def peak_of(typingctx, found, tag):  # type: ignore[no-untyped-def]
    """The largest number that `peak` met; of halves, NaN where there was one without a sign."""
    kind = found.dtype

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        first, second = (b.extract_value(args[0], k) for k in (0, 1))
        if kind is not HALVES:
            return _tree(V(b, first).max(V(b, second)), lambda x, y: x.max(y))

        # in each lane the one that counts, as an integer that is larger where the number is
        negative = b.icmp_signed("<", first, ir.Constant(HALVES.ir, [0] * 32))
        turned = ir.Constant(HALVES.ir, [0x7FFF] * 32)
        keys = b.select(negative, b.xor(second, turned), first)
        fold = ir.FunctionType(_I16, [HALVES.ir])
        key = b.call(cgutils.get_or_insert_function(b.module, fold, "llvm.vector.reduce.smax.v32i16"), [keys])
        bits = b.select(b.icmp_signed("<", key, _I16(0)), b.xor(key, _I16(0x7FFF)), key)
        if tag == types.uint16:
            return b.fpext(b.bitcast(bits, _HALF), _F32)
        return b.bitcast(b.shl(b.zext(bits, _I32), _I32(16)), _F32)

    return compute_type(tag).elem(found, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def count_ge(typingctx, a, x):  # type: ignore[no-untyped-def]
    """In how many lanes a >= x; not where either is NaN."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _lanes_in(b, b.fcmp_ordered(">=", *args))

    return types.int64(a, x), codegen


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
def sum_lanes(typingctx, v):  # type: ignore[no-untyped-def]
    """Sum of the lanes, in float64, in a fixed order."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        parts = V(b, args[0]).wide()
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return _tree(total, lambda x, y: x + y)

    return types.float64(v), codegen


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
        return ir.Constant(_F64, elementary.unbiased(_LLVM[out.elem]))

    return types.float64(tag), codegen


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


@intrinsic  # type: ignore[untyped-decorator]
def floor_exp(typingctx, x):  # type: ignore[no-untyped-def]
    """x raised to the argument below which `exp_biased` is a speck: -inf becomes finite, NaN stays."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        v = V(b, args[0])
        return v.const(elementary.EXP[v.elem].low).max(v).v

    return x(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def exp_limits(typingctx, tag):  # type: ignore[no-untyped-def]
    """(low, magic, slack, steps) for the frame of a row: see `elementary.EXP`; steps of (ln 2)/16 that its reference is
    a multiple of, and slack 0 where that is 1."""
    k = elementary.EXP[_LLVM[compute_type(tag).elem]]
    one = compute_type(tag) is F64

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        numbers = k.low, k.magic, 0.0 if one else k.slack, 1.0 if one else 16.0
        return context.make_tuple(b, sig.return_type, [ir.Constant(_F64, x) for x in numbers])

    return types.UniTuple(types.float64, 4)(tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def frames(typingctx, m):  # type: ignore[no-untyped-def]
    """The frame of each lane's own maximum, for `exp_framed`."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return context.make_tuple(b, sig.return_type, [part.v for part in elementary.frame(V(b, args[0]))])

    return types.UniTuple(m, 5)(m), codegen


@intrinsic  # type: ignore[untyped-decorator]
def exp_framed(typingctx, x, frame):  # type: ignore[no-untyped-def]
    """(x - m, exp_biased(x - m)) for the m of `frames`; -inf becomes finite, NaN stays. What x - m loses in rounding is
    not lost to the exponential."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        shift, *frame_ = _fields(b, args[1])
        y, base, power, u = _exp_framed(V(b, args[0]) - shift, frame_)
        return context.make_tuple(b, sig.return_type, [(y - base).v, power.fma(u, power).v])

    return types.UniTuple(x, 2)(x, frame), codegen


@intrinsic  # type: ignore[untyped-decorator]
def times_exp(typingctx, scale, scale_low, x, frame):  # type: ignore[no-untyped-def]
    """(scale + scale_low)·exp_biased(x - m) for the m of `frames`, within 1 ulp: all but one rounding touch only what
    is added to 2^n."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        high, low, z = (V(b, a) for a in args[:3])
        shift, *frame_ = _fields(b, args[3])
        _, _, power, u = _exp_framed(z - shift, frame_)
        whole = power * high
        left = power.fma(high, whole * -1.0)
        return (whole + whole.fma(u, power.fma(low, left))).v

    return x(scale, scale_low, x, frame), codegen


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
def load_targets(typingctx, address, count, n_classes, ignore_index, none, like):  # type: ignore[no-untyped-def]
    """Class ids (int64 in memory) as lanes of ``like``: -1 where ignored and from ``count`` on, -2 where out of range,
    -3 where there is none, which the id ``none`` says."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        where, count_, n, ignore, none_ = args[:5]
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

        missing = b.icmp_signed("==", t, _splat(b, none_, like.lanes))
        outside = b.select(missing, all_(-3), all_(-2))
        small = b.select(b.icmp_signed("==", t, skip), all_(-1), b.select(inside, small, outside))
        return b.sitofp(small, like.ir)

    return like(types.int64, types.int64, types.int64, types.int64, types.int64, like), codegen


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
    out, kind = compute_type(tag), _memory(tag)
    raw = [_widen(b, _masked_load(b, row, count, kind, out.lanes, _MINUS_INF[kind]), tag) for row in rows]
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
                    column = shuffle(b, column, parts[k], pick)
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
        return getattr(builder, instruction)(*args)


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
