"""CSV and TSV files, plain or compressed: one row per record, the columns named by the first line.

A column of the first records is of whole numbers, numbers, booleans or text, and so is the rest of it. A column of
scores is float64. Whole numbers stay exact: a batch of a column beside the scores is of integers if all its values are,
else of float64. Dates are text. An empty field is null, and a quoted empty field is an empty text. An empty
line is a null if a record has one field. Otherwise it is ignored.

A plain file is divided between records, and opening it reads it once to count them. A compressed file is one unit, and
its rows are counted when they are read. The records are parsed by pyarrow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch
from fastxent.io.delimited_values import column_type, floats_of, values_of
from fastxent.io.layout import AS_TEXT, Layout, RowReader
from fastxent.io.remarks import Remarks
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.stored import StoredBytes
from fastxent.kernels.delimited_text import records

CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # first bytes of a compressed file
_SUFFIX = re.compile(r"\.(csv|tsv)(\.(gz|gzip|zst|zstd))?$", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"
_LOOK = 1 << 20  # bytes that tell the types of the columns
_PIECE = 8 << 20  # bytes of a unit, up to the end of its last record
_LONGEST = 32 << 20  # of a record
_DELIMITERS = ",\t;"
_ALL = 1 << 62
_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


class Column(NamedTuple):
    """A column of a file: its place in a record, its name and its type."""

    place: int
    name: str
    type: pa.DataType


@dataclass(frozen=True)
class Text:
    """The text of a file, and how it is divided. Picklable.

    codec: str or None. delimiter: str. width: int. Fields of a record. skip: int. Bytes before the first row.
    """

    file: File
    codec: str | None
    delimiter: str = ","
    width: int = 0
    skip: int = 0
    version: Version | None = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, object]:  # elsewhere the same file was written at another time
        return {**self.__dict__, "version": None}

    @contextmanager
    def opened(self, begin: int = 0, end: int = _ALL) -> Iterator[Callable[[int], bytes]]:
        """A function that reads the next bytes of the text, from ``begin`` up to ``end``; less only at the end."""
        with unchanged(self.file, self.version):
            if self.codec is None:
                with closing(StoredBytes(self.file, forward=True)) as stored:
                    at, last = begin, min(end, stored.size)

                    def take(length: int) -> bytes:
                        nonlocal at
                        data = stored.take(at, max(0, min(length, last - at)))
                        at += len(data)
                        return data

                    yield take
                return
            with self.file.open() as handle, closing(pa.CompressedInputStream(handle, self.codec)) as stream:

                def decompressed(length: int) -> bytes:
                    found, left = [], length
                    with reading(self.file.name):
                        while left and (data := stream.read(left)):
                            found.append(data)
                            left -= len(data)
                    return b"".join(found)

                skipped = 0
                while skipped < begin and (data := decompressed(min(_PIECE, begin - skipped))):
                    skipped += len(data)
                yield decompressed

    def pieces(self, take: Callable[[int], bytes], begin: int) -> Iterator[tuple[int, bytes, int]]:
        """(place, text, number of records) of consecutive pieces of the text that hold whole records."""
        at, rest, size = begin, b"", _PIECE
        while True:
            data = take(size)
            last, data = len(data) < size, rest + data
            count, end, quoted = self.records(data, last=last)
            if last and quoted:
                raise SourceError(
                    f"cannot read {self.file.name}: a quote is not closed at its end; check that the file is complete"
                )
            if end:
                yield at, data[:end], count
            elif not last and len(data) >= _LONGEST:
                raise self.too_long()
            if last:
                return
            at, rest, size = at + end, data[end:], _PIECE if end else len(data)

    def too_long(self) -> SourceError:
        """The error of a record that would take too much memory."""
        return SourceError(
            f"cannot read {self.file.name}: a record is longer than {_LONGEST >> 20} MB, the most that is read; check "
            "its quotes and line ends"
        )

    def records(self, data: bytes, *, last: bool, most: int = _ALL) -> tuple[int, int, bool]:
        """(number of records, the byte behind them, whether a quote is open there)."""
        text, mark = np.frombuffer(data, np.uint8), np.uint8(ord(self.delimiter))
        count, end, quoted = records(text, mark, most, last, self.width == 1)
        return int(count), int(end), bool(quoted)

    def parse(self, data: bytes, columns: Sequence[Column], first: int) -> pa.RecordBatch:
        """The columns of some records, with their types. ``first``: the row of the first, for errors."""
        from pyarrow import csv

        names = [f"f{k}" for k in range(self.width)]
        chosen = {names[column.place]: column.type for column in columns} or {names[0]: pa.string()}
        try:
            table = csv.read_csv(
                pa.BufferReader(data),
                read_options=csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
                parse_options=csv.ParseOptions(
                    delimiter=self.delimiter, newlines_in_values=True, ignore_empty_lines=self.width > 1
                ),
                convert_options=csv.ConvertOptions(
                    column_types=chosen, include_columns=list(chosen), null_values=[""], strings_can_be_null=True,
                    quoted_strings_can_be_null=False, auto_dict_encode=False,
                ),
            )  # fmt: skip
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error, names, columns, first) from None
        return table.combine_chunks().to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], table.schema)

    def _unreadable(self, error: Exception, names: Sequence[str], columns: Sequence[Column], first: int) -> SourceError:
        """The error of pyarrow, with the row of the file and the name of the column."""
        detail, place = " ".join(str(error).split()), ""
        if row := re.search(r"Row #(\d+): ", detail):
            place, detail = f", row {first + int(row[1]) - 1}", detail.replace(row[0], "", 1)
        if column := re.match(r"In CSV column #(\d+): ", detail):
            name = next((each.name for each in columns if each.place == int(column[1])), names[0])
            place, detail = f"{place}, column {name!r}", detail.replace(column[0], "", 1)
        detail = re.sub(r"^CSV (conversion error to \w+|parse error): ", "", detail)[:200]
        fix = "; save the file as UTF-8" if "UTF8" in detail else ""
        return SourceError(f"cannot read {self.file.name}{place}: {detail}{fix}")


@dataclass(frozen=True)
class DelimitedUnit:
    """Consecutive records of a file. Picklable."""

    text: Text
    reader: RowReader
    where: Where
    rows: int | None
    begin: int  # bytes of the text
    end: int
    columns: tuple[Column, ...]  # to read

    @property
    def nbytes(self) -> int | None:
        return None if self.rows is None else self.rows * self.reader.row_bytes

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        first, step = self.where.first_row, min(rows, self.reader.rows_in(block_bytes))
        with self.text.opened(self.begin, self.end) as take:
            for data, count in self._pieces(take):
                if count:
                    batch = self._parsed(data, count, first)
                    yield from self.reader.cut(batch, Where(self.text.file.name, None, first), step)
                    first += count
        if self.rows not in (None, first - self.where.first_row):
            raise SourceError(f"cannot read {self.text.file.name}: it has fewer rows than before; read it again")

    def _pieces(self, take: Callable[[int], bytes]) -> Iterator[tuple[bytes, int]]:
        """The records of the unit, and how many these are: as they were counted, if they are some of a plain file."""
        if self.rows is not None and self.end < _ALL:
            yield take(self.end - self.begin), self.rows
            return
        yield from ((data, count) for _, data, count in self.text.pieces(take, self.begin))

    def _parsed(self, data: bytes, count: int, first: int) -> pa.RecordBatch:
        names = () if self.reader.blind else self.reader.layout.names
        scores = [column.name in names and _is_number(column.type) for column in self.columns]
        text = [column._replace(type=pa.string()) for column in self.columns]
        raw = [
            column._replace(type=pa.float64()) if scored else column
            for column, scored in zip(text, scores, strict=True)
        ]
        try:
            batch = self.text.parse(data, raw, first)
        except SourceError:  # some scores are other text, such as "NA"
            raw, batch = text, self.text.parse(data, text, first)
        if len(batch) != count:
            raise SourceError(
                f"cannot read {self.text.file.name}, rows {first}..{first + count - 1}: these lines hold {len(batch)} "
                "records; check their quotes and line ends"
            )
        if not self.columns:  # the rows still count
            return pa.record_batch([pa.nulls(count)], names=[""])
        where = Where(self.text.file.name, None, first)
        arrays = []
        for array, column, scored in zip(batch.columns, self.columns, scores, strict=True):
            if not scored:
                array = values_of(array, column.type, column.name, where)
            elif pt.is_string(array.type):
                array = floats_of(array, column.name, where)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in self.columns])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind))


class DelimitedPart(Remarks):
    """A CSV or TSV file as a part of a source."""

    def __init__(self, file: File, codec: str | None) -> None:
        self.file, self.name, self.hive, self.inputs = file, file.name, file.hive, (file,)
        text = Text(file, codec, version=Version.of(file))
        with text.opened() as take:
            look = take(_LOOK)
            whole = len(look) < _LOOK
            text = Text(file, codec, _delimiter(file.name, look), skip=len(_BOM) * look.startswith(_BOM),
                        version=text.version)  # fmt: skip
            look = look[text.skip :]
            while not whole and text.records(look, last=False, most=2)[0] < 2:
                if len(look) > _LONGEST:
                    raise text.too_long()
                more = take(len(look))
                whole, look = len(more) < len(look), look + more
        self.format = ("tsv" if text.delimiter == "\t" else "csv") + (f" ({codec})" if codec else "")
        self.text, self.columns, rows = _columns(text, look[: text.records(look, last=whole)[1]])
        kinds = [pa.field(name, kind, metadata={AS_TEXT: b""} if _is_number(kind) else None)
                 for _, name, kind in self.columns]  # fmt: skip
        self.schema = pa.schema(kinds)
        self._pieces: list[tuple[int, int, int | None]] = [(self.text.skip, _ALL, rows if whole else None)]
        if codec is None:
            with self.text.opened(self.text.skip) as take:
                found = self.text.pieces(take, self.text.skip)
                self._pieces = [(at, at + len(data), count) for at, data, count in found if count]
        counts = [count for _, _, count in self._pieces]
        self.rows: int | None = None if None in counts else sum(count for count in counts if count)

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """None: there are no lists."""
        return None

    def units(self, reader: RowReader) -> Iterator[DelimitedUnit]:
        wanted = set(reader.stored)
        columns = tuple(column for column in self.columns if column.name in wanted)
        row = 0
        for begin, end, rows in self._pieces:
            yield DelimitedUnit(self.text, reader, Where(self.name, None, row), rows, begin, end, columns)
            row += rows or 0


# ---- what kind of text it is -----------------------------------------------------------------------------------------


def delimited_part(file: File, head: bytes) -> DelimitedPart | None:
    """The part of a file whose text looks like CSV or TSV, or whose name says so; None for others."""
    codec = next((codec for magic, codec in CODECS.items() if head.startswith(magic)), None)
    try:
        with Text(file, codec).opened() as take:
            look = take(1 << 16).removeprefix(_BOM)
    except SourceError:
        if codec is None or not _SUFFIX.search(file.path):
            return None
        raise
    line = look.splitlines()[0] if look.strip() else b""
    named = _SUFFIX.search(file.path) is not None
    divided = any(mark.encode() in line for mark in _DELIMITERS) and not line.startswith((b"{", b"["))
    if _CONTROL.search(look) or not (named or divided):
        return None
    return DelimitedPart(file, codec)


def _delimiter(name: str, look: bytes) -> str:
    """The delimiter that the first line has most of, outside quotes; that of the name of the file, if it has none."""
    line = re.sub(rb'"[^"]*"', b"", look[: 1 << 20]).lstrip(b"\r\n")
    line = re.split(rb"[\r\n]", line, maxsplit=1)[0]
    if re.search(r"\.tsv\b", name, re.IGNORECASE) and b"\t" in line:
        return "\t"
    return max(_DELIMITERS, key=lambda mark: line.count(mark.encode()))


def _columns(text: Text, look: bytes) -> tuple[Text, tuple[Column, ...], int]:
    """(the text with its width and its first row, its columns, the number of rows) of the first records ``look``."""
    first = look[: text.records(look, last=True, most=1)[1]]
    if not first.strip(b"\r\n"):
        raise SourceError(f"cannot read {text.file.name}: it has no columns; write the file again")
    width = 1 + _parsed_width(text, first)
    text = Text(text.file, text.codec, text.delimiter, width, text.skip, text.version)
    raw = [Column(k, f"f{k}", pa.string()) for k in range(width)]
    line = text.parse(first.lstrip(b"\r\n"), raw, 0)
    names = [re.sub(r"\s*[\r\n]\s*", " ", column[0].as_py() or "").strip() for column in line.columns]
    rest, named = look[len(first) :], [Column(k, name, pa.string()) for k, name in enumerate(names)]
    found = text.parse(rest, named, 0) if text.records(rest, last=True)[0] else None
    if _is_header(text.file.name, names, found):
        text = Text(text.file, text.codec, text.delimiter, width, text.skip + len(first), text.version)
        if names[0] == "" and "index" not in names:
            names[0] = "index"  # of pandas
    else:
        names, found = [f"f{k}" for k in range(width)], text.parse(look, raw, 0)
    columns = tuple(
        Column(k, name, pa.float64() if found is None else column_type(found.column(k))) for k, name in enumerate(names)
    )
    return text, columns, 0 if found is None else len(found)


def _parsed_width(text: Text, record: bytes) -> int:
    """Delimiters of a record outside quotes."""
    bare = re.sub(rb'"(?:[^"]|"")*"', b"", record)
    return bare.count(text.delimiter.encode())


def _is_header(file: str, names: Sequence[str], rows: pa.RecordBatch | None) -> bool:
    """Whether the first line holds the names of the columns, as most files have it, or a row.

    A line with a fraction is a row where the other rows have numbers in the same columns, and text in the others. Whole
    numbers are names if they are classes in order, above columns that hold fractions. `SourceError` if both may be.
    """
    numbers = [k for k, name in enumerate(names) if _NUMBER.fullmatch(name)]
    if not numbers or rows is None:
        return True
    below = [column_type(column) for column in rows.columns]
    if any(not float(names[k]).is_integer() for k in numbers):
        if all(_is_number(below[k]) == (k in numbers) for k, name in enumerate(names) if name):
            return False
    else:
        if any(_is_number(below[k]) for k, name in enumerate(names) if name and k not in numbers):
            return True  # a name above numbers
        classes = [float(names[k]) for k in numbers]
        ordered = classes[0] in (0, 1) and classes == [classes[0] + j for j in range(len(classes))]
        if ordered and all(_WHOLE.fullmatch(names[k]) and pt.is_floating(below[k]) for k in numbers):
            return True
    raise SourceError(
        f"cannot read {file}: its first line may hold names or a row, because it holds numbers; add a line of names "
        "that are no numbers"
    )
