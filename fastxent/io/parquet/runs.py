"""Runs of equal pages, many of them in one read and one call of a kernel.

A writer that cuts a column of equal rows makes equal pages. So after two such pages the next ones are guessed to be the
same again: their bytes are read in one go, heads (header and levels) into one buffer and values, page behind page, into
another, where they are rows without a gap. Then a kernel proves of every head that it says just what was guessed.
The first that does not ends the run, and the page reader goes on there: nothing is believed here that it would not
believe, and all errors are its own. In Python a page costs some 50 µs, a third of the time that a page of 1 MB has;
a run costs that once.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from fastxent.io.parquet import assemble as asm, levels as lv, thrift
from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.pages import Page, PageReader
from fastxent.io.storage.buffers import Buffers, read_only
from fastxent.io.storage.local import LocalRanges
from fastxent.kernels.jit import brief

_RUN_BYTES = 9 << 19  # read at once: more would not stay in the cache until it is used, and less costs more calls
_PAGES = 400  # at most: a system call takes 1024 pieces of memory
_LOOK = 4 << 10  # bytes of the page behind a run: its header and first level
_RLE = 3


class _Shape(NamedTuple):
    """What is equal in equal pages, in bytes."""

    header: int
    head: int  # header and levels
    values: int
    numbers: tuple[int, ...]  # of the header: the slots of `thrift`, and of the checksum only whether there is one

    @property
    def entries(self) -> int:
        return self.numbers[thrift.NUM_VALUES]


class _Read(NamedTuple):
    """Room for what the heads say.

    slots: int64 (slots,). The numbers of a header: see `thrift`.
    parts: int64 (5,). Where its levels are: see `levels.locate_levels`.
    checksums: int64 (pages,). The checksum of each page.
    """

    slots: np.ndarray
    parts: np.ndarray
    checksums: np.ndarray


class RunReader:
    """Reads on behind what ``pages`` has read, where the bytes lie plain in a local file."""

    def __init__(self, chunk: LogitsChunk, source: LocalRanges, pages: PageReader) -> None:
        self._chunk, self._source, self._pages = chunk, source, pages
        self._stride = chunk.row_bytes + 4 * chunk.byte_array
        self._shape: _Shape | None = None  # of the last page
        self._room = _Room(0, _Shape(0, 0, 0, ()), source.buffers)
        self._read = _Read(thrift.new_header(), np.zeros(5, np.int64), np.zeros(_PAGES, np.int64))

    def after(self, page: Page) -> np.ndarray | None:
        """The pages that follow ``page`` and are like it, as (rows, C) numbers: `more`.

        None also where nothing suggests that there are any. Otherwise ``page`` ends where a row ends.
        """
        if page.place >= 0:  # large, and read in slices
            return None
        head, size = page.head, page.values.size - int(page.parts[4])
        numbers = [*head[: thrift.SUBHEADER]]
        numbers[thrift.CRC] = int(head.crc != thrift.MISSING)
        shape = _Shape(head.body - page.begin, page.end - page.begin - size, size, tuple(numbers))
        seen, self._shape = shape == self._shape, shape
        plain = page.regular and page.encoding in (asm.PLAIN, asm.BYTES)
        return self.more() if seen and plain and size == self._rows_in(shape) * self._stride else None

    def more(self) -> np.ndarray | None:
        """The pages behind those of the last call. The rows are valid until the next one, and end where a row ends."""
        chunk, pages, shape = self._chunk, self._pages, self._shape
        if shape is None:
            return None
        size, left = shape.head + shape.values, chunk.end - pages.offset
        wanted = min(_PAGES, max(1, _RUN_BYTES // size), pages.left // shape.entries, left // size)
        if wanted == 0:
            return None
        if (wanted, shape) != (self._room.pages, self._room.shape):
            del self._room  # its memory is free for the next
            self._room = _Room(wanted, shape, self._source.buffers)
        room, look = self._room, min(_LOOK, left - wanted * size)
        self._source.scatter(pages.offset, [*room.pieces, room.look[:look]])
        n = count_alike(room.heads, wanted, shape.head, shape.header, room.template, self._read, chunk.nesting)
        if shape.numbers[thrift.CRC]:
            n = self._intact(n, shape)
        rows = self._rows_in(shape)
        if chunk.byte_array:
            n = lv.equal_lengths(room.values, 0, n * rows, chunk.row_bytes) // rows
        if n and chunk.max_rep and n * shape.entries < pages.left:
            behind = room.heads[n * shape.head : (n + 1) * shape.head] if n < wanted else room.behind[:look]
            n -= not begins_row(behind, self._read.slots)
        if n < wanted:
            self._shape = None
        if n == 0:
            return None
        pages.skip(n, n * size, n * shape.entries)
        first, strides = 4 * chunk.byte_array, (self._stride, chunk.unit_bytes)
        return np.ndarray((n * rows, chunk.n_classes), pages.unit, room.values, first, strides)

    def _rows_in(self, shape: _Shape) -> int:
        return shape.entries // self._chunk.per_row

    def _intact(self, n: int, shape: _Shape) -> int:
        """The number of pages before the first whose checksum does not match."""
        pieces = self._room.pieces
        for k in range(n):
            crc = zlib.crc32(pieces[2 * k + 1], zlib.crc32(pieces[2 * k][shape.header :]))
            if crc != int(self._read.checksums[k]) & 0xFFFFFFFF:
                return k
        return n


class _Room:
    """Memory for some pages of one shape."""

    def __init__(self, pages: int, shape: _Shape, buffers: Buffers) -> None:
        self.pages, self.shape = pages, shape
        self.template = np.array(shape.numbers, np.int64)
        heads, values, look = (buffers.take(size) for size in (pages * shape.head, pages * shape.values, _LOOK))
        self.heads, self.values, self.behind = read_only(heads), read_only(values), read_only(look)
        self.look = look.data
        self.pieces: list[memoryview] = []  # head and values of each page, in the order of the file
        for k in range(pages):
            self.pieces.append(heads.data[k * shape.head : (k + 1) * shape.head])
            self.pieces.append(values.data[k * shape.values : (k + 1) * shape.values])


@brief
def count_alike(heads, n, size, header, template, read, nesting):  # type: ignore[no-untyped-def]
    """How many of the first n heads, ``size`` bytes each, say the same.

    The same: a header of ``header`` bytes whose numbers are those of ``template`` (of the checksum, which goes to
    ``read.checksums``: whether there is one), and levels of the other bytes, of whole rows without nulls.
    """
    slots, parts = read.slots, read.parts
    for k in range(n):
        head = heads[k * size : (k + 1) * size]
        if thrift.read_page_header(head, slots) != header:
            return k
        read.checksums[k] = slots[thrift.CRC]
        slots[thrift.CRC] = slots[thrift.CRC] != thrift.MISSING
        for slot in range(thrift.SUBHEADER):
            if slots[slot] != template[slot]:
                return k
        second = slots[thrift.TYPE] == thrift.DATA_PAGE_V2
        rep_bytes, def_bytes = np.int64(-1), np.int64(0)
        if second:
            rep_bytes, def_bytes = slots[thrift.REP_BYTES], slots[thrift.DEF_BYTES]
        entries = template[thrift.NUM_VALUES]
        found = lv.examine(head[header:], rep_bytes, def_bytes, entries, nesting, parts)
        if found < 0 or found & lv.REGULAR == 0 or parts[3 if second else 4] != size - header:
            return k
    return n


@brief
def begins_row(buf, slots):  # type: ignore[no-untyped-def]
    """Whether ``buf`` begins with a data page whose first repetition level is seen to be 0."""
    pos = thrift.read_page_header(buf, slots)
    if pos < 0 or slots[thrift.NUM_VALUES] <= 0:
        return False
    if slots[thrift.TYPE] == thrift.DATA_PAGE_V2:
        return lv.first_level(buf, pos, min(buf.size, pos + slots[thrift.REP_BYTES])) == 0
    if slots[thrift.TYPE] != thrift.DATA_PAGE or slots[thrift.REP_ENCODING] != _RLE or buf.size - pos < 4:
        return False
    return lv.first_level(buf, pos + 4, min(buf.size, pos + 4 + lv.u32(buf, pos))) == 0
