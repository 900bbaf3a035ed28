"""Flat columns of numbers, scores or what is beside the logits: from pages to one array, without pyarrow's reader.

A value is written once, to where an Arrow array has it; a column without nulls has no bitmap. Rows before those that
are wanted cost the headers of their pages.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import pyarrow as pa

from fastxent.io.parquet import assemble as asm, thrift, walk
from fastxent.io.parquet.beside import MOST_PAGE
from fastxent.io.parquet.chunk import LogitsChunk, flat
from fastxent.io.parquet.codecs import CodecError
from fastxent.io.parquet.footer import Footer
from fastxent.io.parquet.pages import Page, PageReader
from fastxent.io.parquet.reader import MAX_PAGE, Rows
from fastxent.io.storage.buffers import read_only
from fastxent.io.storage.local import LocalRanges, Ranges
from fastxent.kernels.floats import FLOAT_TYPES

_BLOCK = 5 << 18  # bytes whose pages are walked at once, and of these pages decompressed
_PAGES = 512  # at most in a walk
_SKIPPED = 1 << 16  # rows at a time
_NOTHING, _NO_VERDICTS = np.empty(0, np.uint8), np.empty(0, np.int64)


def flat_columns(footer: Footer, names: Sequence[str]) -> dict[str, list[LogitsChunk]]:
    """Which of the columns ``names`` are read here: their chunks in each row group. `Footer.proven` comes first."""
    found = {}
    for name in names:
        column = footer.called(name)
        if column is None or len(column.leaves) != 1:
            continue
        field = footer.arrow_schema.field(footer.columns.index(column))
        infos = [info for (info,) in footer.infos(column.leaves)]
        chunks = flat(footer.schema_of(column), field, infos, footer.name, footer.source.end)
        if chunks is not None:
            found[name] = chunks
    return found


@contextmanager
def opened(path: str, chunks: Sequence[LogitsChunk]) -> Iterator[list[FlatColumn]]:
    """The columns of a row group of a local file."""
    with ExitStack() as stack:
        sources = (stack.enter_context(closing(LocalRanges(path, c.begin, c.end, ahead=c.end))) for c in chunks)
        yield [FlatColumn(chunk, source) for chunk, source in zip(chunks, sources, strict=True)]


def is_flat(chunk: LogitsChunk, source: Ranges) -> bool:
    """Whether `read_numbers` can read a chunk of one score per row."""
    floats = chunk.dtype in ("float16", "float32", "float64")
    return floats and chunk.max_rep == 0 and not chunk.byte_array and isinstance(source, LocalRanges)


def read_numbers(chunk: LogitsChunk, source: Ranges, max_bytes: int) -> Iterator[Rows]:
    """The rows of a chunk for which `is_flat`, as `reader.read_rows` gives them."""
    assert isinstance(source, LocalRanges)
    column, kind = FlatColumn(chunk, source, MAX_PAGE), FLOAT_TYPES[chunk.dtype]
    step, end = max(1, max_bytes // chunk.row_bytes), chunk.first_row + chunk.rows
    for first in range(chunk.first_row, end, step):
        bits, valid = column.numbers(min(step, end - first))
        values, nulls = bits.view(kind.stored), np.flatnonzero(valid == 0)
        values[nulls] = kind.missing
        yield Rows(values[:, None], dict.fromkeys(nulls.tolist(), "logits are null"), first)


class FlatColumn:
    """The rows of one column, in their order."""

    def __init__(self, chunk: LogitsChunk, source: LocalRanges, max_page: int = MOST_PAGE) -> None:
        self.name, self._chunk, self._source, self._width = chunk.column, chunk, source, chunk.unit_bytes
        self._pages = PageReader(chunk, source, max_page)
        self._page: Page | None = None  # one that was not in a walk
        self._left = 0  # rows of it that are to come
        self._valid = _NOTHING  # ones, as long as no null has been found
        self._s = np.zeros(asm.SLOTS, np.int64)
        self._s[asm.UNITS] = 1
        self._room = np.empty((_PAGES, walk.SLOTS), np.int64)
        self._slots, self._cursor = thrift.new_header(), np.zeros(10, np.int64)
        self._table, self._data, self._first = self._room[:0], _NOTHING, 0  # of a walk; number of its first page

    def skip(self, rows: int) -> None:
        """Go on behind the next ``rows`` rows."""
        self._move(rows, None)

    def take(self, rows: int) -> pa.Array:
        """The next ``rows`` rows."""
        kind = pa.type_for_alias(self._chunk.dtype)
        if not rows:
            return pa.array([], kind)
        numbers, valid = self.numbers(rows)
        if kind.bit_width < 8 * self._width:
            numbers = numbers.astype(f"u{kind.bit_width // 8}")
        bits = pa.py_buffer(np.packbits(valid, bitorder="little")) if len(valid) else None
        return pa.Array.from_buffers(kind, rows, [bits, pa.py_buffer(numbers)], rows - int(valid.sum()) if bits else 0)

    def numbers(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """(the bits of the next ``rows`` rows, 0 for a null; whether each is not null, nothing if all are not)."""
        memory = self._source.buffers.take(rows * self._width)
        return memory.view(self._pages.unit), self._move(rows, memory)

    def _move(self, rows: int, memory: np.ndarray | None) -> np.ndarray:
        """Go on behind the next rows, which go to ``memory``. The second of `numbers`."""
        wanted, width, nulls, at = memory is not None, self._width, 0, 0
        raw = _NOTHING if memory is None else memory
        numbers = raw.view(self._pages.unit)
        most = rows if wanted else min(rows, _SKIPPED)
        if len(self._valid) < most:
            self._valid = np.ones(most, np.uint8)
        valid = self._valid[:most]
        while at < rows:
            into = asm.Output(numbers[at:], raw[at * width :], _NO_VERDICTS)
            room = valid[at:] if wanted else valid[: rows - at]
            if self._left:
                k, found = self._one(into, room, wanted)
            elif len(self._table):
                k, found = self._many(into, room, wanted)
            else:
                k, found = self._walk(0 if wanted else rows - at), 0
            at += k
            nulls += found
        if nulls:
            self._valid = _NOTHING
        return valid if wanted and nulls else _NOTHING

    # ---- pages that lie together -------------------------------------------------------------------------------------

    def _walk(self, past: int) -> int:
        """Find the next pages, behind those that lie whole within the next ``past`` rows; the number of these rows."""
        chunk, pages, before = self._chunk, self._pages, self._pages.left
        buf = self._source.view(pages.offset, min(_BLOCK, chunk.end - pages.offset))
        n = walk.walk_pages(
            buf, self._room, self._slots, (before, _BLOCK), self._width, chunk.max_def > 0, pages.coded,
            chunk.codec is not None,
        )  # fmt: skip
        table, skipped = self._room[:n], 0
        if past:
            skipped = int(np.searchsorted(np.cumsum(table[:, walk.ENTRIES]), past, "right"))
        table = table[: skipped + self._bodies(buf, table[skipped:])]
        if not len(table):
            return self._turn(past)
        passed = int(table[:skipped, walk.ENTRIES].sum())
        self._first = pages.number + skipped
        pages.skip(len(table), int(table[-1, walk.END]), int(table[:, walk.ENTRIES].sum()))
        self._table, self._cursor[0], self._s[asm.ENTRIES] = table[skipped:], -1, 0
        return passed

    def _bodies(self, buf: np.ndarray, table: np.ndarray) -> int:
        """Get the pages of ``table`` ready to be read, and return how many: those before the first that is damaged."""
        n, self._data, decompressor = len(table), buf, self._pages.decompressor
        if not n:
            return 0
        lines = table.tolist()
        for k, line in enumerate(lines):
            begin, crc = line[walk.BODY], line[walk.CRC]
            if crc != thrift.MISSING and zlib.crc32(buf[begin : begin + line[walk.STORED]].data) != crc & 0xFFFFFFFF:
                n = k
                break
        if decompressor is None:
            return n
        data, at = self._source.buffers.take(int(table[:n, walk.SIZE].sum())), 0
        self._data = read_only(data)
        if decompressor.name == "snappy":
            return int(walk.decompress_pages(buf, table[:n], data))
        for k, line in enumerate(lines[:n]):
            begin, end = line[walk.BODY], line[walk.BODY] + line[walk.STORED]
            split = begin + max(0, line[walk.REP]) + line[walk.DEF]
            data[at : at + split - begin] = buf[begin:split]
            values = buf[split:end]
            if line[walk.COMPRESSED]:
                try:
                    values = decompressor.decompress(values, line[walk.SIZE] - (split - begin))
                except CodecError:
                    return k
            table[k, walk.BODY] = at
            at += line[walk.SIZE]
            data[at - values.size : at] = values
        return n

    def _many(self, into: asm.Output, valid: np.ndarray, wanted: bool) -> tuple[int, int]:
        """Take rows of the pages of the walk: (rows, nulls)."""
        pages, cursor = self._pages, self._cursor
        cursor[4] = 0
        given = asm.Values(self._data, pages.dictionary, pages.places)
        got = walk.take_pages(
            (self._data, self._table), cursor, self._s, given, into, valid, self._chunk.nesting, wanted
        )  # fmt: skip
        if got < 0:
            pages.at = f"page {self._first + int(cursor[0])}"
            raise pages.refused(got)
        if got < len(valid):
            self._table, self._data = self._table[:0], _NOTHING
        return got, int(cursor[4])

    # ---- a page alone ------------------------------------------------------------------------------------------------

    def _turn(self, past: int) -> int:
        """Go on with the next page, behind those that lie whole within the next ``past`` rows; the number of these."""
        pages, before = self._pages, self._pages.left
        page = self._page = pages.next(past)
        if page is None:
            if not 0 < past <= before:
                raise pages.broken("it holds fewer rows than the logits", whole=True)
            return before
        self._left = page.entries
        if page.place < 0:
            if page.decompressed >= 0:
                page.values = pages.decompress(page.values, page.decompressed, page.entries)
            if not asm.begin_page(self._s, page.parts, page.values, page.entries, 0, 1, page.encoding, self._width):
                raise pages.refused(asm.BAD_VALUES)
        return before - pages.left - page.entries

    def _one(self, into: asm.Output, valid: np.ndarray, wanted: bool) -> tuple[int, int]:
        """Take rows of the page: (rows, nulls)."""
        page, k = self._page, min(len(valid), self._left)
        assert page is not None
        first, nulls = page.entries - self._left, 0
        if page.place >= 0:  # plain numbers, still in the file
            if wanted:
                self._source.scatter(page.place + first * self._width, [into.raw[: k * self._width].data])
        else:
            self._pages.at = page.name
            given = asm.Values(page.values, self._pages.dictionary, self._pages.places)
            some = _NOTHING if page.regular else valid[:k]
            nulls = walk.take_flat(page.levels, given, self._s, into, some, 0, k, wanted)
            if nulls < 0:
                raise self._pages.refused(nulls)
        self._left -= k
        return k, nulls
