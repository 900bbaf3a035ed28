"""From scored rows to metrics: every mean is a ratio of two exact sums, declared in one table.

A metric is R = Σu / Σd over rows: u is the weighted number of a row, d what it counts for (rows, class weights or
bytes). Its standard error follows from the residuals u − R·d, summed first within clusters where there are any:
sqrt(G/(G−1) · Σ_c (Σ_{i∈c} (u_i − R·d_i))²) / |Σd| over G clusters, of which single rows are the simplest. All
sums are exact integers up to the last division, so data that does not vary has a standard error of exactly 0.
Fewer than two rows (or clusters), or numbers that are not finite, have none: NaN.

To add a metric, add a `Mean` to `means`, with a `Column` that computes its number from `ScoredRows`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from fastxent.errors import ConfigError
from fastxent.kernels.exact import rounded_ratio, rounded_root, special_value
from fastxent.kernels.fold import BELOW, COPY, COUNTED, ONES, PRODUCT, RECIPROCAL, Summand, Terms
from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.classwise import CLASSWISE, check_classwise
from fastxent.scoring.rows import ScoredRows
from fastxent.state.averages import (
    AVERAGES,
    ENTROPY as NORMALIZED,
    MACRO,
    ClassSums,
    averages,
    class_entropy,
    entropy_error,
)  # fmt: skip
from fastxent.state.intervals import by_exponential, by_student, by_wilson

LN2 = math.log(2.0)
_LEAST = 500  # squares of weights below 2**-_LEAST are no longer doubles of full precision


@dataclass(frozen=True)
class Column:
    """A number of each row, before sample weights. ``indicator``: it is 0 or 1. ``labelled``: it needs the target.
    ``shared``: it does not depend on predictions.

    ``of`` names what it is computed from, as the compiled sums take it.
    """

    name: str
    of: Callable[[ScoredRows], np.ndarray | Summand | None]
    indicator: bool = False
    labelled: bool = True
    shared: bool = False


@dataclass(frozen=True)
class Mean:
    """Σ column / Σ over, in nats or ``bits``, or the ``exponential`` of that. A mean of an indicator is a rate."""

    name: str
    column: Column
    over: Column
    bits: bool = False
    exponential: bool = False


def _hits(k: int) -> Column:
    return Column(f"rank<{k}", lambda rows: Summand(BELOW, rows.rank, limit=k), indicator=True)


ROWS = Column("rows", lambda rows: Summand(ONES, rows.nll), indicator=True, labelled=False, shared=True)
CLASS_WEIGHT = Column("class_weight", lambda rows: rows.class_weight, shared=True)
BYTES = Column("n_bytes", lambda rows: rows.n_bytes, shared=True)
LOSS = Column("loss", lambda rows: rows.loss)
NLL = Column("nll", lambda rows: rows.nll)
RECIPROCAL_RANK = Column("1/(rank+1)", lambda rows: Summand(RECIPROCAL, rows.rank))
BRIER = Column("brier", lambda rows: rows.brier)
ENTROPY = Column("entropy", lambda rows: rows.entropy, labelled=False)
CONFIDENCE = Column("confidence", lambda rows: rows.confidence, labelled=False)
OVERCONFIDENCE = Column("nll-entropy", lambda rows: rows.nll - rows.entropy)
SQUARED_LSE = Column("lse*lse", lambda rows: Summand(PRODUCT, rows.lse, rows.lse), labelled=False)
EFFECTIVE = Column("counted", lambda rows: Summand(COUNTED, rows.class_weight, rows.loss), indicator=True)
UNLABELLED = ("entropy", "confidence", "z_loss")  # metrics that need no target
ON_REQUEST = ("nll_minus_entropy", CLASSWISE)  # metrics that "all" does not include
CALIBRATION = ("expected_calibration_error", "maximum_calibration_error")
DEBIASED, SMOOTH = "debiased_calibration_error", "smooth_calibration_error"
CORP = ("miscalibration", "discrimination", "uncertainty")
FROM_GRID = (DEBIASED, SMOOTH, *CORP)  # metrics of `state.calibration`
RESOLVED = (SMOOTH, *CORP[:2])  # those of its cells, which may be too wide for a rare outcome


def means(config: EvalConfig) -> list[Mean]:
    """Every mean that this configuration can have, in the order of display."""
    class_weight = ROWS if config.class_weight is None else CLASS_WEIGHT
    losses = [
        Mean("cross_entropy", LOSS, class_weight),
        Mean("cross_entropy_bits", LOSS, class_weight, bits=True),
        Mean("perplexity", LOSS, class_weight, exponential=True),
        *([Mean("bits_per_byte", NLL, BYTES, bits=True)] if config.n_bytes else []),
    ]
    if not config.has_logits:
        return losses if config.task == "likelihood" else []
    return [
        *losses,
        Mean("accuracy", _hits(1), ROWS),
        *(Mean(f"top_{k}_accuracy", _hits(k), ROWS) for k in sorted(set(config.top_k)) if k > 1),
        Mean("mean_reciprocal_rank", RECIPROCAL_RANK, ROWS),
        Mean("brier_score", BRIER, ROWS),
        Mean("entropy", ENTROPY, ROWS),
        Mean("confidence", CONFIDENCE, ROWS),
        Mean("z_loss", SQUARED_LSE, ROWS),
        Mean("nll_minus_entropy", OVERCONFIDENCE, ROWS),
    ]


class MetricPlan:
    """The columns and products to sum for the metrics of a configuration, and how the sums become metrics.

    ``averages`` are those of its metrics that follow from the sums of each class.
    """

    averages: tuple[str, ...] = ()

    def __init__(self, config: EvalConfig) -> None:
        every = means(config)
        names = [mean.name for mean in every]
        if config.has_logits:
            names[-2:-2] = (*CALIBRATION, *FROM_GRID, CLASSWISE)
            check_classwise(config)
            names.insert(names.index("perplexity") + 1, NORMALIZED)
            at = names.index("brier_score")
            names[at:at] = MACRO
        self.names = selection(config, names, UNLABELLED if config.has_logits else names)
        self.averages = tuple(name for name in AVERAGES if name in self.names)
        self.labelled = config.target is not None
        self.losses = self.labelled or config.task == "likelihood"
        self.smoothed = config.label_smoothing > 0.0
        self._loss = every[0] if every else None
        self._choose(config, [mean for mean in every if mean.name in self.names])

    def _choose(self, config: EvalConfig, chosen: list[Mean]) -> None:
        """Find the columns and products that the means need."""
        self.means = chosen
        self.weighted = config.weight is not None
        self.clustered = config.cluster is not None
        valued = [*self.means, *([self._loss] if NORMALIZED in self.averages and self._loss else [])]
        needed = [column for mean in valued for column in (mean.column, mean.over)]
        if not (self.weighted or self.clustered):  # plain counts of rows are known without summing
            needed = [column for column in needed if column is not ROWS]
        needed = needed or [ROWS]
        # Rows whose class has weight 0 do not count in the standard error: they are counted out where there may be any.
        if CLASS_WEIGHT in needed and config.class_weight is not None and 0.0 in config.class_weight:
            needed.append(EFFECTIVE)
        self.columns = list({column.name: column for column in needed}.values())
        self._index = {column.name: i for i, column in enumerate(self.columns)}
        self.pairs = list(dict.fromkeys(p for mean in valued for p in self._pairs(mean) if p is not None))

    def _pairs(self, mean: Mean) -> list[tuple[int, int] | None]:
        """The products Σu², Σud, Σd² by their columns; None where the sum of one column or a count tells it."""
        u, d = self._index[mean.column.name], self._index.get(mean.over.name)
        squares = None if mean.column.indicator and not (self.weighted or self.clustered) else (u, u)
        return [squares, None, None] if d is None else [squares, (u, d), (d, d)]

    def terms(self, rows: ScoredRows) -> Terms:
        """The summands of rows that are all used: w·v, rounded once, of each row."""
        summands = []
        for column in self.columns:
            found = column.of(rows)
            if found is None or (isinstance(found, Summand) and found.a is None):
                raise ValueError(f"scored rows must have {column.name}, because the configuration uses it")
            summands.append(found if isinstance(found, Summand) else Summand(COPY, found))
        if self.weighted and rows.weight is None:
            raise ValueError("scored rows must have weights, because the configuration uses them")
        return Terms(summands, rows.weight if self.weighted else None, self.counted)

    def metrics_of(self, sums: Sums, bins: Bins) -> dict[str, Metric]:
        """All chosen metrics of one group of rows; those that follow from other parts are NaN."""
        found = {name: Metric(value) for name, value in bins.errors().items()}
        found |= {mean.name: self.metric(mean, sums) for mean in self.means}
        return {name: found.get(name, Metric(math.nan)) for name in self.names}

    def averages_of(self, classes: ClassSums, sums: Sums, class_weight: tuple[float, ...] | None) -> dict[str, Metric]:
        """The chosen averages over classes of one group of rows, from sums alone."""
        found = {name: Metric(value) for name, value in averages(classes).items()}
        if NORMALIZED in self.averages and self._loss is not None:
            found[NORMALIZED] = self._normalized(self._loss, classes, sums, class_weight)
        return {name: found[name] for name in self.averages}

    def _normalized(self, mean: Mean, classes: ClassSums, sums: Sums, class_weight: tuple[float, ...] | None) -> Metric:
        """A loss over the entropy of the classes, with its interval where rows are independent and weigh the same."""
        loss, stderr = self._ratio(mean, sums)
        value = loss / (class_entropy(classes, class_weight) or math.nan)
        if self.weighted or self.clustered or self.smoothed:
            return Metric(value)
        units = self._units(mean, sums)
        return by_student(value, entropy_error(classes, class_weight, loss, stderr, units), units - 1)

    def metric(self, mean: Mean, sums: Sums) -> Metric:
        """One mean with its interval."""
        value, stderr = self._ratio(mean, sums)
        units = self._units(mean, sums)
        if mean.exponential:
            return by_exponential(value, stderr, units - 1)
        if mean.column.indicator:
            return by_wilson(value, stderr, units, None if self.weighted or self.clustered else float(units))
        if mean.bits:
            return by_student(value / LN2, 1.0 / LN2 * stderr, units - 1)
        return by_student(value, stderr, units - 1)

    def ratio(self, name: str, sums: Sums) -> tuple[int, int, float] | None:
        """(Σu, Σd, the standard error of Σu/Σd) of a metric that is a mean; None for another."""
        mean = next((mean for mean in self.means if mean.name == name), None)
        if mean is None:
            return None
        over = self._index.get(mean.over.name)
        d = sums.units << sums.scale if over is None else sums.totals[over]
        return sums.totals[self._index[mean.column.name]], d, self._ratio(mean, sums)[1]

    @property
    def loss_columns(self) -> tuple[int, int] | None:
        """The places of the columns whose ratio is the loss, if both are summed."""
        mean = self._loss
        if mean is None or not {mean.column.name, mean.over.name} <= self._index.keys():
            return None
        return self._index[mean.column.name], self._index[mean.over.name]

    @property
    def counted(self) -> int | None:
        """The place of the column that counts rows of a class weight other than 0, where there is one."""
        return self._index.get(EFFECTIVE.name)

    def _units(self, mean: Mean, sums: Sums) -> int:
        """Rows or clusters that the mean rests on."""
        return sums.units if mean.over is not CLASS_WEIGHT or sums.counted is None else sums.counted

    def _ratio(self, mean: Mean, sums: Sums) -> tuple[float, float]:
        """R and its standard error from integers: u, d in units of 2**-scale, their products in 2**(-2 scale)."""
        iu, id_ = self._index[mean.column.name], self._index.get(mean.over.name)
        u = sums.totals[iu]
        d = sums.units << sums.scale if id_ is None else sums.totals[id_]
        if (id_ is not None and sums.special[id_]) or d == 0:
            return math.nan, math.nan
        if sums.special[iu]:
            return (1 if d > 0 else -1) * special_value(sums.special[iu]), math.nan
        value = rounded_ratio(u, d)
        pairs = self._pairs(mean)
        known = (u << sums.scale, u << sums.scale, d << sums.scale)  # u² = u for indicators, d = 1 for rows
        uu, ud, dd = (sums.products[p] if p is not None else k for p, k in zip(pairs, known, strict=True))
        units = self._units(mean, sums)
        if units < 2 or uu is None or ud is None or dd is None:
            return value, math.nan
        if not self.clustered and sums.lost(d):
            return value, math.nan
        residuals = max(0, d * d * uu - 2 * u * d * ud + u * u * dd)
        return value, rounded_root(units * residuals, (units - 1) * d**4)


@dataclass(frozen=True)
class Sums:
    """Exact sums over one group: ``units`` independent rows or clusters; integers in units of 2**-scale."""

    units: int
    scale: int
    totals: list[int]
    special: list[int]
    products: dict[tuple[int, int], int | None]  # by columns, in units of 2**(-2 scale); None if not finite
    counted: int | None = None  # of the units, those of a class weight other than 0, where that may be fewer

    def lost(self, total: int) -> bool:
        """Whether rows add so little to a sum that their products, each a double, are rounded to next to 0."""
        return abs(total) << _LEAST < self.units << self.scale


@dataclass(frozen=True)
class Bins:
    """Calibration of one group: per bin the number of rows and Σ w·confidence, Σ w·correct, Σ w in 2**-scale."""

    scale: int
    count: list[int]
    confidence: list[int]
    correct: list[int]
    weight: list[int]
    finite: bool

    def errors(self) -> dict[str, float]:
        """Gaps between confidence and accuracy: their mean by weight, and the largest."""
        if not self.finite:  # an infinite or NaN weight
            return dict.fromkeys(CALIBRATION, math.nan)
        gaps = [abs(a - b) for a, b in zip(self.confidence, self.correct, strict=True)]
        each = [rounded_ratio(gap, abs(w)) for gap, w in zip(gaps, self.weight, strict=True) if w]
        return {CALIBRATION[0]: rounded_ratio(sum(gaps), sum(self.weight)), CALIBRATION[1]: max(each, default=math.nan)}


def bin_edges(bins: int) -> np.ndarray:
    """The doubles nearest to k/bins; bin k is (edge k, edge k + 1], and 0 lies in the first."""
    return np.arange(bins + 1) / bins


def selection(config: EvalConfig, names: list[str], unlabelled: Container[str]) -> list[str]:
    """Those of ``names`` that are asked for; an unknown one is an error that names the nearest.

    unlabelled: those that need no target.
    """
    if config.target is None:
        left = [name for name in names if name in unlabelled]
        labelled = next((name for name in config.metrics if name in names and name not in left), None)
        if labelled is not None:
            raise ConfigError(f"metric {labelled!r} requires a target; metrics without a target: {', '.join(left)}")
        names = left
    if "all" in config.metrics:
        return [name for name in names if name not in ON_REQUEST or name in config.metrics]
    for name in config.metrics:
        if name == "bits_per_byte" and not config.n_bytes:
            raise ConfigError("metric 'bits_per_byte' requires n_bytes (--n-bytes), the column of bytes per row")
        if name not in (*names, *config.scores):
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            raise ConfigError(f"unknown metric {name!r}; {hint}")
    return [name for name in names if name in config.metrics]
