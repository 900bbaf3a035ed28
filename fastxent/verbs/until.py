"""`evaluate` with ``until=``: rounds of units in random order, and the intervals of a run that may stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastxent.engine.job import Job
from fastxent.engine.rounds import run_rounds
from fastxent.errors import ConfigError
from fastxent.results.result import EvalResult
from fastxent.results.until import Until
from fastxent.results.values import Metric
from fastxent.state.evaluation import EvalState
from fastxent.state.sequence import Rule, Running, anytime
from fastxent.verbs.evaluation import Evaluation

_REFUSED = {
    "resume": "a run that continues must not depend on where it was interrupted",
    "shard": "each shard would stop by itself",
    "per_row": "the file would hold some parts of the source, in random order",
}


def refuse_beside_until(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option that does not go with ``until``."""
    for name, why in _REFUSED.items():
        if options[name] is not None:
            raise ConfigError(f"until cannot be combined with {name}, because {why}; omit one of them")
    if options["engine"] != "local":
        raise ConfigError(
            f"until cannot be combined with engine={options['engine']!r}, because tasks of a cluster end in no fixed "
            "order; omit one of them"
        )


def run_until(
    job: Job[Evaluation], options: Mapping[str, Any], watch: Running | None
) -> tuple[EvalState, dict[str, Any], Until]:
    """(the state of the rows that were read, timing, how far the run read)."""
    rule = Rule(options["until"], job.recipe.empty())
    state, timing, read = run_rounds(job, options, rule, watch)
    how = rule.multiplier, rule.inflation
    units = read.units_read, read.units, options["seed"]
    return state, timing, Until(rule.condition.text, rule.held, read.checks, read.rows_read, read.rows, *units, *how)


def sequential(result: EvalResult, until: Until) -> EvalResult:
    """Return a result with the intervals of a run that may stop: its own if there was no look before the end."""

    def each(metrics: dict[str, Metric]) -> dict[str, Metric]:
        if not until.checks or not until.multiplier > 0.0:
            return metrics
        return {name: anytime(name, metric, until.multiplier, until.inflation) for name, metric in metrics.items()}

    slices = {
        column: {value: replace(part, metrics=each(part.metrics)) for value, part in values.items()}
        for column, values in result.slices.items()
    }
    return replace(result, metrics=each(result.metrics), slices=slices, until=until, state=None)
