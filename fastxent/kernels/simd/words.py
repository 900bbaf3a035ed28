"""The patterns of float64 vectors as integers: lanewise sums and unions of them, and words of memory."""

from __future__ import annotations

import struct
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastxent.kernels.jit import inline
from fastxent.kernels.simd.vector import I64, I8, V

_UNIT = 1.5 * 2.0**52  # whole numbers added to it are the last bits of the sum
_UNIT_WORD = struct.unpack("q", struct.pack("d", _UNIT))[0]


@intrinsic  # type: ignore[untyped-decorator]
def add_words(typingctx, total, x):  # type: ignore[no-untyped-def]
    """The sum of the patterns of two float64 vectors, modulo 2**64, as a pattern."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        like = V(b, args[0])
        return like.from_bits(b.add(like.bits(), V(b, args[1]).bits())).v

    return total(total, x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def or_words(typingctx, total, x):  # type: ignore[no-untyped-def]
    """The union of the patterns of two float64 vectors, as a pattern."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        like = V(b, args[0])
        return like.from_bits(b.or_(like.bits(), V(b, args[1]).bits())).v

    return total(total, x), codegen


def _folded(b: ir.IRBuilder, vector: ir.Value, combine: Any) -> ir.Value:
    bits = V(b, vector).bits()
    found = b.extract_element(bits, I64(0))
    for lane in range(1, bits.type.count):
        found = combine(found, b.extract_element(bits, I64(lane)))
    return found


@intrinsic  # type: ignore[untyped-decorator]
def sum_words(typingctx, x):  # type: ignore[no-untyped-def]
    """The sum of the patterns of the lanes, modulo 2**64."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _folded(b, args[0], b.add)

    return types.int64(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def union_words(typingctx, x):  # type: ignore[no-untyped-def]
    """The union of the patterns of the lanes."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return _folded(b, args[0], b.or_)

    return types.int64(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def word_of(typingctx, x):  # type: ignore[no-untyped-def]
    """The pattern of a float64."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return b.bitcast(args[0], I64)

    return types.int64(types.float64), codegen


@inline
def whole(x):  # type: ignore[no-untyped-def]
    """A whole number up to 2**51 as an integer. AVX2 has no such conversion: a loop over this one becomes vectors."""
    return word_of(x + _UNIT) - _UNIT_WORD


@intrinsic  # type: ignore[untyped-decorator]
def whole_words(typingctx, x):  # type: ignore[no-untyped-def]
    """`whole` of the lanes of a float64 vector, as patterns."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        moved = V(b, args[0]) + _UNIT
        bits = moved.bits()
        return moved.from_bits(b.sub(bits, bits.type([_UNIT_WORD] * moved.lanes))).v

    return x(x), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typingctx, address):  # type: ignore[no-untyped-def]
    """Eight bytes of memory, of any alignment."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return b.load(b.inttoptr(args[0], I64.as_pointer()), align=1)

    return types.int64(types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_word(typingctx, address, word):  # type: ignore[no-untyped-def]
    """Eight bytes to memory of any alignment."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        b.store(args[1], b.inttoptr(args[0], I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def move_words(typingctx, to, source):  # type: ignore[no-untyped-def]
    """Sixteen bytes from one address to another, of any alignment."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        to, source = (b.inttoptr(address, ir.VectorType(I64, 2).as_pointer()) for address in args)
        b.store(b.load(source, align=1), to, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def move_bytes(typingctx, to, source, n):  # type: ignore[no-untyped-def]
    """``n`` bytes from one address to another, where they do not overlap."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        to, source = (b.inttoptr(address, I8.as_pointer()) for address in args[:2])
        cgutils.raw_memcpy(b, to, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
