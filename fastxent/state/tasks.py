"""The metrics of each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastxent.errors import ConfigError
from fastxent.options.config import EvalConfig
from fastxent.results.curves import Curves
from fastxent.results.values import Metric
from fastxent.state import binary, metrics, ranking
from fastxent.state.metrics import Plan
from fastxent.state.scores import Scores
from fastxent.state.table import Table


def plan_of(config: EvalConfig) -> Plan:
    """What to sum under a configuration."""
    return binary.BinaryPlan(config) if config.task == "binary" else Plan(config)


def possible_metrics(options: Mapping[str, Any]) -> list[str]:
    """The metrics that a dump whose task is not known yet may have; ConfigError if no task has those asked for."""
    found: dict[str, None] = {}
    refused: list[ConfigError] = []
    tasks = [("multiclass", 1), ("binary", 2)] if options.get("target_logprob") is None else [("likelihood", 1)]
    for task, n_classes in tasks:
        try:
            config = EvalConfig(n_classes=n_classes, task=task, **options)
            found |= dict.fromkeys([*plan_of(config).names, *config.scores])
        except ConfigError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return list(found)


def unlabelled(task: str) -> tuple[str, ...]:
    """The metrics that need no target."""
    return binary.UNLABELLED if task == "binary" else metrics.UNLABELLED


def ranking_of(plan: Plan, tables: Iterable[Table]) -> dict[str | None, Scores]:
    """The scores of the groups of each table, by column, if a metric needs them."""
    wanted = plan.labelled and any(name in binary.RANKING for name in plan.names)
    return {table.column: Scores(table) for table in tables} if wanted else {}


def ranking_figures(
    plan: Plan, found: list[dict[str, Metric]], scores: Scores | None
) -> tuple[list[dict[str, Metric]], Curves | None]:
    """(the metrics of each group with those of its ranking, the curves if there is one group without a column)."""
    if scores is None:
        return found, None
    made = {"roc_auc": ranking.roc_auc, "average_precision": ranking.average_precision}
    ranked = scores.ranked()
    if plan.clustered:  # rows are not independent
        ranked = [rows._replace(counted=False) for rows in ranked]
    chosen = [name for name in binary.RANKING if name in plan.names]
    for group, rows in zip(found, ranked, strict=True):
        group.update({name: made[name](rows) for name in chosen})
    return found, ranking.curves(ranked[0]) if scores.whole else None
