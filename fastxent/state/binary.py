"""The metrics of a binary dump: ratios of sums of a few columns, and metrics that follow from those sums.

Every numerator and denominator is a sum of columns with small whole coefficients: the true negatives are the rows less
the positives less the predicted positives and the true positives. So the sums and products of seven columns give all
standard errors, with residuals as in `state.metrics`, in integers up to the last division.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import cast

from fastxent.kernels.exact import SCALE, rounded_ratio, rounded_root, special_value
from fastxent.kernels.fold import INTEGER, PRODUCT, Summand
from fastxent.kernels.grouped import Words
from fastxent.kernels.rows import odds, odds_sums
from fastxent.kernels.summed import add_integer
from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.odds_sums import BinarySums
from fastxent.scoring.rows import BinaryRows, ScoredRows
from fastxent.state.intervals import by_student, by_wilson
from fastxent.state.metrics import (
    BRIER,
    CALIBRATION,
    ENTROPY,
    FROM_GRID,
    LN2,
    LOSS,
    ROWS,
    Bins,
    Column,
    MetricPlan,
    Sums,
    selection,
)  # fmt: skip

UNLABELLED = ("entropy", "mean_prediction")  # metrics that need no target
RANKING = ("roc_auc", "average_precision")  # metrics of `state.scores`


def _binary(rows: ScoredRows) -> BinaryRows:
    return cast(BinaryRows, rows)


PROBABILITY = Column("probability", lambda rows: rows.confidence, labelled=False)
POSITIVE = Column("positive", lambda rows: _binary(rows).positive, shared=True)
PREDICTED = Column("predicted", lambda rows: Summand(INTEGER, rows.predicted), indicator=True)
TRUE_POSITIVE = Column("true positive", lambda rows: Summand(PRODUCT, _binary(rows).positive, rows.predicted))
ORDER = [ROWS, LOSS, BRIER, ENTROPY, PROBABILITY, POSITIVE, PREDICTED, TRUE_POSITIVE]
_PLACE = {column.name: place for place, column in enumerate(ORDER)}

# Where `BinarySums` has the sum of a column, or of the product of two.
_RECORD = {LOSS: odds.NLL, BRIER: odds.BRIER, ENTROPY: odds.ENTROPY, PROBABILITY: odds.PROBABILITY}
_SUMS: dict[tuple[str, ...], int] = {
    **{(column.name,): place for column, place in _RECORD.items()},
    **{(column.name, column.name): odds_sums.SQUARES + place for column, place in _RECORD.items()},
    (LOSS.name, POSITIVE.name): odds_sums.NLL_POSITIVE,
    (PROBABILITY.name, POSITIVE.name): odds_sums.PROBABILITY_POSITIVE,
}
_COUNTS: dict[tuple[str, ...], int] = {
    (POSITIVE.name,): odds_sums.POSITIVE,
    (PREDICTED.name,): odds_sums.PREDICTED,
    (TRUE_POSITIVE.name,): odds_sums.BOTH,
    (POSITIVE.name, POSITIVE.name): odds_sums.POSITIVE,
    (POSITIVE.name, TRUE_POSITIVE.name): odds_sums.BOTH,
}

Form = Mapping[str, int]  # column -> its coefficient; read-only


def _form(*columns: Column) -> Form:
    return MappingProxyType({column.name: 1 for column in columns})


_ONE = _form(ROWS)
_NEGATIVE = {ROWS.name: 1, POSITIVE.name: -1}
_TRUE_NEGATIVE = {ROWS.name: 1, POSITIVE.name: -1, PREDICTED.name: -1, TRUE_POSITIVE.name: 1}
_RIGHT = {**_TRUE_NEGATIVE, TRUE_POSITIVE.name: 2}


@dataclass(frozen=True)
class Ratio:
    """A metric that is one sum over another. ``rate``: its row number is 0 or 1, so that its interval is Wilson's."""

    name: str
    upper: Form
    lower: Form = field(default_factory=lambda: _ONE)
    rate: bool = False
    unit: float = 1.0


RATIOS = {
    ratio.name: ratio
    for ratio in (
        Ratio("cross_entropy", _form(LOSS)),
        Ratio("cross_entropy_bits", _form(LOSS), unit=LN2),
        Ratio("accuracy", _RIGHT, rate=True),
        Ratio("precision", _form(TRUE_POSITIVE), _form(PREDICTED), rate=True),
        Ratio("recall", _form(TRUE_POSITIVE), _form(POSITIVE), rate=True),
        Ratio("specificity", _TRUE_NEGATIVE, _NEGATIVE, rate=True),
        Ratio("f1", {TRUE_POSITIVE.name: 2}, _form(POSITIVE, PREDICTED)),
        Ratio("brier_score", _form(BRIER)),
        Ratio("entropy", _form(ENTROPY)),
        Ratio("base_rate", _form(POSITIVE), rate=True),
        Ratio("mean_prediction", _form(PROBABILITY)),
        Ratio("nll_minus_entropy", {LOSS.name: 1, ENTROPY.name: -1}),
        Ratio("calibration_ratio", _form(PROBABILITY), _form(POSITIVE)),
    )
}
# What other metrics need: the ratios that they are made of.
MADE_OF = {
    "normalized_entropy": ("cross_entropy", "base_rate"),
    "balanced_accuracy": ("recall", "specificity"),
    "matthews_corrcoef": ("accuracy",),
}
NAMES = (
    "cross_entropy", "cross_entropy_bits", "normalized_entropy", "accuracy", "balanced_accuracy", "precision", "recall",
    "specificity", "f1", "matthews_corrcoef", *RANKING, "brier_score", "entropy", "base_rate", "mean_prediction",
    "calibration_ratio", *CALIBRATION, *FROM_GRID, "nll_minus_entropy",
)  # fmt: skip


class BinaryPlan(MetricPlan):
    """The metric plan of a binary dump: the columns to sum, and how the sums become metrics."""

    def __init__(self, config: EvalConfig) -> None:
        self.names = selection(config, list(NAMES), UNLABELLED)
        self.labelled = self.losses = config.target is not None
        self.weighted = config.weight is not None
        self.clustered = config.cluster is not None
        self.means = []
        self._plain = not (self.weighted or self.clustered)
        products: set[tuple[int, int]] = set()
        needed: set[int] = set()
        for group in (MADE_OF.get(name, (name,)) for name in self.names):
            ratios = [RATIOS[name] for name in group if name in RATIOS]
            places = sorted({_PLACE[c] for ratio in ratios for form in (ratio.upper, ratio.lower) for c in form})
            needed |= set(places)
            products |= {(a, b) for a in places for b in places if a <= b}
        if self._plain:  # rows are counted; a prediction is 0 or 1: its products are sums
            needed.discard(0)
            positive, predicted, true = (_PLACE[c.name] for c in (POSITIVE, PREDICTED, TRUE_POSITIVE))
            products = {(a, b) for a, b in products if a and predicted not in (a, b) and (a, b) != (true, true)}
            if true in needed:
                needed.add(positive)
                products |= {(positive, positive), (positive, true)}  # the squares tell whether targets are 0 or 1
        order = sorted(needed)
        self.columns = [ORDER[place] for place in order]
        self._index = {ORDER[place].name: i for i, place in enumerate(order)}
        self.pairs = sorted((order.index(a), order.index(b)) for a, b in products)

    def words(self, rows: BinarySums) -> Words:
        """The sums of rows, for the columns and the pairs of this plan."""
        found = Words.zeros(len(self.columns) + len(self.pairs))
        names: list[tuple[str, ...]] = [(column.name,) for column in self.columns]
        names += [(self.columns[a].name, self.columns[b].name) for a, b in self.pairs]
        for words, name in zip(found.words, names, strict=True):
            if name in _SUMS:
                words[:] = rows.sums[_SUMS[name]]
            else:
                add_integer(words, int(rows.counts[_COUNTS[name]]), SCALE)
        return found

    def metrics_of(self, sums: Sums, bins: Bins) -> dict[str, Metric]:
        """All chosen metrics of one group of rows, but those of `RANKING`."""
        group = Group(self, sums)
        found = {name: Metric(value) for name, value in bins.errors().items()}
        made = {
            "normalized_entropy": group.normalized_entropy,
            "balanced_accuracy": group.balanced_accuracy,
            "matthews_corrcoef": group.matthews,
        }
        for name in self.names:
            if name in RATIOS:
                found[name] = group.ratio(RATIOS[name])
            elif name in made:
                found[name] = made[name]()
        return {name: found.get(name, Metric(math.nan)) for name in self.names}

    def ratio(self, name: str, sums: Sums) -> tuple[int, int, float] | None:
        """(Σu, Σd, the standard error of Σu/Σd) of a metric that is a ratio of sums; None for another."""
        return Group(self, sums).parts(RATIOS[name]) if name in RATIOS and name in self.names else None


def _entropy(base: float) -> float:
    """The entropy of a rate between 0 and 1."""
    return -base * math.log(base) - (1.0 - base) * math.log1p(-base)


def entropy_slopes(value: float, base: float) -> tuple[Fraction, Fraction] | None:
    """The slopes of the normalized entropy by the cross-entropy and by the base rate; None if it has none.

    value: the normalized entropy. base: the base rate.
    """
    if not (0.0 < base < 1.0 and math.isfinite(value)):
        return None
    entropy = _entropy(base)
    slopes = 1.0 / entropy, -value * (math.log1p(-base) - math.log(base)) / entropy
    return (Fraction(slopes[0]), Fraction(slopes[1])) if all(map(math.isfinite, slopes)) else None


class Group:
    """The sums of one group of rows by column, and the metrics that follow.

    index: dict of str to int. The places of the columns, if not those of the plan.
    """

    def __init__(self, plan: BinaryPlan, sums: Sums, index: Mapping[str, int] | None = None) -> None:
        self._sums, self._plain, self._index = sums, plan._plain, plan._index if index is None else index
        self._hard, self._weighted = False, plan.weighted and not plan.clustered
        if self._plain and POSITIVE.name in self._index:
            self._hard = self._product(POSITIVE.name, POSITIVE.name) == self._total(POSITIVE.name) << sums.scale

    def _total(self, column: str) -> int:
        if column == ROWS.name and self._plain:
            return self._sums.units << self._sums.scale
        return self._sums.totals[self._index[column]]

    def _product(self, a: str, b: str) -> int | None:
        """Σ a·b; None if it is not finite."""
        a, b = sorted((a, b), key=_PLACE.__getitem__)
        if self._plain:
            if a == ROWS.name:
                return self._total(b) << self._sums.scale
            if PREDICTED.name in (a, b):  # its square is itself; with the others it makes the true positives
                return self._total(PREDICTED.name if a == b else TRUE_POSITIVE.name) << self._sums.scale
            if a == b == TRUE_POSITIVE.name:
                a = POSITIVE.name
        return self._sums.products.get((self._index[a], self._index[b]))

    @property
    def rows(self) -> int:
        """The number of rows, or the sum of their weights."""
        return self._sum(_ONE)

    def _sum(self, form: Form) -> int:
        return sum(factor * self._total(column) for column, factor in form.items())

    def _special(self, form: Form) -> int:
        """Flags of what is not finite in a sum."""
        return sum(self._sums.special[self._index[column]] for column in form if column in self._index)

    def _residuals(self, ratio: Ratio) -> dict[str, int]:
        """D·u - U·d as coefficients of columns, for the ratio U/D."""
        upper, lower = self._sum(ratio.upper), self._sum(ratio.lower)
        found = {column: lower * factor for column, factor in ratio.upper.items()}
        for column, factor in ratio.lower.items():
            found[column] = found.get(column, 0) - upper * factor
        return found

    def _stderr(self, residuals: Mapping[str, int | Fraction], over: int) -> float:
        """sqrt(G/(G-1) · Σ residual²) / over², where residuals are `_residuals` of sums over ``over``."""
        total: int | Fraction = 0
        for a, x in residuals.items():
            for b, y in residuals.items():
                product = self._product(a, b)
                if product is None:
                    return math.nan
                total += x * y * product
        units = self._sums.units
        if units < 2 or not over or (self._weighted and self._sums.lost(over)):
            return math.nan
        whole = Fraction(max(total, 0))
        return rounded_root(units * whole.numerator, (units - 1) * over**4 * whole.denominator)

    def _value(self, ratio: Ratio) -> float:
        flags = self._special(ratio.upper)
        lower = self._sum(ratio.lower)
        if flags:
            return special_value(flags) if lower else math.nan
        return rounded_ratio(self._sum(ratio.upper), lower)

    def parts(self, ratio: Ratio) -> tuple[int, int, float]:
        """Numerator and denominator of a ratio, and its standard error."""
        lower = self._sum(ratio.lower)
        return self._sum(ratio.upper), lower, self._stderr(self._residuals(ratio), lower)

    def ratio(self, ratio: Ratio) -> Metric:
        """A ratio with its interval."""
        value = self._value(ratio)
        if not math.isfinite(value):
            return Metric(value / ratio.unit)
        lower = self._sum(ratio.lower)
        stderr = self._stderr(self._residuals(ratio), lower)
        if ratio.rate:
            rows = rounded_ratio(lower, 1 << self._sums.scale) if self._hard else None
            return by_wilson(value, stderr, self._sums.units, rows)
        return by_student(value / ratio.unit, stderr / ratio.unit, self._sums.units - 1)

    def normalized_entropy(self) -> Metric:
        """Cross-entropy over the entropy of the base rate; its error by the delta method."""
        loss, rate = RATIOS["cross_entropy"], RATIOS["base_rate"]
        mean, base = self._value(loss), self._value(rate)
        if not 0.0 < base < 1.0:
            return Metric(math.nan)
        value = mean / _entropy(base)
        slopes = entropy_slopes(value, base)
        if slopes is None:
            return Metric(value)
        residuals: dict[str, int | Fraction] = {c: x * slopes[0] for c, x in self._residuals(loss).items()}
        for column, x in self._residuals(rate).items():
            residuals[column] = residuals.get(column, 0) + x * slopes[1]
        return by_student(value, self._stderr(residuals, self._sum(_ONE)), self._sums.units - 1)

    def balanced_accuracy(self) -> Metric:
        """Mean of recall and specificity; one of them where the rows are of one class."""
        found = self.of_balanced()
        return Metric(math.nan) if found is None else self._within(*found, 0.0)

    def of_balanced(self) -> tuple[float, dict[str, Fraction]] | None:
        """(balanced accuracy, what columns of a row add to it: see `_stderr`, over the rows); None if undefined."""
        each = [(RATIOS[name], self._value(RATIOS[name])) for name in ("recall", "specificity")]
        found = [(ratio, value) for ratio, value in each if value == value]
        if not found:
            return None
        total, residuals = self._sum(_ONE), dict.fromkeys(_PLACE, Fraction(0))
        for ratio, _ in found:
            for column, x in self._residuals(ratio).items():
                residuals[column] += Fraction(x * total * total, len(found) * self._sum(ratio.lower) ** 2)
        return sum(value for _, value in found) / len(found), {column: x for column, x in residuals.items() if x}

    def _within(self, value: float, residuals: Mapping[str, Fraction], least: float) -> Metric:
        """A number from ``least`` to 1, with the interval of residuals over the rows; none if these are all 0."""
        stderr = self._stderr(residuals, self._sum(_ONE))
        if not stderr > 0.0:
            return Metric(value, stderr)
        found = by_student(value, stderr, self._sums.units - 1)
        low, high = found.ci95
        return replace(found, ci95=(max(least, low), min(1.0, high)))

    def matthews(self) -> Metric:
        """Correlation of targets and predictions; 0 where one of them does not vary, as in scikit-learn."""
        value, residuals = self.of_matthews()
        return Metric(value) if residuals is None else self._within(value, residuals, -1.0)

    def of_matthews(self) -> tuple[float, dict[str, Fraction] | None]:
        """(the correlation, what columns of a row add to it: see `_stderr`, over the rows; None if it has no slopes).

        By the delta method: slopes by the sums of rows, positives, predicted positives and both, over their number.
        """
        n, positive, predicted, both = (
            self._total(column.name) for column in (ROWS, POSITIVE, PREDICTED, TRUE_POSITIVE)
        )
        if not n:
            return math.nan, None
        covariance = n * both - positive * predicted
        spread = positive * (n - positive) * predicted * (n - predicted)
        if spread <= 0:
            return 0.0, None
        size = rounded_root(covariance * covariance, spread)
        value = -size if covariance < 0 else size
        p, q, b = (rounded_ratio(x, n) for x in (positive, predicted, both))
        root = math.sqrt(rounded_ratio(spread, n**4))
        if not root > 0.0 or {p, q} & {0.0, 1.0}:
            return value, None
        slopes = {
            ROWS: b / root - value / 2.0 * (1.0 / (1.0 - p) + 1.0 / (1.0 - q)),
            POSITIVE: -q / root - value / 2.0 * (1.0 / p - 1.0 / (1.0 - p)),
            PREDICTED: -p / root - value / 2.0 * (1.0 / q - 1.0 / (1.0 - q)),
            TRUE_POSITIVE: 1.0 / root,
        }
        return value, {column.name: Fraction(slope) * n for column, slope in slopes.items() if slope}
