"""Row statistics against the oracle: predicted class, rank, Brier score."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings, strategies as st

import fastxent as fx
import reference as ref
from tests.functions.examples import LOGITS, agrees, compute_eps

# Dtype, many classes or few, and whether an option shapes logits: each pair. The test of ties has the others.
KERNELS = [
    ("float32", False, False), ("float32", True, True), ("float64", False, True), ("float64", True, False),
    ("float16", False, True), ("float16", True, False), ("bfloat16", False, False), ("bfloat16", True, True),
]  # fmt: skip


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 10, 33, 64, 65, 300]), st.sampled_from(list(ref.DTYPES)))
def test_predicted_is_the_first_maximum_and_rank_0_is_argmax_equals_target(seed, c, dtype):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, size=(40, c)).astype(ref.DTYPES[dtype])  # ties everywhere
    rows[rng.random(rows.shape) < 0.1] = -0.0
    target = rng.integers(c, size=40)
    truth, result = ref.row_statistics(rows, target), fx.row_statistics(rows, target)
    np.testing.assert_array_equal(result.predicted, truth.predicted)
    np.testing.assert_array_equal(result.rank, truth.rank)
    np.testing.assert_array_equal(result.rank == 0, result.predicted == target)
    np.testing.assert_array_equal(result.max_logit, ref.wide(rows).max(axis=-1).astype(float))


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KERNELS),
    st.sampled_from([f for f in ref.FAMILIES if f != "largest"]),
    st.data(),
)
def test_row_statistics_match_the_oracle(seed, kernel, family, data):
    dtype, many, shaped = kernel
    shape = data.draw(st.sampled_from([(5, 65), (2, 1000)] if many else [(1,), (4, 2), (3, 10), (2, 3, 33)]), "shape")
    some = [{"temperature": 2.0}, {"softcap": 20.0}, {"class_mask": True}] if shaped else [{}]
    options = data.draw(st.sampled_from(some), "options")
    rng = np.random.default_rng(seed)
    rows = ref.rows_of(family, math.prod(shape[:-1]), shape[-1], ref.DTYPES[dtype], seed).reshape(shape)
    target = np.where(rng.random(shape[:-1]) < 0.3, -100, rng.integers(shape[-1], size=shape[:-1]))
    if "class_mask" in options:
        options = {"class_mask": np.isfinite(ref.wide(rows)).reshape(-1, shape[-1]).all(axis=0) | (shape[-1] > 0)}
        options["class_mask"][1::3] = False
    with np.errstate(all="ignore"):
        truth = ref.row_statistics(rows, target, **options)
    result = fx.row_statistics(rows, target, **options)
    assert result._fields == truth._fields
    size = 1 + float(np.abs(np.where(np.isfinite(ref.wide(rows)), ref.wide(rows), 0)).max())
    eps = compute_eps(rows.dtype)
    for name in truth._fields:
        value = getattr(result, name)
        assert value.shape == shape[:-1]
        assert value.dtype == (np.int64 if name in ("predicted", "rank") else np.float64)
        if name in ("predicted", "rank"):
            if "softcap" not in options:  # which makes ties in one precision and not in the other
                np.testing.assert_array_equal(value, getattr(truth, name))
        else:
            scale = size if name in ("nll", "lse", "max_logit") or options else 1 + np.log(shape[-1])
            agrees(value, getattr(truth, name), 16 * eps * scale * (1 + np.log(shape[-1])))


def test_row_statistics_without_a_target():
    result = fx.row_statistics(LOGITS)
    assert np.isnan(result.nll).all()
    assert np.isnan(result.brier).all()
    np.testing.assert_array_equal(result.rank, -1)
    np.testing.assert_array_equal(result.predicted, LOGITS.argmax(axis=-1))


def test_a_broken_row_has_neither_a_predicted_class_nor_a_rank():
    for c in (3, 64, 200):
        rows = ref.rows_of("normal", 5, c, np.float32)
        rows[1, 0], rows[2, -1], rows[3] = np.nan, np.inf, -np.inf
        statistics = fx.row_statistics(rows, np.zeros(5, np.int64))
        np.testing.assert_array_equal(statistics.predicted[1:4], -1)
        np.testing.assert_array_equal(statistics.rank[1:4], -1)
        assert (statistics.predicted[[0, 4]] >= 0).all()


def test_brier_score_is_between_0_and_2():
    rows = np.array([[100.0, -100.0, 0.0], [100.0, -100.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(fx.row_statistics(rows, [0, 1, 2]).brier, [0, 2, 2 / 3], atol=1e-15)
