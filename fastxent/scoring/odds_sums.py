"""Batches of a binary dump that are summed while they are scored: no record of their rows is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.io.batch import Batch
from fastxent.io.storage.buffers import buffers, read_only
from fastxent.kernels import cuts
from fastxent.kernels.cuts import PLACE, ROWS, WIDTH, Cuts, add_units
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.fold import WORDS
from fastxent.kernels.grid import MOST_ROWS, OFFSET_BITS, WHOLE_BITS, by_bin, places_of
from fastxent.kernels.rows import odds_sums
from fastxent.kernels.rows.labels import plain_targets
from fastxent.kernels.rows.odds import NLL
from fastxent.kernels.rows.odds_sums import INSIDE, NLL_POSITIVE, POSITIVE
from fastxent.kernels.tally import FIRST_PATTERN, PATTERN_SHIFT, PATTERNS
from fastxent.options.config import EvalConfig
from fastxent.scoring.binary import BinaryScorer, Numbers
from fastxent.scoring.rows import ScoredRows

_UNSUMMED = ("nll_minus_entropy",)  # metrics of products that are not summed
_TOGETHER = 1 << 18  # rows that are scored one by one: each leaves some 200 bytes until it is added to a state


@dataclass
class BinarySums:
    """The sums of n rows that are all used, unweighted and each of one class: what `BinaryRows` of them would give."""

    n: int
    score: np.ndarray  # float32 (n,): as given
    positive: np.ndarray  # uint8 (n,): 1 for the positive class, else 0
    sums: np.ndarray  # int64: see `kernels.rows.odds_sums`
    counts: np.ndarray  # int64 (4,): see there
    cuts: Cuts  # calibration of the positive class
    grid: np.ndarray  # int64: see `kernels.grid.add_singles`
    nll: np.ndarray  # int64: see `kernels.tally.tally_singles`
    extremes: np.ndarray  # float64 (2,): the least and the largest NLL
    minus_ones: int
    zeros: int
    probabilities: int
    unnormalised: int = 0
    soft_targets: int = 0
    unnormalised_targets: int = 0

    @property
    def matrix(self) -> np.ndarray:
        """int64 (2, 2): rows by class and prediction."""
        positive, predicted, both, _ = self.counts.tolist()
        return np.array([[self.n - positive - predicted + both, predicted - both], [positive - both, both]])

    @property
    def losses(self) -> list[np.ndarray]:
        """The sums of the NLL of the rows of each class."""
        of_positive = self.sums[NLL_POSITIVE]
        return [self.sums[NLL] - of_positive, of_positive.copy()]

    @property
    def statuses(self) -> np.ndarray:
        """int64 (4,): rows by status."""
        return np.array([self.n, 0, 0, 0])


def can_sum(config: EvalConfig, dtype: str) -> bool:
    """Whether rows of a binary dump, of scores of a float type, are summed while they are scored if they are plain."""
    c = config
    whole = not (c.by or c.cluster or c.weight or c.scores or c.label_smoothing or set(c.metrics) & set(_UNSUMMED))
    return whole and c.target is not None and bool(FLOAT_TYPES[dtype].compute == np.float32)


class SummingScorer:
    """Sums batches of a binary dump where it can: unweighted rows of one class each, all of them used, without slices
    and clusters. Other batches are scored row by row."""

    def __init__(self, config: EvalConfig, dtype: str) -> None:
        self.config = config
        self._rows = BinaryScorer(config, dtype)
        self._sums = can_sum(config, dtype)
        self._summing: Any = odds_sums.sums_kernel(config.input == "logits")
        self._room = odds_sums.room(), cuts.room()

    def __call__(self, batch: Batch) -> BinarySums | ScoredRows | Iterator[ScoredRows]:
        """Sum or score the rows that pass ``where``. Errors as in `BinaryScorer`."""
        numbers = self._rows.numbers(batch.rows)
        for block in batch.blocks:
            numbers.add(block)
        if not self._sums:
            return self._rows.rows(self._rows.prepare(batch, self._rows.compute), numbers)
        prepared, target = None, self._plain(batch)
        if target is None:
            prepared = self._rows.prepare(batch, self._rows.compute)
            target = prepared.target if prepared.soft is None else None
        index = None if prepared is None else prepared.index
        summed = None if target is None else self._summed(target, numbers.at(index))
        return summed or self._one_by_one(batch, numbers)

    def _one_by_one(self, batch: Batch, numbers: Numbers) -> Iterator[ScoredRows]:
        """Score the rows of a batch row by row, `_TOGETHER` at a time, when they are asked for."""
        index = self._rows.prepare.chosen(batch)
        index = np.arange(batch.rows) if index is None else index
        for begin in range(0, max(1, len(index)), _TOGETHER):
            some = index[begin : begin + _TOGETHER] if len(index) > _TOGETHER else None
            yield self._rows.rows(self._rows.prepare(batch, self._rows.compute, some), numbers)

    def _plain(self, batch: Batch) -> np.ndarray | None:
        """The targets of a batch if they need no preparation."""
        import pyarrow.types as pt

        target, c = batch.columns[str(self.config.target)], self.config
        whole = pt.is_int8(target.type) or pt.is_uint8(target.type) or pt.is_int64(target.type)
        if not whole or target.null_count or batch.bad or c.where is not None or -1 <= c.ignore_index <= 1:
            return None
        return read_only(np.from_dlpack(target))  # `to_numpy` would import pandas

    def _summed(self, target: np.ndarray, values: np.ndarray) -> BinarySums | None:
        """The sums of rows with these targets, 1, 0 or -1, and numbers, if all of them allow it."""
        n, c = len(target), self.config
        if not 0 < n <= MOST_ROWS:
            return None
        positive = buffers().take(n)
        minus_ones = plain_targets(target, positive)
        if minus_ones < 0:
            return None
        shaped = self._rows.shaped(values)
        if shaped is not values and c.input == "probs" and not ((values >= 0) & (values <= 1)).all():
            return None
        sums, counts = np.zeros((odds_sums.SUMS, WORDS), np.int64), np.zeros(4, np.int64)
        nll, extremes = np.zeros(PATTERNS, np.int64), np.array([np.inf, -np.inf])
        left = buffers().take(8 * n).view(np.float64), buffers().take(8 * n).view(np.int64), np.zeros(1, np.int64)
        binned = Cuts(np.zeros((c.bins, PLACE), np.int64), left)
        grid = np.zeros(2 * places_of(WHOLE_BITS, c.bins), np.int64)
        rule = c.temperature, self._rows.least, FLOAT_TYPES["float32"].tag
        histogram, given = (nll, FIRST_PATTERN, PATTERN_SHIFT, extremes), (values, shaped, positive)
        calibration = tuple(binned), grid
        if not self._summing(given, rule, c.bins, sums, counts, histogram, calibration, self._room):
            return None
        rows, confidence = by_bin(grid, c.bins)
        binned.sums[:, ROWS], binned.sums[:, WIDTH] = rows.sum(axis=1), rows[:, 1]
        add_units(confidence, WHOLE_BITS + OFFSET_BITS, binned.sums)
        zeros = n - int(counts[POSITIVE]) - minus_ones
        inside = int(counts[INSIDE]) if c.input == "logits" else 0
        return BinarySums(n, values, positive, sums, counts, binned, grid, nll, extremes, minus_ones, zeros, inside)
