"""Logging to JSON lines, and errors for invalid trackers. tests/peers tests MLflow."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import fastxent as fx
import report_cases
from fastxent.cli.program import run
from fastxent.results import trackers

DIGITS = Path(__file__).parents[2] / "examples" / "digits.parquet"


def test_each_result_is_a_line_that_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    results = [report_cases.ordinary(), report_cases.broken(), report_cases.hostile()]
    for result in results:
        assert result.log(f"jsonl:{path}") == str(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [fx.EvalResult.from_json(line).to_json() for line in lines] == [result.to_json() for result in results]
    for line in lines:
        assert datetime.fromisoformat(json.loads(line)["logged"]).tzinfo is not None


def test_comparisons_are_lines_that_read_back(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    base, *others = ({"logits": k * np.eye(4), "target": [0, 1, 2, 0]} for k in (1.0, 2.0, 0.5))
    one = fx.compare(base, others[0])
    many = fx.compare_many(base, others, names=("base", "sharp", "flat"))
    assert one.log(f"jsonl:{path}") == str(path)
    assert many.log(f"jsonl:{path}") == [str(path)]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [fx.CompareResult.from_json(line) for line in lines] == [one, *many.comparisons.values()]


def test_a_line_that_was_left_unfinished_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"torn": ')
    report_cases.ordinary().log(f"jsonl:{path}")
    torn, line, rest = path.read_text().split("\n")
    assert (torn, rest) == ('{"torn": ', "")
    assert fx.EvalResult.from_json(line).rows == report_cases.ordinary().rows


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    report_cases.ordinary().log(f"jsonl:{path}")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(fx.OutputError, match="cannot append to"):
            report_cases.ordinary().log(f"jsonl:{path}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


def test_the_command_logs_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.jsonl"
    for _ in range(2):
        assert run(["eval", str(DIGITS), "--by", "fold", "--format", "json", "--log", f"jsonl:{path}"]) == 0
    printed = json.loads(capsys.readouterr().out.split("\n}\n")[0] + "\n}")
    for line in path.read_text().splitlines():
        logged = json.loads(line)
        assert {key: logged[key] for key in ("metrics", "slices", "rows")} == {
            key: printed[key] for key in ("metrics", "slices", "rows")
        }


@pytest.mark.parametrize("tracker", ["", "runs.jsonl", "jsonl:", "mlflow", "wandb:x", ":x"])
def test_what_names_no_tracker_is_refused(tracker: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(fx.ConfigError, match=r"invalid tracker"):
        report_cases.ordinary().log(tracker)
    assert run(["eval", "no-such-file.parquet", "--log", tracker]) == 2  # before the file is looked for
    assert "invalid tracker" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "no-such-file.parquet", "--log", f"jsonl:{tmp_path}/missing/runs.jsonl"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_without_mlflow_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise ImportError('no', name='mlflow')")
    code = "import sys; from fastxent.cli.program import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "eval", "no-such-file.parquet", "--log", "mlflow:"], text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "fastxent: error: cannot log to MLflow: mlflow is not installed; run pip install 'fastxent[mlflow]'\n"
    )


def test_names_of_metrics_are_safe_and_distinct() -> None:
    metrics = dict(trackers._metrics(report_cases.hostile()))
    assert len(metrics) == len(list(trackers._metrics(report_cases.hostile())))
    rows = [name for name in metrics if name.startswith("slice/") and name.endswith("/rows")]
    assert len(rows) == len(report_cases.HOSTILE)
    assert max(map(len, metrics)) <= 250
    for name in metrics:
        assert all(part.strip(". ") for part in name.split("/"))


def test_a_database_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "alembic" else object())
    for uri in ("sqlite:////tmp/runs.db", "postgresql+psycopg2://me:secret@host/db"):
        with pytest.raises(
            fx.OutputError, match=r"cannot log to MLflow at \w+: alembic must be installed; run pip install mlflow"
        ):
            trackers._check_store(uri)
    for uri in ("", "http://host", "file:///tmp/runs", "/tmp/runs", "databricks"):
        trackers._check_store(uri)


def test_waiting_for_a_tracker_is_bounded_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in trackers._MLFLOW_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
    before = dict(os.environ)
    with trackers._settings():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"
        assert int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) <= 2
    assert dict(os.environ) == before
