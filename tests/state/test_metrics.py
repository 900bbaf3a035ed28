"""Every figure against its definition, evaluated row by row in rational numbers, and against scikit-learn."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from fastxent.errors import ConfigError
from fastxent.kernels.cuts import PLACE, ROWS, Cuts, room, tally_calibration
from fastxent.kernels.exact import rounded_ratio
from fastxent.options.config import EvalConfig
from fastxent.scoring.rows import USED
from fastxent.state.evaluation import EvalState
from scored_cases import CLASSES, CONFIGS, case, config, logits_and_target, scored

LN2 = math.log(2)
DERIVED = {"cross_entropy_bits", "perplexity", "bits_per_byte"}


def slow_means(rows, cfg) -> dict[str, tuple[float, float, int]]:
    """(value, standard error, clusters) of every mean by its definition, one row at a time."""
    used = np.flatnonzero(rows.status == USED)
    weight = np.ones(len(rows.status)) if rows.weight is None else rows.weight
    one = np.ones(len(rows.status))
    class_weight = one if rows.class_weight is None else rows.class_weight
    pairs = {
        "cross_entropy": (rows.loss, class_weight),
        "accuracy": (rows.rank == 0, one),
        "top_3_accuracy": (rows.rank < 3, one),
        "mean_reciprocal_rank": (1 / (rows.rank + 1), one),
        "brier_score": (rows.brier, one),
        "entropy": (rows.entropy, one),
        "confidence": (rows.confidence, one),
        "z_loss": (rows.lse**2, one),
    }
    if rows.n_bytes is not None:
        pairs["nats_per_byte"] = (rows.nll, rows.n_bytes)
    cluster = rows.cluster.to_pylist() if cfg.cluster else list(range(len(rows.status)))
    found = {}
    for name, (numerator, denominator) in pairs.items():
        u = {i: Fraction(float(weight[i] * numerator[i])) for i in used}
        d = {i: Fraction(float(weight[i] * denominator[i])) for i in used}
        total = sum(d.values())
        ratio = sum(u.values()) / total
        residuals: dict[int, Fraction] = {}
        for i in used:
            residuals[cluster[i]] = residuals.get(cluster[i], 0) + u[i] - ratio * d[i]
        count = len(residuals)
        variance = Fraction(count, count - 1) * sum(r * r for r in residuals.values()) / total**2
        found[name] = (float(ratio), math.sqrt(variance), count)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_means_are_their_definitions(name):
    cfg, rows = case(name)
    metrics = EvalState.empty(cfg).add(rows).result().metrics
    slow = slow_means(rows, cfg)
    for metric, (value, stderr, count) in slow.items():
        if metric == "nats_per_byte":
            continue
        got = metrics[metric]
        assert got.value == value, metric
        assert got.stderr == pytest.approx(stderr, rel=1e-15), metric
        t = stats.t.ppf(0.975, count - 1)
        if "accuracy" in metric:
            plain = not (cfg.weight or cfg.cluster)
            z, n = (stats.norm.ppf(0.975), count) if plain else (t, value * (1 - value) / stderr**2)
            middle = (value + z * z / (2 * n)) / (1 + z * z / n)
            half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
            assert got.ci95 == pytest.approx((middle - half, middle + half), rel=1e-9), metric
            assert got.method == "wilson"
            continue
        half = t * stderr
        assert got.ci95 == pytest.approx((value - half, value + half), rel=1e-12), metric
        assert got.method == "t"
    value, stderr, count = slow["cross_entropy"]
    assert metrics["cross_entropy_bits"].value == value / LN2
    assert metrics["cross_entropy_bits"].stderr == pytest.approx(stderr / LN2, rel=1e-15)
    assert metrics["perplexity"].value == math.exp(value)
    assert metrics["perplexity"].stderr == pytest.approx(math.exp(value) * stderr, rel=1e-15)
    half = stats.t.ppf(0.975, count - 1) * stderr
    ends = math.exp(value - half), math.exp(value + half)
    assert metrics["perplexity"].ci95 == pytest.approx(ends, rel=1e-12)
    assert metrics["perplexity"].method == "exp-t"
    assert ("bits_per_byte" in metrics) == (cfg.n_bytes is not None)
    if cfg.n_bytes:
        value, stderr, _ = slow["nats_per_byte"]
        assert metrics["bits_per_byte"].value == value / LN2
        assert metrics["bits_per_byte"].stderr == pytest.approx(stderr / LN2, rel=1e-15)


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_calibration_is_its_definition(name):
    cfg, rows = case(name, n=300)
    result = EvalState.empty(cfg).add(rows).result()
    weight = np.ones(300) if rows.weight is None else rows.weight
    gaps, weights = [], []
    for k in range(cfg.bins):
        low, high = k / cfg.bins, (k + 1) / cfg.bins
        inside = (rows.status == USED) & (rows.confidence > low) & (rows.confidence <= high)
        assert (result.calibration.lower[k], result.calibration.upper[k]) == (low, high)
        assert result.calibration.count[k] == inside.sum()
        if not inside.any():
            assert math.isnan(result.calibration.accuracy[k])
            continue
        confidence = math.fsum((weight * rows.confidence)[inside]) / math.fsum(weight[inside])
        accuracy = math.fsum((weight * (rows.rank == 0))[inside]) / math.fsum(weight[inside])
        assert result.calibration.confidence[k] == pytest.approx(confidence, rel=1e-15)
        assert result.calibration.accuracy[k] == pytest.approx(accuracy, rel=1e-15)
        gaps.append(abs(confidence - accuracy))
        weights.append(math.fsum(weight[inside]))
    assert (result.calibration.weight is None) == (cfg.weight is None)
    expected = result.metrics["expected_calibration_error"]
    assert expected.value == pytest.approx(np.average(gaps, weights=weights), rel=1e-13)
    assert expected.method == "jackknife"
    assert result.metrics["maximum_calibration_error"].value == pytest.approx(max(gaps), rel=1e-13)


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each number, as a group of its own."""
    n = len(confidence)
    cuts = Cuts.zeros(n * bins, PLACE, 3 * n)
    numbers = confidence, np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    tally_calibration(numbers, np.arange(n), bins, *cuts, room())
    counts = cuts.sums[:, ROWS].reshape(n, bins)
    assert (counts.sum(axis=1) == 1).all()
    return counts.argmax(axis=1)


def test_bins_are_closed_above():
    for bins in (1, 3, 10, 15):
        edges = np.array([k / bins for k in range(bins + 1)])
        assert bin_of(edges, bins).tolist() == [0, *range(bins)]
        assert bin_of(np.nextafter(edges[:-1], 2), bins).tolist() == list(range(bins))
    assert bin_of(np.array([0.3]), 10).tolist() == [2]  # 3/10 and 0.3 are one double
    beyond = np.array([-math.inf, -3.0, -1e-9, -0.0, 1.1, 1e300, math.inf, math.nan])
    assert bin_of(beyond, 10).tolist() == [0, 0, 0, 0, 9, 9, 9, 9]


def test_scikit_learn():
    logits, target = logits_and_target(500, seed=3)
    cfg = config("weight")
    rows = scored(logits, target, cfg, dirty=False)
    result = EvalState.empty(cfg).add(rows).result()
    p = np.exp(logits - rows.lse[:, None])
    p /= p.sum(axis=1, keepdims=True)  # scikit-learn insists
    w = rows.weight
    labels = list(range(CLASSES))
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    assert metrics["cross_entropy"] == pytest.approx(sk.log_loss(target, p, labels=labels, sample_weight=w), rel=1e-12)
    assert metrics["accuracy"] == pytest.approx(sk.accuracy_score(target, rows.predicted, sample_weight=w), rel=1e-12)
    assert metrics["top_3_accuracy"] == pytest.approx(
        sk.top_k_accuracy_score(target, logits, k=3, sample_weight=w, labels=labels), rel=1e-12
    )
    brier = sum(sk.brier_score_loss(target == c, p[:, c], sample_weight=w, pos_label=True) for c in labels)
    assert metrics["brier_score"] == pytest.approx(brier, rel=1e-12)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        target, rows.predicted, labels=labels, sample_weight=w
    )
    classes = result.per_class
    assert classes.class_id == tuple(labels)
    assert classes.support == tuple(np.bincount(target))
    assert classes.predicted == tuple(np.bincount(rows.predicted))
    np.testing.assert_allclose(classes.precision, precision, rtol=1e-12)
    np.testing.assert_allclose(classes.recall, recall, rtol=1e-12)
    np.testing.assert_allclose(classes.f1, f1, rtol=1e-12)
    np.testing.assert_allclose(
        classes.nll, [np.average(rows.nll[target == c], weights=w[target == c]) for c in labels], rtol=1e-12
    )


def test_scikit_learn_calibration_curve():
    cfg, rows = case("plain", dirty=False)
    bins = EvalState.empty(cfg).add(rows).result().calibration
    accuracy, confidence = calibration_curve(rows.rank == 0, rows.confidence, n_bins=cfg.bins)
    filled = np.array(bins.count) > 0
    np.testing.assert_allclose(np.array(bins.accuracy)[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(np.array(bins.confidence)[filled], confidence, rtol=1e-12)


@pytest.mark.parametrize("name", ["plain", "weight", "class_weight"])
def test_rows_that_do_not_vary_have_no_error(name):
    cfg, rows = case(name, dirty=False)
    constant = replace(
        rows,
        loss=np.full(400, 0.1),
        class_weight=None if rows.class_weight is None else np.full(400, 0.3),
        weight=None if rows.weight is None else np.full(400, 0.7),
    )
    metric = EvalState.empty(cfg).add(constant).result().metrics["cross_entropy"]
    assert metric.stderr == 0.0
    assert metric.ci95 == (metric.value, metric.value)


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_infinite_losses(name):
    cfg, rows = case(name, dirty=False)
    rows.loss[3] = rows.nll[3] = math.inf
    result = EvalState.empty(cfg).add(rows).result()
    for metric in ("cross_entropy", "cross_entropy_bits", "perplexity"):
        assert result.metrics[metric].value == math.inf
        assert math.isnan(result.metrics[metric].stderr)
        assert all(map(math.isnan, result.metrics[metric].ci95))
    assert math.isfinite(result.metrics["accuracy"].stderr)
    assert result.nll_histogram.infinite == 1
    assert result.nll_quantiles[1.0] == math.inf
    assert result.per_class.nll[result.per_class.class_id.index(rows.target[3])] == math.inf


@pytest.mark.parametrize("name", ["plain", "cluster", "everything"])
def test_of_no_rows_every_figure_is_undefined(name):
    result = EvalState.empty(config(name)).result()
    assert all(math.isnan(metric.value) for metric in result.metrics.values())
    assert all(math.isnan(metric.stderr) for metric in result.metrics.values())
    assert all(math.isnan(value) for value in result.nll_quantiles.values())
    assert result.per_class.class_id == ()
    assert result.warnings


def test_one_row_or_cluster_has_no_error():
    cfg, rows = case("plain", n=1, dirty=False)
    metric = EvalState.empty(cfg).add(rows).result().metrics["cross_entropy"]
    assert metric.value == rows.nll[0]
    assert math.isnan(metric.stderr)


def test_selection_and_order():
    every = [
        "cross_entropy", "cross_entropy_bits", "perplexity", "normalized_entropy", "bits_per_byte", "accuracy",
        "top_3_accuracy", "mean_reciprocal_rank", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1",
        "weighted_f1", "matthews_corrcoef", "brier_score", "entropy", "confidence", "expected_calibration_error",
        "maximum_calibration_error", "debiased_calibration_error", "smooth_calibration_error", "miscalibration",
        "discrimination", "uncertainty", "z_loss",
    ]  # fmt: skip
    cfg, rows = case("everything")
    whole = EvalState.empty(cfg).add(rows).result()
    assert list(whole.metrics) == every
    for name in every:
        some = EvalState.empty(replace(cfg, metrics=(name,))).add(rows).result()
        assert some.metrics == {name: whole.metrics[name]} or name in (
            "expected_calibration_error",
            "maximum_calibration_error",
        )
        assert some.metrics[name].value == whole.metrics[name].value
        assert list(some.metrics) == [name]


def test_unknown_metrics_are_refused():
    with pytest.raises(ConfigError, match=r"'perplexty'; did you mean 'perplexity'\?"):
        EvalState.empty(EvalConfig(n_classes=3, metrics=("accuracy", "perplexty")))
    with pytest.raises(ConfigError, match="there are: cross_entropy, "):
        EvalState.empty(EvalConfig(n_classes=3, metrics=("xyzzy",)))
    with pytest.raises(ConfigError, match="requires n_bytes"):
        EvalState.empty(EvalConfig(n_classes=3, metrics=("bits_per_byte",)))


def magnitudes(low: float, high: float):
    return st.one_of(st.just(0.0), st.floats(low, high), st.floats(-high, -low))


def check_hard_errors(losses, clustered):
    n = len(losses)
    cfg, rows = case("cluster" if clustered else "plain", n=n, dirty=False)
    rows.loss[:] = losses
    slow = [Fraction(v) for v in losses]
    mean = sum(slow) / n
    clusters = rows.cluster.to_pylist() if clustered else list(range(n))
    sums: dict[int, Fraction] = {}
    for cluster, value in zip(clusters, slow, strict=True):
        sums[cluster] = sums.get(cluster, 0) + value - mean
    count = len(sums)
    metric = EvalState.empty(cfg).add(rows).result().metrics["cross_entropy"]
    assert metric.value == rounded_ratio(mean.numerator, mean.denominator)
    if count < 2:
        assert math.isnan(metric.stderr)
        return
    variance = Fraction(count, count - 1) * sum(r * r for r in sums.values()) / n**2
    low, high = math.nextafter(metric.stderr, 0), math.nextafter(metric.stderr, math.inf)
    assert Fraction(low) ** 2 <= variance <= Fraction(high) ** 2


@given(st.lists(magnitudes(1e-140, 1e140), min_size=2, max_size=20))
def test_errors_under_cancellation(losses):
    check_hard_errors(losses, clustered=False)


@given(st.lists(magnitudes(1e-290, 1e300), min_size=2, max_size=20))
def test_clustered_errors_under_cancellation(losses):
    check_hard_errors(losses, clustered=True)


def test_squares_beyond_the_largest_double_leave_no_error():
    cfg, rows = case("plain", dirty=False)
    rows.loss[5] = 1e200
    metric = EvalState.empty(cfg).add(rows).result().metrics["cross_entropy"]
    assert metric.value == pytest.approx(1e200 / 400)
    assert math.isnan(metric.stderr)
