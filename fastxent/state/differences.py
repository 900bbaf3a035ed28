"""Paired differences of the metrics of two dumps, b - a, from exact sums of the rows of both.

A metric is R = Σu / Σd on either side, with the same d: rows, class weights or bytes. The standard error of R_b - R_a
follows from the residuals (u_b - u_a) - (R_b - R_a)·d of each row or cluster, as in `metrics`; those of either side
give the correlation and the standard error that two unpaired runs would have. Everything is an integer up to the last
division: two equal dumps differ by exactly 0, with a standard error of 0.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple, cast

import numpy as np

from fastxent.errors import ConfigError
from fastxent.kernels.exact import rounded_ratio, rounded_root, special_value
from fastxent.kernels.fold import PRODUCT, Summand
from fastxent.options.config import EvalConfig
from fastxent.results.comparison import MetricComparison
from fastxent.results.values import Metric
from fastxent.scoring.classwise import CLASSWISE
from fastxent.scoring.pairs import PairRows, pair_rows
from fastxent.scoring.rows import MultilabelRows
from fastxent.state.intervals import by_exponential, by_student
from fastxent.state.jackknife import freedom, jackknifed
from fastxent.state.metrics import LN2, ROWS, Column, Mean, MetricPlan, Sums

DETECTABLE = 1.96 + 0.84  # standard errors of a difference that is found at the level 5 % with a power of 80 %


KL_AB = Column("kl_ab", lambda rows: pair_rows(rows).kl_ab, labelled=False)
KL_BA = Column("kl_ba", lambda rows: pair_rows(rows).kl_ba, labelled=False)
JS = Column("js", lambda rows: pair_rows(rows).js, labelled=False)
SAME = Column("same top 1", lambda rows: _same(pair_rows(rows)), indicator=True, labelled=False)
CHANGE = Column("change", lambda rows: pair_rows(rows).change)
SQUARED_CHANGE = Column("change*change", lambda rows: Summand(PRODUCT, pair_rows(rows).change, pair_rows(rows).change))
RANK_CHANGE = Column("rank change", lambda rows: _rank_change(pair_rows(rows)).astype(np.float64))
RANK_CHANGED = Column("rank changed", lambda rows: _rank_change(pair_rows(rows)) != 0, indicator=True)
FLIP = Column("flip", lambda rows: _flip(pair_rows(rows)))
SECOND = "b "  # before the name of a column of the second dump
DIVERGENCES = {"kl_divergence_ab": KL_AB, "kl_divergence_ba": KL_BA, "js_divergence": JS}


def _same(rows: PairRows) -> np.ndarray:
    if isinstance(rows, MultilabelRows):  # of the labels that are not ignored
        differ = (rows.called != cast(MultilabelRows, rows.second).called) & ~np.isnan(rows.positive)
        alike: np.ndarray = ~differ.any(axis=1)
        return alike
    found: np.ndarray = rows.predicted == rows.second.predicted
    return found


def _rank_change(rows: PairRows) -> np.ndarray:
    found: np.ndarray = rows.second.rank - rows.rank
    return found


def _flip(rows: PairRows) -> np.ndarray:
    """1 where the second dump alone is right, -1 where the first alone is."""
    found: np.ndarray = (rows.second.rank == 0).astype(np.float64) - (rows.rank == 0)
    return found


def of_second(column: Column) -> Column:
    """The column of the second dump; the same one if it does not depend on predictions."""
    if column.shared:
        return column
    return replace(column, name=f"{SECOND}{column.name}", of=lambda rows: column.of(pair_rows(rows).second))


class PairPlan(MetricPlan):
    """What to sum for the metrics of two dumps: the first's as in `MetricPlan`, the second's, and their products.

    A plan of another task has this class before that of its task among its bases.
    """

    ranked = True  # rows have the rank of a target among several classes
    perplexed = True  # exp of the cross-entropy has a meaning

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        if CLASSWISE in self.names:
            raise ConfigError(f"metric {CLASSWISE!r} cannot be compared; evaluate each dump with it")
        names = [*DIVERGENCES.values(), SAME] if config.has_logits else []
        if self.labelled:
            names += [CHANGE, SQUARED_CHANGE, *([RANK_CHANGE, RANK_CHANGED] if self.ranked else []), FLIP]
        self._pair(names)

    def _pair(self, names: list[Column]) -> None:
        """Find the columns and products that the means of both dumps, and of these columns of pairs, need."""
        self.apart = {column.name: Mean(column.name, column, ROWS) for column in names}
        second = {column.name: of_second(column) for column in self._doubled()}
        if (self.weighted or self.clustered) and ROWS.name not in self._index:
            names.append(ROWS)
        for column in [*(column for column in second.values() if column.name not in self._index), *names]:
            self._index[column.name] = len(self.columns)
            self.columns.append(column)
        found = [*self.pairs, *(pair for mean in self.apart.values() for pair in self._pairs(mean))]
        for uppers, lowers in self._together():
            found += [(u, u) for u in uppers] + [*itertools.combinations(uppers, 2)]
            for d in lowers:
                found += [*((u, d) for u in uppers), (d, d)]
            found += [*itertools.combinations(lowers, 2)]
        self.pairs = list(dict.fromkeys(pair for pair in found if pair is not None))

    def _doubled(self) -> list[Column]:
        """The columns that both dumps have, in the first dump."""
        others = [mean.over for mean in self.means if not mean.over.shared]
        return [*(mean.column for mean in self.means), *others]

    def _together(self) -> Iterator[tuple[list[int], list[int]]]:
        """For each metric the places of the columns whose products it needs: numerators, then denominators."""
        for mean in self.means:
            sides = mean.column, of_second(mean.column)
            lowers = dict.fromkeys(column.name for column in (mean.over, of_second(mean.over)))
            yield [self._index[c.name] for c in sides], [self._index[c] for c in lowers if c in self._index]

    def mean(self, column: Column, sums: Sums) -> tuple[float, float]:
        """Mean and standard error of one of the columns of pairs."""
        return self._ratio(self.apart[column.name], sums)

    def comparisons(
        self, a: dict[str, Metric], b: dict[str, Metric], sums: Sums
    ) -> tuple[dict[str, MetricComparison], Metric | None]:
        """(the comparison of each metric, the ratio of the perplexities). a, b: the metrics of either dump."""
        found = {name: apart(a[name], b[name]) for name in self.names}
        ratio = None
        group = PairSums(self._index, sums, plain=not (self.weighted or self.clustered))
        for mean in self.means:
            sides = [Side({c.name: 1}, {d.name: 1}) for c, d in (
                (mean.column, mean.over), (of_second(mean.column), of_second(mean.over))
            )]  # fmt: skip
            difference = group.difference(sides[0], sides[1], self._units(mean, sums))
            found[mean.name] = difference.of(a[mean.name], b[mean.name], bits=mean.bits, exponential=mean.exponential)
            if self.perplexed and mean.name in ("cross_entropy", "perplexity"):
                ratio = by_exponential(difference.value, difference.stderr, difference.units - 1)
        return found, ratio


class Side(NamedTuple):
    """A ratio of sums of one dump: columns and their coefficients."""

    upper: Mapping[str, int]
    lower: Mapping[str, int]


class Influence(NamedTuple):
    """What a row adds to a figure, to first order: columns and their coefficients, all divided by ``over``²."""

    columns: Mapping[str, int | Fraction]
    over: int


class PairSums:
    """The exact sums of one group of rows, by the names of their columns. plain: rows are counted, not summed."""

    def __init__(self, index: Mapping[str, int], sums: Sums, *, plain: bool) -> None:
        self._index, self._sums, self._plain = index, sums, plain

    def _place(self, column: str) -> int | None:
        return None if self._plain and column == ROWS.name else self._index[column]

    def total(self, form: Mapping[str, int]) -> int:
        """The sum of a form of columns."""
        found = 0
        for column, factor in form.items():
            place = self._place(column)
            found += factor * (self._sums.units << self._sums.scale if place is None else self._sums.totals[place])
        return found

    def value(self, side: Side) -> float:
        """The ratio of two finite sums."""
        return rounded_ratio(self.total(side.upper), self.total(side.lower))

    def special(self, form: Mapping[str, int]) -> int:
        """Flags of what is not finite in a sum."""
        places = (self._place(column) for column in form)
        return functools.reduce(operator.or_, (self._sums.special[place] for place in places if place is not None), 0)

    def product(self, a: str, b: str) -> int | None:
        """Σ a·b of rows or clusters; None if it is not finite."""
        i, j = self._place(a), self._place(b)
        scale = self._sums.scale
        if i is None or j is None:
            return self.total({b if i is None else a: 1}) << scale
        products = self._sums.products
        return products[(i, j)] if (i, j) in products else products[(j, i)]

    def moment(self, a: Influence, b: Influence) -> int | Fraction | None:
        """Σ of the product of two influences, not divided; None if it is not finite."""
        total: int | Fraction = 0
        for left, x in a.columns.items():
            for right, y in b.columns.items():
                found = self.product(left, right)
                if found is None:
                    return None
                total += x * y * found
        return total

    def influence(self, side: Side) -> Influence:
        """That of a ratio U/D: (D·u - U·d) / D²."""
        upper, lower = self.total(side.upper), self.total(side.lower)
        found = {column: lower * factor for column, factor in side.upper.items()}
        for column, factor in side.lower.items():
            found[column] = found.get(column, 0) - upper * factor
        return Influence(found, lower)

    def difference(self, a: Side, b: Side, units: int) -> Difference:
        """The difference of two ratios. units: rows or clusters that it rests on."""
        lowers = self.total(a.lower), self.total(b.lower)
        if not all(lowers) or self.special(a.lower) or self.special(b.lower):
            return Difference(math.nan)
        flags = self.special(a.upper), self.special(b.upper)
        if any(flags):
            ends = [
                (1 if lower > 0 else -1) * special_value(flag) if flag else 0.0
                for flag, lower in zip(flags, lowers, strict=True)
            ]
            return Difference(ends[1] - ends[0])
        first, second = self.total(a.upper), self.total(b.upper)
        if lowers[0] == lowers[1]:
            value = rounded_ratio(second - first, lowers[0])
        else:
            value = rounded_ratio(second * lowers[0] - first * lowers[1], lowers[0] * lowers[1])
        return self.apart(value, self.influence(a), self.influence(b), units)

    def apart(self, value: float, a: Influence, b: Influence, units: int) -> Difference:
        """A difference of this value, of two figures of these influences."""
        first, second, both = self.moment(a, a), self.moment(b, b), self.moment(a, b)
        lost = not self._plain and any(self._sums.lost(influence.over) for influence in (a, b))
        if units < 2 or lost or first is None or second is None or both is None:
            return Difference(value, units=units)
        if a.over == b.over:
            return Difference(value, units, first, second, both, (units - 1) * a.over**4)
        x, y = b.over**2, a.over**2
        return Difference(value, units, x * x * first, y * y * second, x * y * both, (units - 1) * (x * y) ** 2)


@dataclass(frozen=True)
class Difference:
    """R_b - R_a, and the sums of squares and of products of the residuals, all times units / ``over``.

    The latter are integers; 0 if they are not known.
    """

    value: float
    units: int = 0
    first: int | Fraction = 0
    second: int | Fraction = 0
    both: int | Fraction = 0
    over: int = 0

    def error(self, slopes: tuple[float, float] = (1.0, 1.0)) -> float:
        """The standard error of the difference of two functions of R_b and R_a with these slopes."""
        if not self.over or not all(map(math.isfinite, slopes)):
            return math.nan
        a, b = map(Fraction, slopes)
        return self._root(b * b * self.second - 2 * a * b * self.both + a * a * self.first)

    def _root(self, square: int | Fraction) -> float:
        total = max(Fraction(0), Fraction(square))
        return rounded_root(self.units * total.numerator, self.over * total.denominator)

    @property
    def stderr(self) -> float:
        """The standard error of the difference."""
        return self.error()

    def of(self, a: Metric, b: Metric, *, bits: bool = False, exponential: bool = False) -> MetricComparison:
        """The comparison of a metric that is this, or in bits, or the exponential."""
        value, stderr, unpaired = self.value, self.stderr, self._root(self.first + self.second)
        p_value = two_sided(value, stderr, self.units - 1)
        if bits:
            value, stderr, unpaired = value / LN2, stderr / LN2, unpaired / LN2
        elif exponential:
            value = b.value - a.value
            stderr = self.error((a.value, b.value))
            unpaired = math.hypot(a.stderr, b.stderr)
        return MetricComparison(
            a, b, by_student(value, stderr, self.units - 1), p_value, self._correlation(), unpaired, DETECTABLE * stderr
        )

    def _correlation(self) -> float:
        """Of the residuals; NaN if those of a side are all 0."""
        if self.first <= 0 or self.second <= 0:
            return math.nan
        both = Fraction(self.both)
        square = both * both / (Fraction(self.first) * Fraction(self.second))
        root = min(1.0, rounded_root(square.numerator, square.denominator))
        return root if self.both >= 0 else -root


def apart(a: Metric, b: Metric) -> MetricComparison:
    """The comparison of a metric that is not a mean: without buckets its difference has no standard error.

    If a side is only known within bounds, so is the difference.
    """
    difference = Metric(b.value - a.value)
    if a.bounds is not None or b.bounds is not None:
        (low, high), (least, most) = (metric.bounds or (metric.value, metric.value) for metric in (a, b))
        ends = least - high, most - low
        if math.isnan(ends[0]) != math.isnan(ends[1]):  # both sides may be infinite
            ends = -math.inf, math.inf
        difference = replace(difference, bounds=ends)
    return MetricComparison(a, b, difference, math.nan, math.nan, math.nan, math.nan)


def by_buckets(
    metrics: dict[str, MetricComparison], a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> dict[str, MetricComparison]:
    """The comparisons of metrics that are not means, with errors from the same buckets of both dumps.

    a, b: what `Grids.without_each` gives of each dump.
    """
    return {
        name: _by_buckets(name, metrics[name], a[name], b[name])
        for name in a.keys() & b.keys() & metrics.keys()
        if not metrics[name].difference.stderr >= 0.0 and len(a[name]) == len(b[name])
    }


def _by_buckets(name: str, found: MetricComparison, a: np.ndarray, b: np.ndarray) -> MetricComparison:
    """The comparison of a metric that is not a mean, with the jackknife's error of its difference.

    a, b: float64 (1 + K,). The metric of either dump: of all rows, then without each bucket.
    """
    k = len(a) - 1
    most = 2.0 if name == "matthews_corrcoef" else 1.0
    difference = jackknifed(found.difference, b - a, -most, most)
    if not difference.stderr >= 0.0:
        return found
    value, without = difference.value, [math.fsum(side[1:]) / k for side in (a, b)]
    corrected = value - (k - 1) * (without[1] - without[0] - (b[0] - a[0]))
    # As for the interval, of the value and of the value less its bias, the one nearer to 0 counts.
    nearer = 0.0 if value * corrected < 0.0 else min(value, corrected, key=abs)
    errors = [
        math.sqrt((k - 1) / k * math.fsum((side[1:] - mean) ** 2)) for side, mean in zip((a, b), without, strict=True)
    ]
    both = math.fsum((a[1:] - without[0]) * (b[1:] - without[1])) * (k - 1) / k
    correlation = min(1.0, max(-1.0, both / errors[0] / errors[1])) if all(errors) else math.nan
    p_value = two_sided(nearer, difference.stderr, freedom(b[1:] - a[1:]))
    return replace(
        found, difference=difference, p_value=p_value, correlation=correlation,
        unpaired_stderr=math.hypot(*errors), minimum_detectable_effect=DETECTABLE * difference.stderr,
    )  # fmt: skip


def two_sided(value: float, stderr: float, freedom: float) -> float:
    """The p-value of a difference by Student's t: 1 of no difference at all, 0 of one without any error."""
    from scipy.special import stdtr

    if freedom < 1 or math.isnan(stderr) or math.isnan(value):
        return math.nan
    if stderr == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return min(1.0, 2.0 * float(stdtr(freedom, -abs(value) / stderr)))
