"""The Thrift that decides what memory is read: Parquet page headers, and the column chunks a footer lists.

Both are structs in Thrift's compact protocol: fields of (type, id) followed by varints. The parser is strict:
known fields must have their type, none may come twice, what is unknown is stepped over within the buffer,
and nesting has a limit. It is compiled: in Python the walk over one page header takes some 20 µs, a fifth of
the time a page of 1 MB has.

The schema and all else of a footer is pyarrow's work. Its column chunks are not: pyarrow 26 aborts the process
when it is asked for the codec or the encodings of a damaged one.
"""

from __future__ import annotations

import numpy as np

from fastxent.kernels.jit import jit

# slots of the result
TYPE, UNCOMPRESSED, COMPRESSED, CRC, NUM_VALUES, ENCODING, DEF_ENCODING, REP_ENCODING = range(8)
NUM_NULLS, NUM_ROWS, DEF_BYTES, REP_BYTES, IS_COMPRESSED, SUBHEADER = range(8, 14)
_STACK = 14  # behind the slots: scratch for `_skip`
_DEPTH = 12  # of nesting

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)  # values of TYPE
MISSING = -(1 << 40)  # a slot whose field is absent: outside the range of every field
NEED_MORE = -1  # the buffer ends inside the header
BROKEN = -2

# columns of what `read_chunks` fills, one line for each row group
CODEC, ENCODINGS, ENTRIES, SIZE, DATA_OFFSET, DICTIONARY_OFFSET, ELSEWHERE, ROWS = range(8)

_HEADER = 8  # kind of struct; a subheader's kind is the value of TYPE it belongs to
_TRUE, _FALSE, _I8, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


def new_header() -> np.ndarray:
    """An array for `read_page_header` to fill."""
    return np.full(_STACK + 2 * _DEPTH, MISSING, np.int64)


@jit
def read_page_header(buf, out):  # type: ignore[no-untyped-def]
    """Parse the page header at the start of ``buf`` (uint8) into ``out`` (`new_header`).

    Returns its length in bytes, or NEED_MORE, or BROKEN. After success the slots a page of that type must have
    are filled and not negative (CRC may have any sign); optional ones may be MISSING.
    """
    out[:] = MISSING
    pos, last, outer, kind = np.int64(0), np.int64(0), np.int64(0), np.int64(_HEADER)
    while True:
        pos, last, field_type = _field(buf, pos, last)
        if pos < 0:
            return pos
        if field_type == 0:
            if kind == _HEADER:
                return pos if _complete(out) else BROKEN
            last, kind = outer, np.int64(_HEADER)  # behind the subheader
            continue
        slot, expected = _slot(kind, last)
        if slot < 0:
            pos = _skip(buf, pos, field_type, out[_STACK:])
            if pos < 0:
                return pos
            continue
        is_bool = expected == _TRUE and field_type == _FALSE  # a bool's value is its type
        if out[slot] != MISSING or (field_type != expected and not is_bool):
            return BROKEN
        if slot == SUBHEADER:
            out[slot] = last - 5
            outer, last, kind = last, np.int64(0), last - 5
        elif expected == _TRUE:
            out[slot] = field_type == _TRUE
        else:
            pos, value = _number(buf, pos)
            if pos < 0:
                return pos
            if value < -(1 << 31) or value >= 1 << 31:
                return BROKEN
            out[slot] = value


@jit
def read_chunks(buf, leaf, out, stack):  # type: ignore[no-untyped-def]
    """Find leaf column ``leaf`` of every row group in a footer (FileMetaData). ``out``: (row groups at most, 8) int64;
    ``stack``: `new_header`, as scratch.

    Returns the number of row groups in the footer (``out`` holds those that fit), or NEED_MORE or BROKEN.
    Absent numbers are MISSING; ENCODINGS is a set of bits; ELSEWHERE is 1 where the chunk is in another file.
    """
    pos, last, groups = np.int64(0), np.int64(0), np.int64(0)
    while True:
        pos, last, field_type = _field(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos if pos < 0 else groups
        if last != 4:
            pos = _skip(buf, pos, field_type, stack)
            continue
        if field_type != _LIST or groups:
            return BROKEN
        pos, groups, element = _list(buf, pos)
        if pos >= 0 and groups and element != _STRUCT:
            return BROKEN
        for group in range(groups):
            if pos < 0:
                return pos
            if group < out.shape[0]:
                out[group] = MISSING
                pos = _read_group(buf, pos, leaf, out[group], stack)
            else:
                pos = _skip(buf, pos, _STRUCT, stack)


@jit
def _read_group(buf, pos, leaf, out, stack):  # type: ignore[no-untyped-def]
    last = np.int64(0)
    while pos >= 0:
        pos, last, field_type = _field(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos
        if last == 1:
            if field_type != _LIST:
                return BROKEN
            pos, count, element = _list(buf, pos)
            if pos >= 0 and (leaf >= count or element != _STRUCT):
                return BROKEN
            for column in range(count):
                if pos < 0:
                    return pos
                pos = _read_chunk(buf, pos, out, stack) if column == leaf else _skip(buf, pos, _STRUCT, stack)
        elif last == 3:
            if not _I16 <= field_type <= _I64:  # varints all; fastparquet has its own mind on which
                return BROKEN
            pos, out[ROWS] = _number(buf, pos)
        else:
            pos = _skip(buf, pos, field_type, stack)
    return pos


@jit
def _read_chunk(buf, pos, out, stack):  # type: ignore[no-untyped-def]
    last, outer, inside = np.int64(0), np.int64(0), False
    out[ELSEWHERE] = out[ENCODINGS] = 0
    while pos >= 0:
        pos, last, field_type = _field(buf, pos, last)
        if pos < 0 or (field_type == 0 and not inside):
            return pos
        if field_type == 0:
            last, inside = outer, False
        elif not inside and last == 3:  # ColumnMetaData
            if field_type != _STRUCT or out[CODEC] != MISSING:
                return BROKEN
            outer, last, inside = last, np.int64(0), True
        elif not inside:
            if last == 1 or last == 8 or last == 9:  # a path, or encryption
                out[ELSEWHERE] = 1
            pos = _skip(buf, pos, field_type, stack)
        elif last == 2 and field_type == _LIST:
            pos, count, element = _list(buf, pos)
            if pos >= 0 and count and not _I16 <= element <= _I64:
                return BROKEN
            for _ in range(count):
                if pos < 0:
                    return pos
                pos, value = _number(buf, pos)
                if value < 0 or value > 31:
                    return BROKEN
                out[ENCODINGS] |= np.int64(1) << value
        elif last == 4 or last == 5 or last == 7 or last == 9 or last == 11:
            if not _I16 <= field_type <= _I64:
                return BROKEN
            slot = CODEC
            if last == 5:
                slot = ENTRIES
            elif last == 7:
                slot = SIZE
            elif last == 9:
                slot = DATA_OFFSET
            elif last == 11:
                slot = DICTIONARY_OFFSET
            pos, out[slot] = _number(buf, pos)
        else:
            pos = _skip(buf, pos, field_type, stack)
    return pos


@jit
def _field(buf, pos, last):  # type: ignore[no-untyped-def]
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
        pos, field = _number(buf, pos)
    if pos >= 0 and (field < 0 or field > 32767 or head & 15 == 0):
        pos = np.int64(BROKEN)
    return pos, field, head & 15


@jit
def _list(buf, pos):  # type: ignore[no-untyped-def]
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
    if pos >= 0 and count and (element == 0 or element > _STRUCT):  # fastparquet's empty lists are of type 0
        pos = np.int64(BROKEN)
    return pos, (count if pos >= 0 else np.int64(0)), element


@jit
def _number(buf, pos):  # type: ignore[no-untyped-def]
    """(position behind it, value) of a signed varint."""
    pos, raw = _varint(buf, pos)
    return pos, np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1))


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
def _skip(buf, pos, field_type, stack):  # type: ignore[no-untyped-def]
    """Position behind a value; maps, which Parquet does not use, are refused.

    ``stack`` holds the open containers: elements left (-1 for a struct) and their type. (Not a recursion:
    Numba's cache gives back recursive functions that crash.)
    """
    depth, in_list = 0, False
    while True:
        if field_type == _TRUE or field_type == _FALSE:
            pos += in_list  # a field's value is its type
        elif field_type == _I8:
            pos += 1
        elif field_type == _DOUBLE:
            pos += 8
        elif field_type == _I16 or field_type == _I32 or field_type == _I64:
            pos, _ = _varint(buf, pos)
        elif field_type == _BINARY:
            pos, length = _varint(buf, pos)
            if pos >= 0:
                if length > np.uint64(1 << 31):
                    return np.int64(BROKEN)
                pos += np.int64(length)
        elif depth == _DEPTH:
            return np.int64(BROKEN)
        elif field_type == _STRUCT:
            stack[2 * depth] = -1
            depth += 1
        elif field_type == _LIST or field_type == _SET:
            pos, stack[2 * depth], stack[2 * depth + 1] = _list(buf, pos)
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
                pos, _, field_type = _field(buf, pos, np.int64(0))
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
