"""Thrift's compact protocol as far as Parquet needs it, and the page headers written in it.

A struct is a row of fields, (type, id) and a value, numbers as varints. The parser is strict, because these numbers
decide what memory is read next: known fields must have their type, none may come twice, what is unknown is
stepped over within the buffer, and nesting has a limit. It is compiled: in Python the walk over one page header
takes some 20 µs, a fifth of the time a page of 1 MB has.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import brief, jit

# slots of the result
TYPE, UNCOMPRESSED, COMPRESSED, CRC, NUM_VALUES, ENCODING, DEF_ENCODING, REP_ENCODING = range(8)
NUM_NULLS, NUM_ROWS, DEF_BYTES, REP_BYTES, IS_COMPRESSED, SUBHEADER = range(8, 14)
_STACK = 14  # behind the slots: scratch for `skip`
_DEPTH = 12  # of nesting

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)  # values of TYPE
MISSING = -(1 << 40)  # a slot whose field is absent: outside the range of every field
NEED_MORE = -1  # the buffer ends inside the header
BROKEN = -2

_HEADER = 8  # kind of struct; a subheader's kind is the value of TYPE it belongs to
TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


def new_header() -> np.ndarray:
    """An array for `read_page_header` to fill."""
    return np.full(_STACK + 2 * _DEPTH, MISSING, np.int64)


@brief
def read_page_header(buf, out):  # type: ignore[no-untyped-def]
    """Parse the page header at the start of ``buf`` (uint8) into ``out`` (`new_header`).

    Returns its length in bytes, or NEED_MORE, or BROKEN. After success the slots a page of that type must have
    are filled and not negative (CRC may have any sign); optional ones may be MISSING.
    """
    out[:] = MISSING
    pos, last, outer, kind = np.int64(0), np.int64(0), np.int64(0), np.int64(_HEADER)
    while True:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0:
            return pos
        if field_type == 0:
            if kind == _HEADER:
                return pos if _complete(out) else BROKEN
            last, kind = outer, np.int64(_HEADER)  # behind the subheader
            continue
        slot, expected = _slot(kind, last)
        if slot < 0:
            pos = skip(buf, pos, field_type, out[_STACK:])
            if pos < 0:
                return pos
            continue
        is_bool = expected == TRUE and field_type == FALSE  # a bool's value is its type
        if out[slot] != MISSING or (field_type != expected and not is_bool):
            return BROKEN
        if slot == SUBHEADER:
            out[slot] = last - 5
            outer, last, kind = last, np.int64(0), last - 5
        elif expected == TRUE:
            out[slot] = field_type == TRUE
        else:
            pos, value = number(buf, pos)
            if pos < 0:
                return pos
            if value < -(1 << 31) or value >= 1 << 31:
                return BROKEN
            out[slot] = value


@jit
def field_head(buf, pos, last):  # type: ignore[no-untyped-def]
    """(position behind it, field id, type) of a field's head; type 0 ends the struct."""
    if pos < 0:
        return pos, last, np.int64(0)
    if pos >= buf.size:
        return np.int64(NEED_MORE), last, np.int64(0)
    head = np.int64(buf[pos])
    pos += 1
    if head == 0:
        return pos, last, head
    field = last + (head >> 4)
    if head >> 4 == 0:
        pos, field = number(buf, pos)
    if pos >= 0 and (field < 0 or field > 32767 or head & 15 == 0):
        pos = np.int64(BROKEN)
    return pos, field, head & 15


@jit
def list_head(buf, pos):  # type: ignore[no-untyped-def]
    """(position of the first element, count, type) of a list or set. An element takes a byte at least."""
    if pos >= buf.size:
        return np.int64(NEED_MORE), np.int64(0), np.int64(0)
    count, element = np.int64(buf[pos]) >> 4, np.int64(buf[pos]) & 15
    pos += 1
    if count == 15:
        pos, raw = _varint(buf, pos)
        if raw > np.uint64(1 << 31):
            return np.int64(BROKEN), np.int64(0), element
        count = np.int64(raw)
    if pos >= 0 and count and (element == 0 or element > STRUCT):  # fastparquet's empty lists are of type 0
        pos = np.int64(BROKEN)
    return pos, (count if pos >= 0 else np.int64(0)), element


@jit
def number(buf, pos):  # type: ignore[no-untyped-def]
    """(position behind it, value) of a signed varint."""
    pos, raw = _varint(buf, pos)
    return pos, np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1))


@jit
def string(buf, pos):  # type: ignore[no-untyped-def]
    """(position behind it, position of its first byte, its length) of a binary value."""
    pos, length = _varint(buf, pos)
    if pos >= 0 and length > np.uint64(buf.size - pos):
        pos = np.int64(NEED_MORE)
    return (pos, pos, np.int64(0)) if pos < 0 else (pos + np.int64(length), pos, np.int64(length))


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
            return TYPE + field - 1, I32
        if 5 <= field <= 8:
            return SUBHEADER, STRUCT
    elif kind == DATA_PAGE:
        if 1 <= field <= 4:
            return NUM_VALUES + field - 1, I32
    elif kind == DICTIONARY_PAGE:
        if 1 <= field <= 2:
            return NUM_VALUES + field - 1, I32
    elif kind == DATA_PAGE_V2:
        if field == 1:
            return NUM_VALUES, I32
        if field == 2 or field == 3:
            return NUM_NULLS + field - 2, I32
        if field == 4:
            return ENCODING, I32
        if field == 5 or field == 6:
            return DEF_BYTES + field - 5, I32
        if field == 7:
            return IS_COMPRESSED, TRUE
    return -1, 0


@jit
def skip(buf, pos, field_type, stack):  # type: ignore[no-untyped-def]
    """Position behind a value; maps, which Parquet does not use, are refused.

    ``stack`` holds the open containers: elements left (-1 for a struct) and their type. (Not a recursion:
    Numba's cache gives back recursive functions that crash.)
    """
    depth, in_list = 0, False
    while True:
        if field_type == TRUE or field_type == FALSE:
            pos += in_list  # a field's value is its type
        elif field_type == I8:
            pos += 1
        elif field_type == DOUBLE:
            pos += 8
        elif field_type == I16 or field_type == I32 or field_type == I64:
            pos, _ = _varint(buf, pos)
        elif field_type == BINARY:
            pos, length = _varint(buf, pos)
            if pos >= 0:
                if length > np.uint64(1 << 31):
                    return np.int64(BROKEN)
                pos += np.int64(length)
        elif depth == _DEPTH:
            return np.int64(BROKEN)
        elif field_type == STRUCT:
            stack[2 * depth] = -1
            depth += 1
        elif field_type == LIST or field_type == SET:
            pos, stack[2 * depth], stack[2 * depth + 1] = list_head(buf, pos)
            depth += 1
        else:
            return np.int64(BROKEN)
        if pos < 0:
            return pos
        if pos > buf.size:
            return np.int64(NEED_MORE)
        while depth:  # find the next value
            top = 2 * (depth - 1)
            if stack[top] < 0:
                in_list = False
                pos, _, field_type = field_head(buf, pos, np.int64(0))
                if pos < 0:
                    return pos
                if field_type:
                    break
                depth -= 1
            elif stack[top] == 0:
                depth -= 1
            else:
                in_list = True
                stack[top] -= 1
                field_type = stack[top + 1]
                break
        if depth == 0:
            return pos


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
