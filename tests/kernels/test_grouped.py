"""Exact sums by group against Python's rational numbers."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.kernels.exact import special_value
from fastxent.kernels.grouped import ExactSums

modest = st.floats(min_value=-(2.0**400), max_value=2.0**400, allow_nan=False)


def value(sums: ExactSums, group: int, k: int) -> Fraction | float:
    totals, special = sums.totals(np.array([group]))
    return special_value(special[k]) if special[k] else Fraction(totals[k], 1 << sums.scale)


rows = st.lists(st.tuples(st.integers(0, 4), modest, modest), max_size=50)


def grouped(rows) -> ExactSums:
    sums = ExactSums(2, [(0, 0), (0, 1)], groups=5)
    if rows:
        codes = np.array([r[0] for r in rows], np.int64)
        values = np.array([r[1:] for r in rows], float)
        sums.add(values, codes)
    return sums


def exact_product(x: float, y: float) -> Fraction:
    """What is added for a product: exact, but for a rest below the normal doubles."""
    hi = x * y
    lo = Fraction(x) * Fraction(y) - Fraction(hi)
    return Fraction(hi) + Fraction(float(lo))


@given(rows)
def test_grouped_sums_and_products(rows):
    sums = grouped(rows)
    for g in range(5):
        mine = [r[1:] for r in rows if r[0] == g]
        assert value(sums, g, 0) == sum((Fraction(x) for x, _ in mine), Fraction(0))
        assert value(sums, g, 1) == sum((Fraction(y) for _, y in mine), Fraction(0))
        assert value(sums, g, 2) == sum((exact_product(x, x) for x, _ in mine), Fraction(0))
        assert value(sums, g, 3) == sum((exact_product(x, y) for x, y in mine), Fraction(0))


@given(rows, st.integers(0, 50), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_bytes_follow_content_alone(rows, cut, rng: random.Random):
    whole = grouped(rows)
    shuffled = list(rows)
    rng.shuffle(shuffled)
    merged = grouped(shuffled[:cut])
    merged.merge_into(grouped(shuffled[cut:]), np.arange(5))
    stored, again = whole.arrays(np.arange(5)), merged.arrays(np.arange(5))
    assert all(np.array_equal(stored[name], again[name]) for name in ("base", "limbs", "special"))
    back = ExactSums.restore(2, [(0, 0), (0, 1)], 5, stored)
    assert [[value(back, g, k) for k in range(4)] for g in range(5)] == [
        [value(whole, g, k) for k in range(4)] for g in range(5)
    ]
    assert np.array_equal(back.arrays(np.arange(5))["limbs"], stored["limbs"])


def test_a_restored_sum_takes_more_values():
    values = np.array([[3.5], [-1e300], [1e-300]])
    sums = ExactSums(1, groups=1)
    sums.add(values, np.zeros(3, np.int64))
    back = ExactSums.restore(1, [], 1, sums.arrays(np.arange(1)))
    back.add(-values, np.zeros(3, np.int64))
    assert value(back, 0, 0) == 0


def test_infinite_and_nan_groups_stay_apart():
    sums = ExactSums(1, [(0, 0)], groups=4)
    sums.add(np.array([[1.0], [math.inf], [-math.inf], [math.nan], [math.inf], [2.0]]), np.array([0, 1, 2, 3, 2, 0]))
    got = [[float(value(sums, g, k)) for k in range(2)] for g in range(4)]
    assert str(got) == "[[3.0, 5.0], [inf, inf], [nan, inf], [nan, nan]]"


def test_groups_grow():
    sums = ExactSums(1)
    for g in range(100):
        sums.resize(g + 1)
        sums.add(np.array([[0.1 * g]]), np.array([g]))
    assert sums.groups == 100
    assert [value(sums, g, 0) for g in range(100)] == [Fraction(0.1 * g) for g in range(100)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limbs", np.full((1, 1, 3), -1)),
        ("limbs", np.zeros((1, 1, 0), np.int64)),
        ("limbs", np.zeros((2, 1, 2), np.int64)),
        ("base", np.array([68])),
        ("base", np.array([-1])),
        ("base", np.array([], np.int64)),
        ("special", np.array([[9]], np.uint8)),
    ],
)
def test_damaged_sums_are_refused(name, value):
    sums = ExactSums(1, groups=1)
    sums.add(np.array([[1e50], [1.0]]), np.zeros(2, np.int64))
    stored = sums.arrays(np.arange(1))
    ExactSums.restore(1, [], 1, stored)
    with pytest.raises(ValueError, match="exact sums"):
        ExactSums.restore(1, [], 1, {**stored, name: value})


@pytest.mark.parametrize("term", [-1.7976931348623157e308, 0.1, -(2.0**-1074), 2.0**1023, 1.0 + 2.0**-52])
def test_many_equal_terms_do_not_overflow_a_limb(term):
    n = 100_003
    sums = ExactSums(1, groups=1)
    sums.add(np.full((n, 1), term), np.zeros(n, np.int64))
    assert value(sums, 0, 0) == Fraction(term) * n
