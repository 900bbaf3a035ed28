"""Adjustment of p-values for their number."""

from __future__ import annotations


def holm(p_values: list[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979). NaN stays NaN and does not count."""
    known = sorted((p, k) for k, p in enumerate(p_values) if p == p)
    found, least = list(p_values), 0.0
    for rank, (p, k) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        found[k] = least
    return found
