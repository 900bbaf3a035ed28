"""Standard errors and intervals of the metrics of binary dumps, written out."""

import math

import numpy as np
import pytest
from scipy import special, stats

import fastxent as fx
from tests.verbs.clicks import ODDS, PROBS, TARGET, USER, WEIGHT, N, table


def ratio_stderr(upper, lower, groups=None):
    """The ratio estimator, written out."""
    residuals = upper - upper.sum() / lower.sum() * lower
    if groups is not None:
        residuals = np.bincount(groups, weights=residuals)
    n = len(residuals)
    return math.sqrt(n / (n - 1) * (residuals**2).sum()) / lower.sum()


@pytest.mark.parametrize("options", [{}, {"weight": "w"}, {"cluster": "user"}, {"weight": "w", "cluster": "user"}])
@pytest.mark.parametrize("soft", [False, True])
def test_standard_errors(options, soft):
    y = np.where(np.arange(N) % 5 == 0, 0.25, TARGET) if soft else TARGET.astype(float)
    metrics = fx.evaluate(table(target=y), **options).metrics
    w = WEIGHT if "weight" in options else np.ones(N)
    p = PROBS.astype(np.float64)
    hat = (ODDS >= 0).astype(float)
    groups = USER if "cluster" in options else None
    keep = w != 0
    ratios = {
        "accuracy": (y * hat + (1 - y) * (1 - hat), 1.0),
        "precision": (y * hat, hat),
        "recall": (y * hat, y),
        "specificity": ((1 - y) * (1 - hat), 1 - y),
        "f1": (2 * y * hat, y + hat),
        "brier_score": ((p - y) ** 2, 1.0),
        "base_rate": (y, 1.0),
        "mean_prediction": (p, 1.0),
        "calibration_ratio": (p, y),
    }
    for name, (upper, lower) in ratios.items():
        arguments = (w * upper)[keep], (w * lower)[keep], None if groups is None else groups[keep]
        assert metrics[name].stderr == pytest.approx(ratio_stderr(*arguments), rel=1e-5), name
    units = len(np.unique(groups)) if groups is not None else int(keep.sum())
    t = stats.t.ppf(0.975, units - 1)
    brier = metrics["brier_score"]
    assert brier.ci95 == pytest.approx((brier.value - t * brier.stderr, brier.value + t * brier.stderr))
    assert brier.method == "t"
    for name in ("accuracy", "precision", "recall", "specificity", "base_rate"):
        rate = metrics[name]
        rows = {"precision": hat.sum(), "recall": y.sum(), "specificity": (1 - y).sum()}.get(name, N)
        plain = not (options or soft)
        z, n = (stats.norm.ppf(0.975), rows) if plain else (t, rate.value * (1 - rate.value) / rate.stderr**2)
        middle = (rate.value + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(rate.value * (1 - rate.value) / n + z * z / (4 * n * n))
        assert rate.ci95 == pytest.approx((middle - half, middle + half), rel=1e-9), name
        assert rate.method == "wilson"


@pytest.mark.parametrize("cluster", [None, "user"])
def test_error_of_normalized_entropy(cluster):
    """The delta method equals the jackknife to first order."""
    groups = np.arange(N) if cluster is None else USER
    loss = np.logaddexp(0, ODDS.astype(np.float64)) - TARGET * ODDS

    def figure(rows):
        base = TARGET[rows].mean()
        return loss[rows].mean() / -(base * math.log(base) + (1 - base) * math.log(1 - base))

    each = np.array([figure(groups != g) for g in np.unique(groups)])
    jackknife = math.sqrt((len(each) - 1) / len(each) * ((each - each.mean()) ** 2).sum())
    found = fx.evaluate(table(), cluster=cluster).metrics["normalized_entropy"]
    assert found.stderr == pytest.approx(jackknife, rel=0.03)


def test_certain_rates_have_intervals_of_positive_width():
    metrics = fx.evaluate({"logits": np.float64([3, 3, -3, -3]), "target": [1, 1, 0, 0]}).metrics
    assert metrics["accuracy"].value == 1.0
    low, high = metrics["accuracy"].ci95
    assert 0.4 < low < 0.6
    assert high == 1.0
    metrics = fx.evaluate({"logits": np.float64([3, 3, -3]), "target": [1, 1, 0], "c": [0, 1, 2]}, cluster="c").metrics
    assert metrics["recall"].ci95[0] < 1.0


def test_undefined_metrics():
    metrics = fx.evaluate({"logits": np.float64([-1, -2, -3]), "target": [0, 0, 0]}).metrics
    for name in ("precision", "recall", "f1", "normalized_entropy", "roc_auc", "average_precision"):
        assert math.isnan(metrics[name].value), name
    assert metrics["calibration_ratio"].value != metrics["calibration_ratio"].value
    assert metrics["specificity"].value == metrics["balanced_accuracy"].value == 1.0
    assert metrics["matthews_corrcoef"].value == 0.0


def test_infinite_loss():
    result = fx.evaluate({"logits": np.float64([-np.inf, np.inf, 1.0]), "target": [1, 1, 0]})
    assert result.metrics["cross_entropy"].value == math.inf
    assert math.isnan(result.metrics["cross_entropy"].stderr)
    assert result.metrics["normalized_entropy"].value == math.inf
    assert result.metrics["brier_score"].value == pytest.approx((1 + 0 + special.expit(1) ** 2) / 3)
