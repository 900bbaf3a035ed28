"""The classwise calibration error: equal to a plain computation, in one read, whole in any split."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx

NAME = "classwise_calibration_error"


def expected(p: np.ndarray, target: np.ndarray, bins: int) -> float:
    """The mean over classes of Σ_b |Σ (p - y)| / n, class by class."""
    classes, total = p.shape[1], 0.0
    for c in range(classes):
        place = np.clip(np.ceil(p[:, c] * bins).astype(int) - 1, 0, bins - 1)
        total += np.abs(np.bincount(place, p[:, c] - (target == c), minlength=bins)).sum()
    return total / len(p) / classes


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("bins", [1, 15])
def test_it_is_that_of_a_plain_computation(bins, tmp_path):
    table = dumps.table(300)
    x, target = np.array(table["logits"].to_pylist()), np.array(table["target"])
    options = {"metrics": ["accuracy", NAME], "bins": bins}
    found = fx.evaluate(table, **options)
    assert found.metrics[NAME].value == pytest.approx(expected(softmax(x), target, bins), rel=1e-6)
    assert found.metrics[NAME].method is None
    half = fx.evaluate(table, temperature=2.0, ignore_index=3, **options).metrics[NAME].value
    used = target != 3
    assert half == pytest.approx(expected(softmax(x / 2)[used], target[used], bins), rel=1e-6)
    probs = {"p": softmax(x), "target": target}
    assert fx.evaluate(probs, logits="p", input="probs", **options).metrics[NAME].value == pytest.approx(
        expected(softmax(x), target, bins), rel=1e-9
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=31)
    split = fx.evaluate(tmp_path / "a.parquet", threads=2, memory="1MB", **options)
    assert split.state.to_bytes() == found.state.to_bytes()
    assert (
        fx.EvalState.from_bytes(found.state.to_bytes()).merge(found.state).result().metrics[NAME] == split.metrics[NAME]
    )


def test_only_on_request_and_not_in_slices():
    table = dumps.table(60)
    assert NAME not in fx.evaluate(table).metrics
    found = fx.evaluate(table, metrics=["all", NAME], by="kind")
    assert found.metrics[NAME].value > 0
    assert all(np.isnan(part.metrics[NAME].value) for part in found.slices["kind"].values())


def test_masked_classes_and_skipped_rows():
    x = np.array([[1.0, -np.inf, 0.0], [np.nan, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    target = np.array([0, 1, 1, -100])
    found = fx.evaluate({"logits": x, "target": target}, metrics=[NAME], on_bad_row="skip").metrics[NAME].value
    rows = [0, 2]
    assert found == pytest.approx(expected(softmax(x[rows].astype(float)), target[rows], 15), rel=1e-6)
    none = fx.evaluate({"logits": x[3:], "target": target[3:]}, metrics=[NAME]).metrics[NAME].value
    assert np.isnan(none)


def test_refusals():
    dump = {"logits": np.eye(3), "target": [0, 1, 2], "w": [1.0, 2.0, 1.0]}
    with pytest.raises(fx.ConfigError, match="cannot be combined with weight, because it counts rows"):
        fx.evaluate(dump, metrics=[NAME], weight="w")
    with pytest.raises(fx.ConfigError, match="requires class ids as targets, got probabilities"):
        fx.evaluate({"logits": np.eye(3), "target": np.eye(3)}, metrics=[NAME])
    with pytest.raises(fx.ConfigError, match="requires at most 10,000 classes, got 10,001"):
        fx.EvalState.empty(fx.EvalConfig(n_classes=10_001, metrics=(NAME,)))
    with pytest.raises(fx.ConfigError, match="cannot be compared; evaluate each dump with it"):
        fx.compare(dump, dump, metrics=[NAME])
    with pytest.raises(fx.ConfigError, match="unknown metric"):
        fx.evaluate({"logits": [0.1, 0.2], "target": [0, 1]}, metrics=[NAME])
