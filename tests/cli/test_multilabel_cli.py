"""The command line on a multilabel dump."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.cli.program import run
from tests.verbs.tags import P, ids, table


@pytest.fixture
def tags(tmp_path, monkeypatch):
    pq.write_table(table().drop_columns(["w", "user"]), tmp_path / "tags.parquet")
    held = {"probs": pa.array(list(P.astype("f4"))), "labels": pa.array(ids())}
    pq.write_table(pa.table(held), tmp_path / "ids.parquet")
    monkeypatch.chdir(tmp_path)


def test_eval_prints_and_writes(tags, tmp_path, capsys):
    given = ["tags.parquet", "--task", "multilabel", "--by", "kind", "--report", "r.html", "--output", "r.json"]
    assert run(["eval", *given, "--state", "s"]) == 0
    text = capsys.readouterr().out
    assert "400 rows · 400 used · 5 labels" in text
    assert "micro_f1" in text
    assert max(map(len, text.splitlines())) <= 80
    result = fx.EvalResult.from_json((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert result.task == "multilabel"
    assert run(["merge", "s", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == result.to_dict()["metrics"]
    assert run(["report", "r.json", "-o", "again.html"]) == 0


def test_conditions_on_metrics_of_the_task(tags, capsys):
    given = ["eval", "tags.parquet", "--quiet", "--task", "multilabel"]
    assert run([*given, "--fail-if", "micro_f1<0.5", "--fail-if", "macro_f1>0.99"]) == 0
    assert run([*given, "--fail-if", "exact_match<0.9"]) == 1
    assert run([*given, "--fail-if", "roc_auc<0.5"]) == 2
    assert run(["eval", "tags.parquet", "--fail-if", "micro_f1<0.5"]) == 2
    assert "there is no metric 'micro_f1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("tags.parquet", "fastxent eval tags.parquet --task multilabel --by kind"),
        ("ids.parquet", "fastxent eval ids.parquet --logits probs --input probs --target labels --task multilabel "
                        "--target-ids"),
    ],
)  # fmt: skip
def test_inspect_proposes_a_command_that_runs(tags, capsys, file, line):
    assert run(["inspect", file]) == 0
    text = capsys.readouterr().out
    assert f"  {line}\n" in text
    assert run(line.split()[1:]) == 0
    assert "5 labels" in capsys.readouterr().out


def test_one_hot_targets_are_not_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one_hot = {"logits": [[1.0, 2.0, 0.0], [0.0, 1.0, 0.5]], "target": [[0, 1, 0], [0, 0, 1]]}
    pq.write_table(pa.table(one_hot), "hot.parquet")
    assert run(["inspect", "hot.parquet"]) == 0
    assert "  fastxent eval hot.parquet\n" in capsys.readouterr().out


def test_transform(tags, tmp_path):
    given = ["transform", "ids.parquet", "g.parquet", "--logits", "probs", "--input", "probs", "--target", "labels"]
    assert run([*given, "--task", "multilabel", "--target-ids", "--kind", "grad"]) == 0
    assert pq.read_table(tmp_path / "g.parquet").column_names == ["grad"]
