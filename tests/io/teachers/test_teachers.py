"""Sequences of DistillKit: every token is a row of the list that its bytes mean, and what is broken is a bad row."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io.source import open_source
from tests.io.teachers.samples import BINNED, FITTED, PLAIN, K, V, raw, sequences, table, written
from tests.verbs.evaluated import figures

LISTS = {"logits": "topk_logprobs", "ids": "topk_ids"}
NAMES = ["document", "position", "target", "topk_ids", "topk_logprobs"]
CONFIGS = {
    "plain": PLAIN, "fitted": FITTED, "binned": BINNED, "halves": {**PLAIN, "exact_dtype": "bfloat16"},
    "doubles": {**FITTED, "term_dtype": "float64"},
}  # fmt: skip


def read(source: object, names: list[str] = NAMES) -> dict[str, list]:
    found: dict[str, list] = {name: [] for name in names}
    for unit in open_source(source, logits=None, columns=names).units():
        for batch in unit.read(5, 1 << 20, whole=True):
            for name in names:
                found[name] += batch.columns[name].to_pylist()
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_rows(tmp_path: Path, name: str):
    config = CONFIGS[name]
    made = sequences(config)
    found = read(written(tmp_path / "x", table(made), config))
    rows = [(i, s, each) for i, each in enumerate(made) for s in range(len(each.ids))]
    assert found["document"] == [i for i, _, _ in rows]
    assert found["position"] == [s + 1 for _, s, _ in rows]
    assert found["target"] == [each.tokens[s + 1] for _, s, each in rows]
    assert found["topk_ids"] == [each.ids[s] for _, s, each in rows]
    for (_, s, each), logprobs in zip(rows, found["topk_logprobs"], strict=True):
        tolerance = 4 * 2.0**-11 * 20 if name == "binned" else 1e-6  # residuals are rounded to the exact dtype
        assert logprobs == pytest.approx(each.logprobs[s], rel=tolerance)
    assert pa.array(found["topk_logprobs"], pa.list_(pa.float32())).null_count == 0


def test_deltas_are_summed(tmp_path: Path):
    config = {**PLAIN, "delta_encoding": True}
    made = sequences(config)
    found = read(written(tmp_path / "x", table(made), config))["topk_logprobs"]
    want = [each.logprobs[s] for each in made for s in range(len(each.ids))]
    assert found == [pytest.approx([sum(row[: j + 1]) for j in range(K)], rel=1e-5) for row in want]


def test_evaluated_compared_and_converted(tmp_path: Path, capsys):
    made = sequences(FITTED)
    kept = pa.array(["a", "b", "a", "b"])
    path = written(tmp_path / "x", table(made, kind=kept), FITTED)
    result = fx.evaluate(path, **LISTS, by="kind", cluster="document")
    assert result.config.n_classes == V
    assert (result.rows.used, result.clusters) == (3 + 8 + 1, 3)
    plain = written(tmp_path / "y", raw(made), None)
    again = fx.evaluate(plain, **LISTS, n_classes=V, cluster="document")
    for name in ("accuracy", "confidence", "covered_mass"):
        assert again.metrics[name].value == pytest.approx(result.metrics[name].value, rel=1e-5)
    apart = fx.compare(path, plain, **LISTS, n_classes=V).divergences["js_divergence"].mean
    assert apart.bounds[0] == pytest.approx(0.0, abs=1e-9)
    assert run(["inspect", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1].strip()
    assert "--logits topk_logprobs --ids topk_ids" in line
    assert "--cluster document" in line
    assert run([*line.split()[1:], "-q"]) == 0
    dest = tmp_path / "z.parquet"
    assert fx.convert(path, dest, logits="topk_logprobs").layout == "top-k lists"
    assert pq.read_table(fx.convert(path, tmp_path / "again.parquet").dest).equals(pq.read_table(dest))
    assert figures(fx.evaluate(dest, **LISTS, n_classes=V, by="kind", cluster="document")) == figures(result)
    units = fx.plan(path, **LISTS, by="kind", cluster="document", unit_size="1MB")
    states = [pickle.loads(pickle.dumps(unit)).run() for unit in units]  # noqa: S301 - made in this test
    assert figures(fx.merge_states(states).result()) == figures(result)


def test_documents_of_several_files_are_apart(tmp_path: Path):
    for k in range(2):
        written(tmp_path, table(sequences(PLAIN, seed=k)), PLAIN, f"data_{k}.parquet")
    found = read(tmp_path)
    assert sorted(set(found["document"])) == [0, 2, 3, 4, 6, 7]
    assert fx.evaluate(tmp_path, **LISTS, cluster="document").clusters == 6


def test_what_is_missing_is_counted(tmp_path: Path):
    made = sequences(PLAIN)
    made[0].bytes[1] = made[0].bytes[1][:-1]  # a token of too few bytes
    made[2].packed[3] = None
    made[2].bytes, made[3].tokens = made[2].bytes[:-2], made[3].tokens[:1]
    rows = table(made).to_pydict()
    rows = {name: pa.array([*values, None], table(made).schema.field(name).type) for name, values in rows.items()}
    path = written(tmp_path / "x", pa.table(rows), PLAIN)
    result = fx.evaluate(path, **LISTS, on_bad_row="skip")
    assert (result.rows.total, result.rows.bad, result.rows.ignored, result.rows.used) == (13, 4, 2, 7)
    with pytest.raises(fx.BadRowError, match="its list is null"):
        fx.evaluate(path, **LISTS)
    made = sequences(PLAIN)
    made[0].bytes[0][12:16] = [0, 0, 128, 255]  # -inf: no token was there
    found = read(written(tmp_path / "y", table(made), PLAIN))
    assert found["topk_ids"][0] == made[0].ids[0][:3] + made[0].ids[0][4:]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "compressed by DistillKit, and .*compression_config.yaml does not exist"),
        ({}, "'k' is missing"),
        ("- 1", "it must hold names and values"),
        ("a: [", "it is not a compression of DistillKit"),
        ({**PLAIN, "k": 0}, "k must be an integer from 1 to 1048576, got 0"),
        ({**PLAIN, "exact_k": 13}, "exact_k must be an integer from 0 to 12"),
        ({**PLAIN, "d": 1 << 40}, "d must be an integer from 2 to"),
        ({**PLAIN, "exact_dtype": "int8"}, "exact_dtype must be one of float16"),
        ({**FITTED, "polynomial_terms": [-1]}, "polynomial_terms must be integers from 0 to 32"),
        ({**BINNED, "k": 8}, "residual_bins must have at most"),
        ({**PLAIN, "exact_dtype": "float64"}, "has 48 bytes per token, and its compression_config.yaml means 96"),
        ({**PLAIN, "d": 200}, "bytepacked_indices has 9 bytes per token, .* means 12"),
    ],
)
def test_refused(tmp_path: Path, config, message):
    path = written(tmp_path / "x", table(sequences(PLAIN)), config if isinstance(config, dict) else None)
    if isinstance(config, str):
        (tmp_path / "x" / "compression_config.yaml").write_text(config)
    with pytest.raises(fx.SourceError, match=message) as caught:
        fx.evaluate(path, **LISTS)
    assert "\n" not in str(caught.value)


def test_raw_sequences_without_lists(tmp_path: Path):
    rows = raw(sequences(PLAIN, lengths=(3, 2))).to_pydict()
    kinds = raw(sequences(PLAIN)).schema
    rows = {name: pa.array([None, None] if name != "input_ids" else values, kinds.field(name).type)
            for name, values in rows.items()}  # fmt: skip
    result = fx.evaluate(written(tmp_path / "x", pa.table(rows), None), **LISTS, on_bad_row="skip")
    assert (result.rows.total, result.rows.bad) == (3, 3)


def test_other_parquet_files_stay_what_they_are(tmp_path: Path):
    pq.write_table(
        pa.table({"token_ids": [[1, 2]], "top_values": [[-0.1, -3.0]], "target": [1]}), tmp_path / "x.parquet"
    )
    result = fx.evaluate(tmp_path / "x.parquet", logits="top_values", ids="token_ids")
    assert result.metrics["accuracy"].value == 1.0
