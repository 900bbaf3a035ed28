"""The columns beside the logits, prepared for a sweep: the rows that pass the filter, their targets and weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastxent.errors import ColumnError, Where
from fastxent.io.batch import Batch
from fastxent.io.storage.buffers import read_only
from fastxent.kernels.floats import widened
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.rows.labels import code_classes
from fastxent.kernels.rows.record import NO_TARGET
from fastxent.options.config import EvalConfig
from fastxent.scoring.filter import Filter

if TYPE_CHECKING:
    import pyarrow as pa

NO_IGNORE = NO_TARGET + 1  # the target of an ignored row, whatever the user's ignore_index


@dataclass(frozen=True)
class Prepared:
    """n rows of a batch without their logits."""

    columns: dict[str, pa.Array]
    where: Where  # the first row of the batch
    index: np.ndarray | None  # (n,) the rows' places in the batch; None if all rows of the batch are there
    target: np.ndarray  # (n,) class ids, `NO_IGNORE` or, for a target that is not valid, the number of classes
    soft: Matrix | None  # (n, C)
    weight: np.ndarray | None  # (n,)
    n_bytes: np.ndarray | None  # (n,)
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # (n,) each, NaN where null
    wrong: dict[int, str] = field(default_factory=dict)  # row -> why its columns do not belong together

    def place(self, i: int) -> int:
        """The place in the batch of row ``i``."""
        return i if self.index is None else int(self.index[i])


def unsigned_column(config: EvalConfig) -> str | None:
    """The column of numbers that must not be negative. Binary and multilabel dumps are ranked by their weights."""
    return config.weight if config.task in ("binary", "multilabel") else config.n_bytes


class Preparation:
    """Prepares batches under one configuration."""

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self._filter = Filter(config.where) if config.where is not None else None
        self._unsigned = unsigned_column(config)

    def chosen(self, batch: Batch) -> np.ndarray | None:
        """The places of the rows that pass ``where``; None if all do."""
        if self._filter is None:
            return None
        index = self._filter.rows(batch.columns)
        return None if len(index) == batch.rows else index

    def __call__(self, batch: Batch, dtype: np.dtype[Any], index: np.ndarray | None = None) -> Prepared:
        """``dtype``: of the soft targets, if the targets are soft. ``index``: places of the rows; None: `chosen`."""
        index, rows = self.chosen(batch) if index is None else index, batch.rows
        columns, rows = self.taken(batch, index), rows if index is None else len(index)
        given = self.config.target
        target, soft = (np.full(rows, NO_TARGET), None) if given is None else self.targets(columns[given], dtype)
        weight, n_bytes = (self._numbers(columns, name, target) for name in (self.config.weight, self.config.n_bytes))
        scores, wrong = self.scores(columns, target), self.wrong(batch, index)
        target[list(wrong)] = self.config.n_classes
        return Prepared(columns, batch.where, index, target, soft, weight, n_bytes, scores, wrong)

    def wrong(self, batch: Batch, index: np.ndarray | None) -> dict[int, str]:
        """Why the columns of a row do not belong together, for rows of a batch at the places of ``index``, or all."""
        if index is None or not batch.bad:
            return batch.bad
        return {i: batch.bad[row] for i, row in enumerate(index.tolist()) if row in batch.bad}

    def taken(self, batch: Batch, index: np.ndarray | None) -> dict[str, pa.Array]:
        """The columns of a batch at the places of ``index``, or at all."""
        if index is None:
            return batch.columns
        return {name: column.take(_indices(index)) for name, column in batch.columns.items()}

    def targets(self, column: pa.Array, dtype: np.dtype[Any]) -> tuple[np.ndarray, Matrix | None]:
        """(class ids, soft targets). The id of a soft target is its likeliest class."""
        from fastxent.io.columns import is_soft, soft_rows, target_ids

        c = self.config
        if not is_soft(column.type):
            ids = target_ids(column, c.ignore_index, c.classes)
            coded = np.empty(len(ids), np.int64)
            code_classes(read_only(np.ascontiguousarray(ids)), c.ignore_index, NO_IGNORE, c.n_classes, coded)
            return coded, None
        found, bad = soft_rows(column, c.n_classes)
        soft = widened(found.values, found.dtype).astype(dtype, order="C")
        with np.errstate(invalid="ignore"):
            broken = ~((soft >= 0) & (soft < np.inf)).all(axis=1)
        ids = np.where(np.isnan(soft), -1.0, soft).argmax(axis=1).astype(np.int64)
        ids[list(bad)] = c.n_classes
        ids[broken] = c.n_classes
        if column.null_count:
            ids[np.asarray(column.is_null())] = NO_IGNORE
        return ids, Matrix.of(soft)

    def scores(self, columns: dict[str, pa.Array], target: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of scores, null as NaN. A row with a score of NaN is bad, and marked so in ``target``."""
        found = {}
        for name in self.config.scores:
            found[name], valid = nullable(columns[name], name)
            target[valid & np.isnan(found[name]) & (target != NO_IGNORE)] = self.config.n_classes
        return found

    def _numbers(self, columns: dict[str, pa.Array], name: str | None, target: np.ndarray) -> np.ndarray | None:
        """A column of weights or bytes. A row without a finite number, or with one that must not be negative, is bad,
        and marked so in ``target``."""
        if name is None:
            return None
        values, _ = nullable(columns[name], name)
        with np.errstate(invalid="ignore"):
            unfit = ~np.isfinite(values) | ((values < 0) if name == self._unsigned else False)
        target[unfit & (target != NO_IGNORE)] = self.config.n_classes
        return values


def nullable(column: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(a column of numbers as float64, NaN where null; where it is not null)."""
    from fastxent.io.columns import float_column

    valid = np.asarray(column.is_valid())
    values = np.full(len(valid), np.nan)
    values[valid] = float_column(column.drop_null(), name)
    return values, valid


def logprobs_of(column: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """`nullable` of log-probabilities, which true and false are not."""
    if str(column.type) == "bool":
        raise ColumnError(f"column {name!r} must hold log-probabilities, got bool")
    return nullable(column, name)


def _indices(index: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array(index)
