"""Compiled walks over the metadata in a Parquet footer: its fields, its schema, its column chunks.

Numbers are not compared with each other here: `footer.Footer` does that. Positions are bytes of the footer.
"""

from __future__ import annotations

import numpy as np

from fastxent.io.parquet.thrift import (
    BINARY,
    BROKEN,
    I16,
    I64,
    LIST,
    MISSING,
    STRUCT,
    field_head,
    list_head,
    number,
    skip,
    string,
)  # fmt: skip
from fastxent.kernels.jit import jit

# what `read_chunks` tells of a column chunk
CODEC, ENCODINGS, ENTRIES, DECOMPRESSED, SIZE = range(5)
DATA_OFFSET, DICTIONARY_OFFSET, INDEX_OFFSET, INDEX_SIZE, ELSEWHERE, ROWS = range(5, 11)
TYPE, PATH, TEXT, BEGIN, END = range(11, 16)  # TEXT: bytes of its strings, without lengths; PATH: its position
NUMBERS = 16
OTHER_FILE, ENCRYPTED = 1, 2  # bits of ELSEWHERE
# what `read_elements` tells of an element of the schema
KIND, REPETITION, CHILDREN, NAME, NAME_SIZE, FROM, TO = range(7)
# fields of FileMetaData
VERSION, SCHEMA, NUM_ROWS, GROUPS, KEY_VALUES, CREATED = range(1, 7)
FIELDS = 16


@jit
def read_fields(buf, out, stack):  # type: ignore[no-untyped-def]
    """Find the fields of a footer. ``out`` (FIELDS, 3) int64: begin, end, and number of members (of lists that are
    read here, whose first member is at the begin), value (of numbers) or type; MISSING where there is no such field.

    ``stack``: `new_header`, as scratch. Returns a negative number if the footer is broken."""
    pos, last = np.int64(0), np.int64(0)
    while True:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos
        begin, value, end = pos, np.int64(0), skip(buf, pos, field_type, stack)
        if end < 0:
            return end
        if last < FIELDS:
            if out[last, 0] != MISSING:
                return np.int64(BROKEN)
            if last == SCHEMA or last == GROUPS:
                if field_type != LIST:
                    return np.int64(BROKEN)
                begin, value, element = list_head(buf, pos)
                if value and element != STRUCT:
                    return np.int64(BROKEN)
            elif last == VERSION or last == NUM_ROWS:
                if not I16 <= field_type <= I64:  # varints all; fastparquet has its own mind on which
                    return np.int64(BROKEN)
                _, value = number(buf, pos)
            else:
                value = field_type
            out[last, 0], out[last, 1], out[last, 2] = begin, end, value
        pos = end


@jit
def read_elements(buf, pos, out, stack):  # type: ignore[no-untyped-def]
    """The elements of a schema, which begin at ``pos``: ``out`` (elements, 7) int64, MISSING where absent."""
    for element in range(out.shape[0]):
        if pos < 0:
            return pos
        out[element, FROM] = pos
        last = np.int64(0)
        while pos >= 0:
            pos, last, field_type = field_head(buf, pos, last)
            if pos < 0 or field_type == 0:
                break
            if last == 4:
                if field_type != BINARY:
                    return np.int64(BROKEN)
                pos, out[element, NAME], out[element, NAME_SIZE] = string(buf, pos)
            elif last == 1 or last == 3 or last == 5:
                if not I16 <= field_type <= I64:
                    return np.int64(BROKEN)
                slot = KIND if last == 1 else REPETITION if last == 3 else CHILDREN
                pos, out[element, slot] = number(buf, pos)
            else:
                pos = skip(buf, pos, field_type, stack)
        out[element, TO] = pos
        if pos >= 0 and out[element, NAME] == MISSING:
            return np.int64(BROKEN)
    return pos


@jit
def read_chunks(buf, pos, places, groups, out, stack):  # type: ignore[no-untyped-def]
    """Find leaf columns of every row group, the first of which begins at ``pos``. ``places``: of each leaf in ``out``,
    or -1; the last has one. ``groups`` (row groups, 2): its rows and columns. ``out``: (row groups, places, NUMBERS).

    All int64, MISSING where absent; ENCODINGS and ELSEWHERE are sets of bits. Negative if the footer is broken.
    """
    for group in range(groups.shape[0]):
        pos = _read_group(buf, pos, places, groups[group], out[group], stack)
        if pos < 0:
            return pos
    return pos


@jit
def _read_group(buf, pos, places, group, out, stack):  # type: ignore[no-untyped-def]
    last = np.int64(0)
    while pos >= 0:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos
        if last == 1:
            if field_type != LIST:
                return np.int64(BROKEN)
            pos, count, element = list_head(buf, pos)
            if pos >= 0 and (group[1] != MISSING or places.size > count or (count and element != STRUCT)):
                return np.int64(BROKEN)
            group[1] = count
            for column in range(count):
                if pos < 0:
                    return pos
                if column < places.size and places[column] >= 0:
                    pos = _read_chunk(buf, pos, out[places[column]], stack)
                else:
                    pos = skip(buf, pos, STRUCT, stack)
        elif last == 3:
            if not I16 <= field_type <= I64:  # varints all; fastparquet has its own mind on which
                return np.int64(BROKEN)
            pos, group[0] = number(buf, pos)
            out[:, ROWS] = group[0]
        else:
            pos = skip(buf, pos, field_type, stack)
    return pos


@jit
def _read_chunk(buf, pos, out, stack):  # type: ignore[no-untyped-def]
    last, outer, inside = np.int64(0), np.int64(0), False
    out[ELSEWHERE] = out[ENCODINGS] = 0
    out[BEGIN] = pos
    while pos >= 0:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or (field_type == 0 and not inside):
            out[END] = pos
            return pos
        if field_type == 0:
            last, inside = outer, False
        elif not inside and last == 3:  # ColumnMetaData
            if field_type != STRUCT or out[CODEC] != MISSING:
                return np.int64(BROKEN)
            outer, last, inside = last, np.int64(0), True
        elif not inside:
            if last == 1 or last == 8 or last == 9:
                out[ELSEWHERE] |= OTHER_FILE if last == 1 else ENCRYPTED
            if (last == 4 or last == 5) and I16 <= field_type <= I64:
                pos, out[INDEX_OFFSET if last == 4 else INDEX_SIZE] = number(buf, pos)
            else:
                pos = skip(buf, pos, field_type, stack)
        elif last == 2 and field_type == LIST:
            pos, count, element = list_head(buf, pos)
            if pos >= 0 and count and not I16 <= element <= I64:
                return np.int64(BROKEN)
            for _ in range(count):
                if pos < 0:
                    return pos
                pos, value = number(buf, pos)
                if value < 0 or value > 31:
                    return np.int64(BROKEN)
                out[ENCODINGS] |= np.int64(1) << value
        elif last == 3 and field_type == LIST:
            out[PATH], pos = pos, skip(buf, pos, field_type, stack)
        elif last == 16 and field_type == STRUCT:  # SizeStatistics
            pos = _read_sizes(buf, pos, out, stack)
        elif last == 1 or last == 4 or last == 5 or last == 6 or last == 7 or last == 9 or last == 11:
            if not I16 <= field_type <= I64:
                return np.int64(BROKEN)
            slot = CODEC
            if last == 1:
                slot = TYPE
            elif last == 5:
                slot = ENTRIES
            elif last == 6:
                slot = DECOMPRESSED
            elif last == 7:
                slot = SIZE
            elif last == 9:
                slot = DATA_OFFSET
            elif last == 11:
                slot = DICTIONARY_OFFSET
            pos, out[slot] = number(buf, pos)
        else:
            pos = skip(buf, pos, field_type, stack)
    return pos


@jit
def _read_sizes(buf, pos, out, stack):  # type: ignore[no-untyped-def]
    last = np.int64(0)
    while pos >= 0:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos
        if last == 1 and I16 <= field_type <= I64:
            pos, out[TEXT] = number(buf, pos)
        else:
            pos = skip(buf, pos, field_type, stack)
    return pos
