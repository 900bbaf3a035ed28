"""The error of the normalized entropy of several classes: its definition by row, and how often its intervals cover."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fastxent as fx
from fastxent.kernels.hashed import mixed

NAME = "normalized_entropy"
WEIGHTS = [0.5, 2.0, 0.0, 1.25]


def dump(n: int, seed: int, clusters: int = 0) -> dict[str, Any]:
    """Rows of four classes of different sizes; those of a cluster have frequencies and difficulties in common."""
    random = np.random.default_rng(seed)
    of = np.arange(n) // max(1, n // max(clusters, 1)) if clusters else np.arange(n)
    shares = (
        random.dirichlet([4.0, 2.0, 1.0, 1.0], of.max() + 1) if clusters else np.full((n, 4), [0.5, 0.25, 0.15, 0.1])
    )
    target = (random.random(n)[:, None] > shares[of].cumsum(axis=1)[:, :3]).sum(axis=1)
    logits = random.normal(0, 1, (n, 4)) + random.uniform(0, 2, of.max() + 1)[of, None] * np.eye(4)[target]
    return {"logits": logits, "target": target, "doc": of}


def value_of(rows: dict[str, Any], weights: np.ndarray) -> float:
    """The definition."""
    target = rows["target"]
    loss = np.log(np.exp(rows["logits"]).sum(axis=1)) - rows["logits"][np.arange(len(target)), target]
    w = weights[target]
    p = np.bincount(target, w, 4) / w.sum()
    return (w * loss).sum() / w.sum() / -sum(x * math.log(x) for x in p if x)


@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
@pytest.mark.parametrize("metrics", ["all", NAME])
def test_the_error_is_that_of_the_infinitesimal_jackknife(class_weight: list[float] | None, metrics: str) -> None:
    rows = dump(300, 1)
    weights = np.ones(4) if class_weight is None else np.array(class_weight)
    found = fx.evaluate(rows, class_weight=class_weight, metrics=metrics, threads=1).metrics[NAME]
    assert found.value == pytest.approx(value_of(rows, weights), rel=1e-12)
    target, w = rows["target"], weights[rows["target"]]
    loss = np.log(np.exp(rows["logits"]).sum(axis=1)) - rows["logits"][np.arange(300), target]

    def figure(each: np.ndarray) -> float:
        """Of rows that count ``each`` times."""
        p = np.bincount(target, w * each, 4) / (w * each).sum()
        return (w * each * loss).sum() / (w * each).sum() / -sum(x * math.log(x) for x in p if x)

    step = 1e-5
    slopes = [
        (figure(np.ones(300) + step * np.eye(300)[i]) - figure(np.ones(300) - step * np.eye(300)[i])) / (2 * step)
        for i in range(300)
    ]
    units = int((w != 0).sum())
    assert found.stderr == pytest.approx(math.sqrt(units / (units - 1) * np.square(slopes).sum()), rel=1e-6)
    half = stats.t.ppf(0.975, units - 1) * found.stderr
    assert found.ci95 == pytest.approx((found.value - half, found.value + half), rel=1e-12)
    assert found.method == "t"


@pytest.mark.parametrize("class_weight", [None, WEIGHTS])
def test_the_error_of_clusters_is_that_of_leaving_out_buckets(class_weight: list[float] | None) -> None:
    rows = dump(400, 2, 50)
    found = fx.evaluate(rows, class_weight=class_weight, cluster="doc", label_smoothing=0.0, threads=1)
    bucket = (((mixed(rows["doc"].astype(np.uint64)) >> np.uint64(32)) * np.uint64(20)) >> np.uint64(32)).astype(int)
    weights = np.ones(4) if class_weight is None else np.array(class_weight)
    rest = [value_of({k: v[bucket != b] for k, v in rows.items()}, weights) for b in np.unique(bucket)]
    metric = found.metrics[NAME]
    expected = math.sqrt((len(rest) - 1) / len(rest) * np.square(np.array(rest) - np.mean(rest)).sum())
    assert metric.stderr == pytest.approx(expected, rel=1e-9)
    assert metric.method == "jackknife"
    assert metric.ci95[0] < metric.value < metric.ci95[1]
    only = fx.evaluate(rows, class_weight=class_weight, cluster="doc", metrics=NAME, threads=1).metrics[NAME]
    assert only == metric
    state = fx.EvalState.from_bytes(found.state.to_bytes())
    assert state.result().metrics == found.metrics


def test_where_there_is_no_error() -> None:
    rows = dump(100, 3)
    one = {"logits": rows["logits"], "target": np.zeros(100, int)}
    assert math.isnan(fx.evaluate(one, threads=1).metrics[NAME].value)  # the classes have no entropy
    for options in ({"label_smoothing": 0.1}, {"weight": "w"}, {"jackknife": 0, "cluster": "doc"}):
        metric = fx.evaluate({**rows, "w": np.linspace(1, 2, 100)}, threads=1, **options).metrics[NAME]
        assert metric.value > 0
        assert metric.method is None
    infinite = rows["logits"].copy()
    infinite[0, rows["target"][0]] = -math.inf
    metric = fx.evaluate({"logits": infinite, "target": rows["target"]}, threads=1).metrics[NAME]
    assert metric.value == math.inf
    assert metric.method is None
    # a constant prediction of the frequencies: each row's loss tells its class only, and the ratio is 1 without error
    frequencies = np.bincount(rows["target"], minlength=4) / 100
    constant = fx.evaluate({"logits": np.log(frequencies)[None].repeat(100, 0), "target": rows["target"]}, threads=1)
    assert constant.metrics[NAME].value == pytest.approx(1.0, rel=1e-12)
    assert constant.metrics[NAME].stderr < 1e-7


@pytest.mark.parametrize("clusters", [0, 12, 200])
def test_intervals_cover_the_truth(clusters: int) -> None:
    truth = value_of(dump(2_000_000, 4, 100_000 if clusters else 0), np.ones(4))
    options = {"cluster": "doc"} if clusters else {}
    found = [
        fx.evaluate(dump(20 * clusters or 300, 100 + k, clusters), metrics=NAME, threads=1, **options).metrics[NAME]
        for k in range(400)
    ]
    assert 0.93 <= np.mean([metric.ci95[0] <= truth <= metric.ci95[1] for metric in found]) <= 0.97
