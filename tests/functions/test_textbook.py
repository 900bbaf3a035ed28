"""Textbook values; entropy, divergences, focal and binary losses against the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
import reference as ref
from reference import WIDE
from tests.functions.examples import LOGITS, WEIGHT, C, agrees, compute_eps


@pytest.mark.parametrize("dtype", ref.DTYPES)
@pytest.mark.parametrize("c", [1, 2, 3, 10, 100, 1000, 50257])
def test_uniform_logits_cost_log_c(c, dtype):
    rows = np.full((2, c), 0.5, ref.DTYPES[dtype])
    expected = np.log(c)
    loss = fx.cross_entropy(rows, [0, c - 1], reduction="none")
    assert (ref.ulp_error(loss, np.log(WIDE(c)), loss.dtype) <= 1).all()
    np.testing.assert_allclose(fx.row_statistics(rows).entropy, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fx.entropy(rows, input="logits"), expected, rtol=1e-6, atol=1e-7)


def test_known_values():
    assert fx.cross_entropy(np.array([0.0, math.log(3)]), 1) == pytest.approx(math.log(4 / 3), rel=1e-15)
    assert fx.cross_entropy(np.array([0.0, math.log(3)]), 0, base=2) == pytest.approx(2.0, rel=1e-15)
    assert fx.binary_cross_entropy(np.array([0.9, 0.2]), np.array([1.0, 0.0])) == pytest.approx(
        -(math.log(0.9) + math.log(0.8)) / 2, rel=1e-14
    )
    assert fx.binary_cross_entropy_with_logits(np.array([0.0]), np.array([1.0])) == pytest.approx(
        math.log(2), rel=1e-15
    )
    np.testing.assert_allclose(fx.entropy(np.full((2, 8), 0.125), base=2), [3, 3], rtol=1e-15)
    np.testing.assert_array_equal(fx.entropy(np.eye(3)), 0)
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    assert fx.kl_divergence(p, q, input="probs") == pytest.approx(0.5 * math.log(25 / 9), rel=1e-14)
    assert fx.js_divergence(np.eye(2)[:1], np.eye(2)[1:], input="probs", base=2) == pytest.approx(1.0, rel=1e-15)
    assert fx.kl_divergence(np.eye(2)[:1], np.eye(2)[1:], input="probs") == np.inf


def test_divergences_of_more_rows_than_are_taken_at_once():
    p, q = np.random.default_rng(3).normal(size=(2, 5000, 3))
    for name in ("kl_divergence", "js_divergence"):
        rows = getattr(fx, name)(p, q, reduction="none")
        truth = getattr(ref, name)(p, q, reduction="none").astype(float)
        np.testing.assert_allclose(rows, truth, rtol=1e-12, atol=1e-14)


def test_divergence_is_cross_entropy_minus_entropy():
    x, y = np.random.default_rng(3).normal(size=(2, 6, 50))
    cross = fx.cross_entropy(y, fx.softmax(x), reduction="none")
    np.testing.assert_allclose(
        fx.kl_divergence(x, y, reduction="none"), cross - fx.entropy(x, input="logits"), rtol=1e-12
    )


@pytest.mark.parametrize("alpha", [None, 0.25, WEIGHT])
def test_focal_loss(alpha):
    target = np.array([0, 3, 1, 5, 2])
    plain = fx.cross_entropy(LOGITS, target, reduction="none")
    share = 1.0 if alpha is None else np.broadcast_to(alpha, C)[target]
    np.testing.assert_allclose(
        fx.focal_loss(LOGITS, target, gamma=0.0, alpha=alpha, reduction="none"), share * plain, rtol=1e-14
    )
    for reduction in ("none", "mean", "sum"):
        for gamma in (0.5, 2.0, 5.0):
            truth = ref.focal_loss(LOGITS, target, gamma=gamma, alpha=alpha, reduction=reduction)
            result = fx.focal_loss(LOGITS, target, gamma=gamma, alpha=alpha, reduction=reduction)
            np.testing.assert_allclose(result, truth.astype(float), rtol=1e-12)


@settings(max_examples=80)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([  # of dtype, kind of input and number of classes each pair: see KERNELS in test_functional
        (np.float32, "logits", (3, 10)), (np.float64, "logits", (2, 3, 70)), (np.float32, "probs", (2, 3, 70)),
        (np.float64, "probs", (4,)), (np.float32, "log_probs", (5, 2)), (np.float64, "log_probs", (2, 3, 70)),
    ]),
    st.sampled_from([None, 2.0]),
    st.sampled_from(["none", "sum", "batchmean"]),
)  # fmt: skip
def test_entropy_and_divergences_match_the_oracle(seed, kind, base, reduction):
    dtype, input, shape = kind
    if len(shape) != 2 and reduction == "batchmean":
        reduction = "none"
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=shape) * 3 for _ in range(2))
    if input != "logits":
        x, y = (ref.softmax(v) if input == "probs" else ref.log_softmax(v) for v in (x, y))
    x, y = x.astype(dtype), y.astype(dtype)
    tolerance = 64 * np.finfo(dtype).eps * (1 + math.prod(shape[:-1])) * 10
    agrees(fx.entropy(x, input=input, base=base), ref.entropy(x, input=input, base=base), tolerance)
    for name in ("kl_divergence", "js_divergence"):
        result = getattr(fx, name)(x, y, input=input, reduction=reduction, base=base)
        agrees(result, getattr(ref, name)(x, y, input=input, reduction=reduction, base=base), tolerance)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (5,), (3, 4), (2, 3, 70)]),
    st.sampled_from(list(ref.DTYPES)),
    st.sampled_from(["logits", "probs"]),
    st.sets(st.sampled_from(["weight", "pos_weight", "label_smoothing"])),
    st.sampled_from(["none", "sum", "mean"]),
    st.booleans(),
)
def test_binary_cross_entropy_matches_the_oracle(seed, shape, dtype, input, names, reduction, soft):
    rng = np.random.default_rng(seed)
    dtype = ref.DTYPES[dtype]
    x = (rng.uniform(0.01, 0.99, size=shape) if input == "probs" else rng.normal(size=shape) * 20).astype(dtype)
    # soft targets in the type that losses are computed in: rounding moves slopes near 0 by more than their own size
    target = (
        rng.random(shape).astype(np.float64 if dtype == np.float64 else np.float32)
        if soft
        else rng.integers(2, size=shape)
    )
    options = {
        "weight": rng.uniform(0, 2, size=shape),
        "pos_weight": rng.uniform(0.5, 2, size=shape[-1:]),
        "label_smoothing": 0.1,
    }
    options = {k: v for k, v in options.items() if k in names and (input == "logits" or k == "weight")}
    truth, slope = ref.binary_cross_entropy_with_grad(x, target, input=input, reduction=reduction, **options)
    name = "binary_cross_entropy" + ("_with_logits" if input == "logits" else "")
    loss = getattr(fx, name)(x, target, reduction=reduction, **options)
    result = getattr(fx, name + "_with_grad")(x, target, reduction=reduction, **options)
    eps = compute_eps(dtype)
    scale = 1 + np.abs(np.asarray(truth))
    agrees(loss, truth, 16 * eps * scale)
    agrees(result.loss, truth, 16 * eps * scale)
    assert result.grad.dtype == dtype
    agrees(result.grad, slope, np.abs(slope) * (32 * eps + float(ref.ml_dtypes.finfo(dtype).eps)) + 4 * eps)


def test_binary_edges():
    loss, grad = fx.binary_cross_entropy_with_logits_with_grad(
        np.array([1e4, -1e4, 1e4, np.nan]), np.array([1.0, 0.0, 0.0, 1.0]), reduction="none"
    )
    np.testing.assert_array_equal(loss, [0, 0, 1e4, np.nan])
    np.testing.assert_array_equal(grad, [0, 0, 1, np.nan])
    np.testing.assert_array_equal(
        fx.binary_cross_entropy(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 1.0]), reduction="none"), [0, 0, np.inf]
    )
    with pytest.raises(ValueError, match="target"):
        fx.binary_cross_entropy_with_logits(np.zeros(3), np.zeros(4))
