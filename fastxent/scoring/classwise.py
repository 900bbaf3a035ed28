"""The gaps of each class between its probability and its frequency, summed while the logits are at hand."""

from __future__ import annotations

import numpy as np

from fastxent.errors import ConfigError
from fastxent.kernels.classwise import add_class_gaps
from fastxent.kernels.launch import RowOptions
from fastxent.kernels.matrix import Matrix
from fastxent.options.config import EvalConfig
from fastxent.scoring import soft
from fastxent.scoring.rows import USED, ClassGaps
from fastxent.scoring.targets import Prepared

CLASSWISE = "classwise_calibration_error"
MOST_CLASSES = 10_000


def check_classwise(config: EvalConfig) -> None:
    """Raise ConfigError if the classwise calibration error is named and not possible."""
    if CLASSWISE not in config.metrics:
        return
    if config.n_classes > MOST_CLASSES:
        raise ConfigError(f"metric {CLASSWISE!r} requires at most {MOST_CLASSES:,} classes, got {config.n_classes:,}")
    if config.weight is not None:
        raise ConfigError(f"metric {CLASSWISE!r} cannot be combined with weight, because it counts rows; omit weight")


def empty_gaps(config: EvalConfig, prepared: Prepared) -> ClassGaps | None:
    """Return the gaps of no rows, if they are wanted."""
    if CLASSWISE not in config.metrics:
        return None
    if prepared.soft is not None:
        raise ConfigError(f"metric {CLASSWISE!r} requires class ids as targets, got probabilities; omit the metric")
    return ClassGaps(np.zeros((config.n_classes, config.bins), np.int64))


def add_rows(gaps: ClassGaps, matrix: Matrix, target: np.ndarray, status: np.ndarray, options: RowOptions) -> None:
    """Add the used rows of a matrix of scores."""
    for some, p in soft.probabilities(matrix, options):
        add_class_gaps(p, target[some], status[some] == USED, gaps.sums.shape[1], gaps.sums)
