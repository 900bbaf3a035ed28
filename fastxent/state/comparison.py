"""The state of a comparison: the states of two dumps over the rows that are used in both, and sums over pairs.

Like `EvalState` it holds integers and exact sums only, so it depends on its rows alone: not on their order, nor on how
they were split over batches, threads or machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from fastxent.errors import StateError
from fastxent.options.config import EvalConfig
from fastxent.results.compare import CompareResult
from fastxent.results.comparison import (
    QUANTILES,
    Compared,
    ComparedRows,
    ConfidenceBucket,
    Divergence,
    Flips,
    MetricComparison,
    RankChange,
    TargetProbability,
)  # fmt: skip
from fastxent.results.holm import holm
from fastxent.results.values import Metric
from fastxent.scoring.pairs import PairRows
from fastxent.scoring.rows import ScoredRows
from fastxent.state.apart import CONFIDENCE_EDGES, ByConfidence, FlipTable, Largest
from fastxent.state.buckets import hashed_pairs
from fastxent.state.coverage import Coverage
from fastxent.state.differences import (
    CHANGE,
    DIVERGENCES,
    FLIP,
    RANK_CHANGE,
    RANK_CHANGED,
    SAME,
    SQUARED_CHANGE,
    PairPlan,
    by_buckets,
)  # fmt: skip
from fastxent.state.evaluation import rows_of
from fastxent.state.given import score_tables
from fastxent.state.intervals import by_student, by_wilson
from fastxent.state.jackknife import MOST_SLICES
from fastxent.state.keys import distinct_values, in_order
from fastxent.state.metrics import Column, MetricPlan, Sums
from fastxent.state.packed import DAMAGED, pack, unpack
from fastxent.state.pair_scores import PairScoreTable
from fastxent.state.pair_tasks import pair_plan_of
from fastxent.state.quantities import Numbers, Quantities, SliceQuantities
from fastxent.state.side import PairedState
from fastxent.state.table import GroupTable
from fastxent.state.topk_pairs import TopkPairPlan

HISTOGRAM_EDGES = np.linspace(-1.0, 1.0, 41)  # of the change of the target's probability
MARK = "comparison"  # in the header of a saved state


class PairState(PairedState):
    """The state of the first dump, and the sums over pairs."""

    def __init__(self, config: EvalConfig, largest: int = 0) -> None:
        super().__init__(config)
        self.largest = Largest(largest)
        self.quantities: dict[str, Quantities] = {}
        self.slice_quantities: dict[str, dict[str, SliceQuantities]] = {}  # by column
        if not config.has_logits:
            return
        right = _right if self.plan.labelled else None
        self.flips = {table.column: FlipTable(table, right) for table in (self.whole, *self.slices.values())}
        flips = {"flips" if name is None else f"flips by {name}": part for name, part in self.flips.items()}
        self.by_confidence: ByConfidence | None = None
        if config.partial:  # quantities are known within bounds only
            self.components.update(flips)
            return
        numbers: dict[str, Numbers] = {
            "kl_divergence_ab": lambda rows: rows.kl_ab,
            "kl_divergence_ba": lambda rows: rows.kl_ba,
            "js_divergence": lambda rows: rows.js,
        }
        if self.plan.labelled:
            numbers["target_probability"] = lambda rows: rows.change
        self.quantities = {name: Quantities(of) for name, of in numbers.items()}
        self.slice_quantities = {
            column: {name: SliceQuantities(table, of) for name, of in numbers.items()}
            for column, table in self.slices.items()
        }
        self.by_confidence = None if config.task == "multilabel" else ByConfidence(_Divergences(config))
        self.components.update({f"pairs {name}": part for name, part in self.quantities.items()})
        for column, parts in self.slice_quantities.items():
            self.components.update({f"pairs {name} by {column}": part for name, part in parts.items()})
        if self.by_confidence is not None:
            self.components["confidence"] = self.by_confidence
        self.components["largest"] = self.largest
        self.components.update(flips)

    @staticmethod
    def _plan_of(config: EvalConfig) -> MetricPlan:
        return pair_plan_of(config)

    @staticmethod
    def _given_of(config: EvalConfig, plan: MetricPlan) -> list[PairScoreTable]:
        return score_tables(config, plan, PairScoreTable)

    @classmethod
    def restored(cls, data: bytes, largest: int) -> PairState:
        """The inverse of `to_bytes`."""
        return cls._restored(data, lambda config, *_: cls(config, largest))

    @property
    def pair_plan(self) -> PairPlan:
        """The plan, which is that of pairs."""
        assert isinstance(self.plan, PairPlan)
        return self.plan


def _right(rows: ScoredRows) -> np.ndarray:
    found: np.ndarray = rows.rank == 0
    return found


class _Divergences(MetricPlan):
    """What to sum for the mean divergences alone."""

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(replace(config, metrics=("entropy",)))
        pairs = PairPlan(replace(config, metrics=("entropy",)))
        self.apart = {column.name: pairs.apart[column.name] for column in DIVERGENCES.values()}
        for column in DIVERGENCES.values():
            self._index[column.name] = len(self.columns)
            self.columns.append(column)
        self.pairs = list(dict.fromkeys(
            [*self.pairs, *(p for mean in self.apart.values() for p in self._pairs(mean) if p is not None)]
        ))  # fmt: skip

    def mean(self, column: Column, sums: Sums) -> tuple[float, float]:
        """Mean and standard error of a divergence."""
        return self._ratio(self.apart[column.name], sums)


class CompareState:
    """Counts and exact sums of the rows of two dumps seen so far; `empty` is the identity of `merge`."""

    def __init__(self, config: EvalConfig, largest: int = 20, names: tuple[str, str] = ("a", "b")) -> None:
        self.config, self.names = config, names
        self.first, self.second = PairState(config, largest), PairedState(config)

    @classmethod
    def empty(cls, config: EvalConfig, largest: int = 20, names: tuple[str, str] = ("a", "b")) -> CompareState:
        """The state of no rows."""
        return cls(config, largest, names)

    @property
    def total(self) -> int:
        """Rows of any status."""
        return self.first.total

    @property
    def coverage(self) -> Coverage:
        """The parts of a sharded run that it holds; empty for any other rows."""
        return self.first.coverage

    @coverage.setter
    def coverage(self, coverage: Coverage) -> None:
        self.first.coverage = coverage

    def add(self, rows: PairRows) -> CompareState:
        """Add scored rows, in place; an error leaves the state as it was."""
        if self.config.cluster is None and any(side.grids.divided for side in (self.first, self.second)):
            rows.hashed = rows.second.hashed = hashed_pairs(rows, rows.second)
        self.first.add(rows)
        self.second.add(rows.second)
        return self

    def merge(self, other: CompareState) -> CompareState:
        """The state of the rows of both, as a new object. Associative and commutative."""
        return self.emptied().absorb(self).absorb(other)

    def emptied(self) -> CompareState:
        """The state of no rows under the same options."""
        return CompareState(self.config, self.first.largest.most, self.names)

    def absorb(self, other: CompareState) -> CompareState:
        """Add the rows of another state, in place; an error leaves this one as it was."""
        mine, theirs = ({"largest": state.first.largest.most, "names": state.names} for state in (self, other))
        for option, value in mine.items():
            if value != theirs[option]:
                raise StateError(
                    f"states of different configurations do not merge: {option}={value!r} here, "
                    f"{theirs[option]!r} there"
                )
        self.first.absorb(other.first)
        self.second.absorb(other.second)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompareState) and self.to_bytes(0) == other.to_bytes(0)

    __hash__ = None  # type: ignore[assignment]  # a state grows

    def __reduce__(self) -> tuple[Any, ...]:
        return CompareState.from_bytes, (self.to_bytes(1),)

    def to_bytes(self, compression: int = 6) -> bytes:
        """The state as bytes that check themselves: equal states give equal bytes, at one ``compression`` (0 to 9)."""
        header = {MARK: 1, "largest": self.first.largest.most, "names": list(self.names)}
        sides = {"a": self.first.to_bytes(compression), "b": self.second.to_bytes(compression)}
        return pack(header, {name: np.frombuffer(data, np.uint8) for name, data in sides.items()}, 0)

    @classmethod
    def from_bytes(cls, data: bytes) -> CompareState:
        """The inverse of `to_bytes`; StateError if the bytes are damaged or of another version."""
        header, arrays = unpack(data)
        try:
            if header.get(MARK) != 1:
                raise StateError("it is the state of an evaluation, not of a comparison")
            largest, (a, b) = header["largest"], header["names"]
            if not (type(largest) is int and largest >= 0 and isinstance(a, str) and isinstance(b, str)):
                raise ValueError("impossible options")
            second = PairedState.from_bytes(arrays["b"].tobytes())
            state = cls(second.config, largest, (a, b))
            state.first = PairState.restored(arrays["a"].tobytes(), largest)
            assert isinstance(second, PairedState)
            state.second = second
            counts = ([table.rows for table in (side.whole, *side.given)] for side in (state.first, second))
            if state.first.config != second.config or not all(map(np.array_equal, *counts)):
                raise ValueError("two dumps of different rows")
        except DAMAGED as error:
            raise StateError(f"a damaged saved state: {error}") from None
        return state

    # ---- the result --------------------------------------------------------------------------------------------------

    def result(
        self,
        timing: dict[str, Any] | None = None,
        files: tuple[Iterable[str], Iterable[str]] = ((), ()),
    ) -> CompareResult:
        """Every metric of the rows so far; the state stays as it is."""
        (whole,) = self._compared(self.first.whole, self.second.whole)
        each = self.first.grids.without_each(), self.second.grids.without_each()
        whole = replace(whole, metrics=whole.metrics | by_buckets(whole.metrics, *each))
        slices = {
            name: in_order(self._slices(table, self.second.slices[name])) for name, table in self.first.slices.items()
        }
        a, b = self.first.beside(), self.second.beside()
        return CompareResult(
            **{**vars(whole), **self._details(whole)},
            slices=slices,
            largest=tuple(self.first.largest.rows),
            names=self.names,
            config=self.config,
            timing=timing,
            files=(tuple(files[0]), tuple(files[1])),
            **{**a, "warnings": tuple(dict.fromkeys([*a["warnings"], *b["warnings"]]))},
        )

    def _compared(self, table: GroupTable, other: GroupTable) -> list[Compared]:
        """What the groups of a column differ in, in the order of the keys."""
        plan = self.first.pair_plan
        places, metrics_a = table.by_group(), self.first.metrics_of(table)
        order = other.keys.order().tolist()
        others = self.second.metrics_of(other)
        of_key = {other.keys.names[g]: g for g in order}
        scores = {
            mine.score: mine.comparisons(theirs)
            for mine, theirs in zip(self.first.given, self.second.given, strict=True)
            if isinstance(mine, PairScoreTable) and mine.column == table.column
        }
        found = []
        for g in table.keys.order().tolist():
            sums = table.sums_of(g, places[g])
            key = table.keys.names[g]
            metrics, ratio = plan.comparisons(metrics_a[g], others[of_key[key]], sums)
            if table.column is not None and len(order) <= MOST_SLICES:
                grids = (self.first.grids, g), (self.second.grids, of_key[key])
                metrics |= by_buckets(metrics, *(of.without_each(table.column, k) for of, k in grids))
            metrics |= {score: by_key[key] for score, by_key in scores.items()}
            part = self._group(table, g, sums, metrics, ratio)
            found.append(part if table.column is None else self._with_quantiles(part, table.column, g))
        return found

    def _group(
        self, table: GroupTable, g: int, sums: Sums, metrics: dict[str, MetricComparison], ratio: Metric | None
    ) -> Compared:
        plan, freedom, logits = self.first.pair_plan, sums.units - 1, self.config.has_logits
        independent = None if plan.weighted or plan.clustered else float(sums.units)

        def mean(column: Column) -> Metric:
            value, stderr = plan.mean(column, sums)
            if column.indicator:
                return by_wilson(value, stderr, sums.units, independent)
            return by_student(value, stderr, freedom)

        labelled = plan.labelled
        if isinstance(plan, TopkPairPlan):
            return Compared(
                rows=ComparedRows(**vars(rows_of(table.rows[g]))),
                metrics=metrics,
                perplexity_ratio=ratio,
                divergences=plan.divergences(sums),
                same_top_1=mean(SAME),
                target_probability=plan.change(sums) if labelled else None,
                flips=self._flips(table, g, sums) if labelled else None,
                rank=None,
            )
        return Compared(
            rows=ComparedRows(**vars(rows_of(table.rows[g]))),
            metrics=metrics,
            perplexity_ratio=ratio,
            divergences={name: Divergence(mean(column)) for name, column in DIVERGENCES.items()} if logits else {},
            same_top_1=mean(SAME) if logits else None,
            target_probability=TargetProbability(mean(CHANGE), _root(mean(SQUARED_CHANGE))) if labelled else None,
            flips=self._flips(table, g, sums) if labelled else None,
            rank=RankChange(mean(RANK_CHANGE), mean(RANK_CHANGED)) if labelled and plan.ranked else None,
        )

    def _with_quantiles(self, part: Compared, column: str, g: int) -> Compared:
        """A slice with the quantiles and the largest of its numbers."""
        numbers = self.first.slice_quantities.get(column, {})
        divergences, target = dict(part.divergences), part.target_probability
        for name, each in numbers.items():
            found = each.of_group(g)
            if found is None:
                continue
            least, largest, quantiles = found
            if name in divergences:
                divergences[name] = replace(divergences[name], max=_most(largest), quantiles=quantiles)
            elif target is not None:
                target = replace(target, max=_most(max(largest, -least)), quantiles=quantiles)
        return replace(part, divergences=divergences, target_probability=target)

    def _flips(self, table: GroupTable, g: int, sums: Sums) -> Flips:
        change = None
        if self.first.plan.clustered:
            place = self.first.plan.columns.index(FLIP)
            change = sums.totals[place], sums.products[(place, place)] or 0
        return self.first.flips[table.column].counts_of(g, change)

    def _details(self, whole: Compared) -> dict[str, Any]:
        """The fields of all rows that slices have in part."""
        if not self.config.has_logits:
            return {}
        if self.config.partial:
            unknown = dict.fromkeys(QUANTILES, math.nan)
            return {"divergences": {k: replace(d, quantiles=unknown) for k, d in whole.divergences.items()}}
        found = self.first.quantities
        buckets = self._buckets()
        divergences = {
            name: replace(
                divergence, max=_most(found[name].largest), quantiles=found[name].quantiles(),
                by_confidence=buckets[name],
            )
            for name, divergence in whole.divergences.items()
        }  # fmt: skip
        target = whole.target_probability
        if target is not None:
            changes = found["target_probability"]
            edges, counts = HISTOGRAM_EDGES.tolist(), changes.histogram(HISTOGRAM_EDGES)
            target = replace(
                target, max=_most(max(changes.largest, -changes.least)), quantiles=changes.quantiles(),
                histogram=(tuple(edges), tuple(counts)),
            )  # fmt: skip
        return {"divergences": divergences, "target_probability": target}

    def _buckets(self) -> dict[str, tuple[ConfidenceBucket, ...]]:
        table = self.first.by_confidence
        if table is None:
            return dict.fromkeys(DIVERGENCES, ())
        plan, places = table.plan, table.by_group()
        assert isinstance(plan, _Divergences)
        found: dict[str, list[ConfidenceBucket]] = {name: [] for name in DIVERGENCES}
        for g in range(len(table.keys)):
            sums = table.sums_of(g, places[g])
            for name, column in DIVERGENCES.items():
                metric = by_student(*plan.mean(column, sums), sums.units - 1)
                ends = CONFIDENCE_EDGES[g], CONFIDENCE_EDGES[g + 1]
                found[name].append(ConfidenceBucket(*ends, table.contributing(g), metric))
        return {name: tuple(each) for name, each in found.items()}

    def _slices(self, table: GroupTable, other: GroupTable) -> dict[Any, Compared]:
        found = self._compared(table, other)
        names = (*self.first.plan.names, *self.config.scores)
        adjusted = {name: holm([part.metrics[name].p_value for part in found]) for name in names}
        values = distinct_values(table.keys.names_in_order())
        return {
            value: replace(part, metrics={
                name: replace(metric, adjusted_p_value=adjusted[name][k]) for name, metric in part.metrics.items()
            })
            for k, (value, part) in enumerate(zip(values, found, strict=True))
        }  # fmt: skip


def _root(square: Metric) -> Metric:
    """The root of a mean square; its standard error by the delta method, its interval from that of the square."""
    value = math.sqrt(square.value) if square.value >= 0.0 else math.nan
    low, high = (math.sqrt(max(0.0, end)) if end == end else math.nan for end in square.ci95)
    slope = 0.5 / value if value > 0.0 else math.nan
    return Metric(value, 0.0 if square.stderr == 0.0 else slope * square.stderr, (low, high), square.method)


def _most(value: float) -> float:
    """The largest number; NaN if there is none."""
    return math.nan if value == -math.inf else value
