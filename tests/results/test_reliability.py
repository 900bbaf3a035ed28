"""The isotonic line of a reliability diagram, and its consistency band."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.isotonic import IsotonicRegression

import fastxent as fx
import report_cases
from fastxent.results.reliability import Reliability, isotonic, pooled
from fastxent.results.report import plots


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.0, 1.0)), min_size=1, max_size=30))
def test_pools_are_the_isotonic_regression(values: list[tuple[int, float]]) -> None:
    weights, y = np.array([w for w, _ in values], float), np.array([v for _, v in values])
    pools = pooled(weights, weights * y)
    found = np.repeat(pools.mean, np.diff(np.append(pools.first, len(y))))
    expected = IsotonicRegression().fit(np.arange(len(y)), y, sample_weight=weights).predict(np.arange(len(y)))
    assert found == pytest.approx(expected, abs=1e-9)


def test_groups_are_regressed_apart() -> None:
    weights = np.array([[1.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    sums = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    expected = [[1 / 3, 1 / 3, 0.0, 1.0], [0.0] * 4, [0.0, 0.5, 0.5, 1.0]]
    assert isotonic(weights, sums) == pytest.approx(np.array(expected), abs=1e-15)


def evaluated(p: np.ndarray, y: np.ndarray, **options: object) -> fx.EvalResult:
    columns = {name: options.pop(name) for name in ("w", "c") if name in options}
    table = pa.table({"p": p, "target": y.astype(np.int8), **columns})
    return fx.evaluate(table, logits="p", input="probs", **options)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_line_is_that_of_sklearn(weighted: bool) -> None:
    rng = np.random.default_rng(2)
    p = np.round(rng.random(2000), 2)  # values that have cells of their own
    y = rng.random(2000) < p**1.5
    w = rng.integers(1, 5, len(p)).astype(float) if weighted else np.ones(len(p))
    found = evaluated(p, y, **({"w": w, "weight": "w"} if weighted else {})).reliability
    assert found is not None
    best = IsotonicRegression().fit(p, y, sample_weight=w).predict(np.array(found.confidence))
    assert found.isotonic == pytest.approx(best, abs=1e-6)
    assert sum(found.weight) == w.sum()
    inside = p == 0.5
    k = int(np.argmin(np.abs(np.array(found.confidence) - 0.5)))
    assert found.rows[k] == pytest.approx(w[inside].sum() ** 2 / (w[inside] ** 2).sum(), rel=1e-6)
    assert found.accuracy[k] == pytest.approx(np.average(y[inside], weights=w[inside]), rel=1e-6)


def test_the_band_holds_calibrated_lines_at_its_level() -> None:
    rng, held, cells = np.random.default_rng(5), 0, 0
    for _ in range(40):
        p = rng.beta(2, 1, 700)
        found = evaluated(p, rng.random(700) < p, metrics=["miscalibration"]).reliability
        assert found is not None
        low, high = map(np.array, found.consistency_band())
        line = np.array(found.isotonic)
        held += int(((low <= line) & (line <= high)).sum())
        cells += len(line)
        assert (np.diff(low) >= 0).all()
    assert 0.87 < held / cells < 0.95
    off = evaluated(p, rng.random(700) < p**3).reliability
    low, high = map(np.array, off.consistency_band())
    assert ((low <= off.isotonic) & (off.isotonic <= high)).mean() < 0.5


def test_results_without_a_line_or_a_band() -> None:
    p, y = np.array([0.2, 0.7, 0.9]), np.array([0, 1, 1])
    assert evaluated(p, y, metrics=["accuracy"]).reliability is None
    clustered = evaluated(p, y, c=[1, 2, 2], cluster="c")
    assert clustered.reliability is not None
    assert not plots.has_band(clustered)
    negative = fx.evaluate({"logits": np.eye(2), "target": [0, 1], "w": [1.0, -1.0]}, weight="w")
    assert negative.reliability is None
    assert Reliability((), (), (), (), ()).consistency_band() == ((), ())
    huge = evaluated(p, y, w=[1e200, 1e-200, 1.0], weight="w").reliability
    assert huge is None or np.isfinite(huge.consistency_band()).all()


def test_the_diagram_and_the_json() -> None:
    result = evaluated(np.linspace(0.01, 0.99, 300), np.arange(300) % 3 == 0)
    assert fx.EvalResult.from_json(result.to_json()) == result
    (top, _) = plots.reliability(result).axes
    assert {"band", "bins"} <= {part.get_gid() for part in top.collections}
    line = next(line for line in top.lines if line.get_gid() == "isotonic")
    assert tuple(line.get_ydata()) == result.reliability.isotonic
    ordinary = report_cases.ordinary()  # with clusters: no band
    assert "band" not in {part.get_gid() for part in plots.reliability(ordinary).axes[0].collections}
