"""Fewer cases than all combinations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any


def pairwise(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Combinations of one value of each axis, so chosen that every two values of two axes occur together in one."""
    places = [range(len(axis)) for axis in axes]
    left = {(a, i, b, j) for a, b in itertools.combinations(range(len(axes)), 2) for i in places[a] for j in places[b]}
    chosen = []
    while left:
        best = max(itertools.product(*places), key=lambda case: len(left & _pairs(case)))
        left -= _pairs(best)
        chosen.append(tuple(axis[k] for axis, k in zip(axes, best, strict=True)))
    return chosen


def _pairs(case: tuple[int, ...]) -> set[tuple[int, int, int, int]]:
    return {(a, case[a], b, case[b]) for a, b in itertools.combinations(range(len(case)), 2)}
