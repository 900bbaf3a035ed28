"""The exact sums against Python's rational numbers: equal bits, for any values, order and grouping."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.kernels.exact import (
    exact_add,
    exact_fold,
    exact_round,
    exact_sum,
    exact_zeros,
    rounded_ratio,
    rounded_root,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
modest = st.floats(min_value=-(2.0**400), max_value=2.0**400, allow_nan=False)


def to_float(value: Fraction) -> float:
    return rounded_ratio(value.numerator, value.denominator)


def slow_sum(values) -> float:
    values = [float(v) for v in values]
    if any(math.isnan(v) for v in values) or {math.inf, -math.inf} <= set(values):
        return math.nan
    if any(math.isinf(v) for v in values):
        return next(v for v in values if math.isinf(v))
    return to_float(sum(map(Fraction, values), Fraction(0)))


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


@given(st.lists(finite, max_size=60))
@settings(deadline=None)  # the first call compiles
def test_sum_is_correctly_rounded(values):
    assert same(exact_sum(np.array(values, float)), slow_sum(values))


@given(st.lists(st.floats() | modest | st.floats(0, 50), max_size=60), st.integers(0, 8))
@settings(deadline=None)
def test_folds_add_up_to_the_same(values, room):
    acc = exact_zeros()
    exact_fold(acc, np.array(values, float), np.empty(room))
    assert same(exact_round(acc), slow_sum(values))


@pytest.mark.parametrize("n", [7, 8, 256, 8191, 8192, 8193, 20_000])
def test_folds_of_many(n):
    rng = np.random.default_rng(n)
    for values in (rng.exponential(3.0, n), rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n), np.full(n, 0.1)):
        acc = exact_zeros()
        exact_fold(acc, values.copy(), np.empty(8))
        assert exact_round(acc) == math.fsum(values)


@given(st.lists(st.floats(), max_size=12))
@settings(deadline=None)
def test_infinities_and_nan(values):
    assert same(exact_sum(np.array(values, float)), slow_sum(values))


def test_edges():
    tiny, huge = 5e-324, 1.7976931348623157e308
    assert exact_sum(np.array([])) == 0.0
    assert math.copysign(1, exact_sum(np.array([-0.0]))) == 1.0
    assert exact_sum(np.array([tiny, -huge, huge])) == tiny
    assert exact_sum(np.array([huge, huge])) == math.inf
    assert exact_sum(np.array([huge, huge, -huge])) == huge
    assert exact_sum(np.array([-huge, -huge])) == -math.inf
    assert exact_sum(np.array([1.0, 2.0**-53])) == 1.0  # a tie goes to even
    assert exact_sum(np.array([1.0, 2.0**-53, tiny])) == 1.0 + 2.0**-52


@pytest.mark.parametrize("term", [-1.7976931348623157e308, 0.1, -(2.0**-1074), 2.0**1023, 1.0 + 2.0**-52])
def test_many_equal_terms_do_not_overflow_a_limb(term):
    n = 100_003
    assert exact_sum(np.full(n, term)) == to_float(Fraction(term) * n)


def test_partial_sums_merge_by_addition():
    values = np.random.default_rng(1).standard_normal(10_000) * 10.0 ** (np.arange(10_000) % 30)
    parts = [exact_zeros() for _ in range(7)]
    for part, chunk in zip(parts, np.array_split(values, 7), strict=True):
        exact_add(part, chunk)
    assert exact_round(sum(parts)) == math.fsum(values)


def test_a_read_only_array_is_summed():
    values = np.ones(10)
    values.flags.writeable = False
    assert exact_sum(values) == 10.0


@given(st.integers(0, 1 << 900), st.integers(1, 1 << 900))
def test_roots_of_ratios(numerator, denominator):
    root = rounded_root(numerator, denominator)
    square = Fraction(numerator, denominator)
    assert Fraction(math.nextafter(root, 0)) ** 2 <= square <= Fraction(math.nextafter(root, math.inf)) ** 2
    assert math.isnan(rounded_root(numerator, 0))
