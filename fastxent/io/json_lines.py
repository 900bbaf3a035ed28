"""JSON lines: one object per row. The columns are its numbers, booleans, strings and lists of them, and those of
objects inside it.

An array of objects, objects over several lines, and server-sent events (`events`) are read as such lines. The types of
the columns follow from the first lines: a number is float64, or int64 in ids, targets and lists of whole numbers. What
is of several types there is not a column. The file is divided between objects; each piece is parsed by pyarrow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, SourceError, Where
from fastxent.io import events
from fastxent.io.batch import Batch
from fastxent.io.layout import Layout, RowReader
from fastxent.io.remarks import Remarks
from fastxent.io.storage.buffers import read_only
from fastxent.io.storage.files import File
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.stored import StoredBytes
from fastxent.kernels.json_text import count_lines, one_per_line
from fastxent.names import is_unicode

_PIECE = 2 << 20  # bytes of a unit, up to the end of its last line: small, so that all threads end together
_LONGEST = 256 << 20  # of a line
_TAIL = 1 << 16  # bytes in which a piece is first searched for its last line
_FIRST = 16  # bytes in which the first object begins
_LOOK = 1 << 20  # bytes that tell how objects lie in a file
# An object a line, one array of objects, objects over several lines, or server-sent events
LaidOut = Literal["lines", "array", "spread", "events"]
BOM = b"\xef\xbb\xbf"  # which some programs of Windows write first
_SEEN_LINES, _SEEN_BYTES = 1000, 4 << 20
_DEEPEST = 8  # objects inside objects that have columns
_WHOLE = re.compile(r"(.*_)?(id|idx|index|targets?|labels?|class)")


@dataclass(frozen=True)
class JsonUnit:
    """Consecutive lines of a file. Picklable."""

    file: File
    reader: RowReader
    where: Where
    rows: int
    begin: int  # bytes of the file
    end: int
    fields: tuple[pa.Field, ...]  # of the columns to read
    laid_out: LaidOut
    version: Version | None = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, object]:  # elsewhere the same file was written at another time
        return {**self.__dict__, "version": None}

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        with unchanged(self.file, self.version), closing(StoredBytes(self.file)) as source:
            batch = self._parsed(self._lines(source))
            yield from self.reader.cut(batch, self.where, min(rows, self.reader.rows_in(block_bytes)))

    def parsed(self) -> pa.RecordBatch:
        """All rows."""
        with closing(StoredBytes(self.file)) as source:
            return self._parsed(self._lines(source))

    def _lines(self, source: StoredBytes) -> np.ndarray:
        return lines_of(source.read(self.begin, self.end - self.begin), self.laid_out, self.file.name)

    def _parsed(self, data: np.ndarray) -> pa.RecordBatch:
        from pyarrow import json as pj

        place = f"cannot read {self.file.name}, rows {self.where.first_row}..{self.where.first_row + self.rows - 1}"
        try:
            table = pj.read_json(
                pa.BufferReader(pa.py_buffer(data)),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
                parse_options=pj.ParseOptions(pa.schema(self.fields), unexpected_field_behavior="ignore"),
            )
        except (pa.ArrowException, OSError) as error:
            detail = " ".join(str(error).split())
            rule = "; a column must have one type in all lines" if re.search("changed|convert", detail) else ""
            raise SourceError(f"{place}: {detail}{rule}") from None
        if len(table) != self.rows:
            raise SourceError(f"{place}: these lines hold {len(table)} objects; write one object per line")
        return table.combine_chunks().to_batches()[0]


class JsonLinesPart(Remarks):
    """A file as a part of a source. Opening it reads the file once, to count its rows."""

    format = "json lines"
    rows: int | None
    seen: list[Any]  # objects
    laid_out: LaidOut

    def __init__(self, file: File) -> None:
        self._version = Version.of(file)
        self.file, self.name, self.hive, self.inputs = file, file.name, file.hive, (file,)
        with unchanged(file, self._version), closing(StoredBytes(file, forward=True)) as source:
            first: list[Any] = []
            rows = 0
            self._pieces: list[tuple[int, int, int]] = []  # begin, end, rows
            self.laid_out = _layout(source)
            for begin, end, text in pieces_of(source, self.laid_out):
                ends, objects = count_lines(read_only(text))
                count = int(ends) + 1
                if not first or bytes(text[:1]) != b"{" or ends != objects:
                    lines = [line for line in text.tobytes().split(b"\n") if not line.isspace() and line]
                    first, count = first or self._objects(lines), len(lines)
                    other = next((k for k, line in enumerate(lines) if not line.lstrip().startswith(b"{")), None)
                    if other is not None:
                        raise self._no_object(rows + other)
                if count:
                    self._pieces.append((begin, end, count))
                rows += count
        self.rows = rows
        self.seen = first
        kind = type_of("", first) if first else None
        self.schema = pa.schema([] if kind is None else list(kind))
        others = dict.fromkeys(key for row in first for key in row if key not in self.schema.names)
        self.refused = {
            key: ColumnError(
                f"column {key!r} of {self.name} must hold numbers, booleans, strings or lists of them, of one type in "
                "all lines"
            )
            for key in others
        }

    def _objects(self, lines: Iterable[bytes]) -> list[Any]:
        found, size = list[Any](), 0
        for number, line in enumerate(lines):
            size += len(line)
            if self._enough(found, size):
                break
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
                raise SourceError(
                    f"cannot read {self.name}: row {number} is not a JSON object in one line ({detail}); "
                    "write one object per line"
                ) from None
            if not isinstance(found[-1], dict):
                raise self._no_object(number)
        return found

    def _enough(self, found: list[Any], size: int) -> bool:
        """Whether these objects tell the columns of all lines; with the next one they take ``size`` bytes."""
        return len(found) == _SEEN_LINES or (bool(found) and size > _SEEN_BYTES)

    def _no_object(self, row: int) -> SourceError:
        return SourceError(f"cannot read {self.name}: row {row} is not a JSON object; write one per line")

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Number of classes in the first list that has any."""
        root = self._root(layout.names[0])
        for unit in self.units(RowReader(layout, 1, (root,), blind=True)):
            if (found := layout.width(unit.parsed(), self.name)) is not None:
                return found
        return None

    def _root(self, name: str) -> str:
        """The column of the file that holds a column."""
        return name if self.schema.get_field_index(name) >= 0 else name.partition(".")[0]

    def units(self, reader: RowReader) -> Iterator[JsonUnit]:
        wanted = {(self._root(name), name) for name in reader.stored}
        columns = ((column, {name for root, name in wanted if root == column.name}) for column in self.schema)
        fields = tuple(_only(column, names, column.name) for column, names in columns if names)
        fields = fields or tuple(self.schema)[:1]
        row = 0
        for begin, end, rows in self._pieces:
            where = Where(self.name, None, row)
            yield JsonUnit(self.file, reader, where, rows, begin, end, fields, self.laid_out, self._version)
            row += rows


def _layout(source: StoredBytes) -> LaidOut:
    """How objects lie in a file."""
    begin = _begin(source)
    head = source.take(begin, min(_LOOK, source.size - begin))
    if head.startswith(events.STARTS):
        return "events"
    if head.startswith(b"["):
        return "array"
    line, end, _ = head.partition(b"\n")
    if not end:
        return "lines"
    return "spread" if line.rstrip()[-1:] in b"{[," else "lines"


def _begin(source: StoredBytes) -> int:
    """The place of the first object, behind a mark of byte order and blanks."""
    head = source.take(0, min(_FIRST, source.size))
    return len(head) - len(head.removeprefix(BOM).lstrip())


def lines_of(data: np.ndarray, laid_out: LaidOut, name: str) -> np.ndarray:
    """A piece of a file, uint8 (n,), with one object per line. name: str. Of the file."""
    if laid_out == "lines":
        return data
    if laid_out == "events":
        return np.frombuffer(events.responses_of(data.tobytes(), name), np.uint8)
    room = data.copy()
    one_per_line(room)
    return room


def pieces_of(source: StoredBytes, laid_out: LaidOut) -> Iterator[tuple[int, int, np.ndarray]]:
    """(begin, end, lines) of consecutive pieces of a file that hold whole objects, one per line. lines: uint8 (n,)."""
    at, size = _begin(source), _PIECE
    if laid_out in ("lines", "events"):
        for begin, data in _pieces(source, at, laid_out):
            yield begin, begin + len(data), lines_of(data, laid_out, source.name)
        return
    at += int(laid_out == "array")
    while at < source.size:
        room = source.read(at, min(size, source.size - at)).copy()
        last = at + len(room) == source.size
        end = one_per_line(room)
        closed = end < 0  # the bracket of the array
        end = -1 - end if closed else end
        if not closed and not end and not last:
            if size >= _LONGEST:
                raise SourceError(f"cannot read {source.name}: an object is longer than {_LONGEST >> 20} MB")
            size *= 2
            continue
        rest = room[end + closed :].tobytes() if closed or last else b""
        if rest.strip() or (closed and laid_out != "array") or (closed and at + end + 1 + len(rest) < source.size):
            what = "it holds more than one array" if closed else "it is cut short"
            raise SourceError(f"cannot read {source.name}: {what}; write one JSON object per line")
        if last and not closed and laid_out == "array":
            raise SourceError(f"cannot read {source.name}: it is cut short; write one JSON object per line")
        yield at, at + end, room[:end]
        if closed or last:
            return
        at, size = at + end, _PIECE


def _pieces(source: StoredBytes, at: int, laid_out: LaidOut) -> Iterator[tuple[int, np.ndarray]]:
    """(place, bytes) of consecutive pieces of a file, from ``at`` on, that end behind a line or a response."""
    size = _PIECE
    while at < source.size:
        room = source.read(at, min(size, source.size - at))
        end = len(room)
        if at + end < source.size:
            if laid_out == "events":
                end = events.end_of_responses(room.tobytes())
            else:
                ends = np.flatnonzero(room[-_TAIL:] == 0x0A)
                end = end - len(room[-_TAIL:]) + int(ends[-1]) + 1 if len(ends) else room.tobytes().rfind(b"\n") + 1
        data = room[:end]
        if not end:
            if size >= _LONGEST:
                what = "a response" if laid_out == "events" else "a line"
                raise SourceError(f"cannot read {source.name}: {what} is longer than {_LONGEST >> 20} MB")
            size *= 2
            continue
        yield at, data
        at, size = at + len(data), _PIECE


def _only(column: pa.Field, names: set[str], path: str) -> pa.Field:
    """What a column holds for the columns ``names``. path: str. Its own name as a column."""
    if path in names or not pa.types.is_struct(column.type):
        return column
    inner = ((field, f"{path}.{field.name}") for field in column.type)
    kept = [
        _only(field, names, at) for field, at in inner if any(name == at or name.startswith(f"{at}.") for name in names)
    ]
    return column.with_type(pa.struct(kept)) if kept else column


def type_of(name: str, values: list[Any], lists: bool = True, depth: int = 0) -> pa.DataType | None:
    """The type of a column that holds these values; None if it is not a column. lists: bool. Lists are columns."""
    kinds = {float if type(value) is int else type(value) for value in values if value is not None}
    if kinds == {dict} and depth < _DEEPEST:
        inner: dict[str, list[Any]] = {}
        for value in values:
            for key, item in (value or {}).items():
                inner.setdefault(key, []).append(item)
        named = ((key, items) for key, items in inner.items() if is_unicode(key))
        found = ((key, type_of(key, items, lists, depth + 1)) for key, items in named)
        fields = [pa.field(key, kind) for key, kind in found if kind is not None]
        return pa.struct(fields) if fields else None
    if kinds == {list} and lists and depth < _DEEPEST:
        items = [item for value in values for item in value or ()]
        if items and all(item is None or type(item) is int for item in items):
            return pa.list_(pa.int64()) if all(abs(item or 0) < 1 << 63 for item in items) else None
        kind = type_of("", items, lists, depth + 1)
        return None if kind is None else pa.list_(kind)
    if kinds == {float} or not kinds:
        whole = all(value is None or (type(value) is int and abs(value) < 1 << 63) for value in values)
        return pa.int64() if kinds and whole and _WHOLE.fullmatch(name) else pa.float64()
    return pa.bool_() if kinds == {bool} else pa.string() if kinds == {str} else None
