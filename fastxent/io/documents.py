"""Documents unrolled: batches of rows, one per position, made of batches of documents.

The columns of a batch of documents are lists, which hold a value per position, and plain columns, whose value repeats
for every position. Nothing is copied where the positions of a document lie one behind the other, and no array is larger
than the batch that is made: a document may be larger than any batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError, Where
from fastxent.io.batch import Batch, Block, Unit, even
from fastxent.io.columns import FLOATS, SIXTEEN_BITS
from fastxent.io.layout import DOCUMENT, RowReader
from fastxent.io.lists import lists_of

_RUN = 256 << 10  # bytes of rows one behind the other that are worth a block of their own


@dataclass(frozen=True)
class Sequences:
    """How documents are unrolled.

    heads: (name, dimensions of its value in a row) of the columns that tell a dump of documents.
    predictions: names. Columns of what is predicted at a position.
    each: names. Columns that must hold a list per document.
    shift: int. The prediction at a position is of the target so many positions later.
    plain: bool. A dump of one position per row is read as it is; else ``shift`` is an error.
    """

    heads: tuple[tuple[str, int], ...] = ()
    predictions: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    shift: int = 0
    plain: bool = False

    @property
    def anchors(self) -> tuple[str, ...]:
        """The columns that tell how many positions a document has."""
        return tuple(dict.fromkeys((*(name for name, _ in self.heads), *self.each)))


def position_field(field: pa.Field) -> pa.Field | None:
    """The field of one position of a column of lists or of tensors of two dimensions; None of any other column."""
    kind, item = field.type, None
    if isinstance(kind, pa.FixedShapeTensorType):
        item = _tensor_row(kind)
    else:
        while isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        listed = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
        if listed or pt.is_list_view(kind) or pt.is_large_list_view(kind):
            item = kind.value_field
            if pt.is_struct(item.type) and item.type.num_fields == 1:  # as `lists_of` takes it
                item = item.with_type(item.type.field(0).type)
    if item is None:
        return None
    return pa.field(field.name, item.type, metadata={**(item.metadata or {}), **(field.metadata or {})} or None)


def _tensor_row(kind: pa.FixedShapeTensorType) -> pa.Field | None:
    if len(kind.shape) != 2 or 1 in kind.shape or kind.permutation not in (None, [0, 1]):
        return None
    return pa.field("item", pa.list_(kind.value_type, kind.shape[1]))


class _Lists(NamedTuple):
    """A column of lists: all values, and where each document lies in them.

    child: the values. starts, sizes: int64 (n,). valid: bool (n,), False for a null list.
    """

    child: pa.Array
    starts: np.ndarray
    sizes: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, array: pa.Array, name: str) -> _Lists:
        valid = np.array(array.is_valid())
        if pt.is_null(array.type):
            nothing = np.zeros(len(array), np.int64)
            return cls(pa.nulls(0), nothing, nothing, valid)
        tensor = isinstance(array.type, pa.FixedShapeTensorType)
        extents = array.type.shape if tensor else []
        child, starts, sizes = lists_of(array.storage if tensor else array, _wrong(name, array.type), name)
        if tensor:
            child = pa.FixedSizeListArray.from_arrays(child, extents[1])
            starts, sizes = np.arange(len(array)) * extents[0], np.full(len(array), extents[0])
        sizes = np.where(valid, sizes, 0)
        if sizes.sum() > len(child):
            raise ColumnError(f"cannot read column {name!r}: its lists overlap; write the file again")
        try:
            child.validate(full=True)
        except pa.ArrowInvalid as error:
            detail = " ".join(str(error).split())
            raise ColumnError(f"cannot read column {name!r}: {detail}; write the file again") from None
        return cls(child, starts, sizes, valid)

    def take(self, places: np.ndarray, there: np.ndarray) -> pa.Array:
        """The values at ``places``, null where one is not ``there``."""
        if there.all() and len(places) and (np.diff(places) == 1).all():
            return self.child.slice(int(places[0]), len(places))
        if (rows := _as_views(self.child, np.where(there, places, 0), there)) is not None:
            return rows
        return self.child.take(pa.array(places, mask=~there))


def _wrong(name: str, kind: pa.DataType) -> ColumnError:
    return ColumnError(f"column {name!r} must hold a list per document, got {kind}")


def _as_views(child: pa.Array, places: np.ndarray, there: np.ndarray) -> pa.Array | None:
    """Some of a column of lists of floats, or of the bits of floats, without a copy; None of another column."""
    kind = child.type
    if not hasattr(kind, "value_type") or not (kind.value_type in FLOATS or kind.value_type in SIXTEEN_BITS):
        return None
    if not len(child):
        return pa.nulls(len(places), kind)
    if pt.is_fixed_size_list(kind):
        starts, sizes = (child.offset + places) * kind.list_size, np.full(len(places), kind.list_size)
    elif pt.is_list(kind) or pt.is_large_list(kind):
        offsets = child.offsets.to_numpy().astype(np.int64)
        starts, sizes = offsets[places], offsets[places + 1] - offsets[places]
    else:
        return None
    there = there & np.asarray(child.is_valid())[places]
    starts, sizes = np.where(there, starts, 0), np.where(there, sizes, 0)
    mask = None if there.all() else pa.array(~there)
    return pa.LargeListViewArray.from_arrays(pa.array(starts), pa.array(sizes), child.values, mask=mask)


class Documents:
    """The rows of some documents.

    columns: name -> array of a value per document. spec: `Sequences`. first: the number of the first document in the
    dump. where: the first document in its file.
    """

    def __init__(self, columns: Mapping[str, pa.Array], spec: Sequences, first: int, where: Where) -> None:
        self._columns, self._spec, self._first, self._where = columns, spec, first, where
        anchors = [name for name in spec.anchors if name in columns]
        self._lists = {
            name: _Lists.of(array, name)
            for name, array in columns.items()
            if name in anchors or position_field(pa.field(name, array.type)) is not None
        }
        self.sizes = np.max([self._lists[name].sizes for name in anchors], axis=0)
        known = np.any([self._lists[name].valid for name in anchors], axis=0)
        self._wrong: dict[int, str] = {}
        for name, held in self._lists.items():
            for d in np.flatnonzero(held.valid & (held.sizes != self.sizes)).tolist():
                other = next(n for n in anchors if self._lists[n].sizes[d] == self.sizes[d])
                self._wrong.setdefault(
                    d, f"{name!r} has {held.sizes[d]} positions and {other!r} has {self.sizes[d]}; they must be equal"
                )
        counts = np.maximum(self.sizes - spec.shift, 0)
        counts[~known] = 1  # of a null document nothing else can be counted
        if any(dimensions for _, dimensions in spec.heads):  # numbers may be null
            self._wrong |= dict.fromkeys(np.flatnonzero(~known).tolist(), "the document is null")
        wrong = list(self._wrong)
        counts[wrong] = np.maximum(counts[wrong], 1)
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self.rows = int(self._ends[-1]) if len(counts) else 0

    def window(self, begin: int, end: int) -> Window:
        """Rows ``begin`` to ``end``."""
        some = np.arange(np.searchsorted(self._ends, begin, "right"), np.searchsorted(self._ends, end, "left") + 1)
        some = some[: len(self._ends)]
        counts = np.minimum(self._ends[some], end) - np.maximum(self._begins[some], begin)
        document = np.repeat(some, counts)
        position = np.arange(begin, end) - self._begins[document]
        return Window(self, document, position)

    def column(self, name: str, window: Window) -> pa.Array:
        """A column of the rows of a window."""
        document, position = window.document, window.position
        if name not in self._columns:
            return pa.array(self._first + document if name == DOCUMENT else position)
        if name not in self._lists:
            return self._columns[name].take(pa.array(document))
        held = self._lists[name]
        position = position + (0 if name in self._spec.predictions else self._spec.shift)
        return held.take(held.starts[document] + position, position < held.sizes[document])

    def where(self, window: Window) -> Where:
        """The place of the rows of a window."""
        documents = self._where.first_row + window.document
        first = int(documents[0]) if len(documents) else self._where.first_row
        tokens = documents, window.position
        return Where(self._where.file, self._where.row_group, first, tokens, documents=True)

    def wrong(self, window: Window) -> dict[int, str]:
        """Row of the window -> what is wrong with its document."""
        if not self._wrong:
            return {}
        found = np.flatnonzero(np.isin(window.document, list(self._wrong)))
        return {i: self._wrong[int(window.document[i])] for i in found.tolist()}


class Window(NamedTuple):
    """Consecutive rows. document: int64 (n,), among those of the batch. position: int64 (n,)."""

    documents: Documents
    document: np.ndarray
    position: np.ndarray

    def batch(self, names: list[str]) -> pa.RecordBatch:
        """Columns of the rows."""
        columns = [self.documents.column(name, self) for name in names]
        if not columns:  # the rows still count
            return pa.record_batch([pa.nulls(len(self.document))], names=[""])
        return pa.RecordBatch.from_arrays(columns, names=names)


@dataclass(frozen=True)
class SequenceUnit:
    """The rows of the documents of another unit.

    reader: of the rows. spec: `Sequences`. first: the number of the file's first document in the dump.
    """

    unit: Unit
    reader: RowReader
    spec: Sequences
    first: int

    rows = None  # known once the documents are read

    @property
    def nbytes(self) -> int | None:
        return self.unit.nbytes

    @property
    def where(self) -> Where:
        """The first document."""
        return self.unit.where

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        with closing(self.unit.read(rows, block_bytes, True)) as batches:  # type: ignore[type-var]
            for batch in batches:
                for _ in batch.blocks:  # which hold nothing
                    pass
                documents = Documents(batch.columns, self.spec, self.first + batch.where.first_row, batch.where)
                yield from self._batches(documents, rows, block_bytes, whole)

    def _batches(self, documents: Documents, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        reader = self.reader
        together = whole or reader.blind
        step = min(rows, reader.rows_in(block_bytes)) if together else even(documents.rows, rows)
        for begin in range(0, documents.rows, step):
            end = min(begin + step, documents.rows)
            window = documents.window(begin, end)
            where, wrong = documents.where(window), documents.wrong(window)
            columns = reader.beside(window.batch(reader.stored_beside), end - begin, where)
            blocks = self._blocks(documents, begin, end, None if together else reader.rows_in(block_bytes))
            yield Batch(blocks, columns, where, end - begin, wrong)

    def _blocks(self, documents: Documents, begin: int, end: int, most: int | None) -> Iterator[Block]:
        """The logits of rows, at most ``most`` at a time; None: in one block.

        With a shift, positions of two documents do not lie one behind the other, and a block of both is a copy.
        """
        reader = self.reader
        names = [] if reader.blind else list(reader.layout.names)
        while begin < end:
            window = documents.window(begin, end if most is None else min(begin + most, end))
            if most is not None and self.spec.shift:
                run = int(np.searchsorted(window.document, window.document[0], "right"))
                if run * reader.row_bytes >= _RUN:
                    window = documents.window(begin, begin + run)
            block = reader.block(window.batch(names))
            block.bad.update(documents.wrong(window))
            yield block
            begin += len(window.document)
