"""Columns of numbers beside the logits: from pages to the memory of Arrow arrays, without pyarrow's reader.

A value is written once, to where the array has it; a column without nulls has no bitmap. Rows before those that are
wanted cost the headers of their pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import pyarrow as pa

from fastxent.io.parquet import assemble as asm
from fastxent.io.parquet.beside import MOST_PAGE
from fastxent.io.parquet.chunk import LogitsChunk, flat
from fastxent.io.parquet.footer import Footer
from fastxent.io.parquet.pages import Page, PageReader
from fastxent.io.storage.local import LocalRanges
from fastxent.kernels.jit import brief, jit

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


class FlatColumn:
    """The rows of one column, in their order."""

    def __init__(self, chunk: LogitsChunk, source: LocalRanges) -> None:
        self.name, self._source, self._width = chunk.column, source, chunk.unit_bytes
        self._kind = pa.type_for_alias(chunk.dtype)
        self._pages = PageReader(chunk, source, MOST_PAGE)
        self._page: Page | None = None
        self._left = 0  # rows of the page that are to come
        self._s = np.zeros(asm.SLOTS, np.int64)
        self._s[asm.UNITS] = 1

    def skip(self, rows: int) -> None:
        """Go on behind the next ``rows`` rows."""
        while rows:
            if not self._left:
                before = self._pages.left
                self._turn(rows)
                rows -= before - self._pages.left - self._left
            k = min(rows, self._left)
            self._fill(_NOTHING, k, wanted=False)
            rows -= k

    def take(self, rows: int) -> pa.Array:
        """The next ``rows`` rows."""
        if not rows:
            return pa.array([], self._kind)
        memory = self._source.buffers.take(rows * self._width)
        nulls, valid, at = 0, _NOTHING, 0
        while at < rows:
            if not self._left:
                self._turn(0)
            k = min(rows - at, self._left)
            some = self._fill(memory[at * self._width : (at + k) * self._width], k)
            if len(some):
                if not nulls:
                    valid = np.ones(rows, np.uint8)
                valid[at : at + k] = some
                nulls += k - int(some.sum())
            at += k
        numbers = memory.view(self._pages.unit)
        if self._kind.bit_width < 8 * self._width:
            numbers = numbers.astype(f"u{self._kind.bit_width // 8}")
        bits = pa.py_buffer(np.packbits(valid, bitorder="little")) if nulls else None
        return pa.Array.from_buffers(self._kind, rows, [bits, pa.py_buffer(numbers)], nulls)

    def _turn(self, past: int) -> None:
        """Go on with the next page, behind those that lie whole within the next ``past`` rows."""
        pages, before = self._pages, self._pages.left
        page = self._page = pages.next(past)
        if page is None:
            if not 0 < past <= before:
                raise pages.broken("it holds fewer rows than the logits", whole=True)
            return
        self._left = page.entries
        if page.place >= 0:
            return
        if page.decompressed >= 0:
            page.values = pages.decompress(page.values, page.decompressed, page.entries)
        if not asm.begin_page(self._s, page.parts, page.values, page.entries, 0, 1, page.encoding, self._width):
            raise pages.refused(asm.BAD_VALUES)

    def _fill(self, memory: np.ndarray, k: int, wanted: bool = True) -> np.ndarray:
        """Fill ``memory`` with the next ``k`` rows of the page, and tell which of them are not null; nothing if all."""
        page, first = self._page, 0
        if page is None or not k:
            return _NOTHING
        first = page.entries - self._left
        self._left -= k
        if page.place >= 0:  # plain numbers, still in the file
            if wanted:
                self._source.scatter(page.place + first * self._width, [memory.data])
            return _NOTHING
        self._pages.at = page.name
        valid = _NOTHING if page.regular else np.empty(k, np.uint8)
        into = asm.Output(memory.view(self._pages.unit), memory, _NO_VERDICTS)
        given = asm.Values(page.values, self._pages.dictionary, self._pages.places)
        nulls = take_flat(page.levels, given, self._s, into, valid, k, wanted)
        if nulls < 0:
            raise self._pages.refused(nulls)
        return valid if nulls else _NOTHING


@brief
def take_flat(levels, given, s, into, valid, k, wanted):  # type: ignore[no-untyped-def]
    """The next k entries of the page in ``s`` to ``into``, 0 for a null, or past them if not ``wanted``.

    ``valid``: uint8 (k,). 1 for a number, 0 for a null; of no size for a page without nulls. Returns the number of
    nulls, or an error code.
    """
    good = _validity(levels, s, valid) if valid.size else k
    if good < 0:
        return np.int64(asm.BAD_LEVELS)
    code = asm.take(given, s, into, 0, good, wanted)
    if code < 0:
        return np.int64(code)
    s[asm.ENTRIES] -= k
    if wanted and good < k:  # the numbers lie together: each to its place, the last one first
        numbers, at = into.numbers, good
        for i in range(k - 1, -1, -1):
            at -= valid[i]
            numbers[i] = numbers[at]
            if not valid[i]:
                numbers[i] = 0
    return k - good if s[asm.ENTRIES] or asm.used_up(s) else np.int64(asm.BAD_VALUES)


@jit
def _validity(levels, s, valid):  # type: ignore[no-untyped-def]
    """Write the next definition levels, of one bit each, to ``valid``; their sum, or -1 where they end too early."""
    done, good = np.int64(0), np.int64(0)
    while done < valid.size:
        if s[asm.DEF + asm.LEFT] == 0 and not asm.next_run(levels, s, asm.DEF):
            return np.int64(-1)
        count = min(valid.size - done, s[asm.DEF + asm.LEFT])
        s[asm.DEF + asm.LEFT] -= count
        bit, value = s[asm.DEF + asm.BIT], s[asm.DEF + asm.VALUE]
        packed = s[asm.DEF + asm.PACKED] != 0
        for i in range(done, done + count):
            if packed:
                value = np.int64(levels[bit >> 3] >> (bit & 7)) & 1
                bit += 1
            valid[i] = value
            good += value
        s[asm.DEF + asm.BIT] = bit
        done += count
    return good
