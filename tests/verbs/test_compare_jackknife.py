"""Differences of metrics that are not means: by the jackknife with the same buckets of both dumps, or by slopes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
from scipy import special
from sklearn import metrics as sk

import fastxent as fx
from fastxent.state.clusters import Clusters
from tests.verbs import clicks, pairs

RNG = np.random.default_rng(8)
ODDS_B = (clicks.ODDS + RNG.normal(size=clicks.N) * 0.6).astype(np.float32)
MACRO = {
    "macro_f1": lambda y, q: sk.f1_score(y, q, average="macro", zero_division=0),
    "balanced_accuracy": lambda y, q: sk.recall_score(y, q, average="macro", labels=np.unique(y), zero_division=0),
    "matthews_corrcoef": sk.matthews_corrcoef,
}


def buckets_of(values: np.ndarray, count: int) -> np.ndarray:
    """The bucket of each row by the hash of its cluster."""
    clusters = Clusters()
    codes = clusters.codes_of([f"int:{value}" for value in values])
    return ((clusters.hashes()[codes] >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)


def expected(figure, sides, bucket) -> tuple[float, float, float]:
    """(the difference, its standard error, the correlation of the dumps), without each bucket the slow way."""
    kept = [np.ones(len(bucket), bool)] + [bucket != k for k in np.unique(bucket)]
    a, b = (np.array([figure(side, some) for some in kept]) for side in sides)
    k = len(kept) - 1
    each = b[1:] - a[1:]
    stderr = math.sqrt((k - 1) / k * ((each - each.mean()) ** 2).sum())
    return b[0] - a[0], stderr, np.corrcoef(a[1:], b[1:])[0, 1]


def test_averages_over_classes_are_those_of_sklearn_without_each_bucket():
    used = pairs.TARGET != -100
    y, bucket = pairs.TARGET[used], buckets_of(pairs.COLUMNS["doc"][used], 7)
    predicted = [x.argmax(axis=1)[used] for x in (pairs.A, pairs.B)]
    found = fx.compare(*pairs.both(), cluster="doc", jackknife=7)
    for name, figure in MACRO.items():
        value, stderr, correlation = expected(lambda q, some: figure(y[some], q[some]), predicted, bucket)  # noqa: B023
        metric = found.metrics[name]
        assert metric.difference.value == pytest.approx(value, abs=1e-12)
        assert metric.difference.stderr == pytest.approx(stderr, rel=1e-9), name
        assert metric.correlation == pytest.approx(correlation, rel=1e-6)
        assert metric.difference.method == "jackknife"
        assert metric.minimum_detectable_effect == pytest.approx(2.8 * stderr, rel=1e-9)
        assert 0.0 <= metric.p_value <= 1.0
        assert metric.difference.ci95[0] <= value <= metric.difference.ci95[1]


def test_ranking_and_calibration_of_binary_dumps():
    table = clicks.table()
    y, bucket = np.asarray(clicks.TARGET), buckets_of(np.array(table["user"]), 5)
    found = fx.compare(table, clicks.table(logits=ODDS_B), cluster="user", jackknife=5, bins=4)
    sides = [clicks.ODDS.astype(np.float64), ODDS_B.astype(np.float64)]

    def error(odds, some):
        p = special.expit(odds[some])
        place = np.clip(np.ceil(p * 4).astype(int) - 1, 0, 3)
        return np.abs(np.bincount(place, p - y[some], minlength=4)).sum() / some.sum()

    for name, figure, close in (
        # scores of a bucket share cells, so that some are taken as equal
        ("roc_auc", lambda odds, some: sk.roc_auc_score(y[some], odds[some]), 0.03),
        ("average_precision", lambda odds, some: sk.average_precision_score(y[some], odds[some]), 0.03),
        ("expected_calibration_error", error, 1e-4),
    ):
        value, stderr, _ = expected(figure, sides, bucket)
        metric = found.metrics[name]
        assert metric.difference.value == pytest.approx(value, rel=1e-5), name
        assert metric.difference.stderr == pytest.approx(stderr, rel=close), name


@pytest.mark.parametrize("name", ["balanced_accuracy", "matthews_corrcoef"])
def test_rates_of_binary_dumps_by_the_delta_method(name):
    y, n = np.asarray(clicks.TARGET), clicks.N
    figure = {"balanced_accuracy": sk.balanced_accuracy_score, "matthews_corrcoef": sk.matthews_corrcoef}[name]
    sides = [odds > 0 for odds in (clicks.ODDS, ODDS_B)]
    # The same for rows that are counted alike: without a row of each kind.
    kinds, rows = np.unique(np.stack([y, *sides], axis=1).astype(int), axis=0, return_counts=True)
    without = []
    for k in range(len(kinds)):
        weight = rows - (np.arange(len(kinds)) == k)
        a, b = (figure(kinds[:, 0], kinds[:, 1 + side], sample_weight=weight) for side in (0, 1))
        without.append(b - a)
    mean = np.average(without, weights=rows)
    stderr = math.sqrt((n - 1) / n * (rows * (np.array(without) - mean) ** 2).sum())
    metric = fx.compare(clicks.table(), clicks.table(logits=ODDS_B)).metrics[name]
    assert metric.difference.stderr == pytest.approx(stderr, rel=0.02)
    assert metric.p_value == pytest.approx(
        2 * scipy.stats.t.sf(abs(metric.difference.value / metric.difference.stderr), n - 1), rel=1e-6
    )


def test_equal_dumps_weights_and_no_buckets():
    a, b = pairs.both()
    same = fx.compare(a, a).metrics["macro_f1"]
    assert (same.difference.value, same.difference.stderr, same.p_value) == (0.0, 0.0, 1.0)
    weighted = fx.compare(a, b, weight="weight").metrics
    assert weighted["expected_calibration_error"].difference.method == "jackknife"
    assert math.isnan(weighted["macro_f1"].difference.stderr)  # not with weights
    assert math.isnan(fx.compare(a, b, jackknife=0).metrics["macro_f1"].difference.stderr)


@pytest.mark.parametrize("options", [{}, {"cluster": "doc"}])
def test_averages_of_slices_are_those_of_their_rows_alone(options):
    a, b = pairs.both()
    sliced = fx.compare(a, b, by="kind", **options).slices["kind"]["a"]
    some = np.flatnonzero(np.array(a["kind"].to_pylist()) == "a")
    alone = fx.compare(a.take(some), b.take(some), **options)
    for name in (*MACRO, "macro_precision", "macro_recall", "weighted_f1"):
        assert replace(sliced.metrics[name], adjusted_p_value=None) == alone.metrics[name]
        assert sliced.metrics[name].difference.method == "jackknife"
        assert 0.0 <= sliced.metrics[name].p_value <= 1.0
    if options:  # a slice has coarser cells, but the same buckets
        for name in ("expected_calibration_error", "smooth_calibration_error"):
            assert sliced.metrics[name].difference.stderr == alone.metrics[name].difference.stderr > 0.0


def test_the_same_bits_in_any_split(tmp_path):
    a, b = pairs.both()
    for name, table, size in (("a", a, 50), ("b", b, 37)):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=size)
    files = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    whole = fx.compare(a, b)
    assert fx.compare(*files, threads=2, memory="1MB").metrics == whole.metrics
    shards = [fx.compare(*files, shard=f"{k}/2").state for k in (1, 2)]
    assert fx.merge_states(shards).result().metrics == whole.metrics
    assert fx.CompareState.from_bytes(whole.state.to_bytes()).result().metrics == whole.metrics
    for side, table in (("a", a), ("b", b)):
        alone = fx.evaluate(table).metrics
        assert all(
            getattr(m, side).value == alone[k].value or math.isnan(alone[k].value) for k, m in whole.metrics.items()
        )


def test_intervals_hold_the_difference():
    """Of dumps whose calibration errors and macro F1 differ by a known amount: that of a large sample."""
    rng, classes = np.random.default_rng(3), 4

    def sample(n):
        x = rng.normal(size=(n, classes)) * 1.5
        y = (x + rng.gumbel(size=x.shape)).argmax(axis=1)
        return {"logits": x, "target": y}, {"logits": 1.6 * x + rng.normal(size=x.shape) * 0.5, "target": y}

    names = ("expected_calibration_error", "macro_f1", "matthews_corrcoef")
    truth = {name: m.difference.value for name, m in fx.compare(*sample(400_000), metrics=names).metrics.items()}
    held = dict.fromkeys(names, 0)
    for _ in range(60):
        found = fx.compare(*sample(1500), metrics=names).metrics
        for name in names:
            low, high = found[name].difference.ci95
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 52  # 57 expected
