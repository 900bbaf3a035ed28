"""The record batches of Arrow IPC files and streams: rows of chosen columns, and the dictionaries that they need."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from fastxent.io.arrow.columns import Columns
from fastxent.io.arrow.ipc import Index, Message, Node, Values, read_message
from fastxent.io.storage.stored import StoredBytes


class Batches:
    """The record batches of an open file or stream, with the columns ``names``."""

    def __init__(self, source: StoredBytes, index: Index, names: Sequence[str]) -> None:
        self._source, self._index = source, index
        self._nodes = {name: index.nodes[index.schema.get_field_index(name)] for name in names}
        self._dictionaries: dict[int, pa.Array] = {}
        self._known = 0  # dictionaries that have been read
        self._opened: tuple[int, Columns] | None = None
        self._needed: dict[int, Node] = {}
        for node in self._nodes.values():
            _collect(node, self._needed)

    def read(self, number: int, begin: int, rows: int, names: Sequence[str]) -> pa.RecordBatch:
        """Rows of record batch ``number``."""
        columns = self._columns(number)
        if not names:  # the rows still count
            return pa.record_batch([pa.nulls(rows)], names=[""])
        arrays = []
        for name in names:
            try:
                arrays.append(columns.read(self._nodes[name], begin, rows))
            except (ValueError, OverflowError, pa.ArrowException) as error:  # a number may be too large for NumPy
                raise ValueError(f"column {name!r} of record batch {number} is damaged ({error})") from None
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

    def evenly(self, number: int, name: str, width: int) -> int | None:
        """`Columns.evenly` of a column of record batch ``number``, which is not compressed."""
        columns = self._columns(number)
        return columns.evenly(self._nodes[name], width)

    def rows_in(self, number: int, nbytes: int, names: Sequence[str]) -> int:
        """How many rows of a record batch take about ``nbytes``; at least 1."""
        columns = self._columns(number)
        each = sum(columns.buffers.nbytes(self._nodes[name]) for name in names) // max(1, columns.rows)
        return max(1, nbytes // max(1, each))

    def _columns(self, number: int) -> Columns:
        if self._opened is None or self._opened[0] != number:
            batch = self._index.batches[number]
            if batch.dictionaries < self._known:
                self._dictionaries, self._known = {}, 0
            for values in self._index.dictionaries[self._known : batch.dictionaries]:
                self._learn(values)
            self._known = batch.dictionaries
            self._opened = number, Columns(self._source, self._message(batch.begin), self._dictionaries)
            if self._opened[1].rows != batch.rows:
                raise ValueError("it changed while it was read")
            for node in self._nodes.values() or self._index.nodes:
                self._opened[1].buffers.same_length(node, batch.rows)
        return self._opened[1]

    def _message(self, at: int) -> Message:
        message = read_message(self._source, at)
        if message is None:
            raise ValueError("it changed while it was read")
        return message

    def _learn(self, values: Values) -> None:
        node = self._needed.get(values.number)
        if node is None:
            return
        columns = Columns(self._source, self._message(values.begin), self._dictionaries)
        found = columns.read(node, 0, columns.rows)
        if values.delta and values.number in self._dictionaries:
            found = pa.concat_arrays([self._dictionaries[values.number], found])
        self._dictionaries[values.number] = found


def _collect(node: Node, into: dict[int, Node]) -> None:
    """The dictionaries that a column needs, by number."""
    if node.values is not None:
        if node.dictionary in into and into[node.dictionary].type != node.values.type:
            raise ValueError(f"dictionary {node.dictionary} has two types")
        into[node.dictionary] = node.values
        _collect(node.values, into)
    for child in node.children:
        _collect(child, into)
