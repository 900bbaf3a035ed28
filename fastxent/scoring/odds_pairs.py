"""Batches of two dumps of one number per row, or per label: the rows of either, and what sets them apart.

A number is the distribution of two classes, and goes through the kernel of two rows of C scores. The divergences of a
row of several labels are means over its labels that are not ignored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastxent.io.batch import positions_at, rows_at
from fastxent.io.lockstep import PairBatch
from fastxent.kernels.launch import CHUNK_ROWS, MODES, RowOptions, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.pairs import sweep_pairs
from fastxent.kernels.rows.divergences import FIELDS, JS, KL_AB, KL_BA
from fastxent.options.config import EvalConfig
from fastxent.scoring.binary import BinaryScorer
from fastxent.scoring.multilabel import MultilabelScorer
from fastxent.scoring.pair_targets import PairTargets
from fastxent.scoring.pairs import BinaryPairRows, MultilabelPairRows, PairRows, Steps, StepScorer, join
from fastxent.scoring.rows import BinaryRows, MultilabelRows, ScoredRows
from fastxent.scoring.targets import NO_IGNORE, Prepared

_BLOCK = 1 << 15  # distributions that are in memory at a time


class BinaryPairScorer(StepScorer):
    """Scores batches of two dumps of one number per row under one configuration.

    dtypes: (str, str). Float types of the numbers. id: name of a column of the first dump, or None.
    """

    _kind: type[BinaryScorer] = BinaryScorer

    def __init__(self, config: EvalConfig, dtypes: tuple[str, str], id: str | None = None) -> None:
        self.config, self.id = config, id
        self._a, self._b = (self._kind(config, dtype) for dtype in dtypes)
        self._targets = PairTargets(config, self._a.prepare, self._b.compute)

    def steps(self, batch: PairBatch) -> Steps:
        """Score a batch, whose blocks are sent. `BadRowError` as above."""
        prepared = self._a.prepare(batch, self._a.compute)
        matched = self._targets.matched(prepared, batch.other)
        left, right = self._a.numbers(batch.rows), self._b.numbers(batch.rows)
        while (block := (yield)) is not None:
            left.add(block)
            right.add(block.other)
        a, b = self._a.rows(prepared, left), self._b.rows(matched, right)
        join(a, b)
        return self._rows(batch, prepared, a, b)

    def _rows(self, batch: PairBatch, prepared: Prepared, a: ScoredRows, b: ScoredRows) -> PairRows:
        assert isinstance(a, BinaryRows)
        assert isinstance(b, BinaryRows)
        apart = self._divergences(a.score, b.score)
        change = (2.0 * a.positive - 1.0) * (b.confidence - a.confidence)
        return BinaryPairRows(
            **vars(a), other=b, kl_ab=apart[KL_AB], kl_ba=apart[KL_BA], js=apart[JS], change=change,
            **self._places(batch, prepared),
        )  # fmt: skip

    def _places(self, batch: PairBatch, prepared: Prepared) -> dict[str, Any]:
        """Where the rows are in the first dump, and their names."""
        n, where = len(prepared.target), batch.where
        places = np.arange(n) if prepared.index is None else prepared.index
        named = None if self.id is None else prepared.columns[self.id]
        return {
            "file": where.file, "row": rows_at(where, places), "position": positions_at(where, places), "id": named
        }  # fmt: skip

    def _divergences(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The divergences of the distributions that two arrays of n numbers stand for: (fields, n)."""
        apart = np.zeros((FIELDS, len(a)))
        options = RowOptions(MODES[self.config.input])
        for begin in range(0, len(a), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            passes = []
            for scorer, values in ((self._a, a[part]), (self._b, b[part])):
                pairs = self._distributions(scorer.shaped(values.astype(np.float64)))
                target, into = np.zeros(len(pairs), np.int64), row_buffers(len(pairs))
                how = {"full": True, "chunk": CHUNK_ROWS, "into": into}
                passes.append(RowPass(Matrix.of(pairs), target, NO_IGNORE, options, **how))  # type: ignore[arg-type]
            sweep_pairs(passes[0], passes[1], apart, begin)
        return apart

    def _distributions(self, values: np.ndarray) -> np.ndarray:
        """Rows of two classes, the negative one first: (n, 2)."""
        pairs = np.empty((len(values), 2))
        if self.config.input == "probs":
            pairs[:, 0], pairs[:, 1] = 1.0 - values, values
        else:  # neither is infinite above, whatever the log-odds
            pairs[:, 0], pairs[:, 1] = 0.0 - np.maximum(values, 0.0), np.minimum(values, 0.0)
        return pairs


class MultilabelPairScorer(BinaryPairScorer):
    """Scores batches of two dumps of one number per label under one configuration."""

    _kind = MultilabelScorer

    def _rows(self, batch: PairBatch, prepared: Prepared, a: ScoredRows, b: ScoredRows) -> PairRows:
        assert isinstance(a, MultilabelRows)
        assert isinstance(b, MultilabelRows)
        known = ~np.isnan(a.positive)
        each = self._divergences(a.score.reshape(-1), b.score.reshape(-1)).reshape(FIELDS, *known.shape)
        with np.errstate(invalid="ignore"):  # rows that are not used
            apart = np.where(known, each, 0.0).sum(axis=2) / known.sum(axis=1)
            change = np.where(known, (2.0 * a.positive - 1.0) * (b.probability - a.probability), 0.0)
            change = change.sum(axis=1) / known.sum(axis=1)
        return MultilabelPairRows(
            **vars(a), other=b, kl_ab=apart[KL_AB], kl_ba=apart[KL_BA], js=apart[JS], change=change,
            **self._places(batch, prepared),
        )  # fmt: skip
