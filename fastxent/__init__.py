"""fastxent: cross-entropy and every other metric of logits, in one pass.

Public names are resolved on first use: ``import fastxent`` loads neither numba nor pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastxent._version import __version__

_HOME = {
    name: module
    for module, names in {
        "fastxent.functions.softmaxes": ("log_softmax", "softmax", "logsumexp"),
        "fastxent.functions.crossentropy": ("cross_entropy", "cross_entropy_with_grad", "nll_loss", "LossAndGrad"),
        "fastxent.functions.losses": ("log_loss", "focal_loss"),
        "fastxent.functions.row_statistics": ("entropy", "row_statistics", "RowStatistics"),
        "fastxent.functions.binary": (
            "binary_cross_entropy", "binary_cross_entropy_with_grad",
            "binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits_with_grad",
        ),
        "fastxent.functions.divergence": ("kl_divergence", "js_divergence"),
        "fastxent.engine.pool": ("get_num_threads", "set_num_threads"),
        "fastxent.verbs.evaluate": ("evaluate",),
        "fastxent.verbs.compare": ("compare",),
        "fastxent.verbs.compare_many": ("compare_many",),
        "fastxent.engine.units": ("WorkUnit",),
        "fastxent.verbs.plan": ("plan", "merge_states"),
        "fastxent.verbs.transform": ("transform",),
        "fastxent.verbs.convert": ("convert",),
        "fastxent.verbs.calibrate": ("fit_temperature",),
        "fastxent.options.config": ("EvalConfig",),
        "fastxent.state.evaluation": ("EvalState",),
        "fastxent.state.comparison": ("CompareState",),
        "fastxent.state.comparisons": ("ComparisonsState",),
        "fastxent.results.result": ("EvalResult",),
        "fastxent.results.compare": ("CompareResult",),
        "fastxent.results.compare_many": ("CompareSet",),
        "fastxent.results.comparison": (
            "ChangedRow", "Compared", "ComparedRows", "ConfidenceBucket", "Divergence", "Flips", "MetricComparison",
            "RankChange", "TargetProbability",
        ),
        "fastxent.results.values": ("Metric",),
        "fastxent.results.conversion": ("Conversion", "Rounding"),
        "fastxent.results.fitted": ("TemperatureFit",),
        "fastxent.results.temperature": ("TemperatureSlice",),
        "fastxent.errors": (
            "FastxentError", "SourceError", "ColumnError", "ConfigError", "StateError", "OutputError", "EngineError",
            "BadRowError",
        ),
    }.items()
    for name in names
}  # fmt: skip

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastxent' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from fastxent.engine.pool import get_num_threads as get_num_threads, set_num_threads as set_num_threads
    from fastxent.engine.units import WorkUnit as WorkUnit
    from fastxent.errors import (
        BadRowError as BadRowError,
        ColumnError as ColumnError,
        ConfigError as ConfigError,
        EngineError as EngineError,
        FastxentError as FastxentError,
        OutputError as OutputError,
        SourceError as SourceError,
        StateError as StateError,
    )
    from fastxent.functions.binary import (
        binary_cross_entropy as binary_cross_entropy,
        binary_cross_entropy_with_grad as binary_cross_entropy_with_grad,
        binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
        binary_cross_entropy_with_logits_with_grad as binary_cross_entropy_with_logits_with_grad,
    )  # fmt: skip
    from fastxent.functions.crossentropy import (
        LossAndGrad as LossAndGrad,
        cross_entropy as cross_entropy,
        cross_entropy_with_grad as cross_entropy_with_grad,
        nll_loss as nll_loss,
    )  # fmt: skip
    from fastxent.functions.divergence import js_divergence as js_divergence, kl_divergence as kl_divergence
    from fastxent.functions.losses import focal_loss as focal_loss, log_loss as log_loss
    from fastxent.functions.row_statistics import (
        RowStatistics as RowStatistics,
        entropy as entropy,
        row_statistics as row_statistics,
    )  # fmt: skip
    from fastxent.functions.softmaxes import log_softmax as log_softmax, logsumexp as logsumexp, softmax as softmax
    from fastxent.options.config import EvalConfig as EvalConfig
    from fastxent.results.compare import CompareResult as CompareResult
    from fastxent.results.compare_many import CompareSet as CompareSet
    from fastxent.results.comparison import (
        ChangedRow as ChangedRow,
        Compared as Compared,
        ComparedRows as ComparedRows,
        ConfidenceBucket as ConfidenceBucket,
        Divergence as Divergence,
        Flips as Flips,
        MetricComparison as MetricComparison,
        RankChange as RankChange,
        TargetProbability as TargetProbability,
    )
    from fastxent.results.conversion import Conversion as Conversion, Rounding as Rounding
    from fastxent.results.fitted import TemperatureFit as TemperatureFit
    from fastxent.results.result import EvalResult as EvalResult
    from fastxent.results.temperature import TemperatureSlice as TemperatureSlice
    from fastxent.results.values import Metric as Metric
    from fastxent.state.comparison import CompareState as CompareState
    from fastxent.state.comparisons import ComparisonsState as ComparisonsState
    from fastxent.state.evaluation import EvalState as EvalState
    from fastxent.verbs.calibrate import fit_temperature as fit_temperature
    from fastxent.verbs.compare import compare as compare
    from fastxent.verbs.compare_many import compare_many as compare_many
    from fastxent.verbs.convert import convert as convert
    from fastxent.verbs.evaluate import evaluate as evaluate
    from fastxent.verbs.plan import merge_states as merge_states, plan as plan
    from fastxent.verbs.transform import transform as transform
