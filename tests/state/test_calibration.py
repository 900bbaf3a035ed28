"""Calibration figures from the fine grid, against their definitions on the rows themselves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.isotonic import IsotonicRegression

import fastxent as fx
from fastxent.kernels.grid import OFFSET_BITS, SHIFT, layout_of, places_of, room, tally_grid
from fastxent.state.calibration import smooth

NONE, NO_RANKS = np.zeros(0), np.zeros(0, np.int64)


def dump(n: int, seed: int, power: float = 1.4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and targets of a binary dump that is not calibrated."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2.0, 1.5, n)
    return p, (rng.random(n) < p**power).astype(np.int64)


def metrics_of(p: np.ndarray, y: np.ndarray, **options: object) -> dict[str, float]:
    weight = options.pop("w", None)
    columns = {"p": p, "target": y} | ({} if weight is None else {"w": weight})
    names = {"weight": "w"} if weight is not None else {}
    result = fx.evaluate(columns, logits="p", input="probs", threads=1, **names, **options)
    return {name: metric.value for name, metric in result.metrics.items()}


# ---- the kernel ------------------------------------------------------------------------------------------------------

numbers = st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0, 0.5, 1 / 3, 2 / 3, 0.2, 0.25, 1.0 + 1e-9, -0.0])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(numbers, st.booleans(), st.integers(0, 2)), max_size=40),
    st.sampled_from([(2, 3), (3, 4), (4, 15), (1, 1), (2, 16)]),
)
def test_rows_are_counted_by_cell_and_bin(rows: list[tuple[float, bool, int]], layout: tuple[int, int]) -> None:
    bits, bins = layout
    width = places_of(bits, bins)
    confidence = np.array([f for f, _, _ in rows])
    rank = np.array([not right for _, right, _ in rows], np.int64)
    codes = np.array([group for _, _, group in rows], np.int64)
    words = np.zeros(3 * width * 2, np.int64)
    tally_grid((confidence, rank, NONE), codes, layout, words, room())
    expected: dict[tuple[int, int, int], list[float]] = {}
    for f, right, group in rows:
        cell = next(k for k in range(1 << bits) if f <= (k + 1) / (1 << bits) or k == (1 << bits) - 1)
        bin_ = next(k for k in range(bins) if f <= (k + 1) / bins or k == bins - 1)
        expected.setdefault((group, cell + bin_, int(right)), []).append(min(f, 1.0) * (1 << bits) - cell)
        places = layout_of(bits, bins)
        assert places.cells[cell] <= cell + bin_
        assert places.bins[bin_] <= cell + bin_
        assert cell == (1 << bits) - 1 or cell + bin_ < places.cells[cell + 1]
        assert bin_ == bins - 1 or cell + bin_ < places.bins[bin_ + 1]
    found = words.reshape(3, width, 2)
    assert {tuple(map(int, at)) for at in np.argwhere(found)} == set(expected)
    for at, offsets in expected.items():
        assert found[at] >> SHIFT == len(offsets)
        rest = int(found[at] & (1 << SHIFT) - 1) / (1 << OFFSET_BITS)
        assert sum(offsets) <= rest + 1e-12
        assert rest <= sum(offsets) + len(offsets) / (1 << OFFSET_BITS)


# ---- the figures -----------------------------------------------------------------------------------------------------


def smooth_by_definition(p: np.ndarray, y: np.ndarray, at_ends: float = 1.0) -> float:
    """The σ at which ∫ |n⁻¹ Σ K_σ(t, p_i) (y_i - p_i)| dt = σ, by bisection, on 2,000 points t.

    at_ends: float. The weight of rows whose confidence is 0 or 1.
    """
    weight = np.where((p == 0.0) | (p == 1.0), at_ends, 1.0)
    gaps = weight * (y - p) / weight.sum()
    t = (np.arange(2000) + 0.5) / 2000
    images = [s * p + k for k in range(-4, 5) for s in (1.0, -1.0) if k % 2 == 0]

    def error(sigma: float) -> float:
        total = sum(
            np.exp(-(((t[:, None] - image) / sigma) ** 2) / 2) @ gaps / sigma / np.sqrt(2 * np.pi) for image in images
        )
        return float(np.abs(total).mean())

    low, high = 1e-3, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return high


@pytest.mark.parametrize(("n", "seed", "power"), [(400, 0, 1.4), (60, 1, 1.0), (1000, 2, 0.4)])
def test_smooth_error_is_that_of_its_definition(n: int, seed: int, power: float) -> None:
    p, y = dump(n, seed, power)
    found = metrics_of(p, y, metrics="smooth_calibration_error")
    assert found["smooth_calibration_error"] == pytest.approx(smooth_by_definition(p, y), abs=2e-4)


def test_smooth_error_of_rows_at_the_end() -> None:
    """A row of confidence 1 is its own image in the mirror at 1, and counts for both, as any other row does. relplot
    1.0.3 reflects a grid whose end points have no image: such rows weigh half there, and it finds 0.05634 here."""
    rng = np.random.default_rng(0)
    p = np.where(rng.random(2000) < 0.6, 1.0, rng.uniform(0.8, 1.0, 2000))
    y = rng.random(2000) < p - 0.05
    found = metrics_of(p, y.astype(np.int64), metrics="smooth_calibration_error")["smooth_calibration_error"]
    assert found == pytest.approx(smooth_by_definition(p, y), abs=2e-4)
    assert smooth_by_definition(p, y, at_ends=0.5) == pytest.approx(0.05634, abs=5e-5)


def test_smooth_error_of_one_confidence_is_its_gap() -> None:
    p, y = np.full(1000, 0.7), np.arange(1000) < 600
    found = metrics_of(p, y.astype(np.int64))
    assert found["smooth_calibration_error"] == pytest.approx(0.1, abs=1e-6)
    assert smooth(np.zeros((1, 16))).tolist() == [0.0]


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("weighted", [False, True])
def test_debiased_error(bins: int, weighted: bool) -> None:
    p, y = dump(700, 3)
    w = np.random.default_rng(4).uniform(0.2, 3.0, len(p)) if weighted else np.ones(len(p))
    bin_ = np.maximum(np.ceil(p * bins).astype(int) - 1, 0)
    total = 0.0
    for k in range(bins):
        mine = bin_ == k
        if mine.sum() >= 2:
            v = w[mine]
            r = v * (y - p)[mine]
            total += (r.sum() ** 2 - (r**2).sum()) / (v.sum() - (v**2).sum() / v.sum())
    expected = np.sqrt(max(0.0, total / w.sum()))
    found = metrics_of(p, y, bins=bins, **({"w": w} if weighted else {}))
    assert found["debiased_calibration_error"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_figures_are_those_of_sklearn(weighted: bool) -> None:
    p, y = dump(3000, 5)
    p = np.round(p, 2)  # values that have cells of their own: nothing is lost
    w = np.random.default_rng(6).integers(1, 5, len(p)).astype(float) if weighted else np.ones(len(p))
    best = IsotonicRegression().fit(p, y, sample_weight=w).predict(p)
    brier, recalibrated = (np.average((f - y) ** 2, weights=w) for f in (p, best))
    base = np.average(y, weights=w)
    found = metrics_of(p, y, **({"w": w} if weighted else {}))
    assert found["miscalibration"] == pytest.approx(brier - recalibrated, rel=1e-7)
    assert found["discrimination"] == pytest.approx(base * (1 - base) - recalibrated, rel=1e-7)
    assert found["uncertainty"] == pytest.approx(base * (1 - base), rel=1e-12)
    identity = found["miscalibration"] - found["discrimination"] + found["uncertainty"]
    assert identity == pytest.approx(found["brier_score"], abs=2e-8)


def test_whole_weights_are_repeated_rows() -> None:
    p, y = dump(500, 7)
    w = np.random.default_rng(8).integers(1, 4, len(p))
    names = ("smooth_calibration_error", "miscalibration", "discrimination", "uncertainty")
    weighted, repeated = metrics_of(p, y, w=w), metrics_of(np.repeat(p, w), np.repeat(y, w))
    assert [weighted[name] for name in names] == pytest.approx([repeated[name] for name in names], rel=2e-4)


def test_soft_targets_are_shares_of_a_row() -> None:
    p = np.array([0.2, 0.2, 0.7, 0.7, 0.9])
    soft = metrics_of(p, np.array([0.25, 0.25, 0.5, 0.5, 1.0]))
    shares = metrics_of(
        np.repeat(p, 2), np.tile([0, 1], 5), w=np.array([[1 - t, t] for t in (0.25, 0.25, 0.5, 0.5, 1.0)]).ravel()
    )
    for name in ("smooth_calibration_error", "miscalibration", "discrimination", "uncertainty"):
        assert soft[name] == pytest.approx(shares[name], rel=1e-12)


def test_slices_and_merged_states() -> None:
    p, y = dump(900, 9)
    table = pa.table({"p": p, "target": y, "g": np.arange(900) % 3})
    options = {"logits": "p", "input": "probs", "by": "g", "threads": 1}
    whole = fx.evaluate(table, **options)
    parts = [fx.evaluate(table.slice(begin, 450), **options).state for begin in (450, 0)]
    assert parts[0].merge(parts[1]).to_bytes() == whole.state.to_bytes()
    for g, part in whole.slices["g"].items():
        alone = metrics_of(p[g::3], y[g::3])
        for name in ("debiased_calibration_error", "smooth_calibration_error", "discrimination"):
            assert part.metrics[name].value == pytest.approx(alone[name], abs=4e-3)  # 256 cells


@pytest.mark.parametrize("bins", [10, 15])
def test_coarse_cells_of_all_rows_are_those_of_a_slice(bins: int) -> None:
    p, y = dump(900, 11)
    p[:300] = np.arange(300) % 11 / 10.0
    grids = fx.evaluate(
        pa.table({"p": p, "target": y, "g": ["a"] * 900}), logits="p", input="probs", by="g", bins=bins, threads=1
    ).state.grids.of
    (counts, forecast, layout), (of_slice, mean, _) = (grids[name].coarse_sides(0) for name in (None, "g"))
    assert counts.tolist() == of_slice.tolist()
    assert forecast[counts > 0] == pytest.approx(mean[counts > 0], abs=2.0**-20)
    assert np.add.reduceat(counts, layout.bins).sum() == 900


def test_rows_without_a_grid_leave_the_figures_open() -> None:
    """States of earlier versions have no grid."""
    p, y = dump(50, 10)
    state = fx.evaluate({"p": p, "target": y}, logits="p", input="probs", threads=1).state
    old = fx.EvalState.from_bytes(state.to_bytes())
    old.grids.of[None].__init__(old.whole)
    for merged in (old, old.merge(state)):
        result = merged.result()
        assert np.isnan(result.metrics["smooth_calibration_error"].value)
        assert not np.isnan(result.metrics["expected_calibration_error"].value)
        assert any("earlier version" in warning for warning in result.warnings)
