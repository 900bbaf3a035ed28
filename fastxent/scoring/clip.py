"""The bounds that ``clip_eps`` holds probabilities and log-probabilities in."""

from __future__ import annotations

import math


def bounds_of(eps: float | None, input: str) -> tuple[float, float] | None:
    """Return [eps, 1 - eps] on the scale of the scores; None for no ``eps``.

    >>> bounds_of(0.25, "probs"), bounds_of(0.0, "log_probs"), bounds_of(None, "logits")
    ((0.25, 0.75), (-inf, -0.0), None)
    """
    if eps is None:
        return None
    if input == "log_probs":
        return math.log(eps) if eps else -math.inf, math.log1p(-eps)
    return eps, 1.0 - eps
