"""Confidence sequences: intervals that hold at every number of rows at once, so that a run may stop when it likes.

The asymptotic confidence sequence of a mean of t independent units with the standard deviation σ has the half-width
σ·√(2(tρ² + 1)/(t²ρ²) · ln(√(tρ² + 1)/α)) (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, arXiv 2103.06476).
With SE = σ/√t that is SE times a number that depends on tρ² alone. It is nearly the smallest at
tρ² = ln(1 - 2 ln α) - 2 ln α, and grows with the root of the logarithm beyond. So ρ is chosen for the rows of the first
look, which is before any of them has been seen.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

from fastxent.errors import ConfigError
from fastxent.kernels.exact import rounded_root
from fastxent.names import nearest
from fastxent.options.conditions import StopCondition
from fastxent.results.values import Metric
from fastxent.state.evaluation import EvalState
from fastxent.state.given import ScoreTable
from fastxent.state.intervals import NORMAL, wilson
from fastxent.state.metrics import MetricPlan, Sums
from fastxent.state.table import GroupTable

_ALPHA = 0.05
_BEST = math.log(1.0 - 2.0 * math.log(_ALPHA)) - 2.0 * math.log(_ALPHA)
METHOD = "confidence sequence"
_SIGNED = ("matthews_corrcoef",)  # metrics from -1 to 1
_WITHIN = ("balanced_accuracy", "f1", *_SIGNED)  # metrics with Student's interval that have limits
_FIRST = 1000  # rows or clusters for which ρ is chosen while a run shows its progress
_EVERY = 1.0  # seconds between two looks at the state of a worker
_SHARE = 50  # a look takes less than one part in this of a worker's time

Total = tuple[Fraction, Fraction]  # Σu and Σd of a metric Σu/Σd


def multiplier(units: float, first: float) -> float:
    """Return half the width of the interval in standard errors, after ``units``; ``first``: units at the first look.

    >>> f"{multiplier(100, 100):.3f}", f"{multiplier(10_000, 100):.3f}"
    ('3.035', '3.562')
    """
    m = _BEST * units / first
    return math.sqrt(2.0 * (m + 1.0) / m * math.log(math.sqrt(m + 1.0) / _ALPHA))


def anytime(name: str, metric: Metric, z: float, inflation: float = 1.0) -> Metric:
    """Return a metric with the interval of a confidence sequence in the place of its own.

    z: float. `multiplier`. inflation: float. By how much its standard error is too small.
    """
    stderr = metric.stderr * inflation
    if metric.method is None:
        return replace(metric, stderr=stderr)
    (low, high), value, wider = metric.ci95, metric.value, z * inflation / NORMAL
    if metric.method == "exp-t" and value > 0.0:
        half = z * stderr / value
        return Metric(value, stderr, (value * math.exp(-half), value * math.exp(min(half, 700.0))), METHOD)
    if metric.method == "wilson" and metric.bounds is None:
        if stderr > 0.0 and 0.0 < value < 1.0:
            rows = value * (1.0 - value) / stderr / stderr
        else:  # 0 or 1: the other end of its interval tells how many rows there are
            end = high if value == 0.0 else 1.0 - low
            rows = NORMAL * NORMAL * (1.0 - end) / end / inflation**2 if end > 0.0 else math.inf
        return Metric(value, stderr, wilson(value, z, rows), METHOD)
    first, last = (value, value) if metric.bounds is None or value == value else metric.bounds
    low, high = first - (first - low) * wider, last + (high - last) * wider
    if metric.method in ("wilson", "jackknife", "delong") or name in _WITHIN:
        low, high = max(low, -1.0 if name in _SIGNED else 0.0), min(high, 1.0)
    return replace(metric, stderr=stderr, ci95=(low, high), method=METHOD)


def unit_error(each: Iterable[Total]) -> float:
    """Return the standard error of Σu/Σd over units of rows that depend on each other, as over clusters."""
    totals = list(each)
    u, d = sum((a for a, _ in totals), Fraction()), sum((b for _, b in totals), Fraction())
    if len(totals) < 2 or not d:
        return math.nan
    squares = sum(((a * d - u * b) ** 2 for a, b in totals), Fraction()) / d**4
    return rounded_root(len(totals) * squares.numerator, (len(totals) - 1) * squares.denominator)


class Rule:
    """When a run stops: a condition on the interval of a confidence sequence, at a few looks at the state.

    Without clusters the standard error is at least that of the units, whose rows may be alike. The rows of a unit are
    then one number of the mean, and units come in random order.

    Attributes:
        held: bool. Whether the condition held at the last look.
        multiplier, inflation: float. Those of `anytime`, at the last look.
    """

    def __init__(self, text: str, state: EvalState) -> None:
        self.condition = StopCondition.of("until", text)
        self._clustered = state.config.cluster is not None
        name, known = self.condition.name, [*state.plan.names, *state.config.scores]
        if name not in known:
            raise ConfigError(f"cannot check until {text!r}: there is no metric {name!r}; {nearest(name, known)}")
        if self.total(state) is None:
            able = [other for other in known if self._sums(state, other)[2] is not None]
            raise ConfigError(
                f"until must name a mean, got {text!r}; the error of {name!r} is not that of a mean; expected one of "
                f"{', '.join(able) or 'none'}"
            )
        self._first = 0  # rows or clusters at the first look that had some
        self.held, self.multiplier, self.inflation = False, math.nan, 1.0

    @staticmethod
    def _sums(state: EvalState, name: str) -> tuple[GroupTable, Sums, tuple[int, int, float] | None]:
        """(the table of all rows that has a metric, its sums, the metric as `MetricPlan.ratio` has it)."""
        scored = (table for table in state.given if table.score == name and table.column is None)
        table: GroupTable = state.whole if name in state.plan.names else next(scored)
        sums = table.sums_of(0, table.by_group()[0])
        return table, sums, table.plan.ratio(name, sums)

    def total(self, state: EvalState) -> Total | None:
        """Σu and Σd of the metric; None if it is not their ratio."""
        _, sums, found = self._sums(state, self.condition.name)
        return None if found is None else (Fraction(found[0], 1 << sums.scale), Fraction(found[1], 1 << sums.scale))

    def measure(self, state: EvalState) -> Total | None:
        """`total`, if the sums of single units are needed."""
        return None if self._clustered else self.total(state)

    def enough(self, state: EvalState, each: list[tuple[Total | None, Total | None]]) -> bool:
        """Look at the state of all units so far. each: `measure` before and after each of them."""
        name = self.condition.name
        table, sums, found = self._sums(state, name)
        assert found is not None
        if isinstance(table, ScoreTable):
            (metric,) = table.means().values()
        else:
            metric = table.plan.metrics_of(sums, table.bins_of(0))[name]
        self.inflation, self._first = 1.0, self._first or sums.units
        if not self._first:
            return False
        if found[2] > 0.0 and not self._clustered:
            units = [(b[0] - a[0], b[1] - a[1]) for a, b in each if a is not None and b is not None]
            self.inflation = max(1.0, unit_error(units) / found[2])
        self.multiplier = multiplier(sums.units, self._first)
        shown = anytime(name, metric, self.multiplier, self.inflation)
        low, high = shown.ci95
        numbers = {"stderr": shown.stderr, "width": high - low, "ci95.low": low, "ci95.high": high}
        # A standard error of 0 says little; only the interval of a rate knows how many rows there are.
        sure = shown.stderr > 0.0 or (self.condition.part != "stderr" and metric.method == "wilson")
        self.held = sure and self.condition.holds(numbers[self.condition.part])
        return self.held


class Running:
    """The cross-entropy of the rows so far, from the sums that each worker tells now and then of its own state.

    told: function of a Metric. It is called at most once a second for each worker, on the worker's thread.
    """

    def __init__(self, told: Callable[[Metric], None], plan: MetricPlan) -> None:
        self._told, self._plan = told, plan
        self._lock = threading.Lock()
        self._due: dict[int, float] = {}
        self._of: dict[int, Sums] = {}  # by worker
        self._left: Sums | None = None  # of states that workers have handed over

    @classmethod
    def of(cls, told: Callable[[Metric], None], state: EvalState) -> Running | None:
        """Return what shows the cross-entropy, if there is one."""
        return cls(told, state.plan) if "cross_entropy" in state.plan.names else None

    def look(self, worker: int, state: EvalState, *, left: bool = False) -> None:
        """Look at the state of a worker, if that is due. left: bool. The worker hands the state over."""
        now = time.perf_counter()
        if not left and now < self._due.setdefault(worker, now + _EVERY):
            return
        sums = state.whole.sums_of(0, state.whole.by_group()[0])
        with self._lock:
            if left:
                self._left = sums if self._left is None else _joined(self._left, sums)
                self._of.pop(worker, None)
            else:
                self._of[worker] = sums
                self._tell(state)
        end = time.perf_counter()
        self._due[worker] = end + max(_EVERY, _SHARE * (end - now))

    def _tell(self, state: EvalState) -> None:
        total = self._left
        for sums in self._of.values():
            total = sums if total is None else _joined(total, sums)
        if total is not None and total.units:
            metric = self._plan.metrics_of(total, state.whole.bins_of(0))["cross_entropy"]
            self._told(anytime("cross_entropy", metric, multiplier(total.units, _FIRST)))


def _joined(a: Sums, b: Sums) -> Sums:
    """Return the sums of both. A cluster of both counts as two."""
    scale = max(a.scale, b.scale)
    up, down = scale - a.scale, scale - b.scale
    products = {
        pair: None if x is None or (y := b.products[pair]) is None else (x << 2 * up) + (y << 2 * down)
        for pair, x in a.products.items()
    }
    counted = None if a.counted is None or b.counted is None else a.counted + b.counted
    totals = [(x << up) + (y << down) for x, y in zip(a.totals, b.totals, strict=True)]
    special = [x | y for x, y in zip(a.special, b.special, strict=True)]
    return Sums(a.units + b.units, scale, totals, special, products, counted)
