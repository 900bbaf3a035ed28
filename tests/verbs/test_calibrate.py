"""Fitted temperatures against their definition in float64, and rows that have none."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from markupsafe import escape
from scipy import special
from scipy.optimize import brentq

import fastxent as fx
from dumps import lists
from fastxent.options.declared import DEFAULTS
from fastxent.state.temperatures import NONE, Member
from fastxent.verbs.calibrate import Tempering
from fastxent.verbs.evaluation import Evaluation

N, C = 3000, 7
RNG = np.random.default_rng(11)
LOGITS = (RNG.normal(size=(N, C)) * 3).astype(np.float32)
TARGET = (special.softmax(LOGITS / 1.7, axis=1).cumsum(axis=1) > RNG.random((N, 1))).argmax(axis=1)
USER = RNG.integers(0, 90, N)
KIND = np.array(["a", "b"])[RNG.integers(0, 2, N)]
WEIGHT = RNG.choice([0.0, 0.5, 2.0], N)


def table(**columns):
    return {"logits": LOGITS, "target": TARGET, "user": USER, "kind": KIND, "w": WEIGHT} | columns


def slope(x, y, beta):
    """L′ of each row: Σ p·x - x_y."""
    p = special.softmax(beta * x, axis=1)
    return np.where(p > 0, p * x, 0).sum(axis=1) - (x * (y if y.ndim == 2 else np.eye(x.shape[1])[y])).sum(axis=1)


def best(x, y, w=None):
    """The temperature at which the mean slope is 0."""
    x = x.astype(np.float64)
    return 1 / brentq(lambda beta: np.average(slope(x, y, beta), weights=w), 1e-3, 1e3, xtol=1e-15, rtol=1e-14)


def error(x, y, t, groups=None):
    """The sandwich: √(G/(G-1)·Σ_c (Σ_{i∈c} L′_i)²) / ΣL″, times T²."""
    x, beta = x.astype(np.float64), 1 / t
    p = special.softmax(beta * x, axis=1)
    second = ((p * x * x).sum(axis=1) - (p * x).sum(axis=1) ** 2).sum()
    each = slope(x, y, beta)
    sums = each if groups is None else np.bincount(groups, weights=each)
    return math.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / second * t * t


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_it_is_the_optimum(dtype):
    x = LOGITS.astype(dtype)
    fit = fx.fit_temperature(table(logits=x))
    assert fit.temperature.value == pytest.approx(best(x, TARGET), rel=1e-6)
    assert fit.temperature.stderr == pytest.approx(error(x, TARGET, fit.temperature.value), rel=1e-4)
    low, high = fit.bracket
    assert low < fit.temperature.value < high < low * (1 + 3e-6)
    assert fit.reads == 3
    assert fit.note is None


def test_clusters_weights_and_slices():
    fit = fx.fit_temperature(table(), cluster="user")
    assert fit.temperature.stderr == pytest.approx(error(LOGITS, TARGET, fit.temperature.value, USER), rel=1e-4)
    weighted = fx.fit_temperature(table(), weight="w", by="kind")
    assert weighted.temperature.value == pytest.approx(best(LOGITS, TARGET, WEIGHT), rel=1e-6)
    for kind, part in weighted.slices["kind"].items():
        some = kind == KIND
        assert part.temperature.value == pytest.approx(best(LOGITS[some], TARGET[some], WEIGHT[some]), rel=1e-6)
        assert part.rows.used == some.sum()
        assert part.cross_entropy == weighted.results["before"].slices["kind"][kind].metrics["cross_entropy"]


def test_soft_targets_and_masked_classes():
    soft = special.softmax(LOGITS / 1.3 + RNG.normal(size=(N, C)), axis=1)
    fit = fx.fit_temperature(table(target=soft.astype(np.float32)))
    assert fit.temperature.value == pytest.approx(best(LOGITS, soft.astype(np.float32)), rel=1e-6)
    rows = TARGET < C - 2
    fit = fx.fit_temperature(table(), class_mask=[1] * (C - 2) + [0, 0], where="target < 5")
    assert fit.temperature.value == pytest.approx(best(LOGITS[rows, : C - 2], TARGET[rows]), rel=1e-6)


def test_binary_dumps():
    odds = RNG.normal(size=N) * 2
    y = (RNG.random(N) < special.expit(odds / 2.5)).astype(int)
    fit = fx.fit_temperature({"logits": odds, "target": y})
    assert fit.temperature.value == pytest.approx(best(np.stack([np.zeros(N), odds], axis=1), y), rel=1e-6)
    assert fit.after["cross_entropy"].value < fit.before["cross_entropy"].value
    assert fit.after["roc_auc"].value == pytest.approx(fit.before["roc_auc"].value, abs=0.01)


def test_metrics_after_are_cross_fitted():
    fit = fx.fit_temperature(table(), cluster="user", folds=3)
    fold = np.array([zlib.crc32(f"int:{user}".encode()) % 3 for user in USER])
    loss = np.empty(N)
    for k, t in enumerate(fit.folds):
        rest, mine = fold != k, fold == k
        assert t == pytest.approx(best(LOGITS[rest], TARGET[rest]), rel=1e-6)
        loss[mine] = -special.log_softmax(LOGITS[mine].astype(float) / t, axis=1)[np.arange(mine.sum()), TARGET[mine]]
    assert fit.after["cross_entropy"].value == pytest.approx(loss.mean(), rel=1e-6)
    before = fx.evaluate(table(), cluster="user")
    assert fit.before == before.metrics
    assert fit.refinement_loss == fit.after["cross_entropy"].value
    assert fit.calibration_loss == before.metrics["cross_entropy"].value - fit.refinement_loss
    by_id = fx.fit_temperature(table(), id="user", folds=3)
    assert by_id.folds == fit.folds
    assert by_id.temperature.value == fit.temperature.value
    assert by_id.temperature.stderr == pytest.approx(error(LOGITS, TARGET, by_id.temperature.value), rel=1e-4)


def test_the_same_bits_for_any_order_and_threads(tmp_path):
    order = RNG.permutation(N)
    for name, rows in (("a", np.arange(N)), ("b", order)):
        logits = lists(LOGITS[rows], sized=True)
        columns = {"logits": logits, "target": TARGET[rows], "kind": KIND[rows]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet", row_group_size=400 if name == "a" else 1700)
    one = fx.fit_temperature(tmp_path / "a.parquet", threads=1, by="kind")
    two = fx.fit_temperature(tmp_path / "b.parquet", threads=2, memory="1MB", by="kind")
    assert (one.temperature, one.folds, one.bracket, one.slices) == (
        two.temperature,
        two.folds,
        two.bracket,
        two.slices,
    )
    assert one.after == two.after


def test_the_state_of_a_read_survives_as_bytes():
    config = fx.EvalConfig(n_classes=C, cluster="user", metrics=("cross_entropy", "nll_minus_entropy"))
    members = (Member(config, (0, 0)), Member(replace(config, temperature=2.0), (1, NONE)))
    recipe = Tempering(config, "float32", False, (1.0, 2.0), members, "user")
    job = Evaluation.open(table(), {**DEFAULTS, "cluster": "user"})
    score, state, halves = recipe.scorer(), recipe.empty(), [recipe.empty(), recipe.empty()]
    for unit in job.source.units():
        for batch in unit.read(700, 1 << 20, whole=True):
            state.add(score(batch))
    for unit in job.source.units():
        for i, batch in enumerate(unit.read(311, 1 << 20, whole=True)):
            halves[i % 2].add(score(batch))
    data = state.to_bytes()
    assert recipe.load(data).to_bytes() == data
    assert halves[0].absorb(halves[1]).to_bytes() == data
    first = np.array([zlib.crc32(f"int:{user}".encode()) % 2 == 0 for user in USER])
    assert state.states[1].result().rows.used == first.sum()
    with pytest.raises(fx.StateError, match="another configuration"):
        replace(recipe, members=members[::-1]).load(data)
    for damaged in (state.states[0].to_bytes(), data[:-1]):
        with pytest.raises(fx.StateError):
            recipe.load(damaged)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(-3.0, 3.0), st.integers(2, 5), st.integers(30, 200))
def test_any_scale(seed, scale, classes, n):
    """However far the logits are from their best scale, the minimum is found; or there is a sentence."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, classes))
    y = (special.softmax(x, axis=1).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    fit = fx.fit_temperature({"logits": x * 10**scale, "target": y}, threads=1)
    if slope(x, y, 1e-9).mean() >= 0:
        assert fit.note is not None
        assert math.isnan(fit.temperature.value)
    else:
        assert fit.temperature.value == pytest.approx(best(x, y) * 10**scale, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "note"),
    [
        (5 * np.eye(4), "the lower it is, the lower is the loss"),
        (-5 * np.eye(4), "the higher it is, the lower is the loss"),
        (-5e4 * np.eye(4), "or they are very large"),
        (5e-9 * np.eye(4), "or the scores are very small"),
        (np.zeros((4, 4)), "the same at every temperature"),
        (np.where(np.eye(4) > 0, -np.inf, 0.0), "a loss is infinite or undefined"),
    ],
)
def test_no_temperature_is_invented(logits, note, tmp_path):
    fit = fx.fit_temperature({"logits": logits, "target": [0, 1, 2, 3]})
    assert math.isnan(fit.temperature.value)
    assert fit.temperature.stderr != fit.temperature.stderr
    assert note in fit.note
    assert note in repr(fit)
    assert fit.after == {}
    assert math.isnan(fit.refinement_loss)
    assert repr(fx.TemperatureFit.from_json(fit.to_json())) == repr(fit)
    fit.to_html(tmp_path / "fit.html")


def test_warnings_do_not_advise_options_that_this_command_does_not_have(tmp_path):
    both = np.tile([1.0, 1.0, *[0.0] * (C - 2)], (N, 1))
    fit = fx.fit_temperature(table(logits=special.softmax(LOGITS, axis=1), target=both))
    assert [text.rpartition("; ")[2] for text in fit.warnings] == [
        "if they are probabilities and not logits, fit a temperature to their logarithms",
        "if several labels of a row may hold, no temperature can be fitted to them",
    ]
    assert fit.to_dict()["warnings"] == list(fit.warnings)
    fit.to_html(tmp_path / "fit.html")
    page = (tmp_path / "fit.html").read_text()
    assert all(str(escape(text)) in page for text in fit.warnings)


def test_no_rows():
    fit = fx.fit_temperature({"logits": np.zeros((0, 3), np.float32), "target": np.zeros(0, np.int64)})
    assert "no row was used" in fit.note


def test_a_fold_without_a_temperature_is_said():
    logits, target = np.eye(2, dtype=np.float32)[[0] * 9], np.array([0] * 8 + [1])  # one row is wrong
    fit = fx.fit_temperature({"logits": logits, "target": target, "doc": np.arange(9)}, cluster="doc")
    assert fit.temperature.value > 0.0
    assert fit.note is None
    assert not fit.after
    assert "the rows outside of some fold have no best temperature" in repr(fit)


def test_a_stream_cannot_be_read_again():
    batch = pa.record_batch({"logits": lists(LOGITS, sized=True), "target": pa.array(TARGET)})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    with pytest.raises(fx.FastxentError):
        fx.fit_temperature(reader)


def test_a_target_is_needed():
    with pytest.raises(fx.ConfigError, match="target must name a column"):
        fx.fit_temperature(table(), target=None)
    with pytest.raises(fx.ConfigError, match="folds must be an integer from 2 to 20, got 1"):
        fx.fit_temperature(table(), folds=1)


def test_json_and_report(tmp_path):
    fit = fx.fit_temperature(table(), by="kind", metrics="accuracy")
    read = fx.TemperatureFit.from_json(fit.to_json())
    assert read == fit
    assert set(fit.before) == {"accuracy", "cross_entropy"}
    assert json.loads(fit.to_json())["schema"] == "fastxent/temperature/1"
    full = fx.fit_temperature(table(), by="kind")
    full.to_html(tmp_path / "fit.html")
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    for text in ("Reliability before", "Reliability after", "Temperature by kind", "proven to lie between"):
        assert text in page
    assert "| cross_entropy |" in full.to_markdown()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(schema="other"),
        lambda found: found.pop("folds"),
        lambda found: found["results"].pop("before"),
        lambda found: found.update(results=3),
        lambda found: found.update(bracket=[1.0]),
        lambda found: found["temperature"].update(value="x"),
        lambda found: found["slices"].update(kind=[{"value": "a"}]),
        lambda found: found.update(reads="three"),
        lambda found: found.update(reads=-3),
        lambda found: found.update(folds=[]),
        lambda found: found["temperature"].update(value=-1.0),
        lambda found: found["temperature"].update(value=0),
        lambda found: found["temperature"].update(value="inf"),
        lambda found: found["slices"]["kind"][0]["temperature"].update(value=-2.0),
        lambda found: found["slices"]["kind"].append(found["slices"]["kind"][0]),
    ],
)
def test_a_damaged_fit_is_refused(change):
    values = json.loads(fx.fit_temperature(table(), by="kind", metrics="accuracy").to_json())
    change(values)
    with pytest.raises(fx.StateError, match="cannot read the temperature"):
        fx.TemperatureFit.from_dict(values)


def test_a_temperature_of_noise_is_said_to_be_one():
    rng = np.random.default_rng(0)
    rows = {"logits": rng.normal(size=(2000, 10)).astype(np.float32), "target": rng.integers(0, 10, 2000)}
    fit = fx.fit_temperature(rows)
    (doubt,) = fit.doubts
    assert doubt.startswith("The scores may say nothing about the targets")
    assert fit.to_dict()["warnings"] == [doubt]
    rows["logits"][np.arange(2000), rows["target"]] += 0.5
    assert not fx.fit_temperature(rows).doubts
