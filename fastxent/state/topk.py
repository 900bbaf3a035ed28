"""The metrics of a top-k dump: each mean is summed twice, of the least and of the most that each row can be.

Where both sums are the same integers, every row has one possible number, and the metric is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from fastxent.kernels.fold import BELOW, RECIPROCAL, Summand
from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.rows import ScoredRows, TopkRows
from fastxent.state.classes import Classes
from fastxent.state.component import Summands
from fastxent.state.distribution import Distribution
from fastxent.state.metrics import (
    BYTES,
    CALIBRATION,
    ROWS,
    Bins,
    Column,
    Mean,
    MetricPlan,
    Sums,
    selection,
)  # fmt: skip

UNLABELLED = ("entropy", "confidence", "covered_mass")  # metrics that need no target
_Found = Callable[[np.ndarray], np.ndarray | Summand]


class Bounded(NamedTuple):
    """A mean of the least and of the most that rows can be."""

    low: Mean
    high: Mean


def columns_of(name: str, low: str, high: str, of: _Found = lambda x: x, **kinds: bool) -> tuple[Column, Column]:
    """The columns of the least and the most of a number, computed from two fields of the rows. A row of negative weight
    adds its most to the least."""

    def taken(first: str, second: str) -> Callable[[ScoredRows], np.ndarray | Summand]:
        def column(rows: ScoredRows) -> np.ndarray | Summand:
            a, b = getattr(cast(TopkRows, rows), first), getattr(rows, second)
            negative = None if rows.weight is None else rows.weight < 0
            return of(np.where(negative, b, a) if negative is not None and negative.any() else a)

        return column

    return Column(f"{name}, least", taken(low, high), **kinds), Column(f"{name}, most", taken(high, low), **kinds)


NLL = columns_of("nll", "nll_low", "nll_high")
ENTROPY = columns_of("entropy", "entropy", "entropy_high", labelled=False)
BRIER = columns_of("brier", "brier", "brier_high")
RANK = columns_of("1/(rank+1)", "rank_high", "rank", lambda rank: Summand(RECIPROCAL, rank))
CONFIDENCE = columns_of("confidence", "confidence", "confidence", labelled=False)
COVERAGE = columns_of("listed", "listed", "listed", indicator=True)
MASS = columns_of("mass", "mass", "mass", labelled=False)


def _hits(k: int) -> tuple[Column, Column]:
    return columns_of(f"rank<{k}", "rank_high", "rank", lambda rank: Summand(BELOW, rank, limit=k), indicator=True)


def means(config: EvalConfig) -> list[Bounded]:
    """Every mean that a top-k dump can have, in the order of display."""

    def pair(name: str, columns: tuple[Column, Column], over: Column = ROWS, **form: bool) -> Bounded:
        return Bounded(*(Mean(name, column, over, **form) for column in columns))

    return [
        pair("cross_entropy", NLL),
        pair("cross_entropy_bits", NLL, bits=True),
        pair("perplexity", NLL, exponential=True),
        *([pair("bits_per_byte", NLL, BYTES, bits=True)] if config.n_bytes else []),
        pair("accuracy", _hits(1)),
        *(pair(f"top_{k}_accuracy", _hits(k)) for k in sorted(set(config.top_k)) if k > 1),
        pair("mean_reciprocal_rank", RANK),
        pair("brier_score", BRIER),
        pair("entropy", ENTROPY),
        pair("confidence", CONFIDENCE),
        pair("coverage", COVERAGE),
        pair("covered_mass", MASS),
    ]


class TopkPlan(MetricPlan):
    """What to sum for the metrics of a top-k dump."""

    def __init__(self, config: EvalConfig) -> None:
        every = means(config)
        names = [pair.low.name for pair in every]
        names[-2:-2] = CALIBRATION
        self.names = selection(config, names, UNLABELLED)
        self.labelled = self.losses = config.target is not None
        self.bounded = [pair for pair in every if pair.low.name in self.names]
        self._choose(config, [mean for pair in self.bounded for mean in pair])

    def metrics_of(self, sums: Sums, bins: Bins) -> dict[str, Metric]:
        """All chosen metrics of one group of rows, each exact or within bounds."""
        found = {name: Metric(value) for name, value in bins.errors().items()}
        for pair in self.bounded:
            low, high = (self.metric(mean, sums) for mean in pair)
            found[pair.low.name] = low if self.same(pair, sums) else within(low, high, positive=pair.low.exponential)
        return {name: found[name] for name in self.names}

    def same(self, pair: Bounded, sums: Sums) -> bool:
        """Whether the sums of the least and of the most are the same."""
        a, b = (self._index[mean.column.name] for mean in pair)
        return bool(sums.totals[a] == sums.totals[b] and sums.special[a] == sums.special[b])


def within(low: Metric, high: Metric, *, positive: bool = False) -> Metric:
    """A metric between two others. Its interval covers those of both. Where infinite rows leave one of them undefined,
    nothing is known but that a perplexity is positive."""
    if math.isnan(low.value) != math.isnan(high.value):
        return Metric(math.nan, bounds=(0.0 if positive else -math.inf, math.inf))
    ends = sorted((low, high), key=lambda metric: metric.value)
    (first, _), (_, last) = ends[0].ci95, ends[1].ci95
    if last != last and ends[1].value == math.inf:
        last = math.inf
    known = first == first and last == last
    interval = (first, last) if known else (math.nan, math.nan)
    return Metric(math.nan, math.nan, interval, low.method if known else None, (ends[0].value, ends[1].value))


class NoClasses(Classes):
    """No counts of classes: their number is not known, or they have none."""

    def check(self, rows: ScoredRows) -> None:
        """Nothing is written by class."""

    def add(self, summands: Summands) -> None:
        """Count nothing."""

    def rows(self) -> list[int]:
        """Nothing that must add up."""
        return []


class Between(Distribution):
    """The distribution of the NLL of a row that may be known within bounds only: counts of the most that it can be, and
    in ``low`` of the least."""

    def __init__(self) -> None:
        super().__init__()
        self.low = Distribution()

    def add(self, rows: Summands) -> None:
        """Count the NLL of rows, if they have one."""
        if rows.losses:
            found = cast(TopkRows, rows.rows)
            self.count(found.nll_high)
            self.low.count(found.nll_low)

    def absorb(self, other: Distribution, clusters: np.ndarray | None = None) -> None:
        """Add the counts of another."""
        assert isinstance(other, Between)
        super().absorb(other)
        self.low.absorb(other.low)

    def arrays(self, clusters: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Those of the most, and with "low" before their names those of the least."""
        return {**super().arrays(), **{f"low {name}": array for name, array in self.low.arrays().items()}}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str] | None = None, clusters: int = 0) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        super().load(arrays)
        self.low.load({name.removeprefix("low "): array for name, array in arrays.items() if name.startswith("low ")})
        if self.counts.sum() != self.low.counts.sum():
            raise ValueError("the least and the most of different rows")

    def quantiles(self) -> dict[float, float]:
        """Those that are the same for the least and for the most; the others are NaN."""
        least = self.low.quantiles()
        return {q: value if value == least[q] else math.nan for q, value in super().quantiles().items()}
