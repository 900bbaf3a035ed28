"""Conformance with scikit-learn and scipy, on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from scipy.spatial.distance import jensenshannon
from sklearn import metrics

import fastxent as fx
import reference as ref

N, C = 200, 7
RNG = np.random.default_rng(20)
TARGET = RNG.integers(C, size=N)
WEIGHT = RNG.uniform(0, 3, size=N)


def logits(dtype: str, c: int = C) -> np.ndarray:
    return ref.rows_of("wide", N, c, dtype, seed=1) / np.dtype(dtype).type(10)


def tolerance(dtype: str) -> float:
    return {"float32": 2e-6, "float64": 1e-12}[dtype]


each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@each_dtype
@pytest.mark.parametrize("sample_weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("names", [np.arange(C), np.array(list("dabcgfe")), np.array([-5, 3, 11, 2, 9, 40, 7])])
def test_log_loss(dtype, sample_weight, names):
    p = fx.softmax(logits(dtype))
    p[0], p[1] = np.eye(C)[(TARGET[0] + 1) % C], np.eye(C)[TARGET[1]]  # both ends of the clipping
    columns = np.sort(names)
    truth = metrics.log_loss(columns[TARGET], p, sample_weight=sample_weight, labels=columns)
    for labels in (None, columns, list(columns)):  # columns stand for the labels in their order
        result = fx.log_loss(p, columns[TARGET], sample_weight=sample_weight, labels=labels)
        assert result == pytest.approx(truth, rel=tolerance(dtype))


@each_dtype
def test_log_loss_of_two_classes_in_one_column(dtype):
    p = scipy.special.expit(logits(dtype, 1))[:, 0]
    target = RNG.integers(2, size=N)
    assert fx.log_loss(p, target) == pytest.approx(metrics.log_loss(target, p), rel=tolerance(dtype))
    both = np.stack([1 - p, p], axis=-1)
    assert fx.log_loss(both, target) == pytest.approx(metrics.log_loss(target, both), rel=tolerance(dtype))
    assert fx.binary_cross_entropy(p, target) == pytest.approx(metrics.log_loss(target, p), rel=tolerance(dtype))


def test_log_loss_with_a_class_that_no_row_has():
    p = fx.softmax(logits("float64"))
    target = TARGET % 3
    expected = metrics.log_loss(target, p, labels=range(C))
    assert fx.log_loss(p, target, labels=range(C)) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="labels"):
        fx.log_loss(p, target)
    with pytest.raises(ValueError, match="labels"):
        fx.log_loss(p, target + 5, labels=range(C))


@each_dtype
def test_accuracy_top_k_and_brier_score(dtype):
    x = logits(dtype)
    statistics = fx.row_statistics(x, TARGET)
    assert np.mean(statistics.rank == 0) == metrics.accuracy_score(TARGET, statistics.predicted)
    for k in range(1, C):
        assert np.mean(statistics.rank < k) == metrics.top_k_accuracy_score(TARGET, x, k=k)
    brier = metrics.brier_score_loss(TARGET, scipy.special.softmax(x.astype(float), axis=-1), scale_by_half=False)
    assert np.mean(statistics.brier) == pytest.approx(brier, rel=tolerance(dtype))
    nll = metrics.log_loss(TARGET, scipy.special.softmax(x.astype(float), axis=-1))
    assert fx.cross_entropy(x, TARGET) == pytest.approx(nll, rel=tolerance(dtype))


@each_dtype
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_family(dtype, axis):
    x = logits(dtype)
    x[3, 2] = -np.inf
    for name in ("softmax", "log_softmax", "logsumexp"):
        truth = getattr(scipy.special, name)(x.astype(np.float64), axis=axis)
        np.testing.assert_allclose(getattr(fx, name)(x, axis=axis), truth, rtol=tolerance(dtype), atol=1e-38)


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [np.inf, -np.inf], [np.nan, 0.0], [np.nan, np.inf]])
    np.testing.assert_array_equal(fx.logsumexp(x), scipy.special.logsumexp(x, axis=-1))


@each_dtype
@pytest.mark.parametrize("base", [None, 2])
def test_entropy_and_divergences(dtype, base):
    p, q = fx.softmax(logits(dtype)), fx.softmax(logits(dtype)[::-1])
    p[:, 0] = 0
    p, q = (v / v.sum(axis=-1, keepdims=True) for v in (p, q))  # scipy normalises
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    unit = np.log(base or np.e)
    close = {"rtol": 10 * tolerance(dtype), "atol": tolerance(dtype)}
    np.testing.assert_allclose(fx.entropy(p, base=base), scipy.stats.entropy(wide_p, axis=-1, base=base), **close)
    options = {"input": "probs", "reduction": "none", "base": base}
    relative = scipy.special.rel_entr(wide_p, wide_q).sum(axis=-1) / unit
    np.testing.assert_allclose(fx.kl_divergence(p, q, **options), relative, **close)
    squared = jensenshannon(wide_p, wide_q, axis=-1, base=base) ** 2
    np.testing.assert_allclose(fx.js_divergence(p, q, **options), squared, **close)
    both = fx.js_divergence(np.log(np.maximum(p, 1e-30)), np.log(q), **(options | {"input": "log_probs"}))
    np.testing.assert_allclose(both, squared, **close)
