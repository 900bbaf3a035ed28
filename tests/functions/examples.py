"""A few rows of logits with their targets and weights, and how results are held against the oracle."""

from __future__ import annotations

import numpy as np

import reference as ref

C = 6


def agrees(result, truth, tolerance) -> None:
    """Equal within the tolerance; infinities and NaN in the same places."""
    result, truth = ref.wide(result), ref.wide(truth)
    assert result.shape == truth.shape
    np.testing.assert_array_equal(np.isnan(result), np.isnan(truth))
    np.testing.assert_array_equal(np.where(np.isinf(result), result, 0), np.where(np.isinf(truth), truth, 0))
    finite = np.isfinite(truth)
    error = np.abs(np.where(finite, result, 0) - np.where(finite, truth, 0))
    assert (error <= tolerance).all(), f"off by {float(error.max())}"


def compute_eps(dtype) -> float:
    """Half inputs are computed in float32."""
    return float(np.finfo(np.float64 if np.dtype(dtype) == np.float64 else np.float32).eps)


LOGITS = np.random.default_rng(1).normal(size=(5, C)) * 3
TARGET = np.array([0, 3, -100, 5, 2])
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25, 1.5, 3.0])
NLL = -ref.log_softmax(LOGITS)[[0, 1, 3, 4], [0, 3, 5, 2]]
USED = [0, 1, 3, 4]
