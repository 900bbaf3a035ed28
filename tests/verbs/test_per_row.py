"""Per-row files: one line for each row, and the figures of the run."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.io import batch
from tests.verbs.evaluated import (
    LOGITS,
    TARGET,
    N,
    dump,
    with_bad,
)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
@pytest.mark.parametrize("threads", [1, 2])
def test_per_row_file(tmp_path, name, threads, monkeypatch):
    monkeypatch.setattr(batch, "_BATCH_BYTES", 500)
    gaps = np.arange(N) % 10 == 3
    target = pa.array(TARGET, mask=gaps)
    ids = pa.array([None if i % 50 == 7 else f"row {i}" for i in range(N)]).dictionary_encode()
    table = with_bad({20: math.nan}, target=target, id=ids)
    parts = []
    for k, a in enumerate(range(0, N, 70)):  # dictionaries of their own in each
        parts.append(tmp_path / f"{k}.parquet")
        part = table.slice(a, 70)
        part = part.set_column(0, "id", part["id"].cast(pa.string()).dictionary_encode())
        pq.write_table(part, parts[-1], row_group_size=9)
    path = tmp_path / name
    fx.evaluate(parts, per_row=path, id="id", on_bad_row="skip", threads=threads)
    rows = pq.read_table(path) if name.endswith("parquet") else pa.ipc.open_file(path).read_all()
    assert rows.column_names == ["id", "nll", "rank", "predicted", "confidence", "entropy", "status"]
    assert rows["id"].to_pylist() == ids.to_pylist()
    status = ["bad" if i == 20 else "ignored" if gaps[i] else "used" for i in range(N)]
    assert rows["status"].to_pylist() == status
    truth = fx.row_statistics(LOGITS.astype(np.float32), TARGET)
    used = np.array([s == "used" for s in status])
    for figure in ("nll", "rank", "predicted", "confidence", "entropy"):
        assert (np.asarray(rows[figure].is_valid()) == used).all()
        np.testing.assert_array_equal(np.asarray(rows[figure].drop_null()), getattr(truth, figure)[used])


def test_per_row_ids_that_cannot_be(tmp_path):
    with pytest.raises(fx.ConfigError, match="id must not be 'nll'"):
        fx.evaluate(dump(nll=pa.array(np.arange(N))), id="nll", per_row=tmp_path / "rows.parquet")
    numbers, words = dump(id=pa.array(np.arange(N))), dump(id=pa.array(["x"] * N))
    with pytest.raises(
        fx.ColumnError,
        match="column 'id' must have one type in all files, got int64 in the first and string in another",
    ):
        fx.evaluate([numbers, words], id="id", per_row=tmp_path / "rows.parquet")
    narrow = dump(id=pa.array(np.arange(N, dtype=np.int32)))
    fx.evaluate([numbers, narrow], id="id", per_row=tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet")["id"].to_pylist() == [*range(N), *range(N)]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_source_is_never_written_over(tmp_path):
    path = tmp_path / "dump.parquet"
    pq.write_table(dump(), path)
    before = path.read_bytes()
    (tmp_path / "link.parquet").symlink_to(path)
    for name in ("dump.parquet", "link.parquet"):
        with pytest.raises(fx.OutputError, match="it is an input file"):
            fx.evaluate(path, per_row=tmp_path / name)
    assert path.read_bytes() == before
