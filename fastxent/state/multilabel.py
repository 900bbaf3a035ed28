"""The metrics of a multilabel dump: means over rows and labels, and means over labels of what each label has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from fastxent.options.config import EvalConfig
from fastxent.results.values import Metric
from fastxent.scoring.rows import MultilabelRows, ScoredRows
from fastxent.state.metrics import (
    BRIER,
    CALIBRATION,
    ENTROPY,
    FROM_GRID,
    LOSS,
    ROWS,
    Column,
    Mean,
    MetricPlan,
    selection,
)  # fmt: skip

UNLABELLED = ("entropy",)  # metrics that need no target
MACRO = ("macro_precision", "macro_recall", "macro_f1")  # metrics of `state.labels`
RANKING = ("macro_roc_auc", "mean_average_precision")  # metrics of `state.scores`


def _rows(rows: ScoredRows) -> MultilabelRows:
    return cast(MultilabelRows, rows)


COUNTED = Column("labels", lambda rows: _rows(rows).counted, labelled=False, shared=True)
RIGHT = Column("right", lambda rows: _rows(rows).counted - _rows(rows).held - rows.predicted + 2.0 * _rows(rows).both)
EXACT = Column("exact", lambda rows: (rows.rank == 0).astype(float), indicator=True)
HELD = Column("held", lambda rows: _rows(rows).held, shared=True)
CALLED = Column("called", lambda rows: _rows(rows).calls)
BOTH = Column("both", lambda rows: _rows(rows).both)
TWICE = Column("2 both", lambda rows: 2.0 * _rows(rows).both)
EITHER = Column("held + called", lambda rows: _rows(rows).held + _rows(rows).calls)

MEANS = (
    Mean("cross_entropy", LOSS, COUNTED),
    Mean("cross_entropy_bits", LOSS, COUNTED, bits=True),
    Mean("accuracy", RIGHT, COUNTED),
    Mean("exact_match", EXACT, ROWS),
    Mean("micro_precision", BOTH, CALLED),
    Mean("micro_recall", BOTH, HELD),
    Mean("micro_f1", TWICE, EITHER),
    Mean("brier_score", BRIER, COUNTED),
    Mean("entropy", ENTROPY, COUNTED),
)
NAMES = (
    "cross_entropy", "cross_entropy_bits", "accuracy", "exact_match", "micro_precision", "micro_recall", "micro_f1",
    *MACRO, *RANKING, "brier_score", "entropy", *CALIBRATION, *FROM_GRID,
)  # fmt: skip


class MultilabelPlan(MetricPlan):
    """What to sum for the metrics of a multilabel dump. Those of `MACRO` and `RANKING` follow from other parts."""

    def __init__(self, config: EvalConfig) -> None:
        self.labels = config.n_classes
        self.names = selection(config, list(NAMES), UNLABELLED)
        self.labelled = self.losses = config.target is not None
        self._choose(config, [mean for mean in MEANS if mean.name in self.names])


def mean_over_labels(found: Sequence[Metric]) -> Metric:
    """The mean of a metric over the labels that have it, within the mean of its bounds."""
    have = [metric for metric in found if not math.isnan(metric.value)]
    if not have:
        return Metric(math.nan)
    value = math.fsum(metric.value for metric in have) / len(have)
    if all(metric.bounds is None for metric in have):
        return Metric(value)
    each = [metric.bounds or (metric.value, metric.value) for metric in have]
    low, high = (math.fsum(side) / len(have) for side in zip(*each, strict=True))
    return Metric(value, bounds=(min(low, value), max(high, value)))
