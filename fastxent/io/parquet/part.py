"""Parquet files: logits through the native page reader, the columns beside them through pyarrow.

A unit is a row group, or a run of pages of a large one. What the native reader does not support (one column a class,
an encoding it has not met) is streamed through pyarrow in batches of bounded size, with the same answers. Within a row
group pyarrow decodes page after page, so a batch costs its own rows (about five times their logits, lists and levels
included), not the row group: files are read through a small buffer, and ``pre_buffer`` is off. `Dataset.to_batches`
would decode whole row groups ahead, and the pages of a mapping would stay with the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch, Logits, LogitsStream
from fastxent.io.layout import Layout, RowReader
from fastxent.io.parquet import reader as native
from fastxent.io.parquet.beside import Rows, Stored, stored
from fastxent.io.parquet.chunk import LogitsChunk, plan
from fastxent.io.parquet.footer import ChunkInfo, Footer
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.local import LocalRanges, Ranges
from fastxent.io.storage.remote import ReadRanges

MAGIC = (b"PAR1", b"PARE")
_PEEK_ROWS = 16
_LEAST_AHEAD = 1 << 20  # of a reader of a file elsewhere
# Of a part in the file: a row group of more than two of the least is shared out. Each part reads the other columns
# from the beginning of the row group on, so that there should not be too many of them.
_LEAST_PART, _MOST_PART, _PARTS = 48 << 20, 128 << 20, 16


@dataclass(frozen=True)
class ParquetUnit:
    """A row group."""

    in_place: ClassVar[bool] = False
    file: File
    version: Version | None
    reader: RowReader
    where: Where
    rows: int
    columns: Stored

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        group = self.where.row_group
        first = self.where.first_row
        with unchanged(self.file, self.version), ExitStack() as stack:
            columns = self.columns.weighed(self.file)
            step = min(self.reader.rows_in(max_bytes), columns.rows_in(max_bytes))
            rows = stack.enter_context(closing(Rows(self.file, columns, step)))
            while (batch := rows.next()) is not None:
                yield from self.reader.cut(batch, Where(self.file.name, group, first), max_bytes)
                first += len(batch)
            if first != self.where.first_row + self.rows:
                raise SourceError(
                    f"{self.file.name}, row group {group} holds {first - self.where.first_row} rows where its footer "
                    f"says {self.rows}; the file is damaged"
                )


@dataclass(frozen=True)
class NativeUnit:
    """A row group or a run of its pages: logits by the native reader, the other columns of the same rows by pyarrow."""

    in_place: ClassVar[bool] = False
    file: File
    version: Version | None
    reader: RowReader
    where: Where
    rows: int
    chunk: LogitsChunk
    columns: Stored  # beside the logits

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        first = self.where.first_row - self.chunk.first_row
        with self._opened(self.reader.rows_in(max_bytes), max_bytes) as (source, beside, rows):
            max_bytes = min(max_bytes, rows * self.reader.row_bytes)
            for values, bad, row in native.read_rows(self.chunk, source, max_bytes):
                where = self._where(first + row)
                logits = Logits(values, self.reader.layout.dtype)
                yield Batch(logits, self._beside(beside, len(values), where), where, bad)

    def streams(self, rows: int, max_bytes: int) -> Iterator[Batch]:
        """Batches of ``rows`` rows whose logits are read part by part, each of at most ``max_bytes``."""
        first = self.where.first_row - self.chunk.first_row
        rest: list[native.Rows] = []  # what was read past the end of a batch
        with self._opened(rows, max_bytes) as (source, beside, rows):
            reads = native.read_rows(self.chunk, source, max_bytes)

            def parts(begin: int, end: int, bad: dict[int, str]) -> Iterator[np.ndarray]:
                while begin < end:
                    values, odd, row = rest.pop() if rest else next(reads)
                    k = min(len(values), end - row)
                    if k < len(values):
                        rest.append(native.Rows(values[k:], {i - k: odd[i] for i in odd if i >= k}, row + k))
                    bad.update({i + row - at: odd[i] for i in odd if i < k})
                    yield values[:k]
                    begin = row + k

            for at in range(self.chunk.first_row, self.chunk.first_row + self.rows, rows):
                n = min(rows, self.chunk.first_row + self.rows - at)
                bad: dict[int, str] = {}
                logits = LogitsStream((n, self.reader.n_classes), self.reader.layout.dtype, parts(at, at + n, bad))
                where = self._where(first + at)
                yield Batch(logits, self._beside(beside, n, where), where, bad)
            next(reads, None)  # lets the reader see that nothing is left over

    @contextmanager
    def _opened(self, rows: int, max_bytes: int) -> Iterator[tuple[Ranges, Rows | None, int]]:
        """(the logits' bytes, the columns beside them, rows of a batch: at most ``rows``)."""
        with unchanged(self.file, self.version), closing(_ranges(self.file, self.chunk, max_bytes)) as source:
            if not self.columns.names:
                yield source, None, rows
                return
            columns = self.columns.weighed(self.file)
            rows = min(rows, columns.rows_in(max_bytes))
            with closing(Rows(self.file, columns, rows)) as beside:
                beside.take(self.chunk.first_row)
                yield source, beside, rows

    def _beside(self, beside: Rows | None, rows: int, where: Where) -> dict[str, pa.Array]:
        return self.reader.beside(None if beside is None else beside.take(rows), rows, where)

    def _where(self, row: int) -> Where:
        return Where(self.file.name, self.where.row_group, row)


class ParquetPart:
    """One file of a source."""

    format = "parquet"

    def __init__(self, file: File) -> None:
        self.file = file
        self.inputs = (file,)
        self.name = file.name
        self.hive = file.hive
        self.fallback: str | None = None  # why the logits of some row group went through pyarrow
        self._version = Version.of(file)
        with self._footer() as footer:
            if not footer.columns:
                raise SourceError(f"cannot read {file.name}: it has no columns; write the file again")
            footer.check_groups()
            self.schema: pa.Schema = footer.arrow_schema
            self.rows: int = footer.rows
            self.groups = len(footer.group_rows)

    @contextmanager
    def _footer(self) -> Iterator[Footer]:
        with unchanged(self.file, self._version), closing(_ranges(self.file)) as source:
            yield Footer(source)

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Classes in the first row that has any. Where the footer counts rows x ``expected`` values, that is taken
        as the answer without a read: rows of another length are found, one by one, when they are read."""
        name = layout.names[0]
        if expected is not None:
            groups = self.chunks([name])
            if all(len(chunks) == 1 for chunks in groups):
                if sum(chunks[0].entries for chunks in groups) == self.rows * expected:
                    return expected
        with self._footer() as footer:
            proven = footer.proven(footer.holding([name]))
            for columns, n in zip(stored(footer, proven, [name]), footer.group_rows, strict=True):
                if not n:
                    continue
                with closing(Rows(self.file, columns, min(_PEEK_ROWS, columns.rows_in(0)))) as rows:
                    while (batch := rows.next()) is not None:
                        width = layout.width(batch, self.name)
                        if width is not None:
                            return width
        return None

    def chunks(self, names: Sequence[str]) -> list[list[ChunkInfo]]:
        """What the footer says of the leaves of top-level columns, in each row group."""
        wanted = set(names)
        with self._footer() as footer:
            found = (column for column in footer.columns if column.name in wanted)
            return footer.infos([leaf for column in found for leaf in column.leaves])

    def units(self, reader: RowReader) -> Iterator[ParquetUnit | NativeUnit]:
        """The footer is read once; each unit gets what it needs of it."""
        with self._footer() as footer:
            proven = footer.proven(footer.holding(reader.stored))
            chunks: list[LogitsChunk | str] = ["no logits are read"] * self.groups
            if not reader.blind:
                chunks = self._plans(footer, reader.layout, reader.n_classes)
                self.fallback = next((chunk for chunk in chunks if isinstance(chunk, str)), None)
        whole = stored(footer, proven, reader.stored, reader.layout.names)
        beside = stored(footer, proven, reader.stored_beside)
        mixed = len({isinstance(chunk, str) for chunk in chunks}) > 1
        first = 0
        for group, (chunk, rows) in enumerate(zip(chunks, footer.group_rows, strict=True)):
            where = Where(self.name, group, first)
            columns = next(whole if isinstance(chunk, str) else beside)
            if mixed:
                next(beside if isinstance(chunk, str) else whole)
            if rows and isinstance(chunk, LogitsChunk):
                yield from self._native_units(chunk, reader, where, columns)
            elif rows:
                yield ParquetUnit(self.file, self._version, reader, where, rows, columns)
            first += rows

    def plans(self, layout: Layout, n_classes: int) -> list[LogitsChunk | str]:
        """How the native reader reads the logits of each row group, or why pyarrow has to."""
        with self._footer() as footer:
            return self._plans(footer, layout, n_classes)

    def _plans(self, footer: Footer, layout: Layout, n_classes: int) -> list[LogitsChunk | str]:
        column = None if layout.per_class else footer.called(layout.names[0])
        if column is None or len(column.leaves) != 1:
            return ["one column per class" if layout.per_class else "logits inside a struct"] * self.groups
        schema, infos = footer.schema_of(column), footer.infos(column.leaves)
        return [
            plan(schema, 0, info, group, n_classes, layout.dtype, footer.source) for group, (info,) in enumerate(infos)
        ]

    def _native_units(
        self, chunk: LogitsChunk, reader: RowReader, where: Where, columns: Stored
    ) -> Iterator[NativeUnit]:
        parts, size = [chunk], chunk.end - chunk.begin
        if size >= 2 * _LEAST_PART and (self.file.local or chunk.page_index):
            with closing(_ranges(self.file)) as source:
                target = max(_LEAST_PART, min(_MOST_PART, size // _PARTS))
                parts = native.split(chunk, source, target, walk=self.file.local)
        for part in parts:
            place = Where(self.name, where.row_group, where.first_row + part.first_row)
            yield NativeUnit(self.file, self._version, reader, place, part.rows, part, columns)


def _ranges(file: File, chunk: LogitsChunk | None = None, max_bytes: int = 0) -> Ranges:
    """The bytes of a file: read in place where it is on this machine, else of ``chunk`` alone, ahead of the reader."""
    with reading(file.name):
        if file.local:
            return LocalRanges(file.path, ahead=0 if chunk is None else chunk.end)
        if chunk is None:
            return ReadRanges(file.remote.fetch, file.name, 0, file.remote.size, whole=False)
        return ReadRanges(file.remote.fetch, file.name, chunk.begin, chunk.end, max(_LEAST_AHEAD, 4 * max_bytes))
