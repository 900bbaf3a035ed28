"""Differences of scores, numbers that two dumps hold themselves: each has tables of its own, as in `given`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastxent.options.config import EvalConfig
from fastxent.results.comparison import MetricComparison
from fastxent.scoring.pairs import pair_rows
from fastxent.scoring.rows import ScoredRows
from fastxent.state.apart import FlipTable
from fastxent.state.component import Summands
from fastxent.state.differences import PairPlan, of_second
from fastxent.state.given import ScorePlan, ScoreTable
from fastxent.state.metrics import MetricPlan, Sums
from fastxent.state.table import GroupTable


class PairScorePlan(PairPlan, ScorePlan):
    """What to sum for one score of two dumps."""

    def __init__(self, config: EvalConfig, name: str) -> None:
        ScorePlan.__init__(self, config, name)
        self._pair([])

    def change(self, sums: Sums) -> tuple[int, int]:
        """The sum of b - a, and that of its squares by cluster; 0 if these are not finite."""
        u = self._index[self.means[0].column.name]
        v = self._index[of_second(self.means[0].column).name]
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
        chosen, second = super()._scored(rows, there), super()._scored(pair_rows(rows).second, there)
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
