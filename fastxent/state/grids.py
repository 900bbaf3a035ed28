"""The fine grids of a state, and what it sums by bucket for the jackknife."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fastxent.kernels.exact import rounded_ratio
from fastxent.options.config import EvalConfig
from fastxent.results.details import MOST_CLASSES
from fastxent.results.reliability import Reliability
from fastxent.results.values import Metric
from fastxent.scoring.class_sums import Summed
from fastxent.state import class_buckets, ranking
from fastxent.state.averages import AVERAGES, ENTROPY, MACRO, averages_of_each, entropy_of_each
from fastxent.state.binary import RANKING
from fastxent.state.buckets import BUCKET, Buckets
from fastxent.state.calibration import NEAR, figures, rare, reliability, without_drawn, without_each
from fastxent.state.class_table import ClassTable
from fastxent.state.classes import SUPPORT
from fastxent.state.clusters import Clusters
from fastxent.state.component import Component, Summands
from fastxent.state.confusion import FEW, Matrices, Matrix
from fastxent.state.grid import Grid
from fastxent.state.jackknife import MOST_SLICES, jackknifed, left_out
from fastxent.state.labels import Labels
from fastxent.state.metrics import CALIBRATION, FROM_GRID, RESOLVED, MetricPlan
from fastxent.state.multilabel import MultilabelPlan
from fastxent.state.scores import Scores
from fastxent.state.table import GroupTable

_DIVIDED = (CALIBRATION[0], *FROM_GRID)  # with intervals: a maximum has none that holds, its bias is that of noise
MOST_BUCKETED = 10_000  # classes that are counted in each bucket
_AT_ONCE = 256  # groups whose figures are computed together
_DRAWN_AT_ONCE = 16  # groups whose buckets are drawn together


class Grids:
    """The grid of each table, by column, and of the buckets of all rows, where rows are not alike.

    Rows are alike if they are independent and weigh the same. Their buckets are then drawn from the counts of a grid.

    paired: bool. Rows are those of one of two dumps, whose differences need the same buckets on both sides.
    """

    def __init__(
        self,
        config: EvalConfig,
        plan: MetricPlan,
        tables: Iterable[GroupTable],
        labels: Mapping[str | None, Labels],
        paired: bool = False,
    ) -> None:
        self.plan, self.buckets, self.class_weight = plan, config.jackknife, config.class_weight
        self._bins: dict[str | None, GroupTable | Labels] = {t.column: labels.get(t.column, t) for t in tables}
        wanted = plan.labelled and any(name in (*CALIBRATION, *FROM_GRID) for name in plan.names)
        self.of = {t.column: Grid(t) for t in tables} if wanted else {}
        multilabel = isinstance(plan, MultilabelPlan)  # the labels of a row depend on each other
        self._alike = not (plan.weighted or plan.clustered or multilabel)
        self._buckets = Buckets(self.buckets, config.bins)
        together = paired and not config.partial
        divided = bool(self.buckets) and plan.labelled and (together or not self._alike)
        ranked = divided and not multilabel and any(name in RANKING for name in plan.names)
        self.bucketed = {
            t.column: Grid(t, self._buckets)
            for t in tables
            if divided and wanted and (t.column is None or (plan.clustered and not plan.weighted and not multilabel))
        }
        self.scores = Scores(self._buckets) if ranked else None
        some = any(name in (AVERAGES if plan.clustered else MACRO) for name in plan.averages)
        averaged = bool(self.buckets) and some and not plan.weighted and config.n_classes <= MOST_BUCKETED
        counted = averaged and (paired or plan.clustered or config.n_classes > MOST_CLASSES)
        classed = [t for t in tables if counted and (paired or plan.clustered or t.column is None)]
        self.classes = {t.column: ClassTable(t, config.n_classes, False, self._buckets) for t in classed}
        self._made: dict[tuple[str, str | None, int], tuple[int, dict[str, np.ndarray]]] = {}  # see `_once`
        sliced = [t for t in tables if t.column is not None and averaged and self._alike and not paired]
        self.pairs = {t.column: Matrices(t, config.n_classes) for t in sliced if config.n_classes <= FEW}

    @property
    def components(self) -> dict[str, Component]:
        """All of them, by their names in a saved state. States of earlier versions have none."""
        found: dict[str, Component] = {} if self.scores is None else {"jackknife scores": self.scores}
        for name, grid in self.bucketed.items():
            found["jackknife grid" if name is None else f"jackknife grid by {name}"] = grid
        for name, classes in self.classes.items():
            found["jackknife classes" if name is None else f"jackknife classes by {name}"] = classes
        found |= {f"confusion by {name}": pairs for name, pairs in self.pairs.items()}
        return {**found, **{"grid" if name is None else f"grid by {name}": grid for name, grid in self.of.items()}}

    @property
    def divided(self) -> bool:
        """Whether rows are summed by bucket."""
        return self.scores is not None or bool(self.bucketed or self.classes)

    def divide(self, rows: Summands, clusters: Clusters) -> None:
        """Find the bucket of each row."""
        if self.divided:
            rows.by[BUCKET] = self._buckets.column_of(rows, clusters)

    def add_sums(self, rows: Summed) -> None:
        """Add rows that were summed when they were scored."""
        for grid in self.of.values():
            grid.add_words(rows.grid, rows.n)

    def _rows(self, column: str | None) -> np.ndarray:
        """(groups,) rows, or labels, of each group that have a bin."""
        bins = self._bins[column]
        found: np.ndarray = bins.binned.reshape(-1, self._buckets.bins).sum(axis=1)
        return found

    def check(self) -> None:
        """ValueError if a grid that was read holds more rows than there are."""
        if any((grid.held > self._rows(column)).any() for column, grid in self.of.items()):
            raise ValueError("more rows of a grid than there are")
        if any(grid.held.sum() > self._rows(column).sum() for column, grid in self.bucketed.items()):
            raise ValueError("more rows in buckets than there are")

    def doubts(self) -> list[str]:
        """Warnings about rows that came without a grid, and about cells that are too wide for a rare outcome."""
        wanted = [name for name in self.plan.names if name in RESOLVED]
        unresolved = {column: self._unresolved(column) for column in self.of} if wanted else {}
        found = [
            f"{', '.join(wanted)} are NaN for "
            + ("all rows" if column is None else f"{count} slices of {column!r}")
            + f": one outcome is so rare that most of its rows lie in {NEAR} of {len(self.of[column].layout.cells):,} "
            "cells of the confidence, which cannot tell them apart"
            for column, count in unresolved.items()
            if count
        ]
        names = [name for name in self.plan.names if name in FROM_GRID]
        if not names or all((grid.held == self._rows(column)).all() for column, grid in self.of.items()):
            return found
        return [
            *found,
            "some rows come from a state of an earlier version, which has no fine grid of the confidence; evaluate "
            f"them again for {', '.join(names)}",
        ]

    def _unresolved(self, column: str | None) -> int:
        """The number of groups whose cells are too wide for a rare outcome."""
        grid = self.of[column]
        groups = np.flatnonzero(grid.held == self._rows(column))
        parts = (groups[begin : begin + _AT_ONCE] for begin in range(0, len(groups), _AT_ONCE))
        return sum(int(rare(grid.moments(some), grid.layout).sum()) for some in parts)

    def reliability(self) -> Reliability | None:
        """The rows of the dump by cells of the confidence, if the grid holds all of them."""
        grid = self.of.get(None)
        if grid is None or not grid.rows.any() or (grid.held != self._rows(None)).any():
            return None
        return reliability(grid, 0)

    def add_metrics(self, column: str | None, found: list[dict[str, Metric]]) -> None:
        """Set the metrics of the grid of each group, with intervals. They stay NaN where it does not hold all rows."""
        grid = self.of.get(column)
        if grid is None:
            return
        known = grid.held == self._rows(column)
        names = [name for name in self.plan.names if name in FROM_GRID]
        order = grid.table.keys.order()  # the last bits of a Fourier transform depend on what it is computed beside
        for begin in range(0, len(found) if names else 0, _AT_ONCE):
            groups = order[begin : begin + _AT_ONCE]
            moments = grid.moments(groups)
            for name, values in figures(moments, grid.layout, names).items():
                for g, value in zip(groups.tolist(), values.tolist(), strict=True):
                    found[g][name] = Metric(value if known[g] else float("nan"))
        if self.buckets and len(found) <= MOST_SLICES:
            self._add_intervals(grid, order[known[order]].tolist(), found)

    def without_each(self, column: str | None = None, group: int = 0) -> dict[str, np.ndarray]:
        """The metrics of a group, then without each bucket that has rows there, by name: float64 (1 + K,)."""
        names = [name for name in _DIVIDED if name in self.plan.names]
        found = {**self._grid_without_each(column, group, names)}
        classes = self.classes.get(column)
        if classes is not None and classes.known:
            each = self._averages_without_each(classes, group)
            found |= {name: each[name] for name in self.plan.averages if name in MACRO}
        if self.scores is not None and column is None:
            ranked = self.scores.without_each()
            for name, figure in zip(RANKING, (ranking.roc_auc, ranking.average_precision), strict=True):
                if name in self.plan.names:
                    found[name] = np.array([figure(rows).value for rows in ranked])
        return found

    def _grid_without_each(self, column: str | None, group: int, names: list[str]) -> dict[str, np.ndarray]:
        """Metrics of the grid of a group, then without each of its buckets that has rows, if it holds all rows."""
        grid = self.bucketed.get(column)
        rows = 0 if grid is None or not grid.known else int(grid.rows[grid.buckets_of(group)].sum())
        if grid is None or not names or not rows or rows != self._rows(column)[group]:
            return {}
        return self._once(("grid", column, group), rows, lambda: without_each(grid, group, names))

    def _averages_without_each(self, classes: ClassTable, group: int) -> dict[str, np.ndarray]:
        """Averages over classes of a group, then without each bucket that has rows: float64 (1 + K,)."""
        key, rows = ("classes", classes.table.column, group), int(classes.by_bucket(group)[SUPPORT].sum())
        return self._once(key, rows, lambda: averages_of_each(class_buckets.without_each(classes, group)))

    def _once(
        self, key: tuple[str, str | None, int], rows: int, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """What ``make`` returns, made once for so many rows: a comparison needs it for a dump and the difference."""
        before, made = self._made.get(key, (-1, {}))
        if rows != before:
            made = make()
            self._made[key] = rows, made
        return made

    def add_averages(
        self, found: list[dict[str, Metric]], confusion: Component | None, table: GroupTable, clusters: Clusters
    ) -> None:
        """Give averages over classes of each group of a table the interval of the jackknife, where there is one.

        confusion: all rows by target and prediction, if they are counted.
        """
        if len(found) > MOST_SLICES:
            return
        classes, pairs = self.classes.get(table.column), self.pairs.get(table.column)
        if classes is not None and classes.known:
            for g, metrics in enumerate(found):
                _add_averages(metrics, self._averages_without_each(classes, g))
                if ENTROPY in metrics and self.plan.clustered and table.column is None:
                    support = class_buckets.without_each(classes, g)[SUPPORT]
                    losses = self._losses_of_each(classes, table, clusters)
                    each = losses / entropy_of_each(support, self.class_weight)
                    metrics[ENTROPY] = jackknifed(metrics[ENTROPY], each, 0.0, math.inf)
        elif pairs is not None and pairs.known:
            for g, metrics in enumerate(found):
                self._add_drawn(metrics, pairs.filled(g), pairs.n_classes)
        elif table.column is None and self._alike and self.buckets and isinstance(confusion, Matrix):
            if confusion.known:
                self._add_drawn(found[0], confusion.filled(), confusion.n_classes)

    def _add_drawn(self, metrics: dict[str, Metric], entries: tuple[np.ndarray, np.ndarray], n_classes: int) -> None:
        """Give averages over classes of a group of independent rows their intervals."""
        if any(name in MACRO for name in metrics):
            _add_averages(metrics, averages_of_each(class_buckets.without_drawn(entries, n_classes, self.buckets)))

    def _losses_of_each(self, classes: ClassTable, whole: GroupTable, clusters: Clusters) -> np.ndarray:
        """The mean loss of all rows, then without each bucket of clusters that has rows: float64 (1 + K,)."""
        assert self.plan.loss_columns is not None
        held = np.flatnonzero(classes.by_bucket(0)[SUPPORT].any(axis=1))
        buckets = self._buckets.of(clusters.hashes())
        sums = np.empty((len(held), 2))
        for k, bucket in enumerate(held.tolist()):
            totals, *_ = whole.sums.totals(np.flatnonzero(buckets == bucket))
            sums[k] = [rounded_ratio(totals[column], 1 << whole.sums.scale) for column in self.plan.loss_columns]
        upper, lower = left_out(sums).T
        found: np.ndarray = np.divide(upper, lower, out=np.full(len(upper), math.nan), where=lower != 0.0)
        return found

    def _add_intervals(self, grid: Grid, groups: list[int], found: list[dict[str, Metric]]) -> None:
        """Give the metrics of calibration of groups the intervals of the jackknife, where there are any."""
        names = [name for name in _DIVIDED if name in self.plan.names]
        without: dict[int, dict[str, np.ndarray]] = {}
        alike = [g for g in groups if self._alike and not grid.holds_sums(g)] if names else []
        for begin in range(0, len(alike), _DRAWN_AT_ONCE):
            some = alike[begin : begin + _DRAWN_AT_ONCE]
            without |= zip(some, without_drawn(grid, some, self.buckets, names), strict=True)
        for g in groups if names and not alike else []:
            without[g] = self._grid_without_each(grid.table.column, g, names)
        for g, figures_ in without.items():
            for name, values in figures_.items():
                found[g][name] = jackknifed(found[g][name], values)


def _add_averages(metrics: dict[str, Metric], each: dict[str, np.ndarray]) -> None:
    """Give averages over classes of one group of rows their intervals. each: see `averages_of_each`."""
    for name in MACRO:
        if name in metrics:
            low = -1.0 if name == "matthews_corrcoef" else 0.0
            metrics[name] = jackknifed(metrics[name], each[name], low)
