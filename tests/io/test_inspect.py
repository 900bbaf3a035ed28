"""What `describe` finds in dumps of several shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastxent.cli.program import run
from fastxent.io.inspect import Candidate, describe

X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def test_details_of_lighteval(tmp_path: Path, capsys) -> None:
    """Structs of what was asked, answered and measured; only the numbers of the last are scores."""
    doc = {"choices": ["A", "B"], "gold_index": [0], "query": "q"}
    rows = [
        {
            "doc": doc,
            "model_response": {"logprobs": [-1.0, -2.0]},
            "metric": {"acc": float(k % 2), "extractive_match": 1},
        }
        for k in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "details.parquet")
    assert describe(tmp_path / "details.parquet").roles["scores"] == ["metric.acc", "metric.extractive_match"]
    assert run(["inspect", str(tmp_path / "details.parquet")]) == 0
    line = f"fastxent eval {tmp_path / 'details.parquet'} --scores metric.acc,metric.extractive_match"
    assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
    assert run(line.split()[1:]) == 0
    assert "metric.acc" in capsys.readouterr().out


def test_a_language_model_dump(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": np.arange(50),
            "doc": pa.array([f"d{i // 5}" for i in range(50)]),
            "kind": pa.array(["a", "b"] * 25).dictionary_encode(),
            "target": np.arange(50, dtype=np.int32) % 4,
            "n_bytes": np.arange(50),
            "weight": np.ones(50),
            "embedding": pa.array(list(X.astype(np.float64))),
            "logits": pa.array(list(X.astype(np.float16))),
        }
    )
    for fold in (0, 1):
        (tmp_path / f"fold={fold}").mkdir()
        pq.write_table(table, tmp_path / f"fold={fold}" / "x.parquet", row_group_size=20, compression="zstd")
    found = describe(tmp_path)
    assert (len(found.files), found.formats, found.rows, found.row_groups) == (2, ["parquet"], 100, 6)
    assert found.logits[0] == Candidate("logits", "list<element: halffloat>", "float16", 4)
    assert [candidate.name for candidate in found.logits] == ["logits", "embedding"]
    assert found.roles == {
        "target": ["target"], "id": ["id"], "cluster": ["doc"], "weight": ["weight"], "n_bytes": ["n_bytes"],
        "by": ["kind", "fold"],
    }  # fmt: skip
    assert found.codecs == ["ZSTD"]
    assert "PLAIN" in found.encodings
    metadata = pq.read_metadata(tmp_path / "fold=0" / "x.parquet")
    chunks = [metadata.row_group(g).column(7) for g in range(3)]
    assert found.compressed_bytes == 2 * sum(chunk.total_compressed_size for chunk in chunks)
    assert found.uncompressed_bytes == 2 * sum(chunk.total_uncompressed_size for chunk in chunks)


def test_families_of_columns_and_tagged_blobs() -> None:
    columns = {f"logit_{j}": X[:, j] for j in range(4)} | {"gap_0": X[:, 0], "gap_2": X[:, 0], "label": np.arange(50)}
    table = pa.table(columns).append_column("blob", pa.array([row.tobytes() for row in X], pa.binary(16)))
    found = describe(table)
    assert found.logits == [
        Candidate("logit_*", "4 columns of float", "float32", 4),
        Candidate("blob", "fixed_size_binary[16]", None, None),
    ]
    assert found.roles["target"] == ["label"]
    assert found.row_groups is None


def test_soft_targets_are_no_logits() -> None:
    found = describe({"target": X, "probs": X})
    assert [candidate.name for candidate in found.logits] == ["probs"]
    assert found.roles["target"] == ["target"]


def test_nothing_that_looks_like_logits(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "x.parquet")
    found = describe(tmp_path / "x.parquet")
    assert found.logits == []
    assert found.codecs == []
    assert found.compressed_bytes == 0


def test_a_reader_loses_nothing_to_the_look() -> None:
    table = pa.table({"other_logits": pa.array([None, [1.0, 2.0]]), "logits": pa.array([[1.0], [2.0]])})
    found = describe(table.to_reader(max_chunksize=1))
    assert {candidate.name: candidate.n_classes for candidate in found.logits} == {"logits": 1, "other_logits": 2}


def test_top_k_log_probs(tmp_path: Path, capsys) -> None:
    """Numbers or tokens beside their log-probabilities; the line runs, with targets and without."""
    ids = [[2, 0], [1, 3], [3, 1]]
    rows = {
        "top_ids": pa.array(ids), "top_logprobs": pa.array([[-0.5, -2.0]] * 3), "other_logprob": [-1.4] * 3,
        "target": [0, 2, 3], "target_logprob": [-2.0, -4.0, -0.5], "kind": pa.array(["a", "b", "a"]),
    }  # fmt: skip
    words = {"top_ids": pa.array([[f"<{j}>" for j in row] for row in ids]), "target": ["<0>", "<2>", "<3>"]}
    for number, (table, end) in enumerate(
        [
            (rows, "--other other_logprob --target-logprob target_logprob --by kind"),
            (rows | words, "--other other_logprob --target-logprob target_logprob --by kind"),
            (
                {name: rows[name] for name in ("top_ids", "top_logprobs", "other_logprob")},
                "--metrics entropy,confidence,covered_mass --other other_logprob",
            ),
        ]
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table(table), path)
        assert run(["inspect", str(path)]) == 0
        line = f"fastxent eval {path} --logits top_logprobs --ids top_ids {end}"
        assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
        assert run([*line.split()[1:], "-q"]) == 0
        assert "covered_mass" in capsys.readouterr().out
    full = pa.table(rows | {"logits": pa.array(list(X[:3]))})
    pq.write_table(full, tmp_path / "both.parquet")
    assert describe(tmp_path / "both.parquet").logits[0].name == "logits"
