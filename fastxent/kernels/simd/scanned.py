"""Eight bytes of text at a time, in a word of little endian."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastxent.kernels.jit import inline

_EACH = np.uint64(0x0101010101010101)
_TOP = np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _SPACES = np.uint64(0x22) * _EACH, np.uint64(0x5C) * _EACH, np.uint64(0x20) * _EACH
_ZEROS, _SIXES, _HIGH = np.uint64(0x30) * _EACH, np.uint64(0x06) * _EACH, np.uint64(0xF0) * _EACH
_PAIRS = np.uint64(0x000000FF000000FF)
_HUNDREDS, _ONES = np.uint64(0x000F424000000064), np.uint64(0x0000271000000001)


@intrinsic  # type: ignore[untyped-decorator]
def first_byte(typingctx, mask):  # type: ignore[no-untyped-def]
    """The number of the first byte of a uint64 that is not zero."""

    def codegen(context, b, sig, args):  # type: ignore[no-untyped-def]
        zeros = b.cttz(args[0], context.get_constant(types.boolean, True))
        return b.lshr(zeros, context.get_constant(types.int64, 3))

    return types.int64(types.uint64), codegen


@inline
def ends_text(word):  # type: ignore[no-untyped-def]
    """A uint64 whose first byte that is not zero is that of the first quote, backslash or control character; 0 if the
    word has none."""
    quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
    return (((quote - _EACH) & ~quote) | ((backslash - _EACH) & ~backslash) | ((word - _SPACES) & ~word)) & _TOP


@inline
def are_digits(word):  # type: ignore[no-untyped-def]
    """Whether all bytes are decimal digits."""
    return (word & _HIGH) == _ZEROS and ((word + _SIXES) & _HIGH) == _ZEROS


@inline
def eight_digits(word):  # type: ignore[no-untyped-def]
    """The number of eight decimal digits."""
    word -= _ZEROS
    word = word * np.uint64(10) + (word >> np.uint64(8))
    return ((word & _PAIRS) * _HUNDREDS + ((word >> np.uint64(16)) & _PAIRS) * _ONES) >> np.uint64(32)
