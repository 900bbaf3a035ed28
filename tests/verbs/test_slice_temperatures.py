"""A fit by a column, applied: each slice is scored with its own temperature."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx
from fastxent.cli.program import run

NAMES = ("cross_entropy", "accuracy", "brier_score", "entropy", "confidence")


@pytest.fixture(scope="module")
def table():
    return dumps.table(400)


@pytest.fixture(scope="module")
def fit(table):
    return fx.fit_temperature(table, by="kind")


def alone(table, kind, temperature, **options):
    mask = pa.compute.equal(table["kind"], kind)
    return fx.evaluate(table.filter(mask), temperature=temperature, **options)


def test_each_slice_has_the_metrics_of_its_own_temperature(table, fit, tmp_path):
    found = fx.evaluate(table, by="kind", temperature=fit)
    assert found.config.temperature_by == "kind"
    for kind, part in found.slices["kind"].items():
        own = fit.slices["kind"][kind].temperature.value
        expected = alone(table, kind, own)
        assert part.rows == expected.rows
        for name in NAMES:
            assert part.metrics[name] == expected.metrics[name], (kind, name)
    n = sum(part.rows.used for part in found.slices["kind"].values())
    mean = sum(part.rows.used * part.metrics["cross_entropy"].value for part in found.slices["kind"].values()) / n
    assert found.metrics["cross_entropy"].value == pytest.approx(mean, rel=1e-12)
    assert found.metrics["cross_entropy"].value < fx.evaluate(table).metrics["cross_entropy"].value
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=37)
    for how in ({"threads": 2, "memory": "1MB"}, {"resume": tmp_path / "progress"}):
        split = fx.evaluate(tmp_path / "rows.parquet", by="kind", temperature=fit, **how)
        assert split.state.to_bytes() == found.state.to_bytes()
    again = fx.EvalState.from_bytes(found.state.to_bytes())
    assert again.emptied().update(table.to_batches()[0]).result().metrics == found.metrics
    assert fx.EvalResult.from_json(found.to_json()) == found


def test_values_without_a_temperature_and_filters(table, fit):
    renamed = table.set_column(2, "kind", pa.compute.replace_substring(table["kind"], "c", "new"))
    found = fx.evaluate(renamed, by="kind", temperature=fit, where="doc < 30")
    expected = alone(renamed, "new", fit.temperature.value, where="doc < 30")
    assert found.slices["kind"]["new"].metrics["cross_entropy"] == expected.metrics["cross_entropy"]
    none = fx.evaluate(table, by="kind", temperature=fit, where="doc < 0")
    assert (none.rows.total, math.isnan(none.metrics["accuracy"].value)) == (0, True)
    whole = fx.evaluate(table, temperature=fit)
    assert whole.metrics == fx.evaluate(table, temperature=fit.temperature.value).metrics


def test_binary_dumps():
    rng = np.random.default_rng(4)
    s, kind = rng.normal(size=600), np.array(["a", "b"])[rng.integers(0, 2, 600)]
    y = (rng.random(600) < 1 / (1 + np.exp(-s / np.where(kind == "a", 3.0, 0.5)))).astype(np.int8)
    rows = pa.table({"logits": s, "target": y, "kind": kind})
    fit = fx.fit_temperature(rows, by="kind")
    found = fx.evaluate(rows, by="kind", temperature=fit)
    for value, part in found.slices["kind"].items():
        own = alone(rows, value, fit.slices["kind"][value].temperature.value)
        assert part.metrics["cross_entropy"] == own.metrics["cross_entropy"]
    assert fit.slices["kind"]["a"].temperature.value > 2 * fit.slices["kind"]["b"].temperature.value


def test_other_verbs_take_the_temperature_of_all_rows(table, fit, tmp_path):
    value = fit.temperature.value
    pair = fx.compare(table, table, temperature=fit).metrics["cross_entropy"].a
    assert pair.value == fx.evaluate(table, temperature=value).metrics["cross_entropy"].value
    fx.transform(table, tmp_path / "a.parquet", output="softmax", temperature=fit)
    fx.transform(table, tmp_path / "b.parquet", output="softmax", temperature=value)
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


def test_refusals_and_the_command_line(table, fit, tmp_path, capsys):
    two = fx.fit_temperature(table, by=["kind", "doc"])
    with pytest.raises(fx.ConfigError, match="temperature must be fitted by one column of by, got 'kind', 'doc'; omit"):
        fx.evaluate(table, by=["kind", "doc"], temperature=two)
    with pytest.raises(fx.ConfigError, match="per_row cannot be combined with temperatures of slices"):
        fx.evaluate(table, by="kind", temperature=fit, per_row=tmp_path / "rows.parquet")
    (tmp_path / "fit.json").write_text(fit.to_json(), encoding="utf-8")
    pq.write_table(table, tmp_path / "rows.parquet")
    words = ["eval", str(tmp_path / "rows.parquet"), "--temperature", f"@{tmp_path / 'fit.json'}", "--format", "json"]
    assert run([*words, "--by", "kind"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = fx.evaluate(table, by="kind", temperature=fit)
    assert shown["metrics"]["cross_entropy"]["value"] == expected.metrics["cross_entropy"].value
    assert shown["config"]["temperature_by"] == "kind"
