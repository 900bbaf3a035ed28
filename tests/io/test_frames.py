"""Frames with columns that Arrow cannot hold, objects that hold rows, shards without rows, connections after errors."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.errors import ColumnError, FastxentError, SourceError

X, Y = np.eye(4), [0, 1, 2, 0]
FRAME = pd.DataFrame({"logits": list(X), "target": Y})


@functools.cache
def loss() -> float:
    return fx.cross_entropy(X, Y)


# ---- frames ----------------------------------------------------------------------------------------------------------

ODD: dict[str, Callable[[], Any]] = {
    "mixed": lambda: FRAME.assign(odd=[{"a": 1}, "x", 3, None]),
    "complex": lambda: FRAME.assign(odd=np.zeros(4, complex)),
    "sparse": lambda: FRAME.assign(odd=pd.arrays.SparseArray([0, 0, 1, 0])),
    "objects": lambda: FRAME.assign(odd=[object()] * 4),
    "polars": lambda: pl.DataFrame({"logits": X.tolist(), "target": Y}).with_columns(odd=pl.lit(1).cast(pl.Int128)),
}


@pytest.mark.parametrize("kind", ODD)
def test_columns_that_arrow_cannot_hold_are_left_alone_until_they_are_named(kind: str) -> None:
    frame = ODD[kind]()
    assert fx.evaluate(frame).metrics["cross_entropy"].value == loss()
    with pytest.raises(ColumnError, match=r"cannot convert column 'odd' of <DataFrame> to Arrow"):
        fx.evaluate(frame, by="odd")


def test_columns_of_the_same_name() -> None:
    frame = pd.concat([FRAME, pd.DataFrame({"x": Y}), pd.DataFrame({"x": Y})], axis=1)
    assert fx.evaluate(frame).metrics["cross_entropy"].value == loss()
    with pytest.raises(ColumnError, match="columns of <DataFrame> must have different names, got 'x' twice"):
        fx.evaluate(frame, by="x")


def test_names_that_are_numbers() -> None:
    frame = pd.DataFrame(X).assign(y=Y).rename(columns={"y": 9})
    for logits in (["0", "1", "2", "3"], "[0-3]"):
        assert fx.evaluate(frame, logits=logits, target="9").metrics["cross_entropy"].value == loss()


def test_names_with_dots(tmp_path: Path) -> None:
    inner = pa.array([{"c": row, "d": y} for row, y in zip(X, Y, strict=True)])
    for name, logits in (("a.b", "a.b.c"), ("", ".c"), ("a", "a.c")):
        table = pa.table({name: inner, "target": Y, "a.x": Y})
        with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as out:
            out.write_table(table)
        for source in (table, tmp_path / "x.arrow"):
            assert fx.evaluate(source, logits=logits, by="a.x").metrics["cross_entropy"].value == loss()


class Dataset(dict):  # type: ignore[type-arg]
    """What Hugging Face calls its collection of splits."""


Dataset.__module__ = "datasets.dataset_dict"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pl.DataFrame({"logits": X.tolist()}).lazy(), r"cannot read a LazyFrame; call \.collect\(\)"),
        (Dataset(test=FRAME), r"cannot read a Dataset; pass one of its splits"),
        (X, "cannot read a ndarray; pass a dict of columns"),
        (pl.Series(X.tolist()), "cannot read a Series; pass a dict of columns"),
        (FRAME["logits"], "cannot read a Series; pass a dict of columns"),
        (X.tolist(), "cannot read a list; pass a dict of columns"),
        ([{"logits": [1.0, 2.0], "target": 1}], r"pass pyarrow\.Table\.from_pylist\(rows\) for a list of rows"),
        (pa.array(X.tolist()), "pass a dict of columns"),
    ],
)
def test_objects_that_hold_rows_and_are_no_source(source: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        fx.evaluate(source)


# ---- shards without rows, or without logits --------------------------------------------------------------------------

SHARDS: dict[str, tuple[pa.Table, int]] = {
    "of pandas": (pa.Table.from_pandas(pd.DataFrame({"logits": [], "target": []}, dtype=object)), 0),
    "of doubles": (pa.table({"logits": pa.array([], pa.float64()), "target": pa.array([], pa.float64())}), 0),
    "list of null": (pa.table({"logits": pa.array([], pa.list_(pa.null())), "target": pa.array([], pa.int64())}), 0),
    "float32": (pa.table({"logits": pa.array([], pa.list_(pa.float32())), "target": pa.array([], pa.int64())}), 0),
    "null logits": (pa.table({"logits": pa.nulls(2), "target": [0, 1]}), 2),
    "lists of nulls": (pa.table({"logits": [[None] * 4, None, []], "target": [0, 1, 2]}), 3),
    "all null": (pa.table({"logits": pa.nulls(3), "target": pa.nulls(3)}), 3),
}


def write_ipc(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table)


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {"parquet": pq.write_table, "arrow": write_ipc}


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("kind", SHARDS)
def test_shards_without_logits_among_others(kind: str, form: str, place: int, tmp_path: Path) -> None:
    shard, bad = SHARDS[kind]
    WRITERS[form](pa.table({"logits": list(X), "target": Y}), tmp_path / f"1.{form}")
    WRITERS[form](shard, tmp_path / f"{place}.{form}")
    result = fx.evaluate(tmp_path, on_bad_row="skip")
    ignored = bad if kind == "all null" else 0
    assert result.metrics["cross_entropy"].value == loss()
    assert (result.rows.bad, result.rows.ignored) == (bad - ignored, ignored)
    if bad and not ignored:
        with pytest.raises(fx.BadRowError, match=r"logits are null|a null"):
            fx.evaluate(tmp_path)
    fx.transform(tmp_path, tmp_path.parent / "out.parquet", keep=["target"], on_bad_row="skip")
    assert pq.read_table(tmp_path.parent / "out.parquet")["target"].to_pylist()[-4 if place == 0 else 0 :][:4] == Y


def test_one_column_per_class_in_shards_without_rows(tmp_path: Path) -> None:
    columns = {f"p{k}": X[:, k] for k in range(4)}
    pq.write_table(pa.table({**columns, "target": Y}), tmp_path / "1.parquet")
    pq.write_table(pa.table({name: pa.nulls(0) for name in [*columns, "target"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({**columns, "p2": pa.nulls(4), "target": Y}), tmp_path / "2.parquet")
    result = fx.evaluate(tmp_path, logits="p*", on_bad_row="skip")
    assert (result.metrics["cross_entropy"].value, result.rows.bad) == (loss(), 4)


@pytest.mark.parametrize("rows", [0, 2])
def test_nothing_but_nulls(rows: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"logits": pa.nulls(rows), "target": pa.nulls(rows)}), tmp_path / "x.parquet")
    with pytest.raises(FastxentError, match="every row is null or empty" if rows else "there are no rows"):
        fx.evaluate(tmp_path)


# ---- DuckDB ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted() -> Iterator[None]:
    """What is freed by reference counts alone."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("select", ["7 as target from range(10000)", "'x' as target", "1 as label"])
def test_a_connection_is_free_after_an_error(select: str, threads: int) -> None:
    connection = duckdb.connect()
    for _ in range(3):
        relation = connection.sql(f"select [1.0, 2.0]::float[] as logits, {select}")
        with pytest.raises(FastxentError):
            fx.evaluate(relation, threads=threads)
        assert connection.sql("select 42").fetchall() == [(42,)]
