"""Rows folded into exact sums, against Python's rational numbers and against rows added one by one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.kernels.exact import special_value
from fastxent.kernels.fold import BELOW, BLOCK, COPY, COUNTED, INTEGER, ONES, PRODUCT, RECIPROCAL, Summand, Terms
from fastxent.kernels.grouped import ExactSums

PAIRS = [(0, 0), (0, 1), (1, 1)]
extreme = st.sampled_from([0.0, -0.0, 5e-324, -2e-308, 1e-200, 1e200, -1.7976931348623157e308, 2.0**511, 1.0, -3.5])
numbers = st.one_of(st.floats(-1e3, 1e3), st.floats(allow_nan=False, allow_infinity=False), extreme)
any_number = st.one_of(numbers, st.sampled_from([math.inf, -math.inf, math.nan]))


def one_by_one(columns: list[np.ndarray], codes: np.ndarray, groups: int) -> ExactSums:
    sums = ExactSums(len(columns), PAIRS, groups)
    sums.add(np.stack(columns, axis=1), codes)
    return sums


def folded(columns: list[np.ndarray], codes: np.ndarray, groups: int) -> tuple[ExactSums, ExactSums]:
    """(the sums by group, those of all rows)."""
    sums, whole = ExactSums(len(columns), PAIRS, groups), ExactSums(len(columns), PAIRS, 1)
    begins = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=groups))])
    order = np.argsort(codes, kind="stable")
    terms = Terms([Summand(COPY, column[order]) for column in columns])
    whole.add_words(sums.fold(terms, np.arange(groups), begins), 0)
    return sums, whole


def assert_equal(found: ExactSums, expected: ExactSums) -> None:
    groups = np.arange(expected.groups)
    got, wanted = found.arrays(groups), expected.arrays(groups)
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


@given(st.lists(st.tuples(st.integers(0, 2), any_number, any_number), max_size=30))
@settings(max_examples=300)
def test_folded_rows_are_rows_added_one_by_one(rows):
    codes = np.array([code for code, _, _ in rows], np.int64)
    columns = [np.array([row[k] for row in rows], float) for k in (1, 2)]
    sums, whole = folded(columns, codes, 3)
    assert_equal(sums, one_by_one(columns, codes, 3))
    assert_equal(whole, one_by_one(columns, np.zeros_like(codes), 1))


@pytest.mark.parametrize("spread", [1, 60, 300])
@pytest.mark.parametrize("n", [BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_blocks_of_any_spread(n, spread):
    rng = np.random.default_rng([n, spread])
    columns = [rng.standard_normal(n) * 2.0 ** rng.integers(-spread, spread, n) for _ in range(2)]
    codes = rng.integers(0, 2, n)
    sums, whole = folded(columns, codes, 2)
    assert_equal(sums, one_by_one(columns, codes, 2))
    assert sum(map(Fraction, columns[0].tolist())) == Fraction(whole.each(np.array([0]))[0][0], 1 << whole.scale)


@pytest.mark.parametrize("term", [-1.7976931348623157e308, 0.1, -(2.0**-1074), 2.0**1021, -1.0, 1.0 + 2.0**-52])
def test_many_equal_numbers(term):
    n = 100_003
    sums = ExactSums(1, groups=1)
    sums.fold(Terms([Summand(COPY, np.full(n, term))]), np.array([0]), np.array([0, n]))
    assert Fraction(sums.each(np.array([0]))[0][0], 1 << sums.scale) == Fraction(term) * n


def test_every_summand_is_its_formula():
    rng = np.random.default_rng(0)
    n = 700
    x, y = rng.standard_normal((2, n)) * (rng.random((2, n)) < 0.6)
    ranks, weight = rng.integers(0, 9, n), rng.random(n)
    summands = [
        (Summand(COPY, x), x),
        (Summand(PRODUCT, x, y), x * y),
        (Summand(RECIPROCAL, ranks), 1.0 / (ranks + 1.0)),
        (Summand(BELOW, ranks, limit=5), ranks < 5),
        (Summand(ONES, x), np.ones(n)),
        (Summand(COUNTED, x, y), (x != 0) | (y != 0)),
        (Summand(INTEGER, ranks), ranks),
    ]
    for weights, unweighted in ((None, None), (weight, 5)):
        terms = Terms([summand for summand, _ in summands], weights, unweighted)
        expected = [
            values * (1.0 if weights is None or k == unweighted else weights) for k, (_, values) in enumerate(summands)
        ]
        assert np.array_equal(terms.block(3, n - 3), np.stack(expected)[:, 3:])
        sums = ExactSums(len(summands), groups=1)
        sums.fold(terms, np.array([0]), np.array([0, n]))
        exact = [sum(map(Fraction, values.tolist())) for values in expected]
        assert [Fraction(total, 1 << sums.scale) for total in sums.totals(np.array([0]))[0]] == exact


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="a column of 2 of 3 rows"):
        Terms([Summand(COPY, np.zeros(3)), Summand(COPY, np.zeros(2))])


def test_infinities_and_nan_set_flags():
    values = np.ones(BLOCK * 3)
    values[[5, BLOCK + 1]] = math.inf, -math.inf
    for end, expected in ((BLOCK, math.inf), (3 * BLOCK, math.nan)):
        sums = ExactSums(1, groups=1)
        sums.fold(Terms([Summand(COPY, values)]), np.array([0]), np.array([0, end]))
        totals, special = sums.totals(np.array([0]))
        assert str(special_value(special[0])) == str(expected)
        assert totals[0] >> sums.scale == end - (1 if end == BLOCK else 2)


@given(st.permutations(range(11)), st.integers(0, 3))
@settings(max_examples=30)
def test_moved_rows_are_where_they_are_sent(places, begin):
    rng = np.random.default_rng(0)
    x, ranks, weight = rng.standard_normal(14), rng.integers(0, 9, 14), rng.random(14)
    summands = [Summand(COPY, x), Summand(ONES, x), Summand(PRODUCT, x, weight), Summand(BELOW, ranks, limit=5)]
    terms = Terms(summands, weight, unweighted=3)
    sources = terms.sources()
    moved = terms.moved(sources, begin, np.array(places), np.empty((len(sources[0]), 20)))
    assert np.array_equal(moved.block(0, 11)[:, places], terms.block(begin, 11))
