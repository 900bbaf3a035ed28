"""Sums over cells in order equal their definitions, correctly rounded, across the borders of blocks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.kernels import ranks
from fastxent.kernels.exact import exact_round, exact_zeros


def summed(kernel, count, *arguments):
    totals = tuple(exact_zeros() for _ in range(count))
    kernel(*arguments, totals, ranks.room())
    return [exact_round(total) for total in totals]


def cells(seed, n, weighted):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (2, n)).astype(np.float64)
    return counts * rng.random((2, n)) if weighted else counts


def share(part, other):
    with np.errstate(invalid="ignore"):
        return np.where(part + other > 0, part / (part + other), 0.0)


@pytest.mark.parametrize("n", [1, 7, ranks.BLOCK, 2 * ranks.BLOCK + 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_correctly_rounded(n, weighted):
    negative, positive = cells(n, n, weighted)
    false = np.cumsum(negative)
    terms = positive * (2 * (false - negative) + negative), positive * (false - negative), positive * negative
    assert summed(ranks.sum_area, 3, negative, positive) == [math.fsum(t) for t in terms]
    true, total, pairs = np.cumsum(positive), 0.25 + negative.sum(), 0.25 + positive.sum()
    of_positive = (false - negative + 0.5 * negative) / total - 0.5
    of_negative = (pairs - true + 0.5 * positive) / pairs - 0.5
    terms = positive * of_positive * of_positive, negative * of_negative * of_negative
    found = summed(ranks.sum_deviations, 2, negative, positive, total, pairs, 0.5)
    assert found == [math.fsum(t) for t in terms]
    some, others = positive[::-1], negative[::-1]
    true, false = np.cumsum(some), np.cumsum(others)
    first = np.minimum(some, 0.0 if weighted else 1.0)
    half = 0.0 if weighted else (some - first) / 2
    terms = (
        some * share(true - some + first, false),
        some * share(true, false - others),
        some * share(true - half, false - others / 2),
    )
    found = summed(ranks.sum_precisions, 3, positive, negative, 0.0 if weighted else 1.0)
    assert found == [math.fsum(t) for t in terms]
    assert summed(ranks.sum_exact_precisions, 1, positive, negative) == [math.fsum(some * share(true, false))]


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 16), n=st.integers(2, 300), points=st.integers(1, 40))
def test_chosen_cells(seed, n, points):
    negative, positive = cells(seed, n, weighted=True) + 1e-3
    true, false = np.cumsum(positive[::-1]), np.cumsum(negative[::-1])
    ends = ranks.running_ends(positive, negative)
    assert ends == (true[-1], false[-1])
    wanted, chosen = np.sort(np.random.default_rng(seed).random(points)) * 2.2, np.zeros(points, np.int64)
    along = true / ends[0] + false / ends[1]
    best, middle = ranks.choose_cells(positive, negative, ends, wanted, chosen, ranks.room())
    assert chosen.tolist() == np.searchsorted(along, wanted).tolist()
    assert best == np.argmax(2 * true / (ends[0] + true + false))
    assert middle == np.argmin(np.abs(along - 1))
    places, found = np.random.default_rng(seed).integers(0, n, points), np.empty((2, points))
    ranks.running_at(places, np.argsort(places, kind="stable"), positive, negative, found)
    assert found.tolist() == [true[places].tolist(), false[places].tolist()]
