"""Numbers of JSON text, as the nearest float64 or as integers: the same bits as Python's `json` gives.

A decimal w * 10**q with a whole w below 2**64 is multiplied by a table of powers of ten of 128 bits (D. Lemire, "Number
Parsing at a Gigabyte per Second", 2021). For -27 <= q <= 55 the product decides how to round in every case. Other
numbers are left to the caller.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import bare
from fastxent.kernels.simd.scanned import ends_digits, first_byte, first_digits, high_product, leading_zeros
from fastxent.kernels.simd.words import load_word

WHOLE, REAL, NEITHER = 0, 1, 2
_LEAST, _MOST = -27, 55  # of q
_DIGITS = 19  # decimals of so many digits are below 2**64
_WHOLE_DIGITS = 18  # integers of so many digits are below 2**63
_MINUS, _PLUS, _POINT, _ZERO, _SMALL_E, _LARGE_E = 0x2D, 0x2B, 0x2E, 0x30, 0x65, 0x45
_TENS = 10 ** np.arange(9, dtype=np.uint64)
_ONE = np.uint64(1)


def _powers() -> np.ndarray:
    """uint64 (q, 2): the 128 leading bits of 10**q, high and low."""
    found = []
    for q in range(_LEAST, _MOST + 1):
        if q < 0:
            five = 5**-q
            power = (1 << five.bit_length() + 127) // five + 1
        else:
            power = 5**q << 128 - (5**q).bit_length()
        while power >> 128:
            power >>= 1
        found.append((power >> 64, power & (1 << 64) - 1))
    return np.array(found, np.uint64)


_POWERS = _powers()


@bare
def nearest(w, q):  # type: ignore[no-untyped-def]
    """The float64 that is nearest to w * 10**q; of two equally near the even one. w: uint64. q: _LEAST.._MOST."""
    if w == np.uint64(0):
        return 0.0
    zeros = leading_zeros(w)
    w <<= zeros
    power = _POWERS[q - _LEAST, 0]
    high, low = high_product(w, power), w * power
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):  # the rest of the power can carry into the bits that count
        carry = high_product(w, _POWERS[q - _LEAST, 1])
        low += carry
        if low < carry:
            high += _ONE
    upper = high >> np.uint64(63)
    shift = upper + np.uint64(9)
    mantissa = high >> shift  # 54 bits: the last one rounds
    exponent = ((217706 * q) >> 16) + 63 + np.int64(upper) - np.int64(zeros) + 1023
    if low <= _ONE and -4 <= q <= 23 and mantissa & np.uint64(3) == _ONE and mantissa << shift == high:
        mantissa ^= _ONE  # half way: to the even one
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    if mantissa >> np.uint64(53):
        mantissa, exponent = mantissa >> _ONE, exponent + 1
    bits = np.int64(mantissa & np.uint64((1 << 52) - 1)) | np.int64(exponent) << 52
    return np.int64(bits).view(np.float64)


@bare
def _read_digits(data, i, end, w):  # type: ignore[no-untyped-def]
    """(place behind the digits from ``i`` on, ``w`` with them behind its own, modulo 2**64)."""
    at = data.ctypes.data
    while i + 8 <= end:
        word = np.uint64(load_word(at + i))
        other = ends_digits(word)
        n = first_byte(other) if other else 8
        if n == 0:
            return i, w
        w, i = w * _TENS[n] + first_digits(word, n), i + n
        if n < 8:
            return i, w
    while i < end and 0 <= np.int64(data[i]) - _ZERO <= 9:
        w = w * np.uint64(10) + np.uint64(data[i] - _ZERO)
        i += 1
    return i, w


@bare
def read_number(data, i, end):  # type: ignore[no-untyped-def]
    """(`WHOLE` or `REAL` or `NEITHER`, integer, float64, the place behind it) of the number at ``i``.

    `NEITHER` is text that is not a number of JSON, and a number that these steps do not read: an integer of more than
    18 digits, a decimal of more than 19, or one far from 1.

    data: uint8 (n,). end: int64, at most n.
    """
    negative = i < end and data[i] == _MINUS
    i += np.int64(negative)
    first = i
    i, w = _read_digits(data, i, end, np.uint64(0))
    whole = i - first
    if whole == 0 or (whole > 1 and data[first] == _ZERO):
        return NEITHER, 0, 0.0, i
    digits = whole if data[first] != _ZERO else 0
    if i == end or (data[i] != _POINT and data[i] != _SMALL_E and data[i] != _LARGE_E):
        value = np.int64(w)
        return (NEITHER if digits > _WHOLE_DIGITS else WHOLE), (-value if negative else value), 0.0, i
    q = 0
    if data[i] == _POINT:
        first = i + 1
        i, w = _read_digits(data, first, end, w)
        q = first - i
        if q == 0:
            return NEITHER, 0, 0.0, i
        while digits == 0 and first < i and data[first] == _ZERO:
            first += 1
        digits += i - first
    if i < end and (data[i] == _SMALL_E or data[i] == _LARGE_E):
        i += 1
        down = i < end and data[i] == _MINUS
        i += np.int64(i < end and (data[i] == _MINUS or data[i] == _PLUS))
        first, power = i, 0
        while i < end and 0 <= np.int64(data[i]) - _ZERO <= 9:
            power = min(power * 10 + np.int64(data[i]) - _ZERO, 100_000)
            i += 1
        if i == first:
            return NEITHER, 0, 0.0, i
        q += -power if down else power
    if digits == 0:
        return REAL, 0, (-0.0 if negative else 0.0), i
    if digits > _DIGITS or q < _LEAST or q > _MOST:
        return NEITHER, 0, 0.0, i
    value = nearest(w, q)
    return REAL, 0, (-value if negative else value), i
