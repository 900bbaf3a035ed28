"""Values of results: when two of them are equal."""

from __future__ import annotations

import math

from fastxent.results.conversion import Rounding
from fastxent.results.values import Calibration, Metric, RowCounts, Slice


def nan() -> float:
    return float("nan")  # an object of its own: Python takes a container to be equal to itself, but not a NaN


def test_nan_equals_nan() -> None:
    one, two = (Metric(0.5, nan(), (nan(), nan())) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert Metric(nan()) == Metric(nan())
    assert Metric(nan()) != Metric(0.5)
    assert Metric(0.5, 0.1) != Metric(0.5, 0.2)
    bins = [Calibration((0.0,), (1.0,), (0,), (nan(),), (nan(),)) for _ in range(2)]
    assert bins[0] == bins[1]
    slices = [Slice(RowCounts(1, 1, 0, 0), {"accuracy": Metric(nan())}) for _ in range(2)]
    assert slices[0] == slices[1]
    assert slices[0] != Slice(RowCounts(2, 2, 0, 0), {"accuracy": Metric(nan())})
    costs = [Rounding(0.0, 0, 0, 0, 0, nan(), nan(), nan(), math.inf) for _ in range(2)]
    assert costs[0] == costs[1]


def test_values_of_different_kinds_differ() -> None:
    assert Metric(0.5) != 0.5
    assert Metric(1.0) != RowCounts(1, 1, 0, 0)
