"""Parquet page headers: the only Thrift this package reads (footers are pyarrow's work).

A page header is a struct in Thrift's compact protocol: fields of (type, id) followed by varints. The parser
is strict, because every number in it decides what memory is read next: known fields must have their type,
none may come twice, what is unknown is stepped over within the buffer, and nesting has a limit.
It is compiled: the same walk takes some 20 µs in Python, which is a fifth of the time a page of 1 MB has.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import inline, jit

# slots of the result
TYPE, UNCOMPRESSED, COMPRESSED, CRC, NUM_VALUES, ENCODING, DEF_ENCODING, REP_ENCODING = range(8)
NUM_NULLS, NUM_ROWS, DEF_BYTES, REP_BYTES, IS_COMPRESSED, SUBHEADER = range(8, 14)
_FRAMES = 14  # then pairs (kind, last field id), one for each level of nesting
_DEPTH = 8
HEADER_SLOTS = _FRAMES + 2 * _DEPTH

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)  # values of TYPE
MISSING = -(1 << 40)  # a slot whose field is absent: outside the range of every field
NEED_MORE = -1  # the buffer ends inside the header
BROKEN = -2

# kinds of struct; a subheader's kind is the value of TYPE it belongs to
_HEADER, _UNKNOWN = 8, 9
_TRUE, _FALSE, _I8, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


def new_header() -> np.ndarray:
    """An array for `read_page_header` to fill."""
    return np.full(HEADER_SLOTS, MISSING, np.int64)


@jit
def read_page_header(buf, out):  # type: ignore[no-untyped-def]
    """Parse the page header at the start of ``buf`` (uint8) into ``out`` (`new_header`).

    Returns its length in bytes, or NEED_MORE, or BROKEN. After success the slots a page of that type must have
    are filled and not negative (CRC may have any sign); optional ones may be MISSING.
    """
    out[:] = MISSING
    depth = 0
    out[_FRAMES], out[_FRAMES + 1] = _HEADER, 0
    pos = 0
    while depth >= 0:
        if pos >= buf.size:
            return NEED_MORE
        head = np.int64(buf[pos])
        pos += 1
        if head == 0:  # end of struct
            depth -= 1
            continue
        kind, field_type = out[_FRAMES + 2 * depth], head & 15
        if head >> 4:
            field = out[_FRAMES + 2 * depth + 1] + (head >> 4)
        else:
            pos, field = _varint(buf, pos)
            if pos < 0:
                return pos
            field = _zigzag(field)
        out[_FRAMES + 2 * depth + 1] = field
        if field < 0 or field > 32767:
            return BROKEN

        slot, expected = _slot(kind, field)
        if slot >= 0:
            is_bool = expected == _TRUE and field_type == _FALSE  # a bool's value is its type
            if out[slot] != MISSING or (field_type != expected and not is_bool):
                return BROKEN
        if field_type == _TRUE or field_type == _FALSE:
            if slot >= 0:
                out[slot] = np.int64(field_type == _TRUE)
        elif field_type == _I16 or field_type == _I32 or field_type == _I64:
            pos, raw = _varint(buf, pos)
            if pos < 0:
                return pos
            value = _zigzag(raw)
            if slot >= 0:
                if value < -(1 << 31) or value >= 1 << 31:
                    return BROKEN
                out[slot] = value
        elif field_type == _STRUCT:
            if depth + 1 == _DEPTH:
                return BROKEN
            depth += 1
            out[_FRAMES + 2 * depth + 1] = 0
            out[_FRAMES + 2 * depth] = _UNKNOWN
            if slot == SUBHEADER:
                out[SUBHEADER] = field - 5
                out[_FRAMES + 2 * depth] = field - 5
        else:
            pos = _skip(buf, pos, field_type)
            if pos < 0:
                return pos
    return pos if _complete(out) else BROKEN


@inline
def _zigzag(raw):  # type: ignore[no-untyped-def]
    return np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1))


@jit
def _varint(buf, pos):  # type: ignore[no-untyped-def]
    """(position behind the varint, its value as uint64); the position is NEED_MORE or BROKEN where there is none."""
    value = np.uint64(0)
    for shift in range(0, 70, 7):
        if pos >= buf.size:
            return NEED_MORE, value
        byte = np.uint64(buf[pos])
        pos += 1
        if shift == 63 and byte > 1:
            break
        value |= (byte & np.uint64(127)) << np.uint64(shift)
        if byte < 128:
            return pos, value
    return BROKEN, value


@jit
def _slot(kind, field):  # type: ignore[no-untyped-def]
    """(slot, type) of a field that matters, (-1, 0) of one to step over."""
    if kind == _HEADER:
        if 1 <= field <= 4:
            return TYPE + field - 1, _I32
        if 5 <= field <= 8:
            return SUBHEADER, _STRUCT
    elif kind == DATA_PAGE:
        if 1 <= field <= 4:
            return NUM_VALUES + field - 1, _I32
    elif kind == DICTIONARY_PAGE:
        if 1 <= field <= 2:
            return NUM_VALUES + field - 1, _I32
    elif kind == DATA_PAGE_V2:
        if field == 1:
            return NUM_VALUES, _I32
        if field == 2 or field == 3:
            return NUM_NULLS + field - 2, _I32
        if field == 4:
            return ENCODING, _I32
        if field == 5 or field == 6:
            return DEF_BYTES + field - 5, _I32
        if field == 7:
            return IS_COMPRESSED, _TRUE
    return -1, 0


@jit
def _skip(buf, pos, field_type):  # type: ignore[no-untyped-def]
    """Position behind a value that is no number and no struct; collections of collections are refused."""
    if field_type == _I8:
        pos += 1
    elif field_type == _DOUBLE:
        pos += 8
    elif field_type == _BINARY:
        pos, length = _varint(buf, pos)
        if pos < 0:
            return pos
        if length > np.uint64(1 << 31):
            return BROKEN
        pos += np.int64(length)
    elif field_type == _LIST or field_type == _SET:
        if pos >= buf.size:
            return NEED_MORE
        head = np.int64(buf[pos])
        pos += 1
        count, element = np.uint64(head >> 4), head & 15
        if count == 15:
            pos, count = _varint(buf, pos)
            if pos < 0:
                return pos
        if element == 0 or element > _BINARY or count > np.uint64(1 << 31):
            return BROKEN
        for _ in range(np.int64(count)):  # each takes a byte at least, so the buffer's end ends this
            if element <= _I8:
                pos += 1
            elif element == _DOUBLE:
                pos += 8
            else:
                pos, length = _varint(buf, pos)
                if pos >= 0 and element == _BINARY:
                    if length > np.uint64(1 << 31):
                        return BROKEN
                    pos += np.int64(length)
            if pos < 0:
                return pos
            if pos > buf.size:
                return NEED_MORE
    else:  # a map, or a type that does not exist
        return BROKEN
    return pos if pos <= buf.size else NEED_MORE


@jit
def _complete(out):  # type: ignore[no-untyped-def]
    kind = out[TYPE]
    if kind < DATA_PAGE or kind > DATA_PAGE_V2 or out[UNCOMPRESSED] < 0 or out[COMPRESSED] < 0:
        return False
    if kind == INDEX_PAGE:
        return True
    if out[SUBHEADER] != kind or out[NUM_VALUES] < 0 or out[ENCODING] < 0:
        return False
    if kind == DATA_PAGE:
        return out[DEF_ENCODING] >= 0 and out[REP_ENCODING] >= 0
    if kind == DATA_PAGE_V2:
        return out[NUM_NULLS] >= 0 and out[NUM_ROWS] >= 0 and out[DEF_BYTES] >= 0 and out[REP_BYTES] >= 0
    return True
