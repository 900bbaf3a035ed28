"""Intervals against scipy, at their limits, and by how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

import fastxent as fx
from fastxent.state import ranking
from fastxent.state.intervals import by_exponential, by_student, by_wilson
from fastxent.state.ranking import Ranked

CONFIDENT = np.float32([[4.0, 0.0], [0.0, 4.0]])


@given(st.integers(1, 100_000), st.data())
def test_rates_of_independent_rows_are_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    found = by_wilson(k / n, 0.0, n, float(n))
    assert found.ci95 == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-14)
    assert found.method == "wilson"


@given(st.floats(-1e3, 1e3), st.floats(0.0, 10.0), st.integers(1, 50))
def test_means_and_exponentials_are_students(mean: float, stderr: float, freedom: int) -> None:
    low, high = mean - stats.t.ppf(0.975, freedom) * stderr, mean + stats.t.ppf(0.975, freedom) * stderr
    found = by_student(mean, stderr, freedom)
    assert found.ci95 == pytest.approx((low, high), rel=1e-12, abs=1e-12)
    with np.errstate(over="ignore"):
        ends = float(np.exp(found.ci95[0])), float(np.exp(found.ci95[1]))
    grown = by_exponential(mean, stderr, freedom)
    assert grown.ci95 == pytest.approx(ends, rel=1e-12)
    assert 0.0 <= grown.ci95[0] <= grown.value <= grown.ci95[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.25])
def test_an_undefined_error_has_no_interval(value: float) -> None:
    for metric in (by_student(value, math.nan, 5), by_exponential(value, math.nan, 5), by_student(value, 0.1, 0)):
        assert all(map(math.isnan, metric.ci95))
        assert metric.method is None
    assert math.isnan(by_wilson(math.nan, math.nan, 0, 0.0).ci95[0])


def test_a_rate_that_negative_weights_take_outside_0_and_1_has_students_interval() -> None:
    assert by_wilson(1.5, 0.1, 20, None) == by_student(1.5, 0.1, 19)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("options", [{}, {"cluster": "c"}, {"weight": "w"}])
def test_rates_of_0_and_1_have_intervals_of_positive_width(target: int, options: dict[str, str]) -> None:
    n = 40
    columns = {"logits": CONFIDENT[:1].repeat(n, 0), "target": [target] * n, "c": np.arange(n) % 20, "w": [2.0] * n}
    accuracy = fx.evaluate(columns, **options).metrics["accuracy"]  # type: ignore[arg-type]
    low, high = accuracy.ci95
    assert accuracy.value == 1 - target
    assert accuracy.stderr == 0.0
    assert 0.0 <= low < high <= 1.0
    assert 0.05 < high - low < 0.25
    assert accuracy.value in (low, high)


@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_rates_cover_the_truth(n: int, low: float) -> None:
    """The exact chance that the interval holds the rate, on average over rates: near 0 and 1, and between."""
    rates = np.linspace(low, low + 0.1, 41)[1:-1] if low else np.linspace(2 / n, 0.1, 41)
    intervals = np.array([by_wilson(k / n, 0.0, n, float(n)).ci95 for k in range(n + 1)])
    for mirrored in (rates, 1 - rates):
        held = (intervals[:, :1] <= mirrored) & (mirrored <= intervals[:, 1:])
        chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, mirrored)
        assert 0.93 <= (held * chance).sum(axis=0).mean() <= 0.97


@pytest.mark.parametrize("clusters", [12, 200])
def test_clustered_rates_and_perplexities_cover_the_truth(clusters: int) -> None:
    """Rows of one cluster are right together more often than rows of different ones, as questions of one document."""
    rng = np.random.default_rng(7)
    size, runs, rate = 10, 600, 0.8
    truth = {
        "accuracy": rate,
        "perplexity": math.exp(rate * math.log1p(math.exp(-4.0)) + (1 - rate) * math.log1p(math.exp(4.0))),
    }
    held = dict.fromkeys(truth, 0)
    groups = np.repeat(np.arange(clusters), size)
    for _ in range(runs):
        right = rng.random((clusters, size)) < rng.beta(4.0, 1.0, clusters)[:, None]
        columns = {"logits": CONFIDENT[:1].repeat(clusters * size, 0), "target": 1 - right.ravel(), "c": groups}
        metrics = fx.evaluate(columns, cluster="c", threads=1, metrics=tuple(truth)).metrics
        for name, value in truth.items():
            held[name] += metrics[name].ci95[0] <= value <= metrics[name].ci95[1]
    for name, count in held.items():
        assert 0.93 <= count / runs <= 0.97, name


@pytest.mark.parametrize("shift", [0.5, 2.0])  # areas of 0.64 and 0.92
def test_areas_under_the_roc_curve_cover_the_truth(shift: float) -> None:
    """DeLong's interval, of scores that are normal in either class, cut into cells."""
    rng, cells, runs, held = np.random.default_rng(8), np.linspace(-3.0, 3.0 + shift, 200), 600, 0
    chances = [np.diff(stats.norm.cdf(cells, loc)) for loc in (0.0, shift)]
    negative, positive = (chance / chance.sum() for chance in chances)
    truth = float(positive @ (np.cumsum(negative) - negative / 2))
    for _ in range(runs):
        sides = [rng.multinomial(n, chance).astype(np.float64) for n, chance in ((140, negative), (60, positive))]
        found = ranking.roc_auc(Ranked(np.arange(len(negative), dtype=np.uint64), sides[0], sides[1], True, True))
        assert found.method == "delong"
        held += found.ci95[0] <= truth <= found.ci95[1]
    assert 0.92 <= held / runs <= 0.97


@pytest.mark.parametrize("n", [10, 300])
def test_means_cover_the_truth(n: int) -> None:
    rng, held = np.random.default_rng(9), 0
    for x in rng.gamma(8.0, size=(2000, n)):
        found = by_student(x.mean(), x.std(ddof=1) / math.sqrt(n), n - 1)
        held += found.ci95[0] <= 8.0 <= found.ci95[1]
    assert 0.93 <= held / 2000 <= 0.97


@pytest.mark.parametrize(
    ("rows", "clusters", "told"),
    [
        (99, None, "99 used rows"),
        (1, None, "1 used row"),
        (100, None, None),
        (900, 29, "29 clusters"),
        (900, 30, None),
    ],
)
def test_few_rows_or_clusters_are_said(rows: int, clusters: int | None, told: str | None) -> None:
    columns = {"logits": CONFIDENT[np.arange(rows) % 2], "target": [0] * rows, "c": np.arange(rows) % (clusters or 1)}
    result = fx.evaluate(columns, cluster=None if clusters is None else "c")
    sentence = f"The intervals are approximate, because there are only {told}."
    assert result.caution == (None if told is None else sentence)
    for text in (repr(result), result.to_markdown(), result._repr_html_()):
        assert ("The intervals are approximate" in text) == (told is not None)
