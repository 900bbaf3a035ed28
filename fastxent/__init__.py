"""fastxent: cross-entropy and every figure that can be read off the same logits, in one pass.

Public names are resolved on first use: ``import fastxent`` loads neither numba nor pyarrow.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastxent._version import __version__

_HOME = {
    name: module
    for module, names in {
        "fastxent.softmaxes": ("log_softmax", "softmax", "logsumexp"),
        "fastxent.crossentropy": ("cross_entropy", "cross_entropy_with_grad", "nll_loss", "LossAndGrad"),
        "fastxent.losses": ("log_loss", "focal_loss"),
        "fastxent.records": ("entropy", "row_statistics", "RowStatistics"),
        "fastxent.binary": (
            "binary_cross_entropy", "binary_cross_entropy_with_grad",
            "binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits_with_grad",
        ),
        "fastxent.divergence": ("kl_divergence", "js_divergence"),
        "fastxent.threads": ("get_num_threads", "set_num_threads"),
        "fastxent.evaluate": ("evaluate",),
        "fastxent.plan": ("plan", "merge_states", "WorkUnit"),
        "fastxent.transform": ("transform",),
        "fastxent.convert": ("convert",),
        "fastxent.conversion": ("Conversion", "Rounding"),
        "fastxent.config": ("EvalConfig",),
        "fastxent.state": ("EvalState",),
        "fastxent.result": ("EvalResult", "Metric"),
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


class _Package(ModuleType):
    """Keeps ``fastxent.evaluate`` the function when the module of that name is imported.

    The import system binds a submodule as an attribute of its package, over whatever stands there.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


if TYPE_CHECKING:
    from fastxent.binary import (
        binary_cross_entropy as binary_cross_entropy,
        binary_cross_entropy_with_grad as binary_cross_entropy_with_grad,
        binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
        binary_cross_entropy_with_logits_with_grad as binary_cross_entropy_with_logits_with_grad,
    )
    from fastxent.config import EvalConfig as EvalConfig
    from fastxent.conversion import Conversion as Conversion, Rounding as Rounding
    from fastxent.convert import convert as convert
    from fastxent.crossentropy import (
        LossAndGrad as LossAndGrad,
        cross_entropy as cross_entropy,
        cross_entropy_with_grad as cross_entropy_with_grad,
        nll_loss as nll_loss,
    )
    from fastxent.divergence import js_divergence as js_divergence, kl_divergence as kl_divergence
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
    from fastxent.evaluate import evaluate as evaluate
    from fastxent.losses import focal_loss as focal_loss, log_loss as log_loss
    from fastxent.plan import WorkUnit as WorkUnit, merge_states as merge_states, plan as plan
    from fastxent.records import RowStatistics as RowStatistics, entropy as entropy, row_statistics as row_statistics
    from fastxent.result import EvalResult as EvalResult, Metric as Metric
    from fastxent.softmaxes import log_softmax as log_softmax, logsumexp as logsumexp, softmax as softmax
    from fastxent.state import EvalState as EvalState
    from fastxent.threads import get_num_threads as get_num_threads, set_num_threads as set_num_threads
    from fastxent.transform import transform as transform
