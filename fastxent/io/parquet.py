"""Parquet files, one unit a row group, streamed through pyarrow in batches of bounded size.

Within a row group pyarrow decodes page after page, so a batch costs its own rows (about five times their logits, lists
and levels included), not the row group: files are read through a small buffer, and ``pre_buffer`` is off.
`Dataset.to_batches` would decode whole row groups ahead, and the pages of a mapping would stay with the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch
from fastxent.io.files import File, reading
from fastxent.io.layout import Layout, RowReader

MAGIC = (b"PAR1", b"PARE")
_PEEK_ROWS = 16
_BUFFER = 1 << 20  # read at a time: without it pyarrow fetches a whole column chunk


def open_parquet(file: File, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """The file as pyarrow reads it; a broken footer is a `SourceError`."""
    handle = file.open(mapped=False)
    with reading(file.name):
        return pq.ParquetFile(handle, metadata=metadata, pre_buffer=False, buffer_size=_BUFFER)


@dataclass(frozen=True)
class ParquetUnit:
    """A row group."""

    file: File
    reader: RowReader
    where: Where
    rows: int
    metadata: pq.FileMetaData | None = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        group = self.where.row_group or 0
        step = self.reader.rows_in(max_bytes)
        first = self.where.first_row
        with open_parquet(self.file, self.metadata) as opened:
            stream = _stream(opened, [group], self.reader.stored, step)
            while True:
                with reading(self.file.name, f"row group {group}"):
                    batch = next(stream, None)
                if batch is None:
                    break
                yield from self.reader.cut(batch, Where(self.file.name, group, first), max_bytes)
                first += len(batch)
        if first != self.where.first_row + self.rows:
            raise SourceError(
                f"{self.file.name}, row group {group} holds {first - self.where.first_row} rows where its footer "
                f"says {self.rows}; the file is damaged"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "metadata": None}  # a worker elsewhere reads the footer itself


def _stream(opened: pq.ParquetFile, groups: list[int], columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    # threads belong to the caller
    return iter(opened.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False))


class ParquetPart:
    """One file of a source."""

    format = "parquet"

    def __init__(self, file: File) -> None:
        self.file = file
        self.name = file.name
        self.hive = file.hive
        with open_parquet(file) as opened:
            if opened.metadata.num_columns == 0:
                raise SourceError(f"{file.name} has no columns; write it again")
            with reading(file.name):
                self.schema: pa.Schema = opened.schema_arrow
            self.rows: int = opened.metadata.num_rows
            self.groups = opened.metadata.num_row_groups

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Classes in the first row that has any. Where the footer counts rows x ``expected`` values, that is taken
        as the answer without a read: rows of another length are found, one by one, when they are read."""
        name = layout.names[0]
        with open_parquet(self.file) as opened:
            if expected is not None and _counted(opened.metadata, name) == self.rows * expected:
                return expected
            stream = _stream(opened, list(range(self.groups)), [name], _PEEK_ROWS)
            while True:
                with reading(self.name):
                    batch = next(stream, None)
                if batch is None:
                    return None
                width = layout.width(batch, self.name)
                if width is not None:
                    return width

    def units(self, reader: RowReader) -> Iterator[ParquetUnit]:
        with open_parquet(self.file) as opened:
            metadata = opened.metadata
        first = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if rows:
                yield ParquetUnit(self.file, reader, Where(self.name, group, first), rows, metadata)
            first += rows


def _counted(metadata: pq.FileMetaData, name: str) -> int | None:
    """Values in the leaf column below ``name``, nulls included."""
    if not metadata.num_row_groups:
        return 0
    first = metadata.row_group(0)
    for index in range(first.num_columns):
        path = first.column(index).path_in_schema
        if path == name or path.startswith(f"{name}."):
            return int(sum(metadata.row_group(g).column(index).num_values for g in range(metadata.num_row_groups)))
    return None
