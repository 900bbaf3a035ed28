"""Scores: numbers that the dump itself holds, such as the metrics of another program. The mean of each has an error.

A score may be null in rows that are used. So each score has tables of its own, in which such a row is ignored: one of
all rows, and one for each ``by`` column.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from fastxent.errors import ConfigError
from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.rows import IGNORED
from fastxent.state.metrics import NLL, ROWS, Mean, Plan
from fastxent.state.part import Summands
from fastxent.state.table import Table


class ScorePlan(Plan):
    """What to sum for the mean of one score, which stands in the place of the rows' NLL."""

    def __init__(self, config: EvalConfig, name: str) -> None:
        self.names, self.labelled, self.losses = [name], False, False
        self._choose(config, [Mean(name, NLL, ROWS)])


class ScoreTable(Table):
    """The counts and sums of one score."""

    def __init__(self, plan: Plan, score: str, column: str | None) -> None:
        super().__init__(plan, 1, column)
        self.score = score

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
        chosen = replace(rows.rows.select(there), nll=values[there])
        summands = Summands.of(self.plan, chosen, status, mask, rows.by)
        summands.clusters = None if rows.clusters is None else rows.clusters[there]
        super().add(summands)

    def figures(self) -> dict[str, Metric]:
        """The mean of each group, by its key."""
        places = self.by_group()
        return {
            key: self.plan.figures(self.sums_of(group, places[group]), self.bins_of(group))[self.score]
            for group, key in enumerate(self.keys.names)
        }


def score_tables(config: EvalConfig, plan: Plan) -> list[ScoreTable]:
    """The tables of all scores. ``plan``: of the other metrics, whose names are taken."""
    for name in config.scores:
        if name in plan.names:
            raise ConfigError(f"scores must not name a metric, got {name!r}; rename the column, or choose metrics")
    return [
        ScoreTable(ScorePlan(config, name), name, column) for name in config.scores for column in (None, *config.by)
    ]
