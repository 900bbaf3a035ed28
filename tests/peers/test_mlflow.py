"""Results into a real MLflow store, a local folder, read back with MLflow's own client."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

import fastxent as fx
import report_cases
from fastxent.cli.program import run
from fastxent.results.values import labels

DIGITS = Path(__file__).parents[2] / "examples" / "digits.parquet"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return (tmp_path / "mlruns").as_uri()


def runs(store: str, experiment: str = "fastxent") -> list[Any]:
    client = mlflow.MlflowClient(store)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def artifact(run: Any, name: str) -> str:
    return Path(run.info.artifact_uri.removeprefix("file://"), name).read_text(encoding="utf-8")


def test_every_figure_is_there_with_its_error_and_interval(store: str) -> None:
    result = fx.evaluate(DIGITS, by="fold", cluster="block")
    run_id = result.log(f"mlflow:{store}")
    (found,) = runs(store)
    assert found.info.run_id == run_id
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "digits.parquet"
    logged = found.data.metrics
    expected = {f"rows/{name}": n for name, n in vars(result.rows).items()}
    places = {"": result.metrics}
    for label, part in zip(labels(result.slices["fold"]), result.slices["fold"].values(), strict=True):
        places[f"slice/fold/{label}/"] = part.metrics
        expected[f"slice/fold/{label}/rows"] = part.rows.used
    for place, metrics in places.items():
        for name, metric in metrics.items():
            expected |= {
                f"{place}{name}": metric.value,
                f"{place}{name}_stderr": metric.stderr,
                f"{place}{name}_ci95_low": metric.ci95[0],
                f"{place}{name}_ci95_high": metric.ci95[1],
            }
    assert logged == {name: value for name, value in expected.items() if not math.isnan(value)}
    assert found.data.params["cluster"] == "block"
    assert json.loads(found.data.params["by"]) == ["fold"]
    assert found.data.params["version.fastxent"] == fx.__version__
    assert fx.EvalResult.from_json(artifact(found, "result.json")).metrics == result.metrics
    assert artifact(found, "report.html").startswith("<!doctype html>")


@pytest.mark.parametrize("make", [report_cases.hostile, report_cases.broken, report_cases.ordinary])
def test_names_and_values_that_mlflow_would_refuse_arrive(store: str, make: Any) -> None:
    result = make()
    result.log(f"mlflow:{store}")
    (found,) = runs(store)
    assert found.data.metrics["rows/used"] == result.rows.used
    assert json.loads(artifact(found, "result.json")) == json.loads(result.to_json())
    slices = [name for name in found.data.metrics if name.startswith("slice/") and name.endswith("/rows")]
    assert len(slices) == sum(map(len, result.slices.values()))


def test_thousands_of_slice_figures_go_in_batches(store: str) -> None:
    result = report_cases.large(rows=20_000, classes=20, slices=150)
    result.log(f"mlflow:{store}")
    (found,) = runs(store)
    assert len(found.data.metrics) > 5000
    assert found.data.metrics["slice/language/language 7/rows"] == result.slices["language"]["language 7"].rows.used


def test_an_active_run_is_logged_into_and_left_running(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_experiment("training")
    with mlflow.start_run() as active:
        assert report_cases.ordinary().log("mlflow:") == active.info.run_id
        mlflow.log_metric("later", 1.0)
    (found,) = runs(store, "training")
    assert {"later", "cross_entropy", "cross_entropy_stderr"} <= set(found.data.metrics)


def test_the_command_logs_and_the_environment_names_the_experiment(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gate")
    assert run(["eval", str(DIGITS), "--format", "json", "--log", f"mlflow:{store}"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (found,) = runs(store, "gate")
    assert found.data.metrics["cross_entropy"] == printed["metrics"]["cross_entropy"]["value"]


def _sides() -> list[dict[str, Any]]:
    return [{"logits": k * np.eye(4), "target": [0, 1, 2, 0], "part": list("xxyy")} for k in (1.0, 2.0, 0.5)]


def test_every_number_of_a_comparison_is_there(store: str) -> None:
    a, b, _ = _sides()
    result = fx.compare(a, b, by="part", names=("old", "new"))
    result.log(f"mlflow:{store}")
    (found,) = runs(store)
    assert found.info.run_name == "old → new"
    logged = found.data.metrics
    difference = result.metrics["cross_entropy"].difference
    assert logged["cross_entropy.difference"] == difference.value
    assert logged["rows/used"] == 4
    assert any(name.startswith("slice/part/x/") for name in logged)
    assert not any(math.isnan(value) for value in logged.values())
    assert json.loads(artifact(found, "result.json")) == json.loads(result.to_json())
    assert artifact(found, "report.html").startswith("<!doctype html>")


def test_each_of_several_comparisons_is_a_run(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, *others = _sides()
    result = fx.compare_many(base, others, names=("base", "sharp", "flat"))
    ids = result.log(f"mlflow:{store}")
    found = {run.info.run_name: run for run in runs(store)}
    assert set(found) == {"base → sharp", "base → flat"}
    assert {run.info.run_id for run in found.values()} == set(ids)
    values = {name: run.data.metrics["cross_entropy.difference"] for name, run in found.items()}
    assert values["base → sharp"] < 0 < values["base → flat"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_experiment("training")
    with mlflow.start_run() as active:
        below = result.log("mlflow:")
    each = {run.info.run_id: run for run in runs(store, "training")}
    assert set(each) == {active.info.run_id, *below}
    assert {each[name].data.tags["mlflow.parentRunId"] for name in below} == {active.info.run_id}
    assert not each[active.info.run_id].data.metrics


def test_a_store_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    assert run(["eval", str(DIGITS), "--log", f"mlflow:{tmp_path.as_uri()}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastxent: error: cannot log to MLflow at 'file:")
    assert "MLFLOW_ALLOW_FILE_STORE" in line
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(fx.OutputError, match=r"cannot log to MLflow at 'http://127\.0\.0\.1:9'"):
        report_cases.ordinary().log("mlflow:http://127.0.0.1:9")
