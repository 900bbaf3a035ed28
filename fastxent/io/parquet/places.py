"""Where the plain values of a column chunk lie in the file, found without reading them."""

from __future__ import annotations

import numpy as np

from fastxent.errors import SourceError
from fastxent.io.parquet import assemble as asm, levels as lv, thrift
from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.pages import Header, PageReader
from fastxent.io.storage.local import LocalRanges

_PLAIN, _RLE = 0, 3  # Encoding of the format
_LEVELS = 4 << 10, 192 << 10  # bytes of a page in which its levels should be


def value_runs(chunk: LogitsChunk, source: LocalRanges) -> list[tuple[int, int]] | None:
    """(the number of its first value in the chunk, where that lies in the file) of each page.

    None unless all pages hold plain values of whole rows, without nulls and checksums: then rows are where they seem.
    """
    if chunk.codec is not None or chunk.byte_array:
        return None
    pages, found = PageReader(chunk, source, 0), list[tuple[int, int]]()
    offset, entries, size = chunk.begin, 0, chunk.row_bytes // chunk.per_row
    try:
        while entries < chunk.entries and offset < chunk.end:
            head = pages.header(offset)
            if head.type != thrift.INDEX_PAGE:
                begin = _values(chunk, source, head, entries % chunk.per_row)
                if begin < 0 or not 0 <= head.compressed - begin - head.entries * size <= asm.SLACK:
                    return None
                found.append((entries, head.body + begin))
                entries += head.entries
            offset = head.body + head.compressed
    except SourceError:  # the reader of all rows tells it
        return None
    return found if entries == chunk.entries == chunk.rows * chunk.per_row else None


def _values(chunk: LogitsChunk, source: LocalRanges, head: Header, phase: int) -> int:
    """Where the values of a page begin in its body, if the page is as `value_runs` wants it; else a number below 0.

    phase: how many values of its first row went before.
    """
    second = head.type == thrift.DATA_PAGE_V2
    runs = (not chunk.max_rep or head.rep_encoding == _RLE) and (not chunk.max_def or head.def_encoding == _RLE)
    plain = second or (head.type == thrift.DATA_PAGE and runs)
    sound = head.encoding == _PLAIN and head.crc == thrift.MISSING and head.uncompressed == head.compressed
    if not (plain and sound):
        return -1
    parts = np.zeros(5, np.int64)
    if second:
        parts[[1, 2]] = head.rep_bytes
        parts[[3, 4]] = head.rep_bytes + head.def_bytes
        if not 0 <= head.rep_bytes <= parts[4] <= head.compressed:
            return -1
        levels = source.view(head.body, int(parts[4]))
    else:
        for most in _LEVELS:
            levels = source.view(head.body, min(most, head.compressed))
            if lv.locate_levels(levels, chunk.max_rep, chunk.max_def, parts):
                break
        else:
            return -1
    regular = lv.rows_are_regular(levels, parts, head.entries, chunk.nesting, phase)
    return int(parts[4]) if regular else -1
