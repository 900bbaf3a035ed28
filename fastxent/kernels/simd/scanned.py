"""Eight bytes of text at a time, in a word of little endian."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.jit import inline
from fastxent.kernels.simd.vector import I64

_EACH = np.uint64(0x0101010101010101)
_TOP = np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _SPACES = np.uint64(0x22) * _EACH, np.uint64(0x5C) * _EACH, np.uint64(0x20) * _EACH
_ZEROS, _BELOW_TEN = np.uint64(0x30) * _EACH, np.uint64(0x76) * _EACH
_PAIRS = np.uint64(0x000000FF000000FF)
_HUNDREDS, _ONES = np.uint64(0x000F424000000064), np.uint64(0x0000271000000001)


@intrinsic  # type: ignore[untyped-decorator]
def first_byte(typingctx, mask):  # type: ignore[no-untyped-def]
    """The number of the first byte of a uint64 that is not zero."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        zeros = b.cttz(args[0], context.get_constant(types.boolean, True))
        return b.lshr(zeros, context.get_constant(types.int64, 3))

    return types.int64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def leading_zeros(typingctx, word):  # type: ignore[no-untyped-def]
    """The number of zero bits above the first bit of a uint64 that is set."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return b.ctlz(args[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def high_product(typingctx, x, y):  # type: ignore[no-untyped-def]
    """The upper 64 bits of the product of two uint64."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        wide = ir.IntType(128)
        product = b.mul(b.zext(args[0], wide), b.zext(args[1], wide))
        return b.trunc(b.lshr(product, wide(64)), I64)

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def count_bits(typingctx, word):  # type: ignore[no-untyped-def]
    """The number of bits of a uint64 that are set."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        return b.ctpop(args[0])

    return types.int64(types.uint64), codegen


@inline
def equal_bytes(word, byte):  # type: ignore[no-untyped-def]
    """The upper bit of each byte of a uint64 that is ``byte``."""
    held = word ^ np.uint64(byte) * _EACH
    return ~(((held & ~_TOP) + ~_TOP) | held) & _TOP


@inline
def ends_text(word):  # type: ignore[no-untyped-def]
    """A uint64 whose first byte that is not zero is that of the first quote, backslash or control character; 0 if the
    word has none."""
    quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
    return (((quote - _EACH) & ~quote) | ((backslash - _EACH) & ~backslash) | ((word - _SPACES) & ~word)) & _TOP


@inline
def ends_digits(word):  # type: ignore[no-untyped-def]
    """A uint64 whose first byte that is not zero is that of the first byte that is not a decimal digit; 0 if all are
    digits."""
    held = word ^ _ZEROS
    return ((held + _BELOW_TEN) | held) & _TOP


@inline
def first_digits(word, n):  # type: ignore[no-untyped-def]
    """The number of the first ``n`` digits of a word, 1 to 8."""
    word = (word ^ _ZEROS) << np.uint64(64 - 8 * n)
    word = word * np.uint64(10) + (word >> np.uint64(8))
    return ((word & _PAIRS) * _HUNDREDS + ((word >> np.uint64(16)) & _PAIRS) * _ONES) >> np.uint64(32)
