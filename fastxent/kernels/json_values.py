"""One line of JSON as a list of its values, so that its parts can be found without another look at the text.

A value is a row of two int64. The second holds its kind and, times 8, where it ends: for a string the place behind its
text, for an object or array the number of the value behind it. The first is where the text of a string begins, or an
integer, or the bits of a float64. The keys of an object are strings, each in front of its value.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import bare, inline
from fastxent.kernels.json_numbers import REAL, WHOLE, read_number
from fastxent.kernels.simd.scanned import ends_digits, ends_text, first_byte, first_digits
from fastxent.kernels.simd.words import load_word

NULL, TRUE_OR_FALSE, INTEGER, NUMBER, STRING, OBJECT, ARRAY = 0, 1, 2, 3, 4, 5, 6
DEEPEST = 32  # of objects and arrays inside each other
UNREAD = -1
_QUOTE, _BACKSLASH, _SLASH, _COMMA, _COLON, _MINUS, _ZERO = 0x22, 0x5C, 0x2F, 0x2C, 0x3A, 0x2D, 0x30
_SPACE, _TAB, _RETURN = 0x20, 0x09, 0x0D
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = 0x7B, 0x7D, 0x5B, 0x5D
_WORDS = np.frombuffer(b"null\0true\0false", np.uint8).copy()
_ESCAPES = np.zeros(256, np.uint8)  # what a letter behind a backslash stands for
for _letter, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPES[_letter] = _meant
_HEX = np.full(256, -1, np.int64)
for _digit, _letters in enumerate(
    ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "aA", "bB", "cC", "dD", "eE", "fF")
):
    for _letter in _letters.encode():
        _HEX[_letter] = _digit


@inline
def kind_of(values, i):  # type: ignore[no-untyped-def]
    """The kind of a value."""
    return values[i, 1] & 7


@inline
def end_of(values, i):  # type: ignore[no-untyped-def]
    """Where a string, object or array ends."""
    return values[i, 1] >> 3


@bare
def after(values, i):  # type: ignore[no-untyped-def]
    """The number of the value behind a value and all that is inside it."""
    return values[i, 1] >> 3 if values[i, 1] & 7 >= OBJECT else i + 1


@bare
def behind_spaces(text, i, end):  # type: ignore[no-untyped-def]
    """The place of the first byte from ``i`` on that is not white space inside a line."""
    while i < end and (text[i] == _SPACE or text[i] == _TAB or text[i] == _RETURN):
        i += 1
    return i


@bare
def _four_digits(text, i, end):  # type: ignore[no-untyped-def]
    """The number of four hexadecimal digits; -1 if they are not there."""
    if i + 4 > end:
        return -1
    found = 0
    for k in range(4):
        digit = _HEX[text[i + k]]
        if digit < 0:
            return -1
        found = found << 4 | digit
    return found


@bare
def _unescape(text, i, end, out, n):  # type: ignore[no-untyped-def]
    """Write what the escape at the backslash ``i`` stands for to ``out`` from ``n`` on: (place behind it, bytes of
    ``out``). The place is `UNREAD` for a broken escape and for half of a surrogate pair."""
    if i + 1 >= end:
        return UNREAD, n
    letter = text[i + 1]
    if letter != 0x75:  # not u
        out[n] = _ESCAPES[letter]
        return (i + 2 if _ESCAPES[letter] else UNREAD), n + 1
    code = _four_digits(text, i + 2, end)
    i += 6
    if code < 0 or 0xDC00 <= code < 0xE000:
        return UNREAD, n
    if 0xD800 <= code < 0xDC00:
        low = -1
        if i + 1 < end and text[i] == _BACKSLASH and text[i + 1] == 0x75:
            low = _four_digits(text, i + 2, end)
        if low < 0xDC00 or low >= 0xE000:
            return UNREAD, n
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        i += 6
    if code < 0x80:
        out[n] = code
        return i, n + 1
    if code < 0x800:
        out[n], out[n + 1] = 0xC0 | code >> 6, 0x80 | code & 63
        return i, n + 2
    if code < 0x10000:
        out[n], out[n + 1], out[n + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63
        return i, n + 3
    out[n], out[n + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 63
    out[n + 2], out[n + 3] = 0x80 | code >> 6 & 63, 0x80 | code & 63
    return i, n + 4


@inline
def _read_string(text, i, end, used, values, n):  # type: ignore[no-untyped-def]
    """Enter the string whose first quote is at ``i`` as value ``n``: (place behind it, bytes of ``text`` in use).

    Text with escapes is written without them from ``used`` on: it is shorter than the string.
    """
    i += 1
    first, at = i, text.ctypes.data
    while i + 8 <= end:
        found = ends_text(np.uint64(load_word(at + i)))
        if found:
            i += first_byte(found)
            break
        i += 8
    while i < end and text[i] != _QUOTE and text[i] != _BACKSLASH and text[i] >= _SPACE:
        i += 1
    if i < end and text[i] == _QUOTE:
        values[n, 0], values[n, 1] = first, i << 3 | STRING
        return i + 1, used
    start = used
    for k in range(first, i):
        text[used] = text[k]
        used += 1
    while i < end and text[i] != _QUOTE and text[i] >= _SPACE:
        if text[i] == _BACKSLASH:
            i, used = _unescape(text, i, end, text, used)
            if i == UNREAD:
                return UNREAD, used
        else:
            text[used] = text[i]
            i, used = i + 1, used + 1
    if i >= end or text[i] != _QUOTE:
        return UNREAD, used
    values[n, 0], values[n, 1] = start, used << 3 | STRING
    return i + 1, used


@inline
def _read_scalar(text, i, end, values, n):  # type: ignore[no-untyped-def]
    """Enter the number, null, true or false at ``i`` as value ``n``; the place behind it."""
    if i + 8 <= end and 1 <= np.int64(text[i]) - _ZERO <= 9:  # small integers: ids, ranks and bytes of tokens
        word = np.uint64(load_word(text.ctypes.data + i))
        other = ends_digits(word)
        size = first_byte(other) if other else 8
        if size < 8 and (text[i + size] == _COMMA or text[i + size] == _CLOSE_ARRAY):
            values[n, 0], values[n, 1] = np.int64(first_digits(word, size)), INTEGER
            return i + size
    if text[i] == _MINUS or 0 <= np.int64(text[i]) - _ZERO <= 9:
        found, whole, real, i = read_number(text, i, end)
        if found == WHOLE:
            values[n, 0], values[n, 1] = whole, INTEGER
        elif found == REAL:
            values[n, 0], values[n, 1] = np.float64(real).view(np.int64), NUMBER
        else:
            return UNREAD
        return i
    for at, size in ((0, 4), (5, 4), (10, 5)):
        if i + size <= end and text[i] == _WORDS[at]:
            for k in range(size):
                if text[i + k] != _WORDS[at + k]:
                    return UNREAD
            values[n, 0], values[n, 1] = 0, (NULL if at == 0 else TRUE_OR_FALSE)
            return i + size
    return UNREAD


@bare
def read_value(text, i, end, used, values):  # type: ignore[no-untyped-def]
    """Enter the JSON value at ``i`` and all that is inside it into ``values``: (place behind it, bytes of ``text`` in
    use). The place is `UNREAD` for text that is not JSON in one line, and for what these steps do not read: numbers as
    `read_number` says, NaN and infinities, halves of surrogate pairs, and what is nested too deeply.

    text: uint8 (m,). The JSON text ends before ``end``; from ``used`` on there is room for as many bytes again.
    values: int64 (n, 2), with room for all values, each of which is first or behind one of ``,:[{``.
    """
    outer, depth, n, key = -1, 0, 0, False
    while True:
        i = behind_spaces(text, i, end)
        if i >= end:
            return UNREAD, used
        c = text[i]
        if c == _QUOTE:
            i, used = _read_string(text, i, end, used, values, n)
            n += 1
            if key and i != UNREAD:
                i = behind_spaces(text, i, end)
                if i >= end or text[i] != _COLON:
                    return UNREAD, used
                i, key = i + 1, False
                continue
        elif key:
            return UNREAD, used
        elif c == _OPEN_OBJECT or c == _OPEN_ARRAY:
            if depth == DEEPEST:
                return UNREAD, used
            values[n, 0], values[n, 1] = outer, (OBJECT if c == _OPEN_OBJECT else ARRAY)
            outer, depth, n, i = n, depth + 1, n + 1, behind_spaces(text, i + 1, end)
            if i >= end or text[i] != (_CLOSE_OBJECT if c == _OPEN_OBJECT else _CLOSE_ARRAY):
                key = c == _OPEN_OBJECT
                continue
        else:
            i = _read_scalar(text, i, end, values, n)
            n += 1
        if i == UNREAD:
            return UNREAD, used
        while depth:
            i = behind_spaces(text, i, end)
            if i >= end:
                return UNREAD, used
            inside = values[outer, 1] == OBJECT
            if text[i] == _COMMA:
                i, key = i + 1, inside
                break
            if text[i] != (_CLOSE_OBJECT if inside else _CLOSE_ARRAY):
                return UNREAD, used
            values[outer, 1] |= n << 3
            outer, depth, i = values[outer, 0], depth - 1, i + 1
        if depth == 0:
            return i, used
