"""Errors of rows that cannot be scored: the row, and the reason."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np

from fastxent.kernels.floats import widened
from fastxent.options.config import EvalConfig
from fastxent.scoring.lookalike import TOLERANCE
from fastxent.scoring.rows import BAD_TARGET
from fastxent.scoring.targets import Prepared, unsigned_column

LARGEST = {"probs": 1.0 + TOLERANCE, "log_probs": TOLERANCE}  # larger scores are errors, not rounding


def reason(config: EvalConfig, rows: Prepared, i: int, status: int, logits: np.ndarray, dtype: str) -> str:
    """What is wrong with row ``i`` of a batch, whose logits form a row."""
    if status == BAD_TARGET:
        found = bad_number(config, rows, i)
        if found is not None:
            return found
        if config.target is not None:
            return bad_target(rows.columns[config.target][i].as_py(), config.n_classes)
    return _bad_logits(widened(logits, dtype), config.input)


def bad_number(config: EvalConfig, rows: Prepared, i: int) -> str | None:
    """What is wrong with the weight, the number of bytes, the scores or the document of a row; None if nothing is."""
    from fastxent.io.values import numbers

    if i in rows.wrong:
        return rows.wrong[i]
    unsigned = unsigned_column(config)
    for name in (config.weight, config.n_bytes):
        if name is None:
            continue
        value = numbers(rows.columns[name].slice(i, 1), name)[0].as_py()
        if value is None or not math.isfinite(value) or (name == unsigned and value < 0):
            return f"column {name!r} is {'null' if value is None else value}"
    for name in config.scores:
        value = numbers(rows.columns[name].slice(i, 1), name)[0].as_py()
        if value is not None and math.isnan(value):
            return f"column {name!r} is nan"
    return None


def bad_target(value: object, n_classes: int) -> str:
    """What is wrong with a target."""
    if isinstance(value, list):
        return f"the target is not a list of {n_classes} probabilities"
    if isinstance(value, str):
        return f"target {value!r} is not among the classes"
    if isinstance(value, float | Decimal) and value % 1:
        return f"target {value} is not a whole number"
    return f"target {value} is outside the {n_classes} classes 0..{n_classes - 1}"


def _bad_logits(row: np.ndarray, input_: str) -> str:
    for found, name in ((np.isnan(row), "NaN"), (row == np.inf, "+inf")):
        if found.any():
            return f"logit {int(found.argmax())} is {name}"
    if input_ != "logits":
        outside = row > LARGEST[input_]
        outside |= (row < 0) & (input_ == "probs")
        if outside.any():
            what = "probability" if input_ == "probs" else "log-probability"
            return f"{what} {int(outside.argmax())} is {row[outside.argmax()]}"
    return "no logit is finite" if np.isneginf(row).all() else "the sum of the probabilities is not finite"
