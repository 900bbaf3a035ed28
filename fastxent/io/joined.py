"""Parts with columns from another source, such as a file of targets: each row has a row of a table beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from fastxent.errors import ColumnError, FastxentError, SourceError, Where
from fastxent.io.batch import Batch, Unit
from fastxent.io.layout import Layout, RowReader, find_field
from fastxent.io.remarks import Remarks, Storage
from fastxent.io.storage.files import File


@dataclass(frozen=True)
class MadeSource:
    """A source whose parts a function makes.

    make: columns that will be read, as far as they are known -> list of parts.
    """

    make: Callable[[Sequence[str]], list[Any]]


@dataclass(frozen=True)
class Join:
    """The table beside a source.

    name: str. The first file of the table, for errors.
    schema: its columns without those that rows are matched by.
    read: names of columns -> the columns, in the order of all rows of the source.
    files: the files that it is read from, and notes: warnings about it; both for one part of the source only.
    """

    name: str
    schema: pa.Schema
    read: Callable[[tuple[str, ...]], pa.Table]
    files: tuple[File, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class JoinedUnit:
    """A unit with columns of a table. Picklable if the unit is.

    columns: the columns of the table, of the rows from ``first`` of the file on.
    names: all columns, in order.
    """

    unit: Unit
    columns: pa.Table
    first: int
    names: tuple[str, ...]

    def __getstate__(self) -> dict[str, Any]:  # pickled slices of a table would hold all of it
        place = pa.BufferOutputStream()
        with pa.ipc.new_stream(place, self.columns.schema) as writer:
            writer.write_table(self.columns)
        return {**self.__dict__, "columns": place.getvalue().to_pybytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "columns": pa.ipc.open_stream(state["columns"]).read_all()})

    @property
    def where(self) -> Where:
        return self.unit.where

    @property
    def rows(self) -> int | None:
        return self.unit.rows

    @property
    def nbytes(self) -> int | None:
        return self.unit.nbytes

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        row = self.where.first_row
        for batch in self.unit.read(rows, block_bytes, whole):
            beside = self.columns.slice(row - self.first, batch.rows)
            row += batch.rows
            if len(beside) != batch.rows:
                raise _changed(self.where.file)
            found = {name: beside[name].combine_chunks() for name in beside.column_names}
            columns = {name: found[name] if name in found else batch.columns[name] for name in self.names}
            yield replace(batch, columns=columns)
        if self.rows is None and row != self.first + len(self.columns):
            raise _changed(self.where.file)


@dataclass(frozen=True)
class DivisibleUnit(JoinedUnit):
    """A joined unit of which some rows can be read without the others."""

    def slice(self, begin: int, end: int) -> JoinedUnit:
        """Some rows of the unit."""
        return replace(self, unit=self.unit.slice(begin, end))  # type: ignore[attr-defined]


def _changed(file: str) -> SourceError:
    return SourceError(f"cannot read {file} twice: it had another number of rows when targets were matched")


class JoinedPart(Remarks):
    """A part with the columns of a table beside its own.

    first: int. The row of the table that its first row has. rows: int. Its number of rows.
    """

    def __init__(self, part: Any, join: Join, first: int, rows: int) -> None:
        self.part, self._join, self._first, self._rows = part, join, first, rows
        self.name: str = part.name
        self.format: str = part.format
        self.hive: tuple[tuple[str, str | None], ...] = part.hive
        self.rows: int | None = part.rows
        self.n_classes: int | None = part.n_classes
        self.documents: int | None = part.documents
        self.lines: int = part.lines
        self.first: int = part.first
        self.missing: str | None = part.missing
        self.notes: tuple[str, ...] = (*part.notes, *join.notes)
        taken = {*part.schema.names, *(name for name, _ in part.hive)}
        both = [field.name for field in join.schema if field.name in taken]
        self.schema = pa.schema([*part.schema, *(field for field in join.schema if field.name not in both)])
        told = {
            name: ColumnError(
                f"column {name!r} is both in {part.name} and in {join.name}; rename or remove one of the columns"
            )
            for name in both
        }
        self.refused: Mapping[str, FastxentError] = {**part.refused, **told}

    @property
    def inputs(self) -> tuple[File, ...]:
        own: tuple[File, ...] = self.part.inputs
        return (*own, *self._join.files) if own else own

    @property
    def fallback(self) -> str | None:  # type: ignore[override]  # of the units taken so far
        return self.part.fallback  # type: ignore[no-any-return]

    def width(self, layout: Layout, expected: int | None) -> int | None:
        self._check(layout)
        return self.part.width(layout, expected)  # type: ignore[no-any-return]

    def storage(self, names: Sequence[str], layout: Layout | None, n_classes: int | None) -> Storage | None:
        return self.part.storage(names, layout, n_classes)  # type: ignore[no-any-return]

    def units(self, reader: RowReader) -> Iterator[JoinedUnit]:
        if not reader.blind:
            self._check(reader.layout)
        own = tuple(name for name in reader.columns if find_field(self.part.schema, name) or self._is_hive(name))
        more = tuple(name for name in reader.columns if name not in own)
        table = self._join.read(more).slice(self._first, self._rows)
        tags = tuple((name, tag) for name, tag in reader.tags if name in own)
        for unit in self.part.units(replace(reader, columns=own, tags=tags)):
            kind = DivisibleUnit if hasattr(unit, "slice") and unit.slice is not None else JoinedUnit
            first = unit.where.first_row
            yield kind(unit, table if unit.rows is None else table.slice(first, unit.rows), first, reader.columns)

    def _is_hive(self, name: str) -> bool:
        return name in dict(self.hive)

    def _check(self, layout: Layout) -> None:
        """`ColumnError` if logits are not in the part itself."""
        for name in layout.names:
            if find_field(self.part.schema, name) is None:
                raise ColumnError(f"logits must be in {self.name}, got column {name!r} of {self._join.name}")
