"""Paired differences of the metrics of two dumps, b - a, from exact sums of the rows of both.

A metric is R = Σu / Σd on either side, with the same d: rows, class weights or bytes. The standard error of R_b - R_a
follows from the residuals (u_b - u_a) - (R_b - R_a)·d of each row or cluster, as in `metrics`; those of either side
give the correlation and the standard error that two unpaired runs would have. Everything is an integer up to the last
division: two equal dumps differ by exactly 0, with a standard error of 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import numpy as np

from fastxent.kernels.exact import rounded_ratio, rounded_root, special_value
from fastxent.kernels.fold import PRODUCT, Summand
from fastxent.options.config import EvalConfig
from fastxent.results.comparison import MetricComparison
from fastxent.results.values import Metric
from fastxent.scoring.pairs import PairRows
from fastxent.scoring.rows import ScoredRows
from fastxent.state.apart import FlipTable
from fastxent.state.component import Summands
from fastxent.state.given import ScorePlan, ScoreTable
from fastxent.state.intervals import by_exponential, by_student
from fastxent.state.metrics import LN2, ROWS, Column, Mean, MetricPlan, Sums
from fastxent.state.table import GroupTable

DETECTABLE = 1.96 + 0.84  # standard errors of a difference that is found at the level 5 % with a power of 80 %


def _pairs(rows: ScoredRows) -> PairRows:
    return cast(PairRows, rows)


KL_AB = Column("kl_ab", lambda rows: _pairs(rows).kl_ab, labelled=False)
KL_BA = Column("kl_ba", lambda rows: _pairs(rows).kl_ba, labelled=False)
JS = Column("js", lambda rows: _pairs(rows).js, labelled=False)
SAME = Column("same top 1", lambda rows: _same(_pairs(rows)), indicator=True, labelled=False)
CHANGE = Column("change", lambda rows: _pairs(rows).change)
SQUARED_CHANGE = Column("change*change", lambda rows: Summand(PRODUCT, _pairs(rows).change, _pairs(rows).change))
RANK_CHANGE = Column("rank change", lambda rows: _rank_change(_pairs(rows)).astype(np.float64))
RANK_CHANGED = Column("rank changed", lambda rows: _rank_change(_pairs(rows)) != 0, indicator=True)
FLIP = Column("flip", lambda rows: _flip(_pairs(rows)))
DIVERGENCES = {"kl_divergence_ab": KL_AB, "kl_divergence_ba": KL_BA, "js_divergence": JS}


def _same(rows: PairRows) -> np.ndarray:
    found: np.ndarray = rows.predicted == rows.second.predicted
    return found


def _rank_change(rows: PairRows) -> np.ndarray:
    found: np.ndarray = rows.second.rank - rows.rank
    return found


def _flip(rows: PairRows) -> np.ndarray:
    """1 where the second dump alone is right, -1 where the first alone is."""
    found: np.ndarray = (rows.second.rank == 0).astype(np.float64) - (rows.rank == 0)
    return found


def _of_second(column: Column) -> Column:
    return replace(column, name=f"b {column.name}", of=lambda rows: column.of(_pairs(rows).second))


class PairPlan(MetricPlan):
    """What to sum for the metrics of two dumps: the first's as in `MetricPlan`, the second's, and their products."""

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        names = [*DIVERGENCES.values(), SAME] if config.has_logits else []
        if self.labelled:
            names += [CHANGE, SQUARED_CHANGE, RANK_CHANGE, RANK_CHANGED, FLIP]
        self._pair(names)

    def _pair(self, names: list[Column]) -> None:
        """Find the columns and products that the means of both dumps, and of these columns of pairs, need."""
        self.apart = {column.name: Mean(column.name, column, ROWS) for column in names}
        self._second = {mean.column.name: _of_second(mean.column) for mean in self.means}
        if (self.weighted or self.clustered) and ROWS.name not in self._index:
            names.append(ROWS)
        for column in [*self._second.values(), *names]:
            self._index[column.name] = len(self.columns)
            self.columns.append(column)
        found = [*self.pairs, *(pair for mean in self.apart.values() for pair in self._pairs(mean))]
        for mean in self.means:
            u, v, d = self._places(mean)
            found += [(u, u), (v, v), (u, v)]
            found += [] if d is None else [(u, d), (v, d), (d, d)]
        self.pairs = list(dict.fromkeys(pair for pair in found if pair is not None))

    def _places(self, mean: Mean) -> tuple[int, int, int | None]:
        """The columns of the first dump, of the second, and of what both are divided by."""
        name = mean.column.name
        return self._index[name], self._index[self._second[name].name], self._index.get(mean.over.name)

    def mean(self, column: Column, sums: Sums) -> tuple[float, float]:
        """Mean and standard error of one of the columns of pairs."""
        return self._ratio(self.apart[column.name], sums)

    def comparisons(
        self, a: dict[str, Metric], b: dict[str, Metric], sums: Sums
    ) -> tuple[dict[str, MetricComparison], Metric | None]:
        """(the comparison of each metric, the ratio of the perplexities). a, b: the metrics of either dump."""
        found = {name: _apart(a[name], b[name]) for name in self.names}
        ratio = None
        for mean in self.means:
            difference = self._difference(mean, sums)
            found[mean.name] = difference.of(mean, a[mean.name], b[mean.name])
            if mean.name in ("cross_entropy", "perplexity"):
                ratio = by_exponential(difference.value, difference.stderr, difference.units - 1)
        return found, ratio

    def _difference(self, mean: Mean, sums: Sums) -> _Difference:
        """The difference of two ratios, from integers as in `MetricPlan._ratio`."""
        u, v, d = self._places(mean)
        over = sums.units << sums.scale if d is None else sums.totals[d]
        if over == 0 or (d is not None and sums.special[d]):
            return _Difference(math.nan)
        sign = 1 if over > 0 else -1
        if sums.special[u] or sums.special[v]:
            ends = [special_value(sums.special[k]) if sums.special[k] else 0.0 for k in (u, v)]
            return _Difference(sign * (ends[1] - ends[0]))

        def product(i: int, j: int | None) -> int | None:
            return sums.totals[i] << sums.scale if j is None else sums.products[(i, j)]

        first, second = sums.totals[u], sums.totals[v]
        value = rounded_ratio(second - first, over)
        units = self._units(mean, sums)
        moments = [product(u, u), product(v, v), product(u, v), product(u, d), product(v, d)]
        moments.append(over << sums.scale if d is None else product(d, d))
        if units < 2 or None in moments:
            return _Difference(value, units=units)
        uu, vv, uv, ud, vd, dd = cast(list[int], moments)
        square = over * over
        return _Difference(
            value,
            units,
            square * uu - 2 * over * first * ud + first * first * dd,
            square * vv - 2 * over * second * vd + second * second * dd,
            square * uv - over * (second * ud + first * vd) + first * second * dd,
            (units - 1) * square * square,
        )


class PairScorePlan(PairPlan, ScorePlan):
    """What to sum for one score of two dumps."""

    def __init__(self, config: EvalConfig, name: str) -> None:
        ScorePlan.__init__(self, config, name)
        self._pair([])

    def change(self, sums: Sums) -> tuple[int, int]:
        """The sum of b - a, and that of its squares by cluster; 0 if these are not finite."""
        u, v, _ = self._places(self.means[0])
        uu, vv, uv = (sums.products[pair] for pair in ((u, u), (v, v), (u, v)))
        squares = 0 if uu is None or vv is None or uv is None else uu + vv - 2 * uv
        return sums.totals[v] - sums.totals[u], squares


class PairScoreTable(ScoreTable):
    """The counts and sums of one score of two dumps, in the rows where both have it."""

    def __init__(self, config: EvalConfig, score: str, column: str | None) -> None:
        super().__init__(config, score, column)
        self.flips = FlipTable(self, lambda rows: rows.nll == 1.0)  # used if all values of both dumps are 0 or 1

    @staticmethod
    def _plan_of(config: EvalConfig, score: str) -> MetricPlan:
        return PairScorePlan(config, score)

    def _scored(self, rows: ScoredRows, there: np.ndarray) -> ScoredRows:
        chosen, second = super()._scored(rows, there), super()._scored(_pairs(rows).second, there)
        return replace(chosen, other=second)  # type: ignore[call-arg]  # rows of two dumps

    def _sum(self, rows: Summands) -> None:
        super()._sum(rows)
        self.flips.add(rows)

    def absorb(self, other: GroupTable, clusters: np.ndarray) -> None:
        """Add another table."""
        assert isinstance(other, PairScoreTable)
        super().absorb(other, clusters)
        self.flips.absorb(other.flips, clusters)

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store."""
        flips = {f"flips/{name}": array for name, array in self.flips.arrays(clusters).items()}
        return {**super().arrays(clusters), **flips}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        super().load(arrays, keys, clusters)
        self.flips.load({"counts": arrays["flips/counts"]}, keys, clusters)
        if self.flips.counts.sum(axis=1).tolist() != [self.contributing(g) for g in range(len(keys))]:
            raise ValueError("flips that do not add up to the rows")

    def comparisons(self, other: ScoreTable) -> dict[str, MetricComparison]:
        """The comparison of each group, by its key. other: the table of the second dump."""
        a, b, places = self.means(), other.means(), self.by_group()
        assert isinstance(self.plan, PairScorePlan)
        found = {}
        for g, key in enumerate(self.keys.names):
            sides = {self.score: a[key]}, {self.score: b[key]}
            sums = self.sums_of(g, places[g])
            found[key] = self.plan.comparisons(*sides, sums)[0][self.score]
            if not (self.others or other.others):
                change = self.plan.change(sums) if self.plan.clustered else None
                found[key] = replace(found[key], flips=self.flips.counts_of(g, change))
        return found


@dataclass(frozen=True)
class _Difference:
    """R_b - R_a, and the sums of squares and of products of the residuals, all times units / ``over``.

    The latter are integers; 0 if they are not known.
    """

    value: float
    units: int = 0
    first: int = 0
    second: int = 0
    both: int = 0
    over: int = 0

    def error(self, slopes: tuple[float, float] = (1.0, 1.0)) -> float:
        """The standard error of the difference of two functions of R_b and R_a with these slopes."""
        if not self.over or not all(map(math.isfinite, slopes)):
            return math.nan
        a, b = map(Fraction, slopes)
        total = max(Fraction(0), b * b * self.second - 2 * a * b * self.both + a * a * self.first)
        return rounded_root(self.units * total.numerator, self.over * total.denominator)

    @property
    def stderr(self) -> float:
        """The standard error of the difference."""
        return self.error()

    def of(self, mean: Mean, a: Metric, b: Metric) -> MetricComparison:
        """The comparison of a metric."""
        value, stderr, unpaired = self.value, self.stderr, self._unpaired()
        p_value = two_sided(value, stderr, self.units - 1)
        if mean.bits:
            value, stderr, unpaired = value / LN2, stderr / LN2, unpaired / LN2
        elif mean.exponential:
            value = b.value - a.value
            stderr = self.error((a.value, b.value))
            unpaired = math.hypot(a.stderr, b.stderr)
        return MetricComparison(
            a, b, by_student(value, stderr, self.units - 1), p_value, self._correlation(), unpaired, DETECTABLE * stderr
        )

    def _unpaired(self) -> float:
        return rounded_root(self.units * max(0, self.first + self.second), self.over)

    def _correlation(self) -> float:
        """Of the residuals; NaN if those of a side are all 0."""
        if self.first <= 0 or self.second <= 0:
            return math.nan
        root = min(1.0, rounded_root(self.both * self.both, self.first * self.second))
        return root if self.both >= 0 else -root


def _apart(a: Metric, b: Metric) -> MetricComparison:
    """The comparison of a metric that is not a mean: its difference has no standard error."""
    return MetricComparison(a, b, Metric(b.value - a.value), math.nan, math.nan, math.nan, math.nan)


def two_sided(value: float, stderr: float, freedom: int) -> float:
    """The p-value of a difference by Student's t: 1 of no difference at all, 0 of one without any error."""
    from scipy.special import stdtr

    if freedom < 1 or math.isnan(stderr) or math.isnan(value):
        return math.nan
    if stderr == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return min(1.0, 2.0 * float(stdtr(freedom, -abs(value) / stderr)))
