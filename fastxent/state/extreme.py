"""The rows with the largest of some number: at most so many of them, in an order that no two rows share."""

from __future__ import annotations

import heapq
import json
import math
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np

from fastxent.options.typed import check
from fastxent.results.details import WorstRow
from fastxent.results.encoding import number_out
from fastxent.scoring.rows import BinaryRows, MultilabelRows, ScoredRows, TopkRows
from fastxent.state.component import Summands
from fastxent.state.keys import EncodedColumn, value_of
from fastxent.state.packed import stored

Row = TypeVar("Row")


class Extreme(ABC, Generic[Row]):
    """The ``most`` rows that come first in an order, the largest number before others; only those above ``floor``."""

    floor = -math.inf

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows: list[Row] = []

    @abstractmethod
    def _sizes(self, rows: Summands) -> np.ndarray:
        """(used,) the number of each row."""

    @abstractmethod
    def _size(self, row: Row) -> float:
        """The number of a row that is held."""

    @abstractmethod
    def _made(self, rows: Summands, chosen: np.ndarray, sizes: np.ndarray) -> list[Row]:
        """The rows at some places."""

    @abstractmethod
    def _order(self, row: Row) -> tuple[Any, ...]:
        """What rows are sorted by."""

    @abstractmethod
    def _row(self, values: list[Any]) -> Row:
        """The row whose fields, in JSON-ready values, are these."""

    def add(self, rows: Summands) -> None:
        """Add the rows whose number is larger than those of the rows held so far."""
        sizes = self._sizes(rows) if self.most else np.zeros(0)
        if not sizes.size:
            return
        least = self._size(self.rows[-1]) if len(self.rows) == self.most else self.floor
        if len(sizes) > self.most:
            least = max(least, float(np.partition(sizes, -self.most)[-self.most]))
        ties = np.flatnonzero((sizes == least) & (least > self.floor))  # a batch is in the order of its file
        ties = ties[: self.most]
        self._keep(self._made(rows, np.concatenate([np.flatnonzero(sizes > least), ties]), sizes))

    def _keep(self, more: list[Row]) -> None:
        self.rows = heapq.nsmallest(self.most, [*self.rows, *more], key=self._order)

    def absorb(self, other: Extreme[Row], clusters: np.ndarray | None = None) -> None:
        """Take in the rows of another."""
        self._keep(other.rows)

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """``rows``: JSON text."""
        listed = [[number_out(value) for value in vars(row).values()] for row in self.rows]
        return {"rows": np.frombuffer(json.dumps(listed, allow_nan=False).encode(), np.uint8)}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        listed = json.loads(stored(arrays, "rows", np.uint8, -1).tobytes())
        self.rows = [self._row(values) for values in listed]
        if len(self.rows) > self.most or self.rows != sorted(self.rows, key=self._order):
            raise ValueError("rows that are not in order")


def ids_at(column: Any, places: np.ndarray) -> list[Any]:
    """The values of an id column at some places; None without a column."""
    import pyarrow as pa

    if column is None:
        return [None] * len(places)
    found = EncodedColumn.of(column.take(pa.array(places, pa.int64())), "id", "name rows")
    values = [value_of(key) for key in found.keys]
    return [values[k] for k in found.index.tolist()]


class Worst(Extreme[WorstRow]):
    """The rows of largest loss; ties by file and row. ``id``: name of a column of row names, or None.

    The loss of a row of a top-k dump is the least that it can be.
    """

    def __init__(self, most: int, id: str | None = None) -> None:
        super().__init__(most)
        self._id = id

    def _sizes(self, rows: Summands) -> np.ndarray:
        losses = rows.rows.nll_low if isinstance(rows.rows, TopkRows) else rows.rows.loss
        found: np.ndarray = np.where(np.isnan(losses), self.floor, losses)
        return found

    def _size(self, row: WorstRow) -> float:
        return row.loss

    def _made(self, rows: Summands, chosen: np.ndarray, sizes: np.ndarray) -> list[WorstRow]:
        scored = rows.rows
        prepared = scored.prepared
        if prepared is None:
            raise ValueError("scored rows must have their place, because the rows of largest loss are listed")
        places = np.flatnonzero(rows.mask)[chosen]
        ids = ids_at(None if self._id is None else prepared.columns[self._id], places)
        found = []
        for id, place, i in zip(ids, places.tolist(), chosen.tolist(), strict=True):
            where = prepared.where.place(prepared.place(place))
            name = where.spot if self._id is None and where.documents else id
            loss = float(sizes[i]) + 0.0
            found.append(WorstRow(where.file, where.row_group, where.first_row, name, loss, *_known(scored, i)))
        return found

    def _order(self, row: WorstRow) -> tuple[Any, ...]:
        return -row.loss, row.file, row.row, repr(row.id), row.target or 0, row.predicted or 0, row.confidence

    def result(self) -> dict[str, Any]:
        """The fields of a result."""
        return {"worst": tuple(self.rows)}

    def _row(self, values: list[Any]) -> WorstRow:
        row = WorstRow.of(dict(zip(WorstRow.__dataclass_fields__, values, strict=True)))
        check(row, WorstRow, "worst")
        return row


def _known(rows: ScoredRows, i: int) -> tuple[int | None, int | None, float]:
    """Target, prediction and confidence of a row, as far as it has them."""
    if isinstance(rows, MultilabelRows):
        return None, int(rows.predicted[i]), float("nan")
    if isinstance(rows, TopkRows) and rows.tokens is not None:  # classes without numbers
        return None, None, float(rows.confidence[i])
    if not isinstance(rows, BinaryRows) and rows.target[i] < 0:  # a log-probability
        return None, None, float("nan")
    return int(rows.target[i]), int(rows.predicted[i]), float(rows.confidence[i])
