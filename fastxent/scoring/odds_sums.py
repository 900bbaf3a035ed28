"""Batches of a binary dump that are summed while they are scored: no record of their rows is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastxent.io.batch import Batch
from fastxent.kernels import cuts
from fastxent.kernels.cuts import PLACE, ROWS, WIDTH, Cuts, add_units
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.fold import WORDS
from fastxent.kernels.grid import MOST_ROWS, OFFSET_BITS, WHOLE_BITS, places_of, totals_of
from fastxent.kernels.rows import odds_sums
from fastxent.kernels.rows.labels import plain_targets
from fastxent.kernels.rows.odds_sums import INSIDE, POSITIVE
from fastxent.kernels.tally import FIRST_PATTERN, PATTERN_SHIFT, PATTERNS
from fastxent.options.config import EvalConfig
from fastxent.scoring.binary import BinaryScorer, Numbers
from fastxent.scoring.rows import ScoredRows
from fastxent.scoring.targets import Prepared

_UNSUMMED = ("nll_minus_entropy",)  # metrics of products that are not summed


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
    nll: np.ndarray  # int64: see `kernels.tally.tally_finite`
    extremes: np.ndarray  # float64 (2,): the least and the largest NLL
    minus_ones: int
    zeros: int
    probabilities: int
    unnormalised: int = 0
    soft_targets: int = 0
    unnormalised_targets: int = 0


class SummingScorer:
    """Sums batches of a binary dump where it can: unweighted rows of one class each, all of them used, without slices
    and clusters. Other batches are scored row by row."""

    def __init__(self, config: EvalConfig, dtype: str) -> None:
        self.config = c = config
        self._rows = BinaryScorer(config, dtype)
        whole = not (c.by or c.cluster or c.weight or c.scores or c.label_smoothing or set(c.metrics) & set(_UNSUMMED))
        self._sums = whole and c.target is not None and self._rows.compute == np.float32
        self._summing: Any = odds_sums.sums_kernel(c.input == "logits")
        self._room = odds_sums.room(), cuts.room()

    def __call__(self, batch: Batch) -> ScoredRows | BinarySums:
        """Sum or score the rows that pass ``where``. Errors as in `BinaryScorer`."""
        numbers = self._rows.numbers()
        for block in batch.blocks:
            numbers.add(block)
        prepared = self._rows.prepare(batch, self._rows.compute)
        return self._summed(prepared, numbers) or self._rows.rows(prepared, numbers)

    def _summed(self, prepared: Prepared, numbers: Numbers) -> BinarySums | None:
        """The sums of a batch, if all its rows allow it."""
        n, c = len(prepared.target), self.config
        positive = np.empty(n, np.uint8)
        if not self._sums or prepared.soft is not None or not 0 < n <= MOST_ROWS:
            return None
        minus_ones = plain_targets(prepared.target, positive)
        if minus_ones < 0:
            return None
        values = numbers.at(prepared.index)
        shaped = self._rows.shaped(values)
        if shaped is not values and c.input == "probs" and not ((values >= 0) & (values <= 1)).all():
            return None
        sums, counts = np.zeros((odds_sums.SUMS, WORDS), np.int64), np.zeros(4, np.int64)
        nll, extremes = np.zeros(PATTERNS, np.int64), np.array([np.inf, -np.inf])
        binned, grid = Cuts.zeros(c.bins, PLACE, n), np.zeros(2 * places_of(WHOLE_BITS, c.bins), np.int64)
        rule = c.temperature, self._rows.least, FLOAT_TYPES["float32"].tag
        histogram, given = (nll, FIRST_PATTERN, PATTERN_SHIFT, extremes), (values, shaped, positive)
        calibration = tuple(binned), grid
        if not self._summing(given, rule, c.bins, sums, counts, histogram, calibration, self._room):
            return None
        rows, confidence = totals_of(grid.reshape(-1, 2), WHOLE_BITS, c.bins)
        binned.sums[:, ROWS], binned.sums[:, WIDTH] = rows.sum(axis=1), rows[:, 1]
        add_units(confidence.sum(axis=1), WHOLE_BITS + OFFSET_BITS, binned.sums)
        zeros = n - int(counts[POSITIVE]) - minus_ones
        inside = int(counts[INSIDE]) if c.input == "logits" else 0
        return BinarySums(n, values, positive, sums, counts, binned, grid, nll, extremes, minus_ones, zeros, inside)
