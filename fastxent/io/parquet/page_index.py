"""The offset index of a column chunk: the places of its pages and their first rows, without reading them.

Writers may leave it out, and readers need not trust it. Here it only says where a large row group can be cut, and a
part that turns out to hold other rows than it said is an error, never rows under a wrong number.
"""

from __future__ import annotations

import numpy as np

from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.thrift import BROKEN, I16, I64, LIST, STRUCT, field_head, list_head, new_header, number, skip
from fastxent.io.storage.local import Ranges
from fastxent.kernels.jit import jit

_MOST = 64 << 20  # bytes: a million pages take some 10 MB
_LEAST = 7  # bytes of a page in it


def page_locations(chunk: LogitsChunk, source: Ranges) -> np.ndarray | None:
    """(pages, 3): offset in the file, size with header, and first row in the row group, of each data page.

    None where the file does not say, or says what cannot be.
    """
    if chunk.page_index is None:
        return None
    offset, size = chunk.page_index
    if not (0 < size <= _MOST and source.begin <= offset <= source.end - size):
        return None
    found = np.full((size // _LEAST, 3), -1, np.int64)
    pages = read_locations(source.view(offset, size), found, new_header())
    if pages <= 0:
        return None
    found = found[:pages]
    begins, ends, rows = found[:, 0], found[:, 0] + found[:, 1], found[:, 2]
    in_order = (begins[1:] >= ends[:-1]).all() and (rows[1:] > rows[:-1]).all()
    within = chunk.begin <= begins[0] and ends[-1] <= chunk.end and rows[0] == 0 and rows[-1] <= chunk.rows
    return found if in_order and within and (found[:, 1] > 0).all() else None


@jit
def read_locations(buf, out, stack):  # type: ignore[no-untyped-def]
    """Parse an OffsetIndex into ``out`` ((pages at most, 3) int64, -1 where a number is missing).

    Returns the number of pages, or a negative number.
    """
    pos, last, pages = np.int64(0), np.int64(0), np.int64(0)
    while True:
        pos, last, field_type = field_head(buf, pos, last)
        if pos < 0 or field_type == 0:
            return pos if pos < 0 else pages
        if last != 1:
            pos = skip(buf, pos, field_type, stack)
            continue
        if field_type != LIST or pages:
            return np.int64(BROKEN)
        pos, pages, element = list_head(buf, pos)
        if pos < 0 or element != STRUCT or pages > out.shape[0]:
            return np.int64(BROKEN)
        for page in range(pages):
            field = np.int64(0)
            while True:
                pos, field, kind = field_head(buf, pos, field)
                if pos < 0:
                    return pos
                if kind == 0:
                    break
                if 1 <= field <= 3 and I16 <= kind <= I64:
                    pos, out[page, field - 1] = number(buf, pos)
                else:
                    pos = skip(buf, pos, kind, stack)
