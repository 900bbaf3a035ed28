"""Probabilities and their logarithms in place of logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
import reference as ref
from tests.functions.examples import WEIGHT, C


@pytest.mark.parametrize("input", ["probs", "log_probs"])
def test_probabilities_are_used_as_given(input):
    p = np.array([[0.2, 0.2, 0.1], [0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    with np.errstate(divide="ignore"):
        values = p if input == "probs" else np.log(p)
    rows = fx.cross_entropy(values, [0, 2, 0], input=input, reduction="none")
    np.testing.assert_allclose(rows, [-math.log(0.2), -math.log(0.25), np.inf], rtol=1e-15)
    clipped = fx.cross_entropy(values, [0, 2, 0], input=input, reduction="none", clip_eps=1e-3)
    np.testing.assert_allclose(clipped, [-math.log(0.2), -math.log(0.25), -math.log(1e-3)], rtol=1e-14)
    grad = fx.cross_entropy_with_grad(values[:2], [0, 2], input=input, reduction="sum").grad
    slope = -1 / p[:2] if input == "probs" else -np.ones((2, 3))
    np.testing.assert_allclose(grad, slope * np.eye(3)[[0, 2]], rtol=1e-14)
    if input == "log_probs":
        np.testing.assert_array_equal(fx.nll_loss(values, [0, 2, 0], reduction="none"), rows)


# Kind of input, dtype, and whether label smoothing or soft targets are given: each pair.
KERNELS = [
    ("probs", np.float32, False), ("probs", np.float64, True),
    ("log_probs", np.float32, True), ("log_probs", np.float64, False),
]  # fmt: skip


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KERNELS),
    st.sampled_from([None, 1e-3]),
    st.data(),
)
def test_cross_entropy_of_probabilities_matches_the_oracle(seed, kernel, clip_eps, data):
    input, dtype, smoothed = kernel
    soft = smoothed and data.draw(st.booleans(), "soft")
    others = [{}, {"weight": WEIGHT}, {"base": 2.0}]
    options = data.draw(st.sampled_from(others), "options")
    if smoothed and not (soft and data.draw(st.booleans(), "soft only")):
        options = options | {"label_smoothing": 0.1}
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(C, 0.7), size=8)
    x = (p if input == "probs" else np.log(p)).astype(dtype)
    target = rng.dirichlet(np.ones(C), size=8) if soft else np.where(rng.random(8) < 0.2, -100, rng.integers(C, size=8))
    options = options | {"input": input, "clip_eps": clip_eps, "reduction": "none"}
    truth, slope = ref.cross_entropy_with_grad(x, target, **options)
    loss, grad = fx.cross_entropy_with_grad(x, target, **options)
    np.testing.assert_allclose(
        loss, truth.astype(float), rtol=32 * np.finfo(dtype).eps, atol=1e-6 * (dtype != np.float64)
    )
    np.testing.assert_allclose(grad, slope.astype(float), rtol=32 * np.finfo(dtype).eps)


@pytest.mark.parametrize("input", ["probs", "log_probs"])
def test_row_statistics_of_probabilities(input):
    p = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.25, 0.5, 0.25]])
    with np.errstate(divide="ignore"):
        statistics = fx.row_statistics(p if input == "probs" else np.log(p), [1, 0, -100], input=input)
    np.testing.assert_allclose(statistics.nll, [-math.log(0.3), np.inf, np.nan], rtol=1e-15)
    np.testing.assert_allclose(statistics.confidence, [0.5, 1, 0.5], rtol=1e-15)
    np.testing.assert_array_equal(statistics.predicted, [2, 1, 1])
    np.testing.assert_array_equal(statistics.rank, [1, 1, -1])
    np.testing.assert_allclose(statistics.entropy, ref.entropy(p).astype(float), rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(statistics.brier, [0.04 + 0.49 + 0.25, 2, np.nan], rtol=1e-14)
    np.testing.assert_allclose(statistics.sum_p2, (p**2).sum(axis=-1), rtol=1e-14)


def test_log_loss_clips_as_scikit_learn_does():
    p = np.array([[1.0, 0.0], [0.25, 0.75]])
    rows = [-math.log(np.finfo(np.float64).eps), -math.log(0.75)]
    assert fx.log_loss(p, [1, 1], labels=[0, 1]) == pytest.approx(np.mean(rows), rel=1e-14)
    assert fx.log_loss(p, [1, 1], labels=[0, 1], clip_eps=0.1) == pytest.approx(
        (-math.log(0.1) - math.log(0.75)) / 2, rel=1e-14
    )
    names = fx.log_loss(p, np.array(["b", "a"]), sample_weight=[1.0, 3.0])
    assert names == pytest.approx((rows[0] - 3 * math.log(0.25)) / 4, rel=1e-14)
