"""The state of one of several dumps, or temperatures, that are evaluated together."""

from __future__ import annotations

from fastxent.options.config import EvalConfig
from fastxent.state.evaluation import EvalState
from fastxent.state.metrics import MetricPlan
from fastxent.state.tasks import Detail


class SideState(EvalState):
    """A state whose result does not show the details of an evaluation, so that they are not kept."""

    @staticmethod
    def _details_of(config: EvalConfig, plan: MetricPlan, worst: int, id: str | None) -> dict[str, Detail]:
        return {}


class PairedState(SideState):
    """The state of one of two dumps of the same rows."""

    paired = True
