"""Batches of two dumps through the kernels: the rows of either, as `scorer` scores them, and what sets them apart.

The columns beside the logits are those of the first dump; the second has its targets, which must agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from fastxent.io.batch import Batch, Block, positions_at, rows_at
from fastxent.io.lockstep import PairBatch, PairBlock
from fastxent.kernels.floats import widened
from fastxent.kernels.launch import CHUNK_ROWS, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.pairs import sweep_pairs
from fastxent.kernels.rows.divergences import CHANGE, FIELDS, JS, KL_AB, KL_BA, target_changes
from fastxent.options.config import EvalConfig
from fastxent.scoring.given import GivenScorer
from fastxent.scoring.pair_targets import PairTargets
from fastxent.scoring.rows import BinaryRows, MultilabelRows, ScoredRows, TopkRows
from fastxent.scoring.scorer import Scorer, Sweep
from fastxent.scoring.targets import NO_IGNORE, Prepared

if TYPE_CHECKING:
    import pyarrow as pa


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass
class PairRows(ScoredRows):
    """n rows of two dumps: those of the first, those of the second, and what sets them apart.

    A row is USED if it is in both. Divergences in nats; ``change`` is that of the target's probability.
    """

    other: ScoredRows | None = None  # of the second dump
    kl_ab: np.ndarray = field(default_factory=_none)  # float64
    kl_ba: np.ndarray = field(default_factory=_none)
    js: np.ndarray = field(default_factory=_none)
    change: np.ndarray = field(default_factory=_none)
    file: str = ""  # of the first dump
    row: np.ndarray = field(default_factory=_none)  # int64: the rows within that file
    position: np.ndarray | None = None  # int64: in the documents that are the rows within that file
    id: pa.Array | None = None

    def select(self, mask: np.ndarray) -> Self:
        """The rows of ``mask``, of both dumps."""
        return replace(super().select(mask), other=self.second.select(mask))

    @property
    def second(self) -> ScoredRows:
        """The rows of the second dump."""
        assert self.other is not None  # only an instance under construction has none
        return self.other


@dataclass
class BinaryPairRows(PairRows, BinaryRows):
    """Rows of one number each, of two dumps."""


@dataclass
class MultilabelPairRows(PairRows, MultilabelRows):
    """Rows of one number per label, of two dumps. Divergences and ``change`` are means over the labels of a row."""


@dataclass
class TopkPairRows(PairRows, TopkRows):
    """Rows that list their likeliest classes, of two dumps. Divergences and ``change`` are the least that is possible;
    the fields of the same name with "high" are the most."""

    kl_ab_high: np.ndarray = field(default_factory=_none)  # float64
    kl_ba_high: np.ndarray = field(default_factory=_none)
    js_high: np.ndarray = field(default_factory=_none)
    change_high: np.ndarray = field(default_factory=_none)
    same: np.ndarray = field(default_factory=_none)  # bool: the likeliest class is the same


def pair_rows(rows: ScoredRows) -> PairRows:
    """The rows, which are those of two dumps."""
    assert isinstance(rows, PairRows)
    return rows


def join(a: ScoredRows, b: ScoredRows) -> None:
    """Use the rows that are used in both, and of these the scores that are not null in either."""
    a.status = b.status = np.maximum(a.status, b.status)  # where a row is not used, why
    for name, values in a.scores.items():
        values[np.isnan(b.scores[name])] = np.nan
        b.scores[name][np.isnan(values)] = np.nan


Steps = Generator[None, PairBlock | None, PairRows]  # takes the blocks of a batch, then None, and returns the rows


def score_together(steps: Sequence[Steps], blocks: Iterable[Sequence[Block]]) -> list[PairRows]:
    """The rows of batches that are read side by side. blocks: the next of each batch."""
    for each in steps:
        next(each)
    for found in blocks:
        for each, block in zip(steps, found, strict=True):
            assert isinstance(block, PairBlock)
            each.send(block)
    rows = []
    for each in steps:
        try:
            each.send(None)
        except StopIteration as done:
            rows.append(done.value)
    return rows


class StepScorer(ABC):
    """Scores batches of two dumps, block by block."""

    def __call__(self, batch: PairBatch) -> PairRows:
        """Score the rows that pass ``where``. `BadRowError` for the first bad row, unless bad rows are skipped."""
        (rows,) = score_together([self.steps(batch)], ([block] for block in batch.blocks))
        return rows

    @abstractmethod
    def steps(self, batch: PairBatch) -> Steps:
        """Score a batch, whose blocks are sent. `BadRowError` as above."""


class PairScorer(StepScorer):
    """Scores batches of two dumps of C scores under one configuration.

    dtypes: (str, str). Float types of the logits. id: name of a column of the first dump, or None.
    """

    def __init__(self, config: EvalConfig, dtypes: tuple[str, str], id: str | None = None) -> None:
        self.config, self.id = config, id
        self._a, self._b = (Scorer(config, dtype) for dtype in dtypes)
        self._targets = PairTargets(config, self._a.prepare, self._b.compute)

    def steps(self, batch: PairBatch) -> Steps:
        """Score a batch, whose blocks are sent. `BadRowError` as above."""
        a, b = self._a, self._b
        prepared = a.prepare(batch, a.compute)
        matched = self._targets.matched(prepared, batch.other)
        apart = np.empty((FIELDS, len(prepared.target)))
        left, right = Sweep(a, prepared), Sweep(b, matched)
        while (block := (yield)) is not None:
            takes = left.turn_to(block), right.turn_to(block.other)
            _sweep(*takes, apart, floor=not self.config.renormalize)
            left.settle()
            right.settle()
        return self._rows(batch, prepared, left.rows(), right.rows(), apart)

    def _rows(self, batch: PairBatch, prepared: Prepared, a: ScoredRows, b: ScoredRows, apart: np.ndarray) -> PairRows:
        join(a, b)
        if self.config.target is not None:
            target_changes(*map(np.ascontiguousarray, (a.nll, b.nll)), apart[CHANGE])
        n, where = len(a.status), batch.where
        places = np.arange(n) if prepared.index is None else prepared.index
        return PairRows(
            **vars(a), other=b, kl_ab=apart[KL_AB], kl_ba=apart[KL_BA], js=apart[JS], change=apart[CHANGE],
            file=where.file, row=rows_at(where, places), position=positions_at(where, places),
            id=None if self.id is None else prepared.columns[self.id],
        )  # fmt: skip


class GivenPairScorer(StepScorer):
    """Takes losses and scores of two dumps without logits from their columns.

    A score counts in the rows where neither dump has null.
    """

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self._scorer = GivenScorer(config)

    def steps(self, batch: PairBatch) -> Steps:
        """Score a batch, whose blocks are sent. `BadRowError` as above."""
        while (yield) is not None:  # the blocks hold nothing
            pass
        prepared = self._scorer.prepare(batch, np.dtype(np.float64))
        a = self._scorer.rows(prepared)
        b = replace(self._scorer.rows(self._matched(prepared, batch.other)), cluster=a.cluster, by=a.by)
        join(a, b)
        n, where = len(a.status), batch.where
        nothing, places = np.zeros(n), np.arange(n) if prepared.index is None else prepared.index
        return PairRows(
            **vars(a), other=b, kl_ab=nothing, kl_ba=nothing, js=nothing, change=nothing,
            file=where.file, row=rows_at(where, places),
        )  # fmt: skip

    def _matched(self, prepared: Prepared, batch: Batch) -> Prepared:
        """The same rows of the second dump, which has its own log-probability and scores, and nothing else."""
        columns = {**prepared.columns, **self._scorer.prepare.taken(batch, prepared.index)}
        target = prepared.target.copy()
        scores = self._scorer.prepare.scores(columns, target)
        wrong = prepared.wrong | self._scorer.prepare.wrong(batch, prepared.index)
        return replace(prepared, columns=columns, where=batch.where, target=target, scores=scores, wrong=wrong)


def _sweep(a: RowPass, b: RowPass, apart: np.ndarray, *, floor: bool) -> None:
    """Fill the records of two passes, and the columns of ``apart`` that belong to their rows; see `sweep_pairs`."""
    column = a.offset
    if a.logits.compute_dtype != b.logits.compute_dtype:
        for take in (a, b):
            take.sweep(0, take.logits.n)
        a, b = (_widened(take) for take in (a, b))
    sweep_pairs(a, b, apart, column, floor=floor)


def _widened(take: RowPass) -> RowPass:
    """A pass over the same rows as float64."""
    values = widened(take.logits.values, take.logits.dtype).astype(np.float64)
    options = replace(take.options, class_weight=None, smoothed=False)
    into = row_buffers(len(values))
    return RowPass(Matrix.of(values), take.target, NO_IGNORE, options, full=True, chunk=CHUNK_ROWS, into=into)
