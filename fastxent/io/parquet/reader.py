"""The native Parquet reader: one column chunk of logits → a stream of (n, C) rows.

A page of an uncompressed file whose levels prove it to be whole rows of C plain values is handed out as a view
of what was read; a compressed one as a view of its decompressed bytes. All else is assembled by a kernel into
one reusable buffer of about half a megabyte, which stays in cache: encoded values, tiny pages, nulls, ragged
rows, and rows that lie on two pages.

    with closing(LocalRanges(file)) as whole:
        infos = column_chunks(whole, leaf)
        chunk = plan(schema, leaf, infos[group], group, n_classes, dtype, whole)  # a str: read it through pyarrow
    with closing(LocalRanges(file, chunk.begin, chunk.end)) as source:
        for values, bad, first_row in read_rows(chunk, source, max_bytes):
            ...
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fastxent.io.parquet import assemble as asm, levels as lv, thrift
from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.page_index import page_locations
from fastxent.io.parquet.pages import Page, PageReader
from fastxent.io.parquet.runs import RunReader
from fastxent.io.parquet.slices import SliceReader
from fastxent.io.storage.local import LocalRanges, Ranges
from fastxent.kernels.floats import FLOAT_TYPES

# A batch costs its consumer some 100 µs of Python: pages smaller than this are gathered, and a gathered batch
# is this large, so that it is still in the cache of the core that wrote it.
_SMALL, _GATHERED = 256 << 10, 1 << 20
MAX_PAGE = 1 << 30
_IDS = 4096  # rows looked up at a time


class Rows(NamedTuple):
    """n rows in the order of the file. Read them before asking for the next: ``values`` may be a buffer used anew."""

    values: np.ndarray  # (n, C) of the chunk's dtype (bfloat16: uint16), class axis contiguous, any alignment
    bad: dict[int, str]  # index -> what is wrong with a row that is not C numbers; its place holds NaN
    first_row: int  # within the row group


def read_rows(chunk: LogitsChunk, source: Ranges, max_bytes: int, max_page: int = MAX_PAGE) -> Iterator[Rows]:
    """Every row of ``chunk``, in order, at most ``max_bytes`` of logits at a time (one row at the least).

    ``source`` gives the bytes [chunk.begin, chunk.end) of the file. A page of more than ``max_page`` bytes
    in memory is refused.
    """
    return _RowReader(chunk, source, max_bytes, max_page).rows()


def split(chunk: LogitsChunk, source: Ranges, target_bytes: int, walk: bool = True) -> list[LogitsChunk]:
    """Parts of ``chunk`` of about ``target_bytes`` in the file, so that several workers can share a row group.

    Where pages begin is in the file's page index; ``walk``: without one, page headers are read. The chunk stays whole
    where its number of entries shows that some row is not C logits, since rows before a page can then not be counted
    without reading them. Where lengths vary all the same, or the index is wrong, the parts notice: they end in a
    SourceError, never in rows under a wrong number.
    """
    per_row = chunk.per_row
    if chunk.entries != chunk.rows * per_row or chunk.end - chunk.begin < 2 * target_bytes:
        return [chunk]
    cuts: list[tuple[int, int, int]] = []  # (offset of a page header, entries before it, pages before it)
    last, dictionary = chunk.begin, False
    found = page_locations(chunk, source)
    pages: Iterable[tuple[int, int, int]] = ()
    if found is not None:
        dictionary = int(found[0, 0]) > chunk.begin
        pages = ((offset, row * per_row, k) for k, (offset, _, row) in enumerate(found.tolist()))
    elif walk:
        pages = _walk(chunk, source)
    for offset, entries, page in pages:
        dictionary |= page < 0
        if page > 0 and offset - last >= target_bytes and entries % per_row == 0 and 0 < entries < chunk.entries:
            cuts.append((offset, entries, page))
            last = offset
    edges = [(chunk.pages_begin, 0, 0), *cuts, (chunk.end, chunk.entries, 0)]
    return [
        replace(
            chunk, begin=chunk.begin if dictionary else begin, pages_begin=begin, end=end, first_page=first_page,
            entries=stop - start, first_row=start // per_row, rows=(stop - start) // per_row,
        )
        for (begin, start, first_page), (end, stop, _) in itertools.pairwise(edges)
    ]  # fmt: skip


def _walk(chunk: LogitsChunk, source: Ranges) -> Iterator[tuple[int, int, int]]:
    """(offset, entries before it, pages before it) of each data page, and (offset, 0, -1) of a dictionary page."""
    reader = PageReader(chunk, source, 0)
    offset, entries, page = chunk.begin, 0, 0
    while entries < chunk.entries and offset < chunk.end:
        head = reader.peek(offset)
        if head.type == thrift.DICTIONARY_PAGE:
            yield offset, 0, -1
        elif head.type != thrift.INDEX_PAGE:
            yield offset, entries, page
            entries += head.entries
            page += 1
        offset = head.body + head.compressed
        source.passed(offset)


class _RowReader:
    def __init__(self, chunk: LogitsChunk, source: Ranges, max_bytes: int, max_page: int) -> None:
        self._chunk, self._source, self._max_bytes = chunk, source, max_bytes
        self._pages = PageReader(chunk, source, max_page)
        self._runs: RunReader | None = None
        self._slices: SliceReader | None = None
        if chunk.codec is None and isinstance(source, LocalRanges):
            self._runs = RunReader(chunk, source, self._pages)
            self._slices = SliceReader(chunk, source, max_bytes)
        self._per_row, self._row_bytes = chunk.per_row, chunk.row_bytes
        self._row = chunk.first_row  # first row not handed out
        self._pending = 0  # rows assembled and not handed out
        self._out = self._raw = self._verdicts = np.empty(0)
        self._s = np.zeros(asm.SLOTS, np.int64)
        self._s[[asm.EXPECTED, asm.UNITS, asm.MAX_DEF, asm.LIST_DEF, asm.ELEMENT_DEF, asm.NAN, asm.ROW_BYTES]] = (
            chunk.per_row, chunk.n_classes // chunk.per_row, chunk.max_def, chunk.list_def, chunk.element_def,
            FLOAT_TYPES[chunk.dtype].nan, chunk.row_bytes,
        )  # fmt: skip

    def rows(self) -> Iterator[Rows]:
        """The whole chunk. In lists one page is looked at ahead: only its first level tells whether a row has ended."""
        page = self._pages.next()
        while page is not None:
            run = self._runs.after(page) if self._runs else None
            following = self._pages.next() if run is None and self._chunk.max_rep else None
            yield from self._page_rows(page, following is None or following.starts_row)
            while run is not None:
                if self._pending:
                    yield self._gathered()
                for piece in self._pieces(run):
                    yield self._hand_out(piece, {})
                run = self._runs.more() if self._runs else None
            page = following or self._pages.next()
        if self._pending:
            yield self._gathered()
        missing = self._chunk.first_row + self._chunk.rows - self._row
        if missing:
            raise self._pages.broken(f"the pages hold {missing} rows fewer than the footer says", whole=True)

    def _page_rows(self, page: Page, closes: bool) -> Iterator[Rows]:
        self._pages.at = page.name
        if page.decompressed >= 0:
            page.values = self._pages.decompress(page.values, page.decompressed, page.entries)
        if self._slices and page.encoding == asm.DICTIONARY and self._pages.rows_at >= 0:
            yield from self._looked_up(self._slices, page, closes)
            return
        whole = closes and not self._s[asm.OPEN]
        if self._slices and page.place >= 0 and whole:
            if self._pending:
                yield self._gathered()
            for piece in self._slices.rows(page.place, page.entries // self._per_row):
                yield self._hand_out(piece, {})
            return
        self._pages.load(page)
        view = self._as_view(page) if whole else None
        if view is None:
            yield from self._assemble(page, closes)
        else:
            if self._pending:
                yield self._gathered()
            behind = len(view) * view.strides[0]  # bytes of the page not handed out yet
            for piece in self._pieces(view):
                yield self._hand_out(piece, {})
                behind -= len(piece) * view.strides[0]
                self._source.passed(page.end - behind)
        self._source.passed(page.end)

    def _pieces(self, view: np.ndarray) -> Iterator[np.ndarray]:
        most = max(1, self._max_bytes // self._row_bytes)
        step = -(-len(view) // -(-len(view) // most))  # equal pieces: no batch of one row at the end of a page
        for at in range(0, len(view), step):
            yield view[at : at + step]

    def _as_view(self, page: Page) -> np.ndarray | None:
        """The page as a view of rows, if it holds only whole rows and is large enough for a batch."""
        chunk = self._chunk
        n = page.entries // self._per_row
        begin, stride = int(page.parts[4]), self._row_bytes
        if n * stride < min(_SMALL, self._max_bytes) or not page.regular:
            return None
        if page.encoding == asm.BYTES:
            if lv.equal_lengths(page.values, begin, n, stride) < n:
                return None
            begin, stride = begin + 4, stride + 4
        elif page.encoding != asm.PLAIN:
            return None
        if not 0 <= page.values.size - int(page.parts[4]) - n * stride <= asm.SLACK:
            return None
        return np.ndarray((n, chunk.n_classes), self._pages.unit, page.values, begin, (stride, chunk.unit_bytes))

    def _looked_up(self, slices: SliceReader, page: Page, closes: bool) -> Iterator[Rows]:
        """Rows of a dictionary that has been left in the file: their numbers are looked up instead."""
        if self._pending:
            yield self._gathered()
        chunk, s, places = self._chunk, self._s.copy(), self._pages.places
        s[[asm.UNITS, asm.NAN]] = 1, 0
        asm.begin_page(s, page.parts, page.values, page.entries, 0, chunk.def_width, page.encoding, 4)
        ids, verdicts = np.empty(_IDS, np.uint32), np.empty(_IDS, np.int64)
        given = asm.Values(page.values, self._pages.dictionary, places)
        into = asm.Output(ids, ids.view(np.uint8), verdicts)
        got = _IDS
        while got == _IDS:
            got = asm.assemble(page.levels, given, s, into, 0, _IDS, closes)
            if got < 0:
                raise self._pages.refused(got)
            for rows, found in slices.looked_up(self._pages.rows_at, ids[:got], verdicts[:got], int(self._s[asm.NAN])):
                yield self._hand_out(rows, self._odd(found))

    def _assemble(self, page: Page, closes: bool) -> Iterator[Rows]:
        chunk, s = self._chunk, self._s
        if not self._out.size:
            rows = max(1, min(self._max_bytes, _GATHERED) // self._row_bytes)
            self._out = np.empty(rows * chunk.n_classes, self._pages.unit)
            self._raw = self._out.view(np.uint8)
            self._verdicts = np.full(rows, asm.FINE, np.int64)
        capacity = len(self._verdicts)
        widths = chunk.max_rep, chunk.def_width
        if not asm.begin_page(s, page.parts, page.values, page.entries, *widths, page.encoding, chunk.unit_bytes):
            raise self._pages.refused(asm.BAD_VALUES)
        given = asm.Values(page.values, self._pages.dictionary, self._pages.places)
        into = asm.Output(self._out, self._raw, self._verdicts)
        regular = self._is_regular(page, closes)
        while True:
            if regular:
                got = asm.assemble_regular(given, s, into, self._pending, capacity)
            else:
                got = asm.assemble(page.levels, given, s, into, self._pending, capacity, closes)
            if got < 0:
                raise self._pages.refused(got)
            self._pending = got
            if got < capacity:
                return
            yield self._gathered()

    def _is_regular(self, page: Page, closes: bool) -> bool:
        """Whether all that keeps a page from being whole rows is where it was cut."""
        chunk, s = self._chunk, self._s
        phase = int(s[asm.HAVE]) if s[asm.OPEN] else 0
        if chunk.byte_array or (s[asm.OPEN] and not (0 < phase < self._per_row and s[asm.NULL_AT] < 0)):
            return False
        if ((phase + page.entries) % self._per_row == 0) != closes:
            return False  # the last row is too short, or may turn out too long
        if phase == 0 and closes:
            return page.regular
        return bool(lv.rows_are_regular(page.levels, page.parts, page.entries, chunk.nesting, phase))

    def _gathered(self) -> Rows:
        n, self._pending, bad = self._pending, 0, dict[int, str]()
        if self._s[asm.BAD]:
            bad, self._s[asm.BAD] = self._odd(self._verdicts[:n]), 0
            self._verdicts[:n] = asm.FINE
        return self._hand_out(self._out[: n * self._chunk.n_classes].reshape(n, -1), bad)

    def _odd(self, verdicts: np.ndarray) -> dict[int, str]:
        return {k: self._reason(int(verdicts[k])) for k in np.flatnonzero(verdicts != asm.FINE).tolist()}

    def _hand_out(self, values: np.ndarray, bad: dict[int, str]) -> Rows:
        first, n = self._row, len(values)
        self._row += n
        if self._row > self._chunk.first_row + self._chunk.rows:
            raise self._pages.broken("the pages hold more rows than the footer says", whole=True)
        if self._chunk.dtype == "bfloat16" and self._chunk.unit_bytes == 4:
            if values.max(initial=0) > 0xFFFF:
                raise self._pages.broken("a value does not fit in the 16 bits of its type")
            return Rows(values.astype(np.uint16), bad, first)
        return Rows(values.view(FLOAT_TYPES[self._chunk.dtype].stored), bad, first)

    def _reason(self, verdict: int) -> str:
        """The message of `columns.as_rows`, so that errors do not depend on the reader."""
        chunk = self._chunk
        if verdict == asm.NULL_ROW:
            return "logits are null"
        if verdict <= asm.NULL_ELEMENT:
            return f"logits hold a null, at class {asm.NULL_ELEMENT - verdict}"
        length = str(verdict)
        if chunk.byte_array:
            length = f"{verdict} bytes of" if verdict % chunk.unit_bytes else str(verdict // chunk.unit_bytes)
        return f"{length} logits where {chunk.n_classes} are expected"
