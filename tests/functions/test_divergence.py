"""KL and JS: never below 0, 0 where the rows are the same, and right where they hardly differ."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings, strategies as st

import fastxent as fx
import reference as ref

NAMES = ["kl_divergence", "js_divergence"]
INPUTS = ["logits", "probs", "log_probs"]
each = pytest.mark.parametrize("name", NAMES)
each_input = pytest.mark.parametrize("input", INPUTS)


def as_input(logits: np.ndarray, input: str) -> np.ndarray:
    if input == "logits":
        return logits
    of = ref.softmax if input == "probs" else ref.log_softmax
    return np.asarray(of(logits)).astype(logits.dtype)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(NAMES),
    st.sampled_from(INPUTS),
    st.sampled_from([1, 2, 3, 8, 10, 50, 257]),
    st.sampled_from([0.0, 1e-12, 1e-8, 1e-4, 1e-2, 0.3, 1.0, 10.0, 300.0]),
    st.sampled_from(["none", "p", "q", "both"]),
)
def test_at_any_distance_within_what_was_promised(seed, name, input, c, distance, masked):
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(5, c)) * 3
    q = p + distance * rng.normal(size=p.shape)
    if c > 1:
        p[:, 1] = -np.inf if masked in ("p", "both") else p[:, 1]
        q[:, 1] = -np.inf if masked in ("q", "both") else q[:, 1]
    p, q = as_input(p, input), as_input(q, input)
    result = getattr(fx, name)(p, q, input=input, reduction="none")
    truth = getattr(ref, name)(p, q, input=input, reduction="none").astype(float)
    assert (result >= 0).all()
    np.testing.assert_allclose(result, truth, rtol=1e-10, atol=1e-15)


@each
@each_input
@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("c", [1, 3, 10, 1000])
def test_equal_rows_are_0_apart(name, input, dtype, c):
    for family in ("normal", "wide", "masked", "peaked", "denormal"):
        x = ref.rows_of(family, 20, c, np.float64)
        p = as_input(x, input).astype(ref.DTYPES[dtype])
        assert getattr(fx, name)(p, p.copy(), input=input, reduction="sum") == 0.0


@each
@pytest.mark.parametrize("dtype", ref.DTYPES)
def test_logits_shifted_by_a_constant_are_0_apart(name, dtype):
    x = np.random.default_rng(5).integers(-60, 60, size=(50, 33)) / 4  # exact, shifted or not
    x[:, 3] = -np.inf
    for shift in (0.25, -7.0, 40.0):
        p, q = x.astype(ref.DTYPES[dtype]), (x + shift).astype(ref.DTYPES[dtype])
        rows = getattr(fx, name)(p, q, reduction="none")
        assert (rows == 0).all()


@each
def test_rows_that_hardly_differ_are_never_below_0(name):
    rng = np.random.default_rng(6)
    for c in (2, 9, 50, 3000):
        p = rng.normal(size=(300, c))
        for distance in (1e-15, 1e-12, 1e-8):
            q = p + distance * rng.normal(size=p.shape)
            rows = getattr(fx, name)(p, q, reduction="none")
            assert (rows >= 0).all()
            assert np.isfinite(np.sqrt(rows)).all()  # the Jensen-Shannon distance
        assert (getattr(fx, name)(p, p + 5, reduction="none") >= 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@each
def test_many_classes_in_few_bits(name, dtype):
    rng = np.random.default_rng(7)
    p = (rng.normal(size=(3, 50_000)) * 4 - 8).astype(ref.DTYPES[dtype])
    for distance in (0.01, 0.5, 8.0):
        q = (ref.wide(p).astype(float) + distance * rng.normal(size=p.shape)).astype(p.dtype)
        rows = getattr(fx, name)(p, q, reduction="none")
        truth = getattr(ref, name)(p, q, reduction="none").astype(float)
        np.testing.assert_allclose(rows, truth, rtol=1e-6)


@each_input
def test_kl_is_infinite_only_where_q_alone_is_0(input):
    x = np.array([[0.0, -np.inf, 1.0], [0.0, 1.0, -np.inf], [0.0, -800.0, -900.0], [0.0, -1e300, -1e300]])
    y = np.array([[0.0, 1.0, 2.0], [0.0, -np.inf, -np.inf], [0.0, -900.0, -800.0], [0.0, 0.0, 0.0]])
    p, q = as_input(x, input), as_input(y, input)
    there = fx.kl_divergence(p, q, input=input, reduction="none")
    back = fx.kl_divergence(q, p, input=input, reduction="none")
    np.testing.assert_array_equal(np.isinf(there), [False, True, False, False])
    np.testing.assert_array_equal(np.isinf(back), [True, False, False, input == "probs"])
    assert (fx.js_divergence(p, q, input=input, reduction="none") <= np.log(2)).all()


@each_input
def test_a_probability_that_underflows_is_not_0(input):
    x, y = np.array([[0.0, -800.0, 1.0]]), np.array([[0.0, -np.inf, 1.0]])
    p, q = as_input(x, input), as_input(y, input)
    assert (fx.kl_divergence(p, q, input=input) == np.inf) == (input != "probs")
    assert fx.kl_divergence(q, p, input=input) == 0
    if input == "logits":
        result = fx.compare({"logits": x}, {"logits": y})
        assert result.divergences["kl_divergence_ab"].max == np.inf
        assert result.divergences["kl_divergence_ba"].max == 0


def test_js_of_rows_without_a_class_in_common_is_log_2():
    p = np.array([[0.5, 0.5, 0.0, 0.0], [5e-324, 0.0, 1.0, 0.0]])
    q = np.array([[0.0, 0.0, 0.25, 0.75], [0.0, 5e-324, 0.0, 1.0]])
    np.testing.assert_allclose(fx.js_divergence(p, q, input="probs", base=2, reduction="none"), 1.0, rtol=1e-15)


def test_rows_with_other_sums_have_the_generalised_divergence():
    rng = np.random.default_rng(8)
    p, q = rng.random((2, 40, 12))
    p[:, 0] = q[:, 1] = 0
    p[:, 1] = 0
    rows = fx.kl_divergence(p, q, input="probs", reduction="none")
    np.testing.assert_allclose(rows, scipy.special.kl_div(p, q).sum(axis=-1), rtol=1e-12)
    assert (rows > 0).all()


def test_negative_probabilities_have_no_divergence():
    fine = np.array([[0.5, 0.25, 0.25]])
    for broken in ([[1.25, -0.25, 0.0]], [[-0.25, 1.25, 0.0]], [[0.5, 0.75, -0.25]]):
        for name in NAMES:
            assert np.isnan(getattr(fx, name)(np.array(broken), fine, input="probs"))
            assert np.isnan(getattr(fx, name)(fine, np.array(broken), input="probs"))
            assert np.isnan(getattr(fx, name)(np.array(broken), np.array(broken), input="probs"))
