"""Counts over rows, against NumPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from fastxent.kernels.tally import all_below, places_by_group, sort_by_group, tally_classes


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), max_size=40), st.sampled_from([1, 4])
)
@settings(max_examples=60)
def test_classes_are_counted_in_any_number_of_tables(rows, tables):
    target, predicted, rank = np.array(rows, np.int64).reshape(-1, 3).T.copy()
    counts = np.zeros((tables, 3, 3), np.int64)
    tally_classes(target, predicted, rank, counts)
    expected = [np.bincount(ids, minlength=3) for ids in (target, predicted, target[rank == 0])]
    assert np.array_equal(counts.sum(axis=0), expected)


ids = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 6)


@given(st.lists(st.tuples(ids, ids), max_size=20), st.integers(1, 5))
def test_ids_below_a_limit(pairs, end):
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    assert all_below(first, second, end) == all(0 <= a < end and 0 <= b < end for a, b in pairs)


@given(st.lists(st.integers(0, 4), max_size=40))
def test_rows_by_group(codes):
    codes = np.array(codes, np.int64)
    begins, again = np.zeros(7, np.int64), np.zeros(7, np.int64)
    rows, places = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    sort_by_group(codes, begins, rows)
    places_by_group(codes, again, places)
    order = np.argsort(codes, kind="stable")
    assert np.array_equal(rows, order)
    assert np.array_equal(places[order], np.arange(len(codes)))
    assert np.array_equal(begins, again)
    assert np.array_equal(begins[:6], np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=5))]))
