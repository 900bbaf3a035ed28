"""What `transform` writes of a binary or multilabel dump: the probability or the gradient of the loss, by number."""

from __future__ import annotations

import numpy as np

from fastxent.errors import ConfigError
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.kernels.matrix import address_of
from fastxent.kernels.rows import odds
from fastxent.kernels.rows.arguments import Elements
from fastxent.kernels.rows.binary import binary_kernel
from fastxent.options.config import EvalConfig
from fastxent.scoring.clip import bounds_of
from fastxent.scoring.rounding import round_to
from fastxent.scoring.rows import BAD_LOGITS, IGNORED, USED, KeptOdds, ScoredRows


def check_output(output: str, task: str) -> None:
    """Raise ConfigError for an output that a dump of log-odds does not have."""
    if output == "log_softmax":
        raise ConfigError(
            f"output must be 'softmax' or 'grad' for a {task} dump, got 'log_softmax'; 'softmax' writes the "
            f"probability of {'the positive class' if task == 'binary' else 'each label'}"
        )


def emitted(rows: ScoredRows, config: EvalConfig, output: str, scale: float, dtype: str) -> tuple[np.ndarray, int]:
    """(the numbers of the result in ``dtype``, how many of them became infinite by rounding).

    The probability of the positive class, or of each label; or the gradient of the loss with respect to the log-odds,
    (p - y)·w·scale, or to the probability, if the dump holds probabilities. They are computed in the wider of both
    float types.
    """
    kept = rows.kept
    assert isinstance(kept, KeptOdds)
    values = kept.values.astype(np.float64) if dtype == "float64" else kept.values
    if config.temperature != 1.0:
        with np.errstate(over="ignore"):
            values = values / values.dtype.type(config.temperature)
    exact = _gradient(rows, kept, config, values, scale) if output == "grad" else _probability(config, values)
    bad = rows.status >= BAD_LOGITS if output == "grad" else rows.status == BAD_LOGITS
    exact[bad] = np.nan
    rounded = round_to(exact, dtype)
    infinite = (rounded & 0x7FFF) == 0x7F80 if dtype == "bfloat16" else np.isinf(rounded)
    return rounded, int((infinite & np.isfinite(exact)).sum())


def _probability(config: EvalConfig, values: np.ndarray) -> np.ndarray:
    record = np.empty((odds.FIELDS, values.size))
    kernel, tag = odds.odds_kernel(config.input == "logits"), FLOAT_TYPES[str(values.dtype)].tag
    kernel(address_of(values), values.size, tag, 0, 0.0, address_of(record), record.strides[0])
    found: np.ndarray = record[odds.PROBABILITY].reshape(values.shape)
    return found


def _gradient(rows: ScoredRows, kept: KeptOdds, config: EvalConfig, values: np.ndarray, scale: float) -> np.ndarray:
    shape, real = values.shape, values.dtype
    bounds = bounds_of(config.clip_eps, config.input)
    shaped = values if bounds is None else np.clip(values, *bounds)
    target = kept.positive.astype(real)
    weight = None
    if rows.weight is not None:
        weight = np.where(rows.status == USED, rows.weight, 0.0).astype(real)
        weight = np.repeat(weight, values.size // max(1, len(values)))
    loss, grad = np.empty(shape), np.empty(shape, real)
    kernel, tag = binary_kernel(config.input == "logits", True, True), FLOAT_TYPES[str(real)].tag
    given = Elements(
        address_of(shaped), tag, address_of(target), address_of(weight), 0, config.label_smoothing,
        scale / config.temperature, address_of(loss), address_of(grad),
    )  # fmt: skip
    kernel(values.size, tuple(given))
    grad[np.isnan(target)] = 0.0  # ignored labels
    if bounds is not None:  # what is held at a bound does not move the loss
        grad[shaped != values] = 0.0
    grad[rows.status == IGNORED] = 0.0
    if scale != scale:  # no mean, so no gradient
        grad[rows.status != IGNORED] = np.nan
    return grad
