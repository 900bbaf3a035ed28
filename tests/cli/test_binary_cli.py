"""The command line on a binary dump."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.cli.program import run

N = 600


@pytest.fixture
def clicks(tmp_path, monkeypatch):
    rng = np.random.default_rng(9)
    p = rng.beta(1, 4, N).astype(np.float32)
    columns = {"p": p, "y": (rng.random(N) < p).astype(np.int8), "kind": rng.choice(["ads", "web"], N), "price": p * 9}
    pq.write_table(pa.table(columns), tmp_path / "clicks.parquet")
    monkeypatch.chdir(tmp_path)
    return ["clicks.parquet", "--logits", "p", "--input", "probs", "--target", "y"]


def test_eval_prints_and_writes(clicks, tmp_path, capsys):
    assert run(["eval", *clicks, "--by", "kind", "--report", "r.html", "--output", "r.json", "--state", "s"]) == 0
    result = fx.EvalResult.from_json((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert result.task == "binary"
    assert "ROC curve" in (tmp_path / "r.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run(["merge", "s", "--format", "json"]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged["metrics"] == result.to_dict()["metrics"]
    assert run(["report", "r.json", "-o", "again.html"]) == 0


def test_conditions_on_metrics_of_either_task(clicks, capsys):
    assert run(["eval", *clicks, "--quiet", "--fail-if", "roc_auc<0.5"]) == 0
    assert run(["eval", *clicks, "--quiet", "--fail-if", "roc_auc>0.5"]) == 1
    assert run(["eval", *clicks, "--quiet", "--fail-if", "perplexity>1"]) == 2
    assert run(["eval", *clicks, "--quiet", "--fail-if", "nonsense>1"]) == 2
    assert "there is no metric 'nonsense'" in capsys.readouterr().err


def test_threshold(clicks, capsys):
    assert run(["eval", *clicks, "--threshold", "0.25", "--metrics", "recall,precision", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["threshold"] == 0.25
    assert list(found["metrics"]) == ["precision", "recall"]


def test_inspect_proposes_a_command_that_runs(clicks, capsys):
    assert run(["inspect", "clicks.parquet"]) == 0
    text = capsys.readouterr().out
    assert "p: one number per row of float32" in text
    line = "fastxent eval clicks.parquet --logits p --input probs --target y --by kind"
    assert line in text
    assert run(line.split()[1:]) == 0
    assert run(["inspect", "clicks.parquet", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert found["input"] == "probs"
    assert [candidate["name"] for candidate in found["logits"]] == ["p"]


def test_transform(clicks, tmp_path):
    assert run(["transform", *clicks[:1], "g.parquet", *clicks[1:], "--kind", "grad", "--keep", "kind"]) == 0
    assert pq.read_table(tmp_path / "g.parquet").column_names == ["kind", "grad"]
    assert run(["convert", "clicks.parquet", "c.parquet", "--logits", "p"]) == 2
