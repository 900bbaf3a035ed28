"""JSON text: its lines and values counted; values over several lines, or in one array, as a line for each."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit
from fastxent.kernels.simd.scanned import count_bits, equal_bytes
from fastxent.kernels.simd.words import load_word

_QUOTE, _BACKSLASH, _COMMA, _SPACE, _NEWLINE, _RETURN = 0x22, 0x5C, 0x2C, 0x20, 0x0A, 0x0D
_NOT_SPREAD = np.uint64(0xCFCFCFCFCFCFCFCF)  # makes a colon a newline
_NOT_LARGE = np.uint64(0xDFDFDFDFDFDFDFDF)  # makes the bracket of an object that of an array
_UPPER = np.uint64(0x8080808080808080)
_OPEN, _CLOSE = (0x7B, 0x5B), (0x7D, 0x5D)  # objects and arrays


@jit
def one_per_line(data):  # type: ignore[no-untyped-def]
    """Put each of the JSON values in ``data``, which are divided by commas or white space, on a line of its own. Only
    bytes outside of strings change, and none moves. The end of the last object or array that is whole; 0 if none is,
    and -1 minus the place of a bracket that closes nothing.

    data: uint8 (n,), from the beginning of a value on.
    """
    depth, end = 0, 0
    inside = False
    i = 0
    while i < data.size:
        c = data[i]
        if inside:
            if c == _BACKSLASH:
                i += 1
            elif c == _QUOTE:
                inside = False
        elif c == _QUOTE:
            inside = True
        elif c == _OPEN[0] or c == _OPEN[1]:
            depth += 1
        elif c == _CLOSE[0] or c == _CLOSE[1]:
            depth -= 1
            if depth < 0:
                return -1 - i
            if depth == 0:
                end = i + 1
        elif c == _COMMA and depth == 0:
            data[i] = _NEWLINE
        elif (c == _NEWLINE or c == _RETURN) and depth > 0:
            data[i] = _SPACE
        i += 1
    return end


@jit
def count_lines(text):  # type: ignore[no-untyped-def]
    """(number of newlines that are not the last byte, how many of them are in front of ``{``).

    text: uint8 (n,).
    """
    at, i, found, objects = text.ctypes.data, 0, 0, 0
    while i + 9 <= text.size:
        ends = equal_bytes(np.uint64(load_word(at + i)), _NEWLINE)
        found += count_bits(ends)
        objects += count_bits(ends & equal_bytes(np.uint64(load_word(at + i + 1)), _OPEN[0]))
        i += 8
    for k in range(i, text.size - 1):
        found += text[k] == _NEWLINE
        objects += text[k] == _NEWLINE and text[k + 1] == _OPEN[0]
    return found, objects


@jit
def most_values(text):  # type: ignore[no-untyped-def]
    """(no fewer than the number of values in JSON lines, whether all bytes are ASCII). A value is first in its line, or
    behind one of ``,:[{``. The last bytes are counted too, and those that differ from these in the bits left out.

    text: uint8 (n,).
    """
    at, i, found, union = text.ctypes.data, 0, 1, np.uint64(0)
    while i + 8 <= text.size:
        word = np.uint64(load_word(at + i))
        union |= word
        ends = equal_bytes(word, _COMMA) | equal_bytes(word & _NOT_SPREAD, _NEWLINE)
        found += count_bits(ends | equal_bytes(word & _NOT_LARGE, _OPEN[1]))
        i += 8
    for k in range(i, text.size):
        found += 1
        union |= np.uint64(text[k])
    return found, not union & _UPPER
