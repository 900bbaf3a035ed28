"""`limit`: the first rows of a source, the same as a source of these rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dumps
import fastxent as fx
from fastxent.cli.program import run
from fastxent.engine.limit import first_rows
from fastxent.errors import Where


@pytest.mark.parametrize("limit", [1, 90, 140, 139, 10_000])
def test_the_first_rows_are_a_source_of_these_rows(tmp_path, limit):
    table = dumps.table(300)
    paths = dumps.files(tmp_path, table)
    options = {"by": "kind", "where": "kind != 'b'"}
    expected = fx.evaluate(table.slice(0, limit), **options)
    for source in (paths, table):
        for memory in ("1MB", "512MB"):
            result = fx.evaluate(source, limit=limit, memory=memory, **options)
            assert result.state.to_bytes() == expected.state.to_bytes()
            (warning,) = result.warnings
            assert warning == f"only the first {min(limit, 300)} of 300 rows were read, because limit={limit}"
    with pytest.warns(UserWarning, match="only the first"):
        units = fx.plan(paths, limit=limit, **options)
    assert fx.merge_states(unit.run() for unit in units).result().metrics == expected.metrics


def test_soft_targets_and_bad_rows_beyond_the_limit(tmp_path):
    logits = np.eye(4, dtype=np.float32)[np.arange(40) % 4] * 3
    logits[30, 2] = np.nan
    soft = np.full((40, 4), 0.25)
    rows = {"logits": logits, "target": soft}
    assert fx.evaluate(rows, limit=30).metrics == fx.evaluate({k: v[:30] for k, v in rows.items()}).metrics
    with pytest.raises(fx.BadRowError, match="row 30"):
        fx.evaluate(rows, limit=31)
    assert fx.evaluate(rows, limit=31, on_bad_row="skip").rows.bad == 1


def test_checkpoints_shards_and_files_of_rows(tmp_path):
    paths = dumps.files(tmp_path, dumps.table(120))
    expected = fx.evaluate(paths, limit=77)
    for _ in range(2):
        assert fx.evaluate(paths, limit=77, resume=tmp_path / "progress").metrics == expected.metrics
    with pytest.raises(fx.StateError, match="limit=77 there, 78 here"):
        fx.evaluate(paths, limit=78, resume=tmp_path / "progress")
    shards = [fx.evaluate(paths, limit=77, shard=f"{k}/2").state for k in (1, 2)]
    assert fx.merge_states(shards).result().metrics == expected.metrics
    other = fx.evaluate(paths, limit=78, shard="2/2").state
    with pytest.raises(fx.StateError):
        fx.merge_states([shards[0], other])
    fx.evaluate(paths, limit=77, per_row=tmp_path / "rows.parquet")
    assert pq.read_metadata(tmp_path / "rows.parquet").num_rows == 77


def test_refusals(tmp_path, capsys):
    unknown = SimpleNamespace(rows=None, where=Where("a.jsonl", None, 0))
    assert list(first_rows(iter([(unknown, ())]), None)) == [(unknown, ())]
    with pytest.raises(fx.ConfigError, match=r"limit cannot be combined with a\.jsonl, because its number of rows"):
        list(first_rows(iter([(unknown, ())]), 3))
    stream = pa.RecordBatchReader.from_batches(dumps.table(5).schema, dumps.table(5).to_batches())
    assert fx.evaluate(stream, limit=3).rows.total == 3
    with pytest.raises(fx.ConfigError, match="limit must be an integer of at least 1"):
        fx.evaluate({"logits": np.eye(2), "target": [0, 1]}, limit=0)
    path = dumps.files(tmp_path, dumps.table(30))[-1]
    assert run(["eval", str(path), "--limit", "4"]) == 0
    shown = capsys.readouterr()
    assert "4 rows" in shown.out
    assert "only the first 4 of 9 rows were read" in shown.err
