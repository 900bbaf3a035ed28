"""Scores: numbers that the dump itself holds, such as the metrics of another program. The mean of each has an error.

A score may be null in rows that are used. So each score has tables of its own, in which such a row is ignored: one of
all rows, and one for each ``by`` column.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TypeVar

import numpy as np

from fastxent.errors import ConfigError
from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.rows import IGNORED, ScoredRows
from fastxent.state.component import Summands
from fastxent.state.intervals import by_wilson
from fastxent.state.metrics import NLL, ROWS, Mean, MetricPlan
from fastxent.state.packed import stored_counts
from fastxent.state.table import GroupTable


class ScorePlan(MetricPlan):
    """What to sum for the mean of one score, which stands in the place of the rows' NLL."""

    def __init__(self, config: EvalConfig, name: str) -> None:
        self.names, self.labelled, self.losses = [name], False, False
        self._choose(config, [Mean(name, NLL, ROWS)])


class ScoreTable(GroupTable):
    """The counts and sums of one score."""

    def __init__(self, config: EvalConfig, score: str, column: str | None) -> None:
        super().__init__(self._plan_of(config, score), 1, column)
        self.score = score
        self.others = 0  # values that are neither 0 nor 1; without any, the mean is a rate

    @staticmethod
    def _plan_of(config: EvalConfig, score: str) -> MetricPlan:
        return ScorePlan(config, score)

    def _scored(self, rows: ScoredRows, there: np.ndarray) -> ScoredRows:
        """The rows of a mask, with the score in the place of the NLL."""
        return replace(rows.select(there), nll=rows.scores[self.score][there])

    @property
    def name(self) -> str:
        """Its name in a saved state."""
        return f"score {json.dumps([self.score, self.column])}"

    def add(self, rows: Summands) -> None:
        """Add the rows in which the score is not null."""
        values = rows.rows.scores[self.score]
        there = ~np.isnan(values)
        mask = rows.mask.copy()
        mask[rows.mask] = there
        status = np.where(rows.mask & ~mask, IGNORED, rows.status)
        chosen = self._scored(rows.rows, there)
        summands = Summands.of(self.plan, chosen, status, mask, rows.by)
        summands.clusters = None if rows.clusters is None else rows.clusters[there]
        self._sum(summands)

    def _sum(self, rows: Summands) -> None:
        super().add(rows)
        self.others += int(((rows.rows.nll != 0.0) & (rows.rows.nll != 1.0)).sum())

    def absorb(self, other: GroupTable, clusters: np.ndarray) -> None:
        """Add another table."""
        assert isinstance(other, ScoreTable)
        super().absorb(other, clusters)
        self.others += other.others

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store."""
        return {**super().arrays(clusters), "others": np.array([self.others])}

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit."""
        super().load(arrays, keys, clusters)
        self.others = int(stored_counts(arrays, "others", 1)[0])

    def means(self) -> dict[str, Metric]:
        """The mean of each group, by its key."""
        places = self.by_group()
        return {key: self._figure(group, places[group]) for group, key in enumerate(self.keys.names)}

    def _figure(self, group: int, places: np.ndarray) -> Metric:
        sums = self.sums_of(group, places)
        mean = self.plan.metrics_of(sums, self.bins_of(group))[self.score]
        if self.others:
            return mean
        rows = None if self.plan.weighted or self.plan.clustered else float(sums.units)
        return by_wilson(mean.value, mean.stderr, sums.units, rows)


T = TypeVar("T", bound=ScoreTable)


def score_tables(config: EvalConfig, plan: MetricPlan, kind: type[T]) -> list[T]:
    """The tables of all scores, of one ``kind``. ``plan``: of the other metrics, whose names are taken."""
    for name in config.scores:
        if name in plan.names:
            raise ConfigError(f"scores must not name a metric, got {name!r}; rename the column, or choose metrics")
    return [kind(config, name, column) for name in config.scores for column in (None, *config.by)]
