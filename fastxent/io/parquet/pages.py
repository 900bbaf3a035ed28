"""The pages of a Parquet column chunk: header → checksum → decompression → where the levels and the values lie.

Every number in a page is hostile until checked. A broken page is a SourceError that names file, row group
and page.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastxent.errors import SourceError
from fastxent.io.parquet import assemble as asm, levels as lv, slices, thrift, walk
from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.codecs import CodecError, Decompressor
from fastxent.io.storage.buffers import buffers, read_only
from fastxent.io.storage.local import LocalRanges, Ranges

_PIECE = 1 << 20  # of a page whose checksum is taken
_LEVELS = 4 << 10, 192 << 10  # bytes at the beginning of a large page in which its levels should be
_HEADER_PEEK, _HEADER_GUESS, _HEADER_MOST = 256, 4 << 10, 16 << 20
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY, _SPLIT = 0, 2, 3, 8, 9  # Encoding of the format

_ERRORS = {
    asm.BAD_LEVELS: "its levels are malformed or end too early",
    asm.BAD_VALUES: "its bytes of values do not match its levels",
    asm.BAD_INDEX: "a dictionary index is outside the dictionary",
    asm.ORPHAN: "its first row has no start",
    asm.LEVEL_RANGE: "a definition level is out of range",
    walk.MALFORMED: "its levels extend past its end",
}


class Header(NamedTuple):
    """The slots of `thrift`, in their order."""

    type: int
    uncompressed: int
    compressed: int
    crc: int
    entries: int
    encoding: int
    def_encoding: int
    rep_encoding: int
    nulls: int
    rows: int
    def_bytes: int
    rep_bytes: int
    is_compressed: int
    body: int  # offset in the file


@dataclass(slots=True)
class Page:
    """A data page whose levels and values have been located."""

    name: str
    head: Header
    begin: int  # offset in the file
    entries: int
    encoding: int
    levels: np.ndarray  # bytes that hold the levels
    parts: np.ndarray  # where in them (`levels.locate_levels`), and where the values begin in ``values``
    values: np.ndarray
    decompressed: int  # size of ``values`` decompressed where they still are compressed (v2 pages), else -1
    end: int  # offset in the file
    regular: bool  # proven: whole rows, no null
    starts_row: bool  # as far as the first level tells
    place: int = -1  # of its first row in the file, where the page is plain rows and ``values`` has not been read


class PageReader:
    """Reads the pages of ``chunk`` in order, and keeps its dictionary."""

    def __init__(self, chunk: LogitsChunk, source: Ranges, max_page: int) -> None:
        self._chunk, self._source, self._max_page = chunk, source, max_page
        self.decompressor = Decompressor(chunk.codec) if chunk.codec else None
        self._slots = thrift.new_header()
        self.at = ""  # the page that errors are about
        self.unit = np.dtype(f"u{chunk.unit_bytes}")
        self.dictionary = np.frombuffer(b"", self.unit).reshape(0, 1)  # (entries, numbers of an entry)
        self.places = np.empty((0, 2), np.int64)  # for byte arrays: bytes and row in ``dictionary`` of each entry
        self._unread: Header | None = None  # of a dictionary that no page has asked for yet
        self.rows_at = -1  # of a dictionary of rows that stays in the file; ``dictionary`` then numbers them
        self.offset, self.left, self.number = chunk.begin, chunk.entries, chunk.first_page  # left: entries to come

    def next(self, past: int = 0) -> Page | None:
        """The next data page that holds something, behind those that lie whole within the next ``past`` values."""
        chunk = self._chunk
        while self.left > 0:
            self.at = f"page {self.number}"
            if self.offset >= chunk.end:
                raise self.broken(f"the page is missing, and {self.left} values with it")
            begin, head = self.offset, self.header(self.offset)
            self.offset = head.body + head.compressed
            if head.type == thrift.DICTIONARY_PAGE:
                if begin != chunk.begin:
                    raise self.broken("the dictionary is not the first page")
                self._unread = head
                if not isinstance(self._source, LocalRanges):  # which goes back for it, if a page asks for it at all
                    self._read_dictionary()
                self.offset = max(self.offset, chunk.pages_begin)
            elif head.type != thrift.INDEX_PAGE:
                if head.entries > self.left:
                    raise self.broken(f"it has {head.entries} values where the footer leaves {self.left}")
                self.left -= head.entries
                self.number += 1
                if head.entries > past:
                    return self._data_page(head, begin)
                past -= head.entries
        return None

    @property
    def coded(self) -> bool:
        """Whether pages of a dictionary can be read: it has been read, or there is none."""
        return self._unread is None

    def skip(self, pages: int, nbytes: int, entries: int) -> None:
        """Go on behind data pages that were read otherwise."""
        self.offset += nbytes
        self.left -= entries
        self.number += pages

    def peek(self, offset: int) -> Header:
        """`header`, where nothing else of the page is wanted."""
        if not isinstance(self._source, LocalRanges):
            return self.header(offset)
        few = np.frombuffer(self._source.peek(offset, min(self._chunk.end - offset, _HEADER_PEEK)), np.uint8)
        got = thrift.read_page_header(few, self._slots)
        return self.header(offset) if got < 0 else self._checked(offset, got)

    def header(self, offset: int) -> Header:
        """The page header at ``offset``; its page lies within the chunk."""
        left, guess = self._chunk.end - offset, _HEADER_GUESS
        while True:
            got = thrift.read_page_header(self._source.view(offset, min(left, guess)), self._slots)
            if got != thrift.NEED_MORE or guess >= min(left, _HEADER_MOST):
                break
            guess *= 16
        return self._checked(offset, got)

    def _checked(self, offset: int, got: int) -> Header:
        """The header in the slots, of ``got`` bytes or malformed."""
        left = self._chunk.end - offset
        if got < 0:
            raise self.broken("its header is malformed")
        head = Header._make([*self._slots[: thrift.SUBHEADER].tolist(), offset + got])
        if head.compressed > left - got:
            raise self.broken(f"its {head.compressed} bytes extend past the end of the column chunk")
        return head

    def _body(self, head: Header) -> np.ndarray:
        """The page's bytes as stored, their CRC checked."""
        if head.compressed > self._max_page:
            raise self._too_large(head.compressed)
        self._check(head)
        return self._source.view(head.body, head.compressed)

    def _check(self, head: Header) -> None:
        if head.crc != thrift.MISSING:
            crc = 0
            for at in range(head.body, head.body + head.compressed, _PIECE):
                crc = zlib.crc32(self._source.view(at, min(_PIECE, head.body + head.compressed - at)).data, crc)
            if crc != head.crc & 0xFFFFFFFF:
                raise self.broken("its checksum does not match; the file is damaged")

    def _in_slices(self, nbytes: int) -> bool:
        """Whether plain bytes are left in the file, to be read slice by slice."""
        return nbytes > slices.LARGE and self.decompressor is None and isinstance(self._source, LocalRanges)

    def load(self, page: Page) -> None:
        """Read the values of a page that has only been looked at."""
        if page.place >= 0:
            begin, page.place = page.place - int(page.parts[4]), -1
            page.values = self._source.view(begin, page.end - begin)

    def _large_page(self, head: Header, begin: int, most: int) -> Page | None:
        """A large page of plain rows without nulls, of which the levels alone are read, ``most`` bytes. None where it
        is something else, or has more of them."""
        chunk, n, split = self._chunk, head.entries, (-1, 0)
        levels = self._source.view(head.body, min(most, head.compressed))
        if head.type == thrift.DATA_PAGE_V2:
            split = head.rep_bytes, head.def_bytes
            levels = levels[: sum(split)]
        elif (chunk.max_rep and head.rep_encoding != _RLE) or (chunk.max_def and head.def_encoding != _RLE):
            return None
        parts, found = self._examine(levels, split, n)
        size, stride = head.compressed - max(sum(split), int(parts[4])), chunk.row_bytes + 4 * chunk.byte_array
        whole_rows = found >= 0 and found & lv.REGULAR and head.uncompressed == head.compressed
        if not whole_rows or not 0 <= size - n // chunk.per_row * stride <= asm.SLACK:
            return None
        if chunk.byte_array and not self._equal_lengths(self.offset - size, n):
            return None
        self._check(head)
        encoding = asm.BYTES if chunk.byte_array else asm.PLAIN
        return Page(
            self.at, head, begin, n, encoding, levels, parts, levels[:0], -1, self.offset, True,
            bool(found & lv.STARTS_ROW), place=self.offset - size,
        )  # fmt: skip

    def _equal_lengths(self, offset: int, n: int) -> bool:
        """Whether the ``n`` byte arrays from ``offset`` of the file on are rows: of all their bytes the lengths alone
        are read."""
        assert isinstance(self._source, LocalRanges)
        due, length = self._chunk.row_bytes.to_bytes(4, "little"), bytearray(4)
        for at in range(offset, offset + n * (self._chunk.row_bytes + 4), self._chunk.row_bytes + 4):
            self._source.scatter(at, [memoryview(length)])
            if length != due:
                return False
        return True

    def _examine(self, levels: np.ndarray, split: tuple[int, int], n: int) -> tuple[np.ndarray, int]:
        parts = np.zeros(5, np.int64)
        return parts, lv.examine(levels, *split, n, self._chunk.nesting, parts)

    def _data_page(self, head: Header, begin: int) -> Page:
        chunk, n = self._chunk, head.entries
        wide = chunk.row_bytes >= slices.WIDE or not chunk.byte_array
        if head.encoding == _PLAIN and wide and self._in_slices(head.compressed):
            for most in _LEVELS:
                page = self._large_page(head, begin, most)
                if page is not None:
                    return page
        if head.encoding == _PLAIN:
            encoding = asm.BYTES if chunk.byte_array else asm.PLAIN
        elif head.encoding in (_RLE_DICTIONARY, _PLAIN_DICTIONARY):
            encoding = asm.DICTIONARY
            self._read_dictionary()
        elif head.encoding == _SPLIT and not chunk.byte_array:
            encoding = asm.SPLIT
        else:
            raise self.broken(f"encoding {head.encoding} is not valid for its type")
        body, decompressed = self._body(head), -1
        if head.type == thrift.DATA_PAGE:
            if (chunk.max_rep and head.rep_encoding != _RLE) or (chunk.max_def and head.def_encoding != _RLE):
                raise self.broken("its levels are not run-length encoded")
            levels = values = self.decompress(body, head.uncompressed, n)
            split = (-1, 0)
        else:
            split, decompressed = (head.rep_bytes, head.def_bytes), head.uncompressed - head.rep_bytes - head.def_bytes
            if sum(split) > head.compressed or decompressed < 0:
                raise self.broken("its levels extend past its end")
            levels, values = body[: sum(split)], body[sum(split) :]
            if self.decompressor is None or head.is_compressed == 0:
                if head.uncompressed != head.compressed:
                    raise self.broken(f"it has {head.compressed} bytes where its header says {head.uncompressed}")
                decompressed = -1
        parts, found = self._examine(levels, split, n)
        if found < 0:
            raise self.broken("its levels extend past its end")
        return Page(
            self.at, head, begin, n, encoding, levels, parts, values, decompressed, self.offset,
            bool(found & lv.REGULAR), bool(found & lv.STARTS_ROW),
        )  # fmt: skip

    def decompress(self, body: np.ndarray, size: int, entries: int) -> np.ndarray:
        """A page's bytes, decompressed where the chunk is. ``size`` must be in proportion before memory is taken."""
        if self.decompressor is None:
            if size != body.size:
                raise self.broken(f"it has {body.size} bytes where its header says {size}")
            return body
        chunk = self._chunk
        # at most: two levels of 2 bytes, a value, and for dictionary indices the overhead of a run each
        if not chunk.byte_array and size > 64 + entries * (chunk.row_bytes // chunk.per_row + 9):
            raise self.broken(f"{size} bytes are too many for {entries} values")
        if size > self._max_page:
            raise self._too_large(size)
        try:
            return self.decompressor.decompress(body, size)
        except CodecError as error:
            raise self.broken(str(error)) from None

    def _read_dictionary(self) -> None:
        """Read the dictionary, where there is one that has not been read."""
        head, self._unread = self._unread, None
        if head is not None:
            page, self.at = self.at, "dictionary page"
            self._take_dictionary(head)
            self.at = page

    def _take_dictionary(self, head: Header) -> None:
        chunk = self._chunk
        if head.encoding not in (_PLAIN, _PLAIN_DICTIONARY):
            raise self.broken(f"its encoding is {head.encoding}, not plain")
        units = chunk.n_classes // chunk.per_row
        width = units * chunk.unit_bytes
        wide = width >= slices.WIDE and not chunk.byte_array and not chunk.max_rep
        if wide and self._in_slices(head.compressed):
            if head.compressed != head.uncompressed or head.compressed != head.entries * width:
                raise self.broken(f"it has {head.compressed} bytes for {head.entries} entries")
            self._check(head)
            self.rows_at = head.body
            self.dictionary = read_only(np.arange(head.entries, dtype=np.uint32)).reshape(-1, 1)
            return
        body = self.decompress(self._body(head), head.uncompressed, head.entries)
        if not chunk.byte_array:
            if body.size != head.entries * width:
                raise self.broken(f"it has {body.size} bytes for {head.entries} entries")
            if self.decompressor is None:  # the kernels want it aligned, and it outlives the buffer that it is in
                room = buffers().take(body.size)
                room[:] = body
                body = read_only(room)
            self.dictionary = body.view(self.unit).reshape(head.entries, units)
        else:
            if head.entries > body.size // 4:
                raise self.broken(f"it has {body.size} bytes for {head.entries} entries")
            self.places = np.empty((head.entries, 2), np.int64)
            if not asm.byte_array_lengths(body, self.places):
                raise self.broken("its lengths do not add up to its size")
            good = self.places[:, 0] == chunk.row_bytes
            rows = [body[at : at + chunk.row_bytes].data for at in self.places[good, 1].tolist()]
            self.dictionary = np.frombuffer(b"".join(rows), self.unit).reshape(len(rows), units)
            self.places[:, 1] = np.where(good, np.cumsum(good) - 1, -1)

    def _too_large(self, size: int) -> SourceError:
        return self.broken(
            f"its {size} bytes exceed the limit of {self._max_page}; write the file with pages of about 1 MB"
        )

    def refused(self, code: int) -> SourceError:
        """What a kernel of `assemble` has found."""
        return self.broken(_ERRORS[code])

    def broken(self, what: str, whole: bool = False) -> SourceError:
        page = "" if whole else f", {self.at}"
        return SourceError(f"cannot read {self._chunk.place}{page}: {what}")
