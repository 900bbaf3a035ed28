"""The Python of the README runs as it stands. The torch loop runs in tests/peers."""

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import fastxent as fx
import readme
from fastxent.cli.program import run as command_line

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a block in an empty folder, with the names it takes for granted; the results of `evaluate` are collected."""
    monkeypatch.chdir(tmp_path)
    results = []

    def evaluate(*args, **options):
        results.append(fx.evaluate(*args, **options))
        return results[-1]

    def run(code, **names):
        public = SimpleNamespace(**{**{name: getattr(fx, name) for name in fx.__all__}, "evaluate": evaluate})
        exec(code.replace("import fastxent as fx", ""), {"fx": public, "np": np, **names})  # noqa: S102
        return results

    return run


def test_no_block_is_left_out():
    tested = (
        "Python",
        "worst rows",
        "torch loop",
        "scikit-learn",
        "Trainer.predict",
        "prompt_logprobs",
        "lm-evaluation",
        "`acc`",
        "work as they do with logits",
        "of its positions",
    )
    for sentence in readme.blocks():
        assert any(word in sentence for word in tested), sentence


def test_the_tour_of_the_api(run):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 5)).astype(np.float32)
    target = rng.integers(0, 5, 40)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), 5)
    table = pa.table({"logits": rows, "target": target, "language": ["de", "en"] * 20, "document": np.arange(40) // 4})
    pq.write_table(table, "dump.parquet")
    (result,) = run(readme.block("## Python"), logits=logits, target=target)
    assert result.metrics["cross_entropy"].value == fx.cross_entropy(logits, target)


def test_the_worst_rows(run):
    rng = np.random.default_rng(0)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=200)), 5)
    pq.write_table(
        pa.table({"logits": rows, "target": np.arange(40) % 5, "name": list(map(str, range(40)))}), "dump.parquet"
    )
    (result,) = run(readme.block("worst rows"))
    assert len(result.worst) == 20
    assert result.confusion.matrix().sum() == 40


def test_a_document_per_row(run):
    (result,) = run(readme.block("of its positions"))
    assert (result.rows.total, result.rows.ignored, result.clusters) == (4, 1, 2)
    assert result.metrics["cross_entropy"].value == pytest.approx(np.log(5))


def test_a_binary_dump(run):
    rng = np.random.default_rng(0)
    p = rng.random(500).astype(np.float32)
    pq.write_table(pa.table({"p": p, "y": (rng.random(500) < p).astype(np.int8)}), "clicks.parquet")
    (result,) = run(readme.block("evaluates it. In Python"))
    assert result.task == "binary"
    assert pq.read_table("gradient.parquet").column_names == ["grad"]


def test_without_logits(run):
    table = pa.table({"logprob": [-1.0, -2.0], "n_bytes": [2, 4], "document": ["a", "b"]})
    pq.write_table(table, "tokens.parquet")
    samples = [{"doc": {"subject": "art"}, "acc": 1.0, "acc_norm": 0.0}, {"doc": {"subject": "law"}, "acc": None}]
    with open("samples_mmlu.jsonl", "w") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
    likelihood, scores = run(readme.block("work as they do with logits"))
    assert likelihood.metrics["bits_per_byte"].value == pytest.approx(0.5 / np.log(2))
    assert (scores.metrics["acc"].value, scores.score_rows["acc"].ignored) == (1.0, 1)


def test_a_comparison(run):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(40, 5)), rng.integers(0, 5, 40)
    columns = {"target": target, "language": ["python", "c"] * 20, "document": np.arange(40) // 4}
    for name, values in {"base": logits, "quantised": logits.round(1)}.items():
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 5)
        pq.write_table(pa.table({"logits": rows, **columns}), f"{name}.parquet")
    run(readme.block("The same comparison in Python"))


def test_a_temperature(run):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 5))
    rows = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 5)
    columns = {"language": ["de", "en"] * 200, "document": np.arange(400) // 4}
    target = np.where(rng.random(400) < 0.5, logits.argmax(axis=1), rng.integers(0, 5, 400))
    pq.write_table(pa.table({"logits": rows, "target": target, **columns}), "validation.parquet")
    run(readme.block("with a temperature for each language"))


def test_a_multilabel_dump(run):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 3)).astype(np.float32)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), 3)
    pq.write_table(pa.table({"logits": rows, "target": list(rng.integers(0, 2, (60, 3)))}), "tags.parquet")
    (result,) = run(readme.block("look like those of C classes"))
    assert result.task == "multilabel"
    assert pq.read_table("probs.parquet")["softmax"][0].as_py() == pytest.approx(1 / (1 + np.exp(-logits[0])), rel=1e-6)


def test_scikit_learn(run):
    X, y = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=1000).fit(X, y.astype(str))
    (result,) = run(readme.block("From scikit-learn"), classifier=classifier, X=X, y=y.astype(str))
    assert result.metrics["accuracy"].value == classifier.score(X, y.astype(str))


def test_trainer_predict(run):
    logits, target = np.eye(3, dtype=np.float32), np.array([0, 1, 0])
    found = SimpleNamespace(predictions=logits, label_ids=target)
    trainer = SimpleNamespace(predict=lambda dataset: found)
    (result,) = run(readme.block("`Trainer.predict`"), trainer=trainer, test_dataset=None)
    assert result.metrics["cross_entropy"].value == fx.cross_entropy(logits, target)


def test_vllm(run):
    """The shape of vLLM's outputs: a dictionary of `Logprob` for each prompt token but the first."""
    vocabulary, rng = 7, np.random.default_rng(0)
    outputs, losses = [], []
    for tokens in ([1, 2, 3], [4, 5]):
        log_probs = fx.log_softmax(rng.normal(size=(len(tokens), vocabulary)).astype(np.float32))
        found = [{j: SimpleNamespace(logprob=float(p), rank=1) for j, p in enumerate(row)} for row in log_probs]
        outputs.append(SimpleNamespace(prompt_token_ids=tokens, prompt_logprobs=[None, *found[1:]]))
        losses += [-float(row[token]) for row, token in zip(log_probs[1:], tokens[1:], strict=True)]
    llm = SimpleNamespace(generate=lambda prompts, params: outputs)
    (result,) = run(readme.block("prompt_logprobs=-1"), llm=llm, prompts=[], params=None, vocabulary=vocabulary)
    assert result.metrics["cross_entropy"].value == pytest.approx(np.mean(losses), rel=1e-6)
    assert result.clusters == 2


def test_lm_evaluation_harness(run):
    """Samples as `--log_samples` writes them; the tasks differ in the number of choices."""
    samples = [
        {"doc_id": 0, "target": "1", "filtered_resps": [["-4.5", "False"], ["-2.25", "True"]]},
        {"doc_id": 1, "target": "2", "filtered_resps": [["-1.0", "True"], ["-3.0", "False"], ["-2.0", "False"]]},
    ]
    with open("samples_arc_easy.jsonl", "w") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
    (result,) = run(readme.block("the harness's `acc`"))
    assert result.metrics["accuracy"].value == 0.5


@pytest.mark.parametrize("command", readme.sessions())
def test_commands_print_what_the_readme_shows(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLES, "examples")
    program, *arguments = shlex.split(command)
    assert (program, command_line(arguments)) == ("fastxent", 0)
    pattern = "\n".join(".*" if line == "…" else re.escape(line) for line in readme.sessions()[command])
    assert re.fullmatch(pattern + "\n?", capsys.readouterr().out, re.DOTALL)
