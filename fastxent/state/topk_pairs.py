"""The metrics of two top-k dumps: differences of what is exact, and bounds of the rest."""

from __future__ import annotations

import math

from fastxent.options.config import EvalConfig
from fastxent.results.comparison import Divergence, MetricComparison, TargetProbability
from fastxent.results.values import Metric
from fastxent.scoring.pairs import TopkPairRows, pair_rows
from fastxent.state.differences import CHANGE, FLIP, SAME, PairPlan, PairSums, Side, apart, of_second
from fastxent.state.intervals import by_exponential, by_student, exponential
from fastxent.state.metrics import ROWS, Column, Mean, Sums
from fastxent.state.topk import Bounded, TopkPlan, columns_of, within

_SAME = Column(SAME.name, lambda rows: _topk(rows).same, indicator=True, labelled=False)
_BOUNDED = {
    "kl_divergence_ab": columns_of("kl_ab", "kl_ab", "kl_ab_high", labelled=False),
    "kl_divergence_ba": columns_of("kl_ba", "kl_ba", "kl_ba_high", labelled=False),
    "js_divergence": columns_of("js", "js", "js_high", labelled=False),
}
_CHANGE = columns_of(CHANGE.name, "change", "change_high")
_PERPLEXITY = "perplexity"


def _topk(rows: object) -> TopkPairRows:
    found = pair_rows(rows)  # type: ignore[arg-type]
    assert isinstance(found, TopkPairRows)
    return found


class TopkPairPlan(PairPlan, TopkPlan):
    """What to sum for the metrics of two top-k dumps. Flips and the likeliest class are exact."""

    ranked = False

    def __init__(self, config: EvalConfig) -> None:
        TopkPlan.__init__(self, config)
        pairs = [*_BOUNDED.values(), *([_CHANGE] if self.labelled else [])]
        self._pair([column for pair in pairs for column in pair] + [_SAME, *([FLIP] if self.labelled else [])])

    def comparisons(
        self, a: dict[str, Metric], b: dict[str, Metric], sums: Sums
    ) -> tuple[dict[str, MetricComparison], Metric | None]:
        """(the comparison of each metric, the ratio of the perplexities). a, b: the metrics of either dump."""
        found = {name: apart(a[name], b[name]) for name in self.names}
        group = PairSums(self._index, sums, plain=not (self.weighted or self.clustered))
        ratio = None
        for pair in self.bounded:
            mean = pair.low
            exact = a[mean.name].bounds is None and b[mean.name].bounds is None
            if exact:
                first, second = (
                    Side({column.name: 1}, {over.name: 1})
                    for column, over in ((mean.column, mean.over), (of_second(mean.column), of_second(mean.over)))
                )
                difference = group.difference(first, second, self._units(mean, sums))
                found[mean.name] = difference.of(
                    a[mean.name], b[mean.name], bits=mean.bits, exponential=mean.exponential
                )
                if mean.name == _PERPLEXITY:
                    ratio = by_exponential(difference.value, difference.stderr, difference.units - 1)
            elif mean.name == _PERPLEXITY:
                ratio = _ratio(a[mean.name], b[mean.name])
        return found, ratio

    def divergences(self, sums: Sums) -> dict[str, Divergence]:
        """The mean divergences of a group."""
        return {name: Divergence(self._between(columns, sums)) for name, columns in _BOUNDED.items()}

    def change(self, sums: Sums) -> TargetProbability:
        """The mean change of the target's probability of a group."""
        return TargetProbability(self._between(_CHANGE, sums), Metric(math.nan))

    def _between(self, columns: tuple[Column, Column], sums: Sums) -> Metric:
        pair = Bounded(*(Mean(column.name, column, ROWS) for column in columns))
        low, high = (by_student(*self._ratio(mean, sums), sums.units - 1) for mean in pair)
        return low if self.same(pair, sums) else within(low, high)


def _ratio(a: Metric, b: Metric) -> Metric:
    """The ratio of two perplexities of which some are known within bounds."""
    (low, high), (least, most) = (metric.bounds or (metric.value, metric.value) for metric in (a, b))
    ends = [exponential(math.log(x) - math.log(y)) if 0.0 < x < math.inf and 0.0 < y < math.inf else None
            for x, y in ((least, high), (most, low))]  # fmt: skip
    return Metric(math.nan, bounds=(0.0 if ends[0] is None else ends[0], math.inf if ends[1] is None else ends[1]))
