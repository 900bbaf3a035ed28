"""Parquet files: logits and columns of numbers through the native page reader, other columns through pyarrow.

A unit is a row group, or a run of pages of a large one. What the native reader does not support (one column a class,
an encoding it has not met) is streamed through pyarrow in batches of bounded size, with the same answers. Within a row
group pyarrow decodes page after page, so a batch costs its own rows (about five times their logits, lists and levels
included), not the row group: files are read through a small buffer, and ``pre_buffer`` is off. `Dataset.to_batches`
would decode whole row groups ahead, and the pages of a mapping would stay with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch, Block, even
from fastxent.io.bounds import Bounds, Keep
from fastxent.io.layout import Layout, RowReader
from fastxent.io.parquet import flat, reader as native
from fastxent.io.parquet.beside import Rows, Stored, rows_in, stored
from fastxent.io.parquet.chunk import LogitsChunk, plan
from fastxent.io.parquet.footer import ChunkInfo, Footer
from fastxent.io.parquet.statistics import bounds_of
from fastxent.io.remarks import Remarks, Storage
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import VersionedFile, unchanged
from fastxent.io.storage.local import LocalRanges, Ranges
from fastxent.io.storage.remote import ReadRanges

MAGIC = (b"PAR1", b"PARE")
_PEEK_ROWS = 16
_LEAST_AHEAD = 1 << 20  # of a reader of a file elsewhere
# Bytes of a part, decompressed: a row group of more than two of the least is shared out. Each part reads the other
# columns from the beginning of the row group on, so that there should not be too many of them. In a file of few bytes
# the least is a quarter of them: all threads should get some.
_LEAST_PART, _MOST_PART, _PARTS = 48 << 20, 128 << 20, 16
_LEAST_QUARTER = 15 << 20


class ParquetFile(VersionedFile):
    """A Parquet file."""

    @contextmanager
    def opened(self, chunk: LogitsChunk | None = None, max_bytes: int = 0) -> Iterator[Ranges]:
        """The bytes of the file, or of ``chunk``. `SourceError` if the file changes before the block ends."""
        with unchanged(self.file, self.version), closing(_ranges(self.file, chunk, max_bytes)) as source:
            yield source


@dataclass(frozen=True)
class ParquetUnit:
    """A row group."""

    source: ParquetFile
    reader: RowReader
    where: Where
    rows: int
    columns: Stored

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        group, first, file = self.where.row_group, self.where.first_row, self.source.file
        rows = min(rows, self.reader.rows_in(block_bytes))
        with unchanged(file, self.source.version), ExitStack() as stack:
            columns = self.columns.weighed(file)
            beside = stack.enter_context(closing(Rows(file, columns, min(rows, columns.rows_in(block_bytes)))))
            while (batch := beside.next()) is not None:
                yield from self.reader.cut(batch, Where(file.name, group, first), rows)
                first += len(batch)
            if first != self.where.first_row + self.rows:
                raise SourceError(
                    f"cannot read {file.name}, row group {group}: it holds {first - self.where.first_row} rows, "
                    f"but its footer has {self.rows}; the file is damaged"
                )


@dataclass(frozen=True)
class NativeUnit:
    """A row group or a run of its pages: logits and ``numbers`` by the native reader, ``columns`` of the same rows by
    pyarrow."""

    source: ParquetFile
    reader: RowReader
    where: Where
    rows: int
    chunk: LogitsChunk
    numbers: tuple[LogitsChunk, ...]  # columns beside the logits, of the whole row group
    columns: Stored  # the others

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        row_bytes, dtype = self.reader.row_bytes, self.reader.layout.dtype
        rows = min(rows, self.reader.rows_in(block_bytes)) if whole else even(self.rows, rows)
        with self.source.opened(self.chunk, block_bytes) as source, self._beside(rows, block_bytes) as (take, rows):
            together = min(block_bytes, rows * row_bytes)
            if self.reader.layout.scalar and flat.is_flat(self.chunk, source):
                reads = flat.read_numbers(self.chunk, source, together)
            else:
                reads = native.read_rows(self.chunk, source, together if whole else block_bytes)
            if whole:
                for values, bad, row in reads:
                    n, where = len(values), self._where(row)
                    yield Batch(iter((Block(values, dtype, self._told(bad)),)), take(n, where), where, n)
                return
            rest: list[native.Rows] = []  # rows that were read past the end of a batch

            def blocks(begin: int, end: int) -> Iterator[Block]:
                while begin < end:
                    values, bad, row = rest.pop() if rest else next(reads)
                    k = min(len(values), end - row)
                    if k < len(values):
                        rest.append(native.Rows(values[k:], {i - k: bad[i] for i in bad if i >= k}, row + k))
                        bad = {i: bad[i] for i in bad if i < k}
                    yield Block(values[:k], dtype, self._told(bad))
                    begin = row + k

            last = self.chunk.first_row + self.rows
            for begin in range(self.chunk.first_row, last, rows):
                n, where = min(rows, last - begin), self._where(begin)
                yield Batch(blocks(begin, begin + n), take(n, where), where, n)
            next(reads, None)  # lets the reader see that no row is left

    @contextmanager
    def _beside(self, rows: int, block_bytes: int) -> Iterator[tuple[Callable[[int, Where], dict[str, pa.Array]], int]]:
        """(a function that reads the other columns of the next rows, rows of a batch: at most ``rows``)."""
        with ExitStack() as stack:
            numbers: list[flat.FlatColumn] = []
            others: Rows | None = None
            row_bytes = sum(chunk.row_bytes for chunk in self.numbers)
            if self.numbers:
                numbers = stack.enter_context(flat.opened(self.source.file.path, self.numbers))
            if self.columns.names:
                columns = self.columns.weighed(self.source.file)
                row_bytes += columns.row_bytes
            rows = min(rows, rows_in(block_bytes, row_bytes))
            if self.columns.names:
                others = stack.enter_context(closing(Rows(self.source.file, columns, rows)))
                others.take(self.chunk.first_row)
            for column in numbers:
                column.skip(self.chunk.first_row)

            def take(n: int, where: Where) -> dict[str, pa.Array]:
                batch = None if others is None else others.take(n)
                if numbers:
                    more = [] if batch is None else zip(batch.schema.names, batch.columns, strict=True)
                    found = [*((column.name, column.take(n)) for column in numbers), *more]
                    batch = pa.RecordBatch.from_arrays([array for _, array in found], [name for name, _ in found])
                return self.reader.beside(batch, n, where)

            yield take, rows

    def _told(self, bad: dict[int, str]) -> dict[int, str]:
        """What is wrong with rows; a bad row of one number is a null."""
        if not bad or not self.reader.layout.scalar:
            return bad
        return dict.fromkeys(bad, f"logits hold a null, in column {self.reader.layout.names[0]!r}")

    def _where(self, row: int) -> Where:
        """The place of a row of the row group."""
        return Where(self.where.file, self.where.row_group, self.where.first_row - self.chunk.first_row + row)


class ParquetPart(Remarks):
    """One file of a source."""

    format = "parquet"

    def __init__(self, file: File) -> None:
        self.file = file
        self.inputs = (file,)
        self.name = file.name
        self.hive = file.hive
        self._source = ParquetFile(file)
        with self._footer() as footer:
            if not footer.columns:
                raise SourceError(f"cannot read {file.name}: it has no columns; write the file again")
            footer.check_groups()
            self.schema: pa.Schema = footer.arrow_schema
            self.rows: int = footer.rows
            self.groups = len(footer.group_rows)
        self._left_out: frozenset[int] = frozenset()  # row groups

    @contextmanager
    def _footer(self) -> Iterator[Footer]:
        with self._source.opened() as source:
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
        with self._footer() as footer:
            return _infos(footer, names)

    def units(self, reader: RowReader) -> Iterator[ParquetUnit | NativeUnit]:
        """The footer is read once; each unit gets what it needs of it."""
        with self._footer() as footer:
            proven = footer.proven(footer.holding(reader.stored))
            chunks: list[LogitsChunk | str] = ["no logits are read"] * self.groups
            if not reader.blind:
                chunks = self._plans(footer, reader.layout, reader.n_classes)
                if not reader.layout.scalar:
                    self.fallback = next((chunk for chunk in chunks if isinstance(chunk, str)), None)
            numbers: dict[str, list[LogitsChunk]] = {}
            if self.file.local and not reader.blind:
                numbers = flat.flat_columns(footer, reader.stored_beside)
        whole = stored(footer, proven, reader.stored, reader.layout.names)
        beside = stored(footer, proven, [name for name in reader.stored_beside if name not in numbers])
        mixed = len({isinstance(chunk, str) for chunk in chunks}) > 1
        least = min(_LEAST_PART, max(_LEAST_QUARTER, sum(_work(c) for c in chunks if isinstance(c, LogitsChunk)) // 4))
        first = 0
        for group, (chunk, rows) in enumerate(zip(chunks, footer.group_rows, strict=True)):
            where = Where(self.name, group, first)
            columns = next(whole if isinstance(chunk, str) else beside)
            if mixed:
                next(beside if isinstance(chunk, str) else whole)
            if group in self._left_out:
                pass
            elif rows and isinstance(chunk, LogitsChunk):
                chosen = tuple(column[group] for column in numbers.values())
                yield from self._native_units(chunk, reader, where, (chosen, columns), least)
            elif rows:
                yield ParquetUnit(self._source, reader, where, rows, columns)
            first += rows

    def prune(self, reader: RowReader, names: Sequence[str], keep: Keep) -> int:
        """From one look at the footer; columns that folder names give have one value."""
        constants = {name: _constant(value) for name, value in reader.constants}
        unknown = {name for name, _ in reader.tags}
        stored = [name for name in dict.fromkeys(names) if name not in constants and name not in unknown]
        with self._footer() as footer:
            with reading(self.name):
                known = [{**found, **constants} for found in bounds_of(footer, self.schema, stored)]
            rows = footer.group_rows
        kept = [keep(lambda name, found=found: found.get(name, Bounds())) for found in known]  # type: ignore[misc]
        self._left_out = frozenset(group for group, wanted in enumerate(kept) if rows[group] and not wanted)
        self.rows = sum(n for group, n in enumerate(rows) if group not in self._left_out)
        return len(self._left_out)

    def storage(self, names: Sequence[str], layout: Layout | None, n_classes: int | None) -> Storage:
        """From one look at the footer."""
        with self._footer() as footer:
            infos = [info for group in _infos(footer, names) for info in group]
            plans = self._plans(footer, layout, n_classes) if layout is not None and n_classes is not None else []
        return Storage(
            self.groups,
            sum(info.size for info in infos),
            sum(info.decompressed for info in infos),
            list(dict.fromkeys(info.codec for info in infos)),
            list(dict.fromkeys(name for info in infos for name in sorted(info.encodings))),
            next((plan for plan in plans if isinstance(plan, str)), None),
        )

    def row_bytes(self, names: Sequence[str]) -> int | None:
        found = self.storage(names, None, None)
        return found.uncompressed_bytes // self.rows if self.rows else None

    def _plans(self, footer: Footer, layout: Layout, n_classes: int) -> list[LogitsChunk | str]:
        column = None if layout.per_class else footer.called(layout.names[0])
        if column is None or len(column.leaves) != 1:
            return ["one column per class" if layout.per_class else "logits inside a struct"] * self.groups
        schema, infos = footer.schema_of(column), footer.infos(column.leaves)
        return [
            plan(schema, 0, info, group, n_classes, layout.dtype, footer.source) for group, (info,) in enumerate(infos)
        ]

    def _native_units(
        self,
        chunk: LogitsChunk,
        reader: RowReader,
        where: Where,
        beside: tuple[tuple[LogitsChunk, ...], Stored],
        least: int,
    ) -> Iterator[NativeUnit]:
        parts, work = [chunk], _work(chunk)
        if work >= 2 * least and (self.file.local or chunk.page_index):
            with closing(_ranges(self.file)) as source:
                target = max(least, min(_MOST_PART, work // _PARTS)) * (chunk.end - chunk.begin) // work
                parts = native.split(chunk, source, target, walk=self.file.local)
        for part in parts:
            place = Where(self.name, where.row_group, where.first_row + part.first_row)
            yield NativeUnit(self._source, reader, place, part.rows, part, *beside)


def _constant(value: pa.Scalar) -> Bounds:
    """The bounds of a column that has one value."""
    one = pa.array([value.as_py()], value.type)
    return Bounds(value.type, one, one, nulls=not value.is_valid, values=value.is_valid)


def _work(chunk: LogitsChunk) -> int:
    """Bytes of the logits of a row group: in the file, or decompressed if they are compressed."""
    size = chunk.end - chunk.begin
    return size if chunk.codec is None else max(size, chunk.rows * chunk.row_bytes)


def _infos(footer: Footer, names: Sequence[str]) -> list[list[ChunkInfo]]:
    wanted = set(names)
    return footer.infos([leaf for column in footer.columns if column.name in wanted for leaf in column.leaves])


def _ranges(file: File, chunk: LogitsChunk | None = None, max_bytes: int = 0) -> Ranges:
    """The bytes of a file: read in place where it is on this machine, else of ``chunk`` alone, ahead of the reader."""
    with reading(file.name):
        if file.local:
            return (
                LocalRanges(file.path) if chunk is None else LocalRanges(file.path, chunk.begin, chunk.end, chunk.end)
            )
        if chunk is None:
            return ReadRanges(file.remote.fetch, file.name, 0, file.remote.size, whole=False)
        return ReadRanges(file.remote.fetch, file.name, chunk.begin, chunk.end, max(_LEAST_AHEAD, 4 * max_bytes))
