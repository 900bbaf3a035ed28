"""The metrics of two dumps of each task: what to sum for their paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from fastxent.options.config import EvalConfig
from fastxent.results.comparison import MetricComparison
from fastxent.results.values import Metric
from fastxent.state import binary, multilabel
from fastxent.state.differences import Influence, PairPlan, PairSums, Side, of_second
from fastxent.state.metrics import LN2, ROWS, Column, Sums
from fastxent.state.topk_pairs import TopkPairPlan


def pair_plan_of(config: EvalConfig) -> PairPlan:
    """What to sum for two dumps under a configuration."""
    kinds: dict[str, type[PairPlan]] = {"binary": BinaryPairPlan, "multilabel": MultilabelPairPlan}
    return (TopkPairPlan if config.partial else kinds.get(config.task, PairPlan))(config)


class MultilabelPairPlan(PairPlan, multilabel.MultilabelPlan):
    """What to sum for the metrics of two multilabel dumps."""

    ranked = perplexed = False


_OF_SECOND = {column.name: of_second(column).name for column in binary.ORDER}


class BinaryPairPlan(PairPlan, binary.BinaryPlan):
    """What to sum for the metrics of two binary dumps."""

    ranked = perplexed = False

    def _doubled(self) -> list[Column]:
        return list(self.columns)

    def _together(self) -> Iterator[tuple[list[int], list[int]]]:
        for name in self.names:
            columns = {c: None for ratio in _ratios(name) for form in (ratio.upper, ratio.lower) for c in form}
            found = [column for column in columns if not (self._plain and column == ROWS.name)]
            found += [_OF_SECOND[column] for column in found]
            yield sorted({self._index[column] for column in found}), []

    def comparisons(
        self, a: dict[str, Metric], b: dict[str, Metric], sums: Sums
    ) -> tuple[dict[str, MetricComparison], Metric | None]:
        """(the comparison of each metric, None)."""
        found, _ = super().comparisons(a, b, sums)
        group = PairSums(self._index, sums, plain=self._plain)
        second = {column: self._index[other] for column, other in _OF_SECOND.items() if other in self._index}
        groups = binary.Group(self, sums), binary.Group(self, sums, second)
        for name in self.names:
            if name in _SLOPES:
                each = [_SLOPES[name](of, _OF_SECOND if k else {}) for k, of in enumerate(groups)]
                if each[0] is not None and each[1] is not None:
                    value = b[name].value - a[name].value
                    found[name] = group.apart(value, each[0], each[1], sums.units).of(a[name], b[name])
                continue
            sides = [_sides(ratio) for ratio in _ratios(name)]
            if name == "normalized_entropy":
                ends = [_of_entropy(group, (sides[0][k], sides[1][k]), m) for k, m in enumerate((a[name], b[name]))]
                if ends[0] is not None and ends[1] is not None:
                    value = b[name].value - a[name].value
                    found[name] = group.apart(value, ends[0], ends[1], sums.units).of(a[name], b[name])
            elif sides:
                bits = binary.RATIOS[name].unit == LN2
                found[name] = group.difference(*sides[0], sums.units).of(a[name], b[name], bits=bits)
        return found, None


def _balanced(group: binary.Group, names: Mapping[str, str]) -> Influence | None:
    """The influence of a balanced accuracy. names: of columns, where they are not the group's."""
    found = group.of_balanced()
    return None if found is None else Influence({names.get(c, c): x for c, x in found[1].items()}, group.rows)


def _matthews(group: binary.Group, names: Mapping[str, str]) -> Influence | None:
    """The influence of a Matthews correlation."""
    found = group.of_matthews()[1]
    return None if found is None else Influence({names.get(c, c): x for c, x in found.items()}, group.rows)


_SLOPES = {"balanced_accuracy": _balanced, "matthews_corrcoef": _matthews}


def _ratios(name: str) -> list[binary.Ratio]:
    """The ratios that the difference of a metric is made of; none if its error is not known."""
    names = binary.MADE_OF.get(name, (name,))
    return [binary.RATIOS[each] for each in names if each in binary.RATIOS]


def _sides(ratio: binary.Ratio) -> tuple[Side, Side]:
    """A ratio of the first dump, and of the second."""
    other = [{_OF_SECOND[column]: k for column, k in form.items()} for form in (ratio.upper, ratio.lower)]
    return Side(ratio.upper, ratio.lower), Side(other[0], other[1])


def _of_entropy(group: PairSums, sides: tuple[Side, Side], found: Metric) -> Influence | None:
    """The influence of a normalized entropy: of the cross-entropy and of the base rate, by the delta method."""
    loss, rate = (group.influence(side) for side in sides)
    slopes = binary.entropy_slopes(found.value, group.value(sides[1]))
    if slopes is None:
        return None
    columns: dict[str, int | Fraction] = {column: x * slopes[0] for column, x in loss.columns.items()}
    for column, x in rate.columns.items():
        columns[column] = columns.get(column, 0) + x * slopes[1]
    return Influence(columns, loss.over)
