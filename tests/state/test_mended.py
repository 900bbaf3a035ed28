"""Figures that cells, weights or soft targets limit; ids and rows of a state that lists the largest losses."""

from __future__ import annotations

import numpy as np
import pytest

import fastxent as fx
from fastxent.kernels.grid import layout_of
from fastxent.results.encoding import _whole
from fastxent.state.calibration import figures
from fastxent.state.extreme import Worst
from fastxent.state.grid import Moments, moments_of
from fastxent.state.metrics import CORP, DEBIASED

LAYOUT = layout_of(8, 15)
PLACES = 256 + 14


def moments(forecast: np.ndarray, right: np.ndarray, unit: float) -> Moments:
    """Rows of one weight, each in the place of its confidence."""
    places = LAYOUT.cells[np.minimum((forecast * 256).astype(int), 255)]
    w = np.full(len(forecast), unit)
    with np.errstate(all="ignore"):
        columns = w * forecast, w * right, w, (w * (right - forecast)) ** 2, w * w
    return Moments(*(np.bincount(places, column, PLACES)[None] for column in columns))


@pytest.mark.parametrize("unit", [1e-200, 1e160, 1e-100, 1e120, 1.0])
def test_the_scale_of_weights_leaves_the_debiased_error(unit: float) -> None:
    random = np.random.default_rng(0)
    f = random.random(400)
    right = (random.random(400) < f**2).astype(float)
    plain, found = (figures(moments(f, right, w), LAYOUT, (DEBIASED,))[DEBIASED][0] for w in (1.0, unit))
    assert plain > 0.01
    if unit in (1e-200, 1e160):
        assert np.isnan(found)
    else:
        assert found == pytest.approx(plain, rel=1e-9)


def test_miscalibration_is_never_below_0() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        counts = random.integers(0, 3, (1, PLACES, 2))
        cell = np.searchsorted(LAYOUT.cells, np.arange(PLACES), side="right") - 1
        forecast = (cell[:, None] + random.random((PLACES, 2))) / 256
        found = figures(moments_of(counts, forecast), LAYOUT, CORP)
        assert found["miscalibration"][0] >= 0.0
        assert found["discrimination"][0] >= 0.0
    same = figures(moments(np.full(300, 0.3), np.arange(300) % 3 == 0, 1.0), LAYOUT, CORP)
    assert same["discrimination"][0] == 0.0


def test_a_rare_outcome_in_few_cells_is_not_known() -> None:
    f = np.linspace(0.001, 0.006, 2000)
    right = (np.arange(2000) % 300 == 0).astype(float)
    for some, outcome in ((f, right), (1.0 - f, 1.0 - right)):
        found = figures(moments(some, outcome, 1.0), LAYOUT, CORP)
        assert np.isnan([found["miscalibration"][0], found["discrimination"][0]]).all()
        assert found["uncertainty"][0] > 0.0
    assert not np.isnan(figures(moments(np.linspace(0.01, 0.99, 2000), right, 1.0), LAYOUT, CORP)["discrimination"][0])


def test_whole_numbers_of_64_bits_are_read() -> None:
    for number in (2**64 - 1, -(2**63)):
        assert _whole(str(number)) == number
    with pytest.raises(ValueError, match="too large"):
        _whole("1" * 21)


def test_a_state_keeps_its_id_and_the_rows_of_loss_0() -> None:
    source = {"logits": np.array([[900.0, 0.0], [0.0, 900.0], [0.0, 1.0]]), "target": [0, 1, 1], "id": ["a", "b", "c"]}
    config = fx.evaluate(source, threads=1).config
    state = fx.EvalState.empty(config, 5, "id").update(source)
    again = fx.EvalState.from_bytes(state.to_bytes())
    assert [row.id for row in again.result().worst] == ["c", "a", "b"]
    more = again.emptied().update(source)
    assert (more.id, more) == ("id", again)
    with pytest.raises(fx.StateError, match="id='id' here, 'target' there"):
        again.merge(fx.EvalState.empty(config, 5, "target"))


def test_soft_targets_have_no_normalized_entropy() -> None:
    source = {"logits": np.zeros((4, 2)), "target": np.full((4, 2), 0.5)}
    found = fx.evaluate(source, task="multiclass", threads=1)
    assert np.isnan(found.metrics["normalized_entropy"].value)
    assert found.warnings == ()  # they are no fault
    assert Worst.floor == -np.inf
