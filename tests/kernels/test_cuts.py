"""Sums of a few integers by place, against rows added one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fastxent.kernels.cuts import MOST_ROWS, WIDTH, Cuts, cut_column, room
from fastxent.kernels.grouped import ExactSums

everyday = st.floats(-100.0, 100.0)
rare = st.sampled_from(
    [65536.0, -65535.99999999999, 2.0**-65, 1e-30, -1e-44, 5e-324, 1e300, math.inf, -math.inf, math.nan]
)


@given(st.lists(st.tuples(st.integers(0, 2), everyday | rare | st.floats()), min_size=3, max_size=60))
def test_a_column_is_its_numbers_one_by_one(rows):
    codes, values = np.array([code for code, _ in rows]), np.array([value for _, value in rows])
    quick, slow = ExactSums(2, groups=3), ExactSums(2, groups=3)
    quick.add_column(1, values, codes)
    slow.add(np.stack([np.zeros_like(values), values], axis=1), codes)
    found, expected = quick.arrays(np.arange(3)), slow.arrays(np.arange(3))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("value", [math.nextafter(65536.0, 0.0), -math.nextafter(65536.0, 0.0), 2.0**-25 - 2.0**-77])
def test_as_many_rows_as_are_allowed_do_not_overflow(value):
    cuts = Cuts.zeros(1, WIDTH, 1024)
    values, codes = np.full(1024, value), np.zeros(1024, np.int64)
    cut_column(values, codes, *cuts, room())
    assert cuts.left[2][0] == 0
    assert np.abs(cuts.sums).max() * (MOST_ROWS // 1024) < 2.0**63
