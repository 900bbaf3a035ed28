"""The metrics of each task."""

from __future__ import annotations

from fastxent.options.config import EvalConfig
from fastxent.state import binary, metrics
from fastxent.state.metrics import Plan


def plan_of(config: EvalConfig) -> Plan:
    """What to sum under a configuration."""
    return binary.BinaryPlan(config) if config.task == "binary" else Plan(config)


def unlabelled(task: str) -> tuple[str, ...]:
    """The metrics that need no target."""
    return binary.UNLABELLED if task == "binary" else metrics.UNLABELLED
