"""Loads and stores of vectors of logits: any alignment, any float type, a part of a vector at the end of a row.

Half precision is widened to float32 on load and rounded to nearest even on store.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.simd.elementary import has
from fastxent.kernels.simd.types import F32, compute_type, memory_type
from fastxent.kernels.simd.vector import (
    F32 as _F32, F64 as _F64, HALF as _HALF, I1 as _I1, I16 as _I16, I32 as _I32, I64 as _I64, I8 as _I8,
    broadcast, lane_mask,
)  # fmt: skip


def widen(b: ir.IRBuilder, raw: ir.Value, tag: types.Type) -> ir.Value:
    if tag == types.uint16:
        return b.fpext(raw, F32.ir)
    if tag == types.int16:
        ints = ir.VectorType(_I32, 16)
        wide = b.zext(raw, ints)
        return b.bitcast(b.shl(wide, ir.Constant(ints, [16] * 16)), F32.ir)
    return raw


def to_memory(b: ir.IRBuilder, v: ir.Value, tag: types.Type) -> ir.Value:
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


def suffix_of(kind: ir.Type, lanes: int) -> str:
    names = {_F32: "f32", _F64: "f64", _HALF: "f16", _I64: "i64", _I32: "i32", _I16: "i16", _I8: "i8"}
    return f"v{lanes}{names[kind]}"


def _in_pairs(kind: ir.Type) -> bool:
    """Whether numbers are taken in pairs of halves. Most processors have no masks for halves: LLVM would branch around
    each one, which is slow, and slow to compile."""
    return kind in (_HALF, _I16) and not has("avx512bw")


def masked_load(b: ir.IRBuilder, address: ir.Value, count: ir.Value, kind: ir.Type, lanes: int, fill: Any) -> ir.Value:
    """The first ``count`` lanes from memory, ``fill`` in the others; of halves -inf."""
    if _in_pairs(kind):
        return _load_halves(b, address, count, kind, lanes)
    vec = ir.VectorType(kind, lanes)
    mask = lane_mask(b, count, lanes)
    pointer = b.inttoptr(address, vec.as_pointer())
    signature_ = ir.FunctionType(vec, [pointer.type, _I32, mask.type, vec])
    name = f"llvm.masked.load.{suffix_of(kind, lanes)}.p0"
    function = cgutils.get_or_insert_function(b.module, signature_, name)
    return b.call(function, [pointer, _I32(1), mask, ir.Constant(vec, [fill] * lanes)])


def _odd_half(b: ir.IRBuilder, count: ir.Value, lanes: int) -> tuple[ir.Value, ir.Value]:
    """(whether ``count`` lanes end in half a pair, which lane that is)."""
    odd = b.and_(b.trunc(count, _I1), b.icmp_unsigned("<", count, _I64(lanes)))
    return odd, b.sub(count, _I64(1))


def _load_halves(b: ir.IRBuilder, address: ir.Value, count: ir.Value, kind: ir.Type, lanes: int) -> ir.Value:
    """`masked_load`, two halves at a time, then the last of an odd number."""
    off = {_HALF: 0xFC00, _I16: 0xFF80}[kind] - 0x10000  # bits of -inf
    pairs = masked_load(b, address, b.ashr(count, _I64(1)), _I32, lanes // 2, (off << 16) + off + 0x10000)
    vec = ir.VectorType(_I16, lanes)
    odd, last = _odd_half(b, count, lanes)
    nothing = cgutils.alloca_once_value(b, _I16(off))
    place = b.select(odd, b.inttoptr(b.add(address, b.shl(last, _I64(1))), nothing.type), nothing)
    here = b.icmp_signed("==", ir.Constant(ir.VectorType(_I64, lanes), list(range(lanes))), broadcast(b, last, lanes))
    here = b.and_(here, broadcast(b, odd, lanes))
    halves = b.select(here, broadcast(b, b.load(place, align=1), lanes), b.bitcast(pairs, vec))
    return b.bitcast(halves, ir.VectorType(kind, lanes))


def masked_store(b: ir.IRBuilder, address: ir.Value, count: ir.Value, vector: ir.Value) -> None:
    """The first ``count`` lanes to memory. A whole vector needs no mask: masked stores of AVX2 are slow on some
    processors."""
    lanes, pointer = vector.type.count, b.inttoptr(address, vector.type.as_pointer())
    with b.if_else(b.icmp_signed(">=", count, _I64(lanes))) as (whole, part):
        with whole:
            b.store(vector, pointer, align=1)
        with part:
            if _in_pairs(vector.type.element):
                halves = b.bitcast(vector, ir.VectorType(_I16, lanes))
                pairs = b.bitcast(vector, ir.VectorType(_I32, lanes // 2))
                _masked_store(b, address, b.ashr(count, _I64(1)), pairs)
                odd, last = _odd_half(b, count, lanes)
                with b.if_then(odd):
                    place = b.inttoptr(b.add(address, b.shl(last, _I64(1))), _I16.as_pointer())
                    b.store(b.extract_element(halves, last), place, align=1)
            else:
                _masked_store(b, address, count, vector)


def _masked_store(b: ir.IRBuilder, address: ir.Value, count: ir.Value, vector: ir.Value) -> None:
    lanes, pointer = vector.type.count, b.inttoptr(address, vector.type.as_pointer())
    mask = lane_mask(b, count, lanes)
    kind = ir.FunctionType(ir.VoidType(), [vector.type, pointer.type, _I32, mask.type])
    name = f"llvm.masked.store.{suffix_of(vector.type.element, lanes)}.p0"
    b.call(cgutils.get_or_insert_function(b.module, kind, name), [vector, pointer, _I32(1), mask])


MINUS_INF = {_F32: float("-inf"), _F64: float("-inf"), _HALF: float("-inf"), _I16: 0xFF80 - 0x10000}


@intrinsic  # type: ignore[untyped-decorator]
def load(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """A full vector from memory of any alignment."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        vec = ir.VectorType(memory_type(tag), out.lanes)
        raw = b.load(b.inttoptr(args[0], vec.as_pointer()), align=1)
        return widen(b, raw, tag)

    return out(types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_two(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """Two full vectors, one behind the other, from memory of any alignment."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        pointer = b.inttoptr(args[0], ir.VectorType(memory_type(tag), out.lanes).as_pointer())
        loaded = [b.load(b.gep(pointer, [_I32(k)]), align=1) for k in (0, 1)]
        return context.make_tuple(b, sig.return_type, [widen(b, x, tag) for x in loaded])

    return types.UniTuple(out, 2)(types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_first(typingctx, address, count, tag):  # type: ignore[no-untyped-def]
    """The first ``count`` lanes from memory, -inf in the others, whose memory is not touched."""
    out = compute_type(tag)

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        kind = memory_type(tag)
        return widen(b, masked_load(b, args[0], args[1], kind, out.lanes, MINUS_INF[kind]), tag)

    return out(types.int64, types.int64, tag), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_scalar(typingctx, address, tag):  # type: ignore[no-untyped-def]
    """One number from memory of any alignment, widened."""
    out = compute_type(tag).elem

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        raw = b.load(b.inttoptr(args[0], memory_type(tag).as_pointer()), align=1)
        if tag == types.uint16:
            return b.fpext(raw, _F32)
        if tag == types.int16:
            return b.bitcast(b.shl(b.zext(raw, _I32), _I32(16)), _F32)
        return raw

    return out(types.int64, tag), codegen


def _store(context: Any, b: ir.IRBuilder, address: ir.Value, v: ir.Value, tag: types.Type, streaming: bool) -> Any:
    raw = to_memory(b, v, tag)
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
        masked_store(b, args[0], args[1], to_memory(b, args[2], tag))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, v, tag), codegen
