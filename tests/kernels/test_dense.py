"""Dense sums of many groups, and numbers numbered, against exact sums and Python's own."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings, strategies as st

from fastxent.kernels import dense as kernels
from fastxent.kernels.dense import DenseSums, spent
from fastxent.kernels.fold import COPY, Summand, Terms
from fastxent.kernels.grouped import ExactSums
from fastxent.kernels.hashed import Numbers

GROUPS = 4
extreme = st.sampled_from([0.0, -0.0, 5e-324, -2e-308, 1e-30, 1e300, -1.7976931348623157e308, 4096.0, -(2.0**31), 1.0])
numbers = st.one_of(st.floats(-1e3, 1e3), st.floats(allow_nan=False, allow_infinity=False), extreme)
any_number = st.one_of(numbers, st.sampled_from([math.inf, -math.inf, math.nan]))
table = st.lists(st.tuples(st.integers(0, GROUPS - 1), any_number, any_number), min_size=1, max_size=30)


def dense_of(rows) -> DenseSums:
    sums = DenseSums(2)
    sums.resize(GROUPS)
    if rows:
        columns = [Summand(COPY, np.array([row[k] for row in rows], float)) for k in (1, 2)]
        sums.add(Terms(columns), np.array([row[0] for row in rows]))
    return sums


def exact_of(rows) -> ExactSums:
    sums = ExactSums(2, groups=GROUPS)
    sums.add(np.array([row[1:] for row in rows], float).reshape(-1, 2), np.array([row[0] for row in rows], np.int64))
    return sums


def assert_stored_alike(dense: DenseSums, exact: ExactSums) -> None:
    found, expected = dense.arrays(np.arange(GROUPS)), exact.arrays(np.arange(GROUPS))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@given(table)
@settings(max_examples=200)
def test_dense_sums_are_stored_as_exact_sums(rows):
    dense, exact = dense_of(rows), exact_of(rows)
    assert_stored_alike(dense, exact)
    back = DenseSums.restore(2, GROUPS, exact.arrays(np.arange(GROUPS)))
    assert_stored_alike(back, exact)
    back.merge_into(dense, np.arange(GROUPS))
    assert_stored_alike(back, exact_of(rows + rows))


def test_merged_sums_release_their_memory(monkeypatch):
    monkeypatch.setattr(kernels, "_TOGETHER", 3)
    rows = [(g, 2.0**g, -0.1 * g) for g in range(GROUPS)]
    for held in ([], rows):  # a window of two words, and a wider one
        dense, other = dense_of(held), dense_of(rows)
        dense.merge_into(other, np.arange(GROUPS))
        assert_stored_alike(dense, exact_of(held + rows))
        assert_stored_alike(other, exact_of(rows))
        with spent():
            dense.merge_into(other, np.arange(GROUPS))
        assert_stored_alike(dense, exact_of(held + rows + rows))
        assert other.nbytes == 0


def test_sums_keep_their_numbers_as_they_grow(monkeypatch):
    monkeypatch.setattr(kernels, "_TOGETHER", 3)
    dense = dense_of([(g, 2.0**g, -0.1 * g) for g in range(GROUPS)])
    before = dense.words[:GROUPS].copy()
    for groups in (256, 257, 300, 5000):
        dense.resize(groups)
        assert (dense.words[:GROUPS] == before).all()
        assert not dense.words[GROUPS:].any()
        assert len(dense.words) == len(dense.special) >= groups


@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.sampled_from([1.0, -3.5, 0.1, 900.0, -1023.0, 2.0**-120, 3e5, -1e-30])),
        max_size=9,
    ),
    st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_runs_of_rows_of_one_group(runs, seed):
    """Blocks of rows that are sorted by group, whose sums outgrow two words."""
    draw = np.random.default_rng(seed)
    rows = [
        (i % GROUPS, size * draw.uniform(-0.5, 1.0), float(k % 3)) for i, (n, size) in enumerate(runs) for k in range(n)
    ]
    assert_stored_alike(dense_of(rows), exact_of(rows))
    assert_stored_alike(dense_of(rows * 9), exact_of(rows * 9))


def test_restored_sums_of_nothing_take_rows():
    empty = DenseSums.restore(2, GROUPS, exact_of([]).arrays(np.arange(GROUPS)))
    empty.add(Terms([Summand(COPY, np.array([0.5, 2.0**-70])), Summand(COPY, np.array([3.0, -4.0]))]), np.array([1, 3]))
    assert_stored_alike(empty, exact_of([(1, 0.5, 3.0), (3, 2.0**-70, -4.0)]))


@given(table, st.integers(0, 30), st.permutations(range(GROUPS)))
@settings(max_examples=200)
def test_merged_parts_are_the_whole(rows, cut, codes):
    whole = dense_of(rows[:cut])
    whole.merge_into(dense_of(rows[cut:]), np.array(codes))
    assert_stored_alike(whole, exact_of(rows[:cut] + [(codes[code], x, y) for code, x, y in rows[cut:]]))


@given(table, st.sets(st.integers(0, GROUPS - 1), min_size=1))
def test_sums_and_their_products_over_groups(rows, chosen):
    rows = [row for row in rows if all(math.isfinite(x) for x in row)]
    dense, groups = dense_of(rows), np.array(sorted(chosen))
    sums = {g: [sum((Fraction(row[k]) for row in rows if row[0] == g), Fraction(0)) for k in (1, 2)] for g in chosen}
    pairs = [(0, 0), (0, 1), (1, 1)]
    expected = [sum((sums[g][a] * sums[g][b] for g in chosen), Fraction(0)) for a, b in pairs]
    totals, _, found = dense.totals(groups, pairs)
    assert [Fraction(total, 1 << 2 * dense.scale) for total in found] == expected
    assert [Fraction(total, 1 << dense.scale) for total in totals] == [
        sum((sums[g][k] for g in chosen), Fraction(0)) for k in range(2)
    ]
    assert dense.nonzero(groups, 1) == sum(sums[g][1] != 0 for g in chosen)


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20), max_size=200), max_size=4))
def test_numbers_are_numbered_as_they_appear(batches):
    known, expected = Numbers(), {}
    for batch in batches:
        codes = [expected.setdefault(number, len(expected)) for number in batch]
        assert known.codes(np.array(batch, np.int64)).tolist() == codes
    assert known.distinct.tolist() == list(expected)


def test_many_numbers_in_steps_of_a_power_of_two():
    numbers = np.arange(50_000) << 40
    known = Numbers()
    assert np.array_equal(known.codes(np.repeat(numbers, 2)), np.repeat(np.arange(50_000), 2))
    assert np.array_equal(known.codes(numbers[::-1].copy()), np.arange(50_000)[::-1])
