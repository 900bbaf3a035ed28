"""What is read beside the logits bounds batches and units as the logits do."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.io.batch import Unit
from fastxent.io.source import open_source
from tests.io.parquet import compact as c

ROWS = 2000
X = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
WIDTH = 20_000


def dump(path: Path, layout: str, text: list[str], **options: Any) -> str:
    logits = {"logits": list(X)} if layout == "list" else {f"l{k}": X[:, k] for k in range(2)}
    pq.write_table(pa.table({**logits, "target": np.arange(ROWS) % 2, "text": text}), path, **options)
    return "logits" if layout == "list" else "l*"


def units(path: Path, logits: str, columns: list[str]) -> list[Unit]:
    return list(open_source(path, logits=logits, columns=columns).units())


@pytest.mark.parametrize("layout", ["list", "columns"])
@pytest.mark.parametrize("stored", ["plain", "dictionary", "dictionary without sizes", "compressed"])
def test_batches_heed_every_column_that_is_read(layout: str, stored: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    alike = [f"{k % 3}" * WIDTH for k in range(ROWS)]
    distinct = [f"{k:04}" * (WIDTH // 4) for k in range(ROWS)]
    logits = dump(
        path, layout, alike if "dictionary" in stored else distinct,
        use_dictionary="dictionary" in stored, compression="zstd" if stored == "compressed" else "none",
    )  # fmt: skip
    if stored == "dictionary without sizes":

        def change(f: c.Struct) -> None:
            for chunk in c.chunks(c.groups(f)[0]):
                chunk.pop(c.SIZES, None)

        path.write_bytes(c.with_footer(path.read_bytes(), change))
    for unit in units(path, logits, ["target", "text"]):
        for whole in (True, False):
            rows = []
            for batch in unit.read(65536, 1 << 20, whole):
                rows.append(len(batch.columns["target"]))
                assert sum(len(block.values) for block in batch.blocks) == rows[-1] == batch.rows
            assert sum(rows) == ROWS
            assert max(rows) * WIDTH < 4 << 20
    (unit,) = units(path, logits, ["target"])
    assert max(len(batch.columns["target"]) for batch in unit.read(1 << 30, 1 << 20, whole=True)) == ROWS


@pytest.mark.parametrize("logits", ["logits", "x*"])
def test_units_hold_what_they_read_and_no_more(logits: str, tmp_path: Path) -> None:
    sizes = []
    for groups, others in ((1, 0), (200, 0), (1, 300), (200, 300)):
        path = tmp_path / f"{groups}-{others}.parquet"
        columns = {"logits": list(X), "x0": X[:, 0], "x1": X[:, 1], "target": np.arange(ROWS) % 2}
        columns |= {f"other{k}": np.zeros(ROWS, np.int8) for k in range(others)}
        pq.write_table(pa.table(columns), path, row_group_size=ROWS // groups)
        found = units(path, logits, ["target"])
        assert len(found) == groups
        sizes.append(max(len(pickle.dumps(unit)) for unit in found))
        assert fx.evaluate(path, logits=logits).rows.total == ROWS
    assert max(sizes) < min(sizes) + 200


def test_columns_in_any_order_and_inside_structs(tmp_path: Path) -> None:
    """Footers of some columns keep their types: dictionaries, time zones, extension types, nested ones."""
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "when": pa.array(range(ROWS), pa.timestamp("ns", "Europe/Rome")),
            "out": pa.array([{"logits": row, "n": k} for k, row in enumerate(X)]),
            "kind": pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode(),
            "a.b": pa.array(range(ROWS)),
            "pairs": pa.array([[("k", k)] for k in range(ROWS)], pa.map_(pa.string(), pa.int64())),
            "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(X),
            "target": np.arange(ROWS) % 2,
        }
    )  # fmt: skip
    pq.write_table(table, path, row_group_size=700)
    names = ["target", "a.b", "kind", "out.n", "when", "pairs"]
    for logits in ("tensor", "out.logits"):
        row = 0
        for unit in units(path, logits, names):
            for batch in unit.read(1 << 30, 4000, whole=True):
                for name in names:
                    whole = (
                        table["out"].combine_chunks().field("n") if name == "out.n" else table[name].combine_chunks()
                    )
                    part = whole.slice(row, len(batch.columns[name]))
                    assert batch.columns[name].to_pylist() == part.to_pylist()
                    assert batch.columns[name].type == part.type
                assert np.array_equal(batch.whole().values, X[row : row + batch.rows])
                row += batch.rows
        assert row == ROWS


def test_a_group_without_columns_ends_in_one_line(tmp_path: Path) -> None:
    """An empty group is no column for pyarrow, which leaves it out."""
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"logits": list(X), "target": np.arange(ROWS) % 2, "fold": ["a"] * ROWS}), path, store_schema=False
    )

    def change(f: c.Struct) -> None:
        fold = f[c.SCHEMA][1][1][-1]
        f[c.SCHEMA][1][1][-1] = {c.NAME: fold[c.NAME], c.CHILDREN: (c.I32, 0)}
        f.pop(c.ORDERS, None)
        c.groups(f)[0][c.CHUNKS][1][1].pop()

    path.write_bytes(c.with_footer(path.read_bytes(), change))
    with pytest.raises(fx.SourceError, match="no values are stored in column 'fold'"):
        fx.evaluate(path, by="fold")
