"""Arrays as a source: a dict in memory, ``.npy`` files and ``.safetensors`` files, a range of rows at a time.

Each array is a column: in a dict by its key, in ``.npy`` files by the file's name without its suffix, in
``.safetensors`` by the tensor's name. (N, C) is a column of rows, (N,) a column of values; leading dimensions
such as (N, T, C) beside (N, T) are flattened. So ``dump/logits.npy`` with ``dump/target.npy`` can be given as the
folder, as both files, as the logits file alone (the other is found beside it), or as
``{"logits": "a.npy", "target": "b.npy"}``.
"""

from __future__ import annotations

import copy
import fnmatch
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError, FastxentError, SourceError, Where
from fastxent.io.arranged import Arranged, Array, Numbered
from fastxent.io.arrow.part import BLOCK_BYTES, unit_rows
from fastxent.io.batch import Batch, Block, even
from fastxent.io.buckets import Buckets
from fastxent.io.documents import Sequences
from fastxent.io.in_place import InPlace, Rows
from fastxent.io.layout import DOCUMENT, POSITION, Layout, RowReader
from fastxent.io.remarks import Remarks
from fastxent.io.storage.files import File
from fastxent.io.storage.stored import StoredBytes
from fastxent.io.tensors import Stored, element_type, read_npy, read_safetensors, to_arrow
from fastxent.names import is_unicode


@dataclass(frozen=True)
class Held:
    """An array in memory."""

    values: np.ndarray
    tag: str | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def type(self) -> pa.DataType:
        return element_type(self.values.dtype)

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        flat = self.values if self.values.ndim == 1 + (width is not None) else self.values.reshape(_flat(width))
        return to_arrow(flat[begin:end], width)


@dataclass(frozen=True)
class Gathered(Held):
    """Rows of an array in another order. ``order``: integers (rows,). The row of ``values`` at each place."""

    order: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.order), *self.values.shape[1:])

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        return to_arrow(self.values[self.order[begin:end]], width)


@dataclass(frozen=True)
class HeldArrow:
    """An Arrow column in memory."""

    values: pa.ChunkedArray
    tag = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.values),)

    @property
    def type(self) -> pa.DataType:
        return self.values.type

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        part = self.values.slice(begin, end - begin)
        return part.chunk(0) if part.num_chunks == 1 else part.combine_chunks()


def _flat(width: int | None) -> tuple[int, ...]:
    return (-1,) if width is None else (-1, width)


# ---- the part --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayUnit:
    """A range of rows of arrays beside one another."""

    arrays: Mapping[str, tuple[Array, int | None]]
    reader: RowReader
    where: Where
    rows: int
    kept: int | None = None  # rows of each document

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def place(self, begin: int, end: int) -> Where:
        """The place of rows."""
        if self.kept is None:
            return Where(self.where.file, None, begin)
        documents, positions = np.divmod(np.arange(begin, end), self.kept)
        return Where(self.where.file, None, begin, (documents, positions), documents=True)

    def __getstate__(self) -> dict[str, Any]:  # what is in memory travels with its rows alone
        begin, end = self.where.first_row, self.where.first_row + self.rows
        arrays = {name: (_portable(array, begin, end), width) for name, (array, width) in self.arrays.items()}
        return {**self.__dict__, "arrays": arrays}

    def slice(self, begin: int, end: int) -> ArrayUnit:
        """Some rows of the unit."""
        return replace(self, where=replace(self.where, first_row=self.where.first_row + begin), rows=end - begin)

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        first, last = self.where.first_row, self.where.first_row + self.rows
        step = min(rows, self.reader.rows_in(block_bytes)) if whole else rows
        with self._opened() as read:
            for begin in range(first, last, step):
                end = min(begin + step, last)
                yield self.reader.batch(read(self.reader.stored, begin, end), self.place(begin, end))

    @contextmanager
    def _opened(self) -> Iterator[Callable[[Sequence[str], int, int], pa.RecordBatch]]:
        """Return a function that reads rows of columns."""
        with ExitStack() as stack:
            sources: dict[str, StoredBytes] = {}
            for array in filter(None, map(_stored, self.arrays.values())):
                if array.place not in sources:
                    sources[array.place] = stack.enter_context(array.opened())

            def read(names: Sequence[str], begin: int, end: int) -> pa.RecordBatch:
                columns = []
                for array, width in (self.arrays[name] for name in names):
                    stored = _stored((array, width))
                    opened = () if stored is None else (sources[stored.place],)
                    columns.append(array.read(begin, end, width, *opened))
                if not columns:  # the rows still count
                    return pa.record_batch([pa.nulls(end - begin)], names=[""])
                return pa.RecordBatch.from_arrays(columns, names=list(names))

            yield read


@dataclass(frozen=True)
class StoredUnit(ArrayUnit):
    """A range of rows of arrays in files, or of rows that are copied."""

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        if whole:
            yield from super().read(rows, block_bytes, whole)
            return
        first, last = self.where.first_row, self.where.first_row + self.rows
        rows, reader = even(self.rows, rows), self.reader
        step = reader.rows_in(min(block_bytes, BLOCK_BYTES))
        with self._opened() as read:

            def blocks(begin: int, end: int) -> Iterator[Block]:
                for at in range(begin, end, step):
                    yield reader.block(read(reader.layout.names, at, min(at + step, end)))

            for begin in range(first, last, rows):
                n = min(rows, last - begin)
                where, beside = self.place(begin, begin + n), read(reader.stored_beside, begin, begin + n)
                yield Batch(blocks(begin, begin + n), reader.beside(beside, n, where), where, n)


@dataclass(frozen=True)
class ForwardUnit(StoredUnit):
    """All rows of arrays, some of which are read from front to back."""

    slice = None  # type: ignore[assignment]  # not `Divisible`


def _stored(column: tuple[Array, int | None]) -> Stored | None:
    """The array in a file that a column is of."""
    array = column[0].inner if isinstance(column[0], Arranged) else column[0]
    return array if isinstance(array, Stored) else None


def _portable(array: Array, begin: int, end: int) -> Array:
    """The rows of an array that a unit needs, under the same numbers."""
    if isinstance(array, InPlace):
        return Rows(array.part(begin, end), begin)
    if isinstance(array, HeldArrow):  # a copy: a slice would take the whole array along
        return Rows(
            HeldArrow(pa.chunked_array([array.read(begin, end, None).take(pa.array(range(end - begin)))])), begin
        )
    return array


def _is_copied(column: tuple[Array, int | None]) -> bool:
    """Whether the rows of an array are copied when they are read."""
    array = column[0]
    moved = isinstance(array, Arranged) and not array.repeated
    return moved or _stored(column) is not None or isinstance(array, Gathered | Buckets | InPlace)


def _of_documents(name: str, array: Array, steps: int) -> Array:
    """An array of one value, or one list, per document as one of rows."""
    if not (isinstance(array, HeldArrow) and hasattr(array.type, "value_type") and not pt.is_dictionary(array.type)):
        return Arranged(array, steps, steps, repeated=True)
    if array.values.null_count or not pc.all(pc.equal(pc.list_value_length(array.values), steps)).as_py():
        raise ColumnError(f"lists of column {name!r} must have {steps} values, one per position of a document")
    return HeldArrow(pc.list_flatten(array.values))


def _row_bytes(array: Array) -> int:
    if isinstance(array, HeldArrow):
        return int(array.values.nbytes) // max(1, len(array.values))
    return math.prod(array.shape[1:]) * 8


class ArraysPart(Remarks):
    """Arrays of the same rows. ``named``: the columns that will be read, or globs of them, as far as they are known.

    An array that is not named is omitted if it cannot be a column or has another number of rows; `refused` says why.
    """

    def __init__(
        self,
        name: str,
        form: str,
        arrays: Mapping[str, Array | FastxentError],
        named: Sequence[str],
        file: File | None = None,
    ) -> None:
        self.name = name
        self.format = form
        self.hive = () if file is None else file.hive
        self.origin: tuple[File, ...] = ()  # of arrays in memory: the files whose rows they hold
        self.refused: dict[str, FastxentError] = {}
        sound: dict[str, Array] = {}
        used: dict[str, Array] = {}
        for key, array in arrays.items():
            is_named = key in named or any(fnmatch.fnmatchcase(key, pattern) for pattern in named)
            if not isinstance(array, FastxentError):
                sound[key] = array
                used |= {key: array} if is_named else {}
            elif is_named:
                raise type(array)(str(array))  # a new one: an error that is kept would keep all that raised it
            else:
                self.refused[key] = array
        if not sound and self.refused:
            error = next(iter(self.refused.values()))
            raise type(error)(str(error))
        deepest = max((len(array.shape) for array in (used or sound).values()), default=0)
        depth = max(deepest - 1, 1)  # dimensions that count rows
        deep = [key for key, array in sound.items() if len(array.shape) == deepest]
        main = next((key for key, array in used.items() if len(array.shape) >= depth), deep[0] if deep else "")
        extents = sound[main].shape[:depth] if main else (0,)
        self.rows, documents = math.prod(extents), math.prod(extents[:-1])
        self.steps = extents[-1] if depth > 1 else None
        self.documents = None if self.steps is None else documents
        self._kept: int | None = None
        self.arrays: dict[str, tuple[Array, int | None]] = {}
        fields = []
        for key, array in sound.items():
            rows, width = math.prod(array.shape[:depth]), array.shape[-1] if len(array.shape) > depth else None
            try:
                if not is_unicode(key):
                    raise SourceError(
                        f"cannot use {key!r} of {name} as a column: its name is not valid Unicode; rename it"
                    )
                if self.steps is not None and rows != self.rows and array.shape in (extents[:-1], (documents,)):
                    array, rows = _of_documents(key, array, self.steps), self.rows
                if rows != self.rows:
                    raise SourceError(
                        f"arrays of {name} must have one length, got {self.rows} rows for {main!r} and "
                        f"{rows} for {key!r}"
                    )
                if len(array.shape) > depth + 1:
                    raise SourceError(
                        f"cannot use {key!r} of {name} as a column: its shape {array.shape} has too many dimensions"
                    )
                kind = array.type if width is None else pa.list_(array.type, width)
            except FastxentError as error:
                told = error if isinstance(error, SourceError) else ColumnError(f"column {key!r}: {error}")
                if key in used:
                    raise told from None
                self.refused[key] = told.with_traceback(None)
                continue
            self.arrays[key] = (array, width)
            fields.append(pa.field(key, kind, metadata={"dtype": array.tag} if array.tag else None))
        self.schema = pa.schema(fields)

    def unrolled(self, spec: Sequences, first: int | None) -> ArraysPart:
        """The same part with the number of the document and the position of each row, shifted as ``spec`` says.

        first: the number of the first document, or None if it is not known.
        """
        assert self.steps is not None
        assert self.documents is not None
        found, kept = copy.copy(self), max(self.steps - spec.shift, 0)
        found.rows, found._kept, found.arrays = self.documents * kept, kept, {}
        for key, (array, width) in self.arrays.items():
            if isinstance(array, Arranged) and key in spec.each:
                raise ColumnError(
                    f"column {key!r} of {self.name} must have one value per position, got one per document"
                )
            if isinstance(array, Arranged):
                found.arrays[key] = replace(array, kept=kept), width
            else:
                begin = 0 if key in spec.predictions else spec.shift
                found.arrays[key] = (Arranged(array, self.steps, kept, begin) if spec.shift else array), width
        for name in (DOCUMENT, POSITION):
            if name not in self.arrays and (name == POSITION or first is not None):
                found.arrays[name] = Numbered(name, kept, first or 0), None
                found.schema = found.schema.append(pa.field(name, pa.int64()))
        return found

    @property
    def inputs(self) -> tuple[File, ...]:
        arrays = [column for column in self.arrays.values() if not isinstance(column[0], Numbered)]
        stored = [array.file for array in map(_stored, arrays) if array is not None]
        return tuple({file.name: file for file in stored}.values()) if len(stored) == len(arrays) else self.origin

    def row_bytes(self, names: Sequence[str]) -> int | None:
        return sum(_row_bytes(self.arrays[name][0]) for name in names if name in self.arrays)

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Called for Arrow columns only; the shape of an array tells its width."""
        array, width = self.arrays[layout.names[0]]
        for begin in range(0, self.rows, 1024):
            part = array.read(begin, min(begin + 1024, self.rows), width)
            found = layout.width(pa.RecordBatch.from_arrays([part], names=[layout.names[0]]), self.name)
            if found is not None:
                return found
        return None

    def units(self, reader: RowReader) -> Iterator[ArrayUnit]:
        needed = {name: self.arrays[name] for name in reader.stored}
        kind: type[ArrayUnit] = StoredUnit if any(map(_is_copied, needed.values())) else ArrayUnit
        most = even(self.rows, unit_rows(reader, self.rows))
        if any(array.forward for array in map(_stored, needed.values()) if array is not None):
            kind, most = ForwardUnit, max(1, self.rows)
        for begin in range(0, self.rows, most):
            yield kind(needed, reader, Where(self.name, None, begin), min(most, self.rows - begin), self._kept)


# ---- files -----------------------------------------------------------------------------------------------------------


def or_error(read: Callable[..., Array], *arguments: Any) -> Array | FastxentError:
    """Return the array, or the error to raise if the array is used."""
    try:
        return read(*arguments)
    except FastxentError as error:
        return error.with_traceback(None)


def npy_part(files: Sequence[File], named: Sequence[str]) -> ArraysPart:
    """``.npy`` files of one folder, each a column under its file's name."""
    columns = {_stem(file): file for file in files}
    folder = os.path.dirname(files[0].path)
    for name in named:
        beside = os.path.join(folder, f"{name}.npy")
        if files[0].local and name not in columns and os.path.isfile(beside):
            columns[name] = File(beside, beside, None, files[0].hive)
    main = next((columns[name] for name in named if name in columns), files[0])
    return ArraysPart(
        main.name, "npy", {name: or_error(read_npy, file) for name, file in columns.items()}, named, files[0]
    )


def _stem(file: File) -> str:
    return os.path.basename(file.path).removesuffix(".npy")


def safetensors_part(file: File, named: Sequence[str]) -> ArraysPart:
    """A ``.safetensors`` file, each tensor a column."""
    return ArraysPart(file.name, "safetensors", read_safetensors(file), named, file)
