"""Arrays of documents, (N, T, C) or (N, T), as columns of one row per position; and arrays of a value per document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from fastxent.io.layout import DOCUMENT
from fastxent.io.storage.stored import StoredBytes


class Array(Protocol):
    """A column before its rows are read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def tag(self) -> str | None: ...  # the float type whose bits the integers are
    @property
    def type(self) -> pa.DataType: ...  # of one element
    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        """Rows as an Arrow array: of lists of ``width``, or of values."""
        ...


@dataclass(frozen=True)
class Arranged:
    """An array of documents of ``steps`` positions as one row per position.

    kept, first: how many positions of each document are rows, and the first of them. repeated: the array has one value
    per document, which is that of all its rows.
    """

    inner: Array
    steps: int
    kept: int
    first: int = 0
    repeated: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def tag(self) -> str | None:
        return self.inner.tag

    @property
    def type(self) -> pa.DataType:
        return self.inner.type

    def read(self, begin: int, end: int, width: int | None, *source: StoredBytes) -> pa.Array:
        if begin >= end or (self.kept == self.steps and not self.repeated):
            return self.inner.read(begin, end, width, *source)
        rows = np.arange(begin, end)
        document, position = np.divmod(rows, self.kept)
        places = document if self.repeated else document * self.steps + position + self.first
        low, high = int(places[0]), int(places[-1]) + 1
        part = self.inner.read(low, high, width, *source)
        return part if len(part) == len(rows) else part.take(pa.array(places - low))


@dataclass(frozen=True)
class Numbered:
    """The document, or the position in it, of each row of documents of ``kept`` positions."""

    name: str
    kept: int
    begin: int  # the number of the first document
    shape = ()
    tag = None
    type = pa.int64()

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        document, position = np.divmod(np.arange(begin, end), self.kept)
        return pa.array(document + self.begin if self.name == DOCUMENT else position)
