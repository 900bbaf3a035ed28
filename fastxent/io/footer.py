"""The column chunks that a Parquet footer lists.

The schema and all else of a footer is pyarrow's work. Its column chunks are not: pyarrow aborts the process
(an exception of C++ that nothing catches) when it is asked for the codec of a damaged one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastxent.errors import SourceError
from fastxent.io.ranges import Ranges
from fastxent.io.thrift import (
    BROKEN,
    I16,
    I64,
    LIST,
    MISSING,
    STRUCT,
    field_head,
    list_head,
    new_header,
    number,
    skip,
)
from fastxent.kernels.jit import jit

# what `read_chunks` tells of a column chunk
CODEC, ENCODINGS, ENTRIES, UNFOLDED, SIZE, DATA_OFFSET, DICTIONARY_OFFSET, INDEX_OFFSET, INDEX_SIZE, ELSEWHERE, ROWS = (
    range(11)
)
_NUMBERS = 11
_LEAST = 16  # bytes of a column chunk in the footer: no more memory is taken than its length can mean

_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
_ENCODINGS = {
    0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 4: "BIT_PACKED", 5: "DELTA_BINARY_PACKED",
    6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY", 8: "RLE_DICTIONARY", 9: "BYTE_STREAM_SPLIT",
}  # fmt: skip


class ChunkInfo(NamedTuple):
    """One leaf column of one row group, as the footer has it: unchecked."""

    rows: int
    codec: str
    encodings: frozenset[str]
    entries: int
    unfolded: int  # bytes of pages decompressed
    size: int  # bytes of pages as they are stored
    data_offset: int
    dictionary_offset: int | None
    page_index: tuple[int, int] | None  # offset and size of the list of its pages
    elsewhere: bool  # in another file, or encrypted


def column_chunks(source: Ranges, leaf: int) -> list[ChunkInfo]:
    """Leaf column ``leaf`` of each row group of the file that ``source`` spans from its first byte to its last."""
    return [chunks[0] for chunks in chunks_of(source, [leaf])]


def chunks_of(source: Ranges, leaves: Sequence[int]) -> list[list[ChunkInfo]]:
    """Several leaf columns, in ascending order, of each row group."""
    size = source.end
    tail = source.view(size - 8, 8).tobytes() if size >= 12 else b""
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 12:
        raise SourceError(f"{source.name}: its footer is damaged or cut off; write the file again")
    footer = source.view(size - 8 - length, length)
    places = np.full(max(leaves, default=-1) + 1, -1, np.int64)
    places[list(leaves)] = np.arange(len(leaves))
    table, scratch = np.empty((64, len(leaves), _NUMBERS), np.int64), new_header()
    while (groups := read_chunks(footer, places, table, scratch)) > len(table):
        if groups * len(leaves) * _LEAST > length:
            groups = BROKEN
            break
        table = np.empty((groups, *table.shape[1:]), np.int64)
    if groups < 0:
        raise SourceError(f"{source.name}: its footer is damaged; write the file again")
    return [[_info(*chunk) for chunk in line] for line in table[:groups].tolist()]


def _info(
    codec: int, encodings: int, entries: int, unfolded: int, size: int, data_offset: int, dictionary_offset: int,
    index_offset: int, index_size: int, elsewhere: int, rows: int,
) -> ChunkInfo:  # fmt: skip
    return ChunkInfo(
        rows,
        _CODECS[codec] if 0 <= codec < len(_CODECS) else f"number {codec}",
        frozenset(_ENCODINGS.get(bit, f"number {bit}") for bit in range(32) if encodings >> bit & 1),
        entries,
        unfolded,
        size,
        data_offset,
        None if dictionary_offset == MISSING else dictionary_offset,
        None if MISSING in (index_offset, index_size) else (index_offset, index_size),
        bool(elsewhere),
    )


@jit
def read_chunks(buf, places, out, stack):  # type: ignore[no-untyped-def]
    """Find leaf columns of every row group in a footer (FileMetaData). ``places``: of each leaf in ``out``, or -1;
    the last has one. ``out``: (row groups at most, places, numbers) int64. ``stack``: `new_header`, as scratch.

    Returns the number of row groups in the footer (``out`` holds those that fit), or NEED_MORE or BROKEN.
    Absent numbers are MISSING; ENCODINGS is a set of bits; ELSEWHERE is 1 where the chunk is in another file.
    """
    pos, last, groups = np.int64(0), np.int64(0), np.int64(0)
    while True:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos if pos < 0 else groups
        if last != 4:
            pos = skip(buf, pos, field_type, stack)
            continue
        if field_type != LIST or groups:
            return BROKEN
        pos, groups, element = list_head(buf, pos)
        if pos >= 0 and groups and element != STRUCT:
            return BROKEN
        for group in range(groups):
            if pos < 0:
                return pos
            if group < out.shape[0]:
                out[group] = MISSING
                pos = _read_group(buf, pos, places, out[group], stack)
            else:
                pos = skip(buf, pos, STRUCT, stack)


@jit
def _read_group(buf, pos, places, out, stack):  # type: ignore[no-untyped-def]
    last = np.int64(0)
    while pos >= 0:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos
        if last == 1:
            if field_type != LIST:
                return BROKEN
            pos, count, element = list_head(buf, pos)
            if pos >= 0 and (places.size > count or element != STRUCT):
                return BROKEN
            for column in range(count):
                if pos < 0:
                    return pos
                if column < places.size and places[column] >= 0:
                    pos = _read_chunk(buf, pos, out[places[column]], stack)
                else:
                    pos = skip(buf, pos, STRUCT, stack)
        elif last == 3:
            if not I16 <= field_type <= I64:  # varints all; fastparquet has its own mind on which
                return BROKEN
            pos, rows = number(buf, pos)
            out[:, ROWS] = rows
        else:
            pos = skip(buf, pos, field_type, stack)
    return pos


@jit
def _read_chunk(buf, pos, out, stack):  # type: ignore[no-untyped-def]
    last, outer, inside = np.int64(0), np.int64(0), False
    out[ELSEWHERE] = out[ENCODINGS] = 0
    while pos >= 0:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or (field_type == 0 and not inside):
            return pos
        if field_type == 0:
            last, inside = outer, False
        elif not inside and last == 3:  # ColumnMetaData
            if field_type != STRUCT or out[CODEC] != MISSING:
                return BROKEN
            outer, last, inside = last, np.int64(0), True
        elif not inside:
            if last == 1 or last == 8 or last == 9:  # a path, or encryption
                out[ELSEWHERE] = 1
            if (last == 4 or last == 5) and I16 <= field_type <= I64:
                pos, out[INDEX_OFFSET if last == 4 else INDEX_SIZE] = number(buf, pos)
            else:
                pos = skip(buf, pos, field_type, stack)
        elif last == 2 and field_type == LIST:
            pos, count, element = list_head(buf, pos)
            if pos >= 0 and count and not I16 <= element <= I64:
                return BROKEN
            for _ in range(count):
                if pos < 0:
                    return pos
                pos, value = number(buf, pos)
                if value < 0 or value > 31:
                    return BROKEN
                out[ENCODINGS] |= np.int64(1) << value
        elif last == 4 or last == 5 or last == 6 or last == 7 or last == 9 or last == 11:
            if not I16 <= field_type <= I64:
                return BROKEN
            slot = CODEC
            if last == 5:
                slot = ENTRIES
            elif last == 6:
                slot = UNFOLDED
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
