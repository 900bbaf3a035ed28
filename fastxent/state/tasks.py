"""The metrics of each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from fastxent.errors import ConfigError
from fastxent.options.config import EvalConfig
from fastxent.results.curves import Curves
from fastxent.results.values import Metric
from fastxent.state import binary, metrics, multilabel, ranking, topk
from fastxent.state.class_table import ClassTable
from fastxent.state.classes import Classes
from fastxent.state.confusion import Matrix, Pairs, confusion_of
from fastxent.state.distribution import Distribution
from fastxent.state.extreme import Worst
from fastxent.state.jackknife import MOST_SLICES, jackknifed
from fastxent.state.labels import Labels
from fastxent.state.metrics import MetricPlan
from fastxent.state.scores import Scores
from fastxent.state.table import GroupTable
from fastxent.state.topk import Between, NoClasses, TopkPlan

_CURVES, _WITHOUT = "curves", "without"  # what is computed beside the metrics
_MANY = 1 << 16  # cells whose figures are worth a thread each

Detail = Matrix | Pairs | Worst


def plan_of(config: EvalConfig) -> MetricPlan:
    """What to sum under a configuration."""
    kinds = {"binary": binary.BinaryPlan, "multilabel": multilabel.MultilabelPlan}
    return (TopkPlan if config.partial else kinds.get(config.task, MetricPlan))(config)


def classes_of(config: EvalConfig, plan: MetricPlan) -> Classes:
    """The counts of each class."""
    return (NoClasses if config.open_classes else Classes)(config.n_classes, plan.weighted)


def class_tables_of(config: EvalConfig, plan: MetricPlan, tables: Iterable[GroupTable]) -> dict[str, ClassTable]:
    """The counts of each class in each slice, by column, if a metric needs them."""
    found = tables if plan.averages else ()
    return {str(table.column): ClassTable(table, config.n_classes, plan.weighted) for table in found}


def details_of(config: EvalConfig, plan: MetricPlan, worst: int, id: str | None) -> dict[str, Detail]:
    """What the result of an evaluation lists beside metrics, by the names of the components in a saved state."""
    found: dict[str, Detail] = {}
    if plan.labelled and config.task in ("multiclass", "binary") and not config.partial:
        found["confusion"] = confusion_of(config.n_classes)
    if not worst:
        return found
    if not (plan.labelled if config.partial else plan.losses):
        raise ConfigError(f"worst must be 0 for a dump without targets, which has no losses, got {worst}")
    return {**found, "worst": Worst(worst, id)}


def distribution_of(config: EvalConfig) -> Distribution:
    """The distribution of the NLL of a row."""
    return Between() if config.partial else Distribution()


def possible_metrics(options: Mapping[str, Any], task: str | None = None) -> list[str]:
    """The metrics that a dump of a task may have, or whose task is not known yet; ConfigError if no task has those
    asked for."""
    found: dict[str, None] = {}
    refused: list[ConfigError] = []
    partial = options.get("ids") is not None
    options = {**options, "input": "log_probs"} if partial else options
    known = options.get("target_logprob") is not None and not partial
    for kind in ("likelihood",) if known else ("multiclass", "binary")[: 2 - partial] if task is None else (task,):
        try:
            config = EvalConfig(n_classes=2 if kind == "binary" else 1, task=kind, **options)
            found |= dict.fromkeys([*plan_of(config).names, *config.scores])
        except ConfigError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return list(found)


def unlabelled(task: str) -> tuple[str, ...]:
    """The metrics that need no target. ``task``: or "topk", for rows that list their likeliest classes."""
    named = {"binary": binary.UNLABELLED, "multilabel": multilabel.UNLABELLED, "topk": topk.UNLABELLED}
    return named.get(task, metrics.UNLABELLED)


def labels_of(plan: MetricPlan, tables: Iterable[GroupTable]) -> dict[str | None, Labels]:
    """The labels of the groups of each table, by column, of a multilabel dump. Slices have them if a metric does."""
    if not isinstance(plan, multilabel.MultilabelPlan):
        return {}
    each = any(name in (*multilabel.MACRO, *metrics.CALIBRATION, *metrics.FROM_GRID) for name in plan.names)
    return {table.column: Labels(plan, table) for table in tables if each or table.column is None}


def ranking_of(plan: MetricPlan, tables: Iterable[GroupTable]) -> dict[str | None, Scores]:
    """The scores of the groups of each table, by column, if a metric needs them."""
    ranking_names = {*binary.RANKING, *multilabel.RANKING}
    wanted = plan.labelled and any(name in ranking_names for name in plan.names)
    labels = plan.labels if isinstance(plan, multilabel.MultilabelPlan) else None
    return {table.column: Scores(table, labels) for table in tables} if wanted else {}


def ranking_metrics(
    plan: MetricPlan,
    found: list[dict[str, Metric]],
    scores: Scores | None,
    apart: Scores | None,
    buckets: int,
    threads: int,
) -> tuple[list[dict[str, Metric]], Curves | None]:
    """(the metrics of each group with those of its ranking, the curves if there is one group without a column).

    apart: the scores by bucket, where rows are not alike. buckets: of the jackknife; 0: there is none.
    threads: how many the figures of all rows may be computed by.
    """
    if scores is None:
        return found, None
    make = ranking.roc_auc, ranking.average_precision
    ranked = scores.ranked()
    if plan.clustered:  # rows are not independent
        ranked = [rows._replace(counted=False) for rows in ranked]
    names = binary.RANKING if scores.labels is None else multilabel.RANKING
    chosen = [(name, figure) for name, figure in zip(names, make, strict=True) if name in plan.names]
    if scores.labels is None:
        curves = None
        for group, rows in zip(found, ranked, strict=True):
            calls: dict[str, Callable[[], Any]] = {name: partial(figure, rows) for name, figure in chosen}
            if scores.whole:
                calls[_CURVES] = partial(ranking.curves, rows)
            divided = buckets if len(found) <= MOST_SLICES else 0
            if divided and apart is None and rows.counted and "average_precision" in calls:  # it has no other interval
                calls[_WITHOUT] = partial(ranking.without_buckets, rows, buckets)
            done = ranking.together(calls, threads if len(rows.keys) > _MANY else 1)
            curves, without = done.pop(_CURVES, None), done.pop(_WITHOUT, None)
            group.update(done)
            if divided:
                _add_intervals(group, rows, apart, buckets, dict(chosen), without)
        return found, curves
    for g, group in enumerate(found):
        mine = ranked[g * scores.labels : (g + 1) * scores.labels]
        group.update({name: multilabel.mean_over_labels([*map(figure, mine)]) for name, figure in chosen})
    return found, None


def _add_intervals(
    group: dict[str, Metric],
    rows: ranking.Ranked,
    apart: Scores | None,
    buckets: int,
    figures: Mapping[str, Callable[[ranking.Ranked], Metric]],
    without: list[ranking.Ranked] | None,
) -> None:
    """Give the ranking metrics of a group that have no interval that of the jackknife. without: the rows without each
    bucket, if they are known."""
    open_ = {name: figure for name, figure in figures.items() if group[name].method is None}
    if not open_ or (apart is None and not rows.counted):
        return
    if without is None:
        without = ranking.without_buckets(rows, buckets) if apart is None else apart.without_each()
    for name, figure in open_.items():
        group[name] = jackknifed(group[name], [figure(rest).value for rest in without])
