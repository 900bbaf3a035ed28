"""Confidence sequences: the formula, the intervals of each kind, and that they hold at every look of a run."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import optimize

import dumps
import fastxent as fx
from fastxent.engine.rounds import ends
from fastxent.results.values import Metric
from fastxent.state.intervals import by_wilson
from fastxent.state.sequence import METHOD, Running, anytime, multiplier, unit_error


def half_width(t: float, rho: float, sigma: float, alpha: float = 0.05) -> float:
    """The formula as it is published."""
    r = t * rho * rho
    return sigma * math.sqrt(2 * (r + 1) / (t * t * rho * rho) * math.log(math.sqrt(r + 1) / alpha))


def test_the_multiplier_is_that_of_the_paper_and_smallest_at_the_first_look():
    rho = math.sqrt((-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 300)
    for t in (100, 300, 2000, 10**6):
        assert multiplier(t, 300) == pytest.approx(half_width(t, rho, 2.5) / (2.5 / math.sqrt(t)), rel=1e-12)
    best = optimize.minimize_scalar(lambda log: half_width(300, math.exp(log), 1.0), bounds=(-6, 0), method="bounded")
    assert multiplier(300, 300) / math.sqrt(300) == pytest.approx(best.fun, rel=2e-3)


def test_intervals_of_each_kind():
    z, g = 3.0, 1.2
    mean = anytime("entropy", Metric(2.0, 0.1, (1.8, 2.2), "t"), z, g)
    assert mean.ci95 == pytest.approx((2.0 - 0.2 / 1.959964 * z * g, 2.0 + 0.2 / 1.959964 * z * g), rel=1e-6)
    assert (mean.method, mean.stderr) == (METHOD, pytest.approx(0.12))
    low, high = anytime("perplexity", Metric(8.0, 0.8, (6.6, 9.7), "exp-t"), z).ci95
    assert (math.log(low), math.log(high)) == pytest.approx((math.log(8) - 0.3, math.log(8) + 0.3))
    for value, stderr in ((0.0, 0.0), (1.0, 0.0), (0.3, math.sqrt(0.21 / 50))):
        found = anytime("accuracy", by_wilson(value, stderr, 50, 50.0), z).ci95
        roots = sorted(np.roots([1 + z * z / 50, -2 * value - z * z / 50, value * value]).real)
        assert found == pytest.approx(tuple(roots), abs=1e-9)
    assert anytime("matthews_corrcoef", Metric(-0.9, 0.2, (-1.0, -0.5), "jackknife"), z).ci95[0] == -1.0
    assert anytime("brier_score", Metric(0.1), z) == Metric(0.1)
    bounded = anytime("entropy", Metric(math.nan, math.nan, (1.0, 4.0), "t", (1.5, 3.0)), 1.96 * 2)
    assert bounded.ci95 == pytest.approx((0.5, 5.0), rel=1e-4)


def test_units_whose_rows_are_alike_have_the_error_of_clusters():
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    table = dumps.table(len(unit)).append_column("unit", [unit])
    found = fx.evaluate(table, cluster="unit", metrics=["accuracy"]).metrics["accuracy"]
    right = np.array(table["logits"].to_pylist()).argmax(axis=1) == np.array(table["target"])
    each = [(right[unit == k].sum(), (unit == k).sum()) for k in range(12)]
    assert unit_error([(Fraction(int(a)), Fraction(int(b))) for a, b in each]) == found.stderr
    assert math.isnan(unit_error([(Fraction(1), Fraction(2))]))


def test_they_hold_at_every_look():
    """Intervals of 1.96 standard errors do so in three runs of four only."""
    rng, units, rows, misses, ordinary = np.random.default_rng(1), 150, 10, 0, 0
    looks = np.array(list(ends(units)))
    for _ in range(400):
        x = rng.lognormal(size=(units, rows)) + rng.normal(size=(units, 1))
        sums = x.sum(axis=1)
        mean = np.cumsum(sums)[looks - 1] / looks
        stderr = np.sqrt([sums[:n].var(ddof=1) / n for n in looks]) / rows
        z = np.array([multiplier(n, looks[0]) for n in looks])
        off = np.abs(mean / rows - math.exp(0.5))
        misses += (off > z * stderr).any()
        ordinary += (off > 1.96 * stderr).any()
    assert misses / 400 < 0.05 < 0.15 < ordinary / 400


@pytest.mark.parametrize("options", [{}, {"cluster": "doc", "weight": "weight"}], ids=["rows", "clusters"])
def test_running_sums_of_workers_are_those_of_all_rows(monkeypatch, options):
    monkeypatch.setattr("fastxent.state.sequence._EVERY", 0.0)
    monkeypatch.setattr("fastxent.state.sequence._SHARE", 0.0)
    table = dumps.table(90).sort_by("doc")
    doc = np.array(table["doc"])
    cuts = [0, *(int(np.searchsorted(doc, d)) for d in (9, 30)), 90]  # no cluster is of two workers
    told: list[Metric] = []
    watch = Running.of(told.append, fx.evaluate(table, **options).state.emptied())
    assert watch is not None
    for worker, (a, b) in enumerate(itertools.pairwise(cuts)):
        state = fx.evaluate(table.slice(a, b - a), **options).state
        watch.look(worker, state.emptied())
        watch.look(worker, state, left=worker == 0)
    whole = fx.evaluate(table, **options)
    assert (told[-1].value, told[-1].stderr) == (
        whole.metrics["cross_entropy"].value, pytest.approx(whole.metrics["cross_entropy"].stderr, rel=1e-12),
    )  # fmt: skip
    assert Running.of(told.append, fx.evaluate(table, target=None, metrics=["entropy"]).state) is None
