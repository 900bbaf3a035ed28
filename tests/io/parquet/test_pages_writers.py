"""The same matrix by every writer in every layout: the native reader against pyarrow's reading, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import arro3.core
import arro3.io
import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.io.columns import as_rows
from fastxent.io.parquet.chunk import LogitsChunk, plan
from fastxent.io.parquet.footer import column_chunks
from fastxent.io.parquet.pages import PageReader
from fastxent.io.parquet.reader import read_rows, split
from fastxent.io.storage.local import LocalRanges
from tests.io.held import held
from tests.pairwise import pairwise

DTYPES = ["float16", "float32", "float64"]
CLASSES = [1, 3, 10, 1000]


def matrix(n: int, n_classes: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Any bit pattern but NaN, which no row of logits holds."""
    rng = np.random.default_rng(seed)
    width = np.dtype(dtype).itemsize
    x = rng.integers(0, 256, (n, n_classes * width), np.uint8).view(dtype)
    return np.where(np.isnan(x), np.array(1, dtype), x)


def listed(x: np.ndarray, kind: Callable[[pa.DataType], pa.DataType] = pa.list_) -> pa.Array:
    flat = pa.array(x.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, x.shape[1]).cast(kind(flat.type))


def planned(path: Path, n_classes: int, dtype: str) -> list[LogitsChunk | str]:
    schema = pq.ParquetFile(path).schema
    with closing(LocalRanges(str(path))) as whole:
        infos = column_chunks(whole, 0)
        return [plan(schema, 0, info, group, n_classes, dtype, whole) for group, info in enumerate(infos)]


def native(path: Path, n_classes: int, dtype: str, max_bytes: int = 1 << 20) -> tuple[np.ndarray, dict[int, str]]:
    """Column 0 through the native reader: mapped, through `read`, and in parts, which must agree."""
    results = []
    plans = planned(path, n_classes, dtype)
    for way in ("mapped", "read", "split"):
        pieces, bad, first = [np.empty((0, n_classes), dtype)], {}, 0
        for chunk in plans:
            assert isinstance(chunk, LogitsChunk), chunk
            parts = [chunk]
            if way == "split":
                with closing(LocalRanges(str(path), chunk.begin, chunk.end)) as source:
                    parts = split(chunk, source, 3000)
            for part in parts:
                ranges: Any = held(path.read_bytes(), str(path), part.begin, part.end)
                if way != "read":
                    ranges = LocalRanges(str(path), part.begin, part.end)
                with closing(ranges) as source:
                    at = part.first_row
                    for values, wrong, row in read_rows(part, source, max_bytes):
                        assert row == at
                        bad.update({first + at + k: reason for k, reason in wrong.items()})
                        at += len(values)
                        pieces.append(np.array(values))
                    assert at == part.first_row + part.rows
            first += chunk.rows
        results.append((np.concatenate(pieces), bad))
    for values, bad in results[1:]:
        assert values.tobytes() == results[0][0].tobytes()
        assert bad == results[0][1]
    return results[0]


def check(path: Path, n_classes: int, dtype: str, max_bytes: int = 1 << 20) -> np.ndarray:
    """The native reading, proven to be pyarrow's, bad rows and their reasons included."""
    values, bad = native(path, n_classes, dtype, max_bytes)
    column = pq.read_table(path).column(0)
    rows, reasons = [np.empty((0, n_classes), dtype)], {}
    for chunk in column.chunks:
        part, wrong = as_rows(chunk, dtype, n_classes, "logits")
        reasons.update({sum(map(len, rows)) + k: reason for k, reason in wrong.items()})
        rows.append(part.values)
    assert bad == reasons
    other = np.concatenate(rows)
    assert values.shape == other.shape
    good = np.setdiff1d(np.arange(len(other)), list(bad))
    assert values[good].tobytes() == other[good].tobytes()
    assert np.isnan(values[sorted(bad)]).all()
    return values


# ---- pyarrow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "n_classes", "dtype", "version"),
    pairwise(["none", "snappy", "zstd", "lz4", "gzip", "brotli"], CLASSES, DTYPES, ["1.0", "2.0"]),
)
def test_pyarrow_lists(tmp_path: Path, dtype: str, n_classes: int, codec: str, version: str) -> None:
    x = matrix(9_000 // n_classes, n_classes, dtype)
    path = tmp_path / "a.parquet"
    table = pa.table({"logits": listed(x)})
    for options in (
        {"use_dictionary": True},
        {"use_dictionary": False, "write_page_checksum": True},
        {"use_dictionary": False, "column_encoding": "BYTE_STREAM_SPLIT"},
        {"use_dictionary": False, "data_page_size": 1000, "write_page_index": True},
        {"use_dictionary": True, "dictionary_pagesize_limit": 2000, "data_page_size": 500, "row_group_size": 1777},
    ):
        pq.write_table(table, path, compression=codec, data_page_version=version, **options)
        assert check(path, n_classes, dtype).tobytes() == x.tobytes()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("max_bytes", [1, 5000, 1 << 20, 1 << 30])
def test_pages_larger_and_smaller_than_a_batch(tmp_path: Path, version: str, max_bytes: int) -> None:
    x = matrix(2000, 500)
    path = tmp_path / "a.parquet"
    for size in (2000, 300_000, 1 << 30):
        table = pa.table({"logits": listed(x)})
        pq.write_table(
            table, path, compression="none", use_dictionary=False, data_page_size=size, data_page_version=version
        )
        assert check(path, 500, "float32", max_bytes).tobytes() == x.tobytes()


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda t: pa.list_(t, 6)])
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("optional_element", [True, False])
def test_pyarrow_kinds_of_list(
    tmp_path: Path, kind: Callable[[Any], pa.DataType], optional: bool, optional_element: bool
) -> None:
    x = matrix(100, 6)
    wanted = kind(pa.field("element", pa.float32(), nullable=optional_element))
    table = pa.Table.from_arrays(
        [listed(x, pa.list_).cast(wanted)], schema=pa.schema([pa.field("logits", wanted, nullable=optional)])
    )
    for repeated in (True, False):  # lists without the group of the standard, as old writers had them
        pq.write_table(table, tmp_path / "a.parquet", use_compliant_nested_type=repeated)
        assert check(tmp_path / "a.parquet", 6, "float32").tobytes() == x.tobytes()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_pyarrow_bad_rows(tmp_path: Path, version: str, dictionary: bool) -> None:
    rows: list[Any] = matrix(300, 4).tolist()
    rows[0], rows[7], rows[8], rows[100], rows[150] = None, [], [1.0], [1.0, None, 2.0, None], [1.0] * 9
    rows[299] = [None] * 4
    path = tmp_path / "a.parquet"
    for size in (100, 1 << 20):
        pq.write_table(
            pa.table({"logits": pa.array(rows, pa.list_(pa.float32()))}),
            path, data_page_size=size, use_dictionary=dictionary, data_page_version=version,
        )  # fmt: skip
        for max_bytes in (16, 1 << 20):
            check(path, 4, "float32", max_bytes)
        _, bad = native(path, 4, "float32")
        assert bad == {
            0: "logits are null",
            7: "0 logits where 4 are expected",
            8: "1 logits where 4 are expected",
            100: "logits hold a null, at class 1",
            150: "9 logits where 4 are expected",
            299: "logits hold a null, at class 0",
        }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", ["none", "snappy"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_pyarrow_binary(tmp_path: Path, dtype: str, codec: str, dictionary: bool, fixed: bool) -> None:
    x = matrix(500, 300, dtype)
    rows: list[Any] = [row.tobytes() for row in x]
    path = tmp_path / "a.parquet"
    kind = pa.binary(len(rows[0])) if fixed else pa.binary()
    for group in (500, 60):
        table = pa.table({"logits": pa.array(rows, kind)})
        pq.write_table(table, path, compression=codec, use_dictionary=dictionary, row_group_size=group)
        assert check(path, 300, dtype).tobytes() == x.tobytes()
    rows[3] = None
    if not fixed:
        rows[4], rows[499] = b"", b"abc"
    pq.write_table(pa.table({"logits": pa.array(rows, kind)}), path, compression=codec, use_dictionary=dictionary)
    check(path, 300, dtype)
    _, bad = native(path, 300, dtype)
    assert bad[3] == "logits are null"
    assert len(bad) == (1 if fixed else 3)


def test_bfloat16_in_lists_of_uint16(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 1 << 16, (1000, 100), np.uint16)
    for codec in ("none", "zstd"):
        pq.write_table(pa.table({"logits": listed(x)}), tmp_path / "a.parquet", compression=codec)
        values, bad = _native_bits(tmp_path / "a.parquet", 100)
        assert values.tobytes() == x.tobytes()
        assert bad == {}


def _native_bits(path: Path, n_classes: int) -> tuple[np.ndarray, dict[int, str]]:
    (chunk,) = planned(path, n_classes, "bfloat16")
    assert isinstance(chunk, LogitsChunk)
    with closing(LocalRanges(str(path), chunk.begin, chunk.end)) as source:
        pieces = [(np.array(values), bad) for values, bad, _ in read_rows(chunk, source, 1 << 16)]
    return np.concatenate([values for values, _ in pieces]), {k: v for _, bad in pieces for k, v in bad.items()}


def test_one_column_a_class(tmp_path: Path) -> None:
    x = matrix(5000, 1)
    pq.write_table(pa.table({"logit_0": x[:, 0]}), tmp_path / "a.parquet", data_page_size=3000)
    assert native(tmp_path / "a.parquet", 1, "float32")[0].tobytes() == x.tobytes()


def test_empty_files_and_row_groups(tmp_path: Path) -> None:
    path, x = tmp_path / "a.parquet", matrix(10, 4)
    table = pa.table({"logits": listed(x)})
    pq.write_table(table[:0], path)
    assert len(native(path, 4, "float32")[0]) == 0
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:0], table[:3], table[3:3], table[3:], table[:0]):
            writer.write_table(part)
    assert check(path, 4, "float32").tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("table", "n_classes", "dtype", "why"),
    [
        ({"x": pa.array([{"logits": [1.0]}])}, 1, "float64", "logits nested as struct"),
        ({"x": pa.array([{"logits": 1.0}])}, 1, "float64", "logits inside a struct"),
        ({"x": pa.array([[[1.0]]])}, 1, "float64", "logits nested as list"),
        ({"x": pa.array([[1.0]])}, 1, "float32", "DOUBLE values as float32"),
        ({"x": pa.array([[1]])}, 1, "float64", "INT64 values as float64"),
        ({"x": pa.array([1.0])}, 2, "float64", "DOUBLE values as float64"),
        ({"x": pa.array([b"12345678"], pa.binary(8))}, 3, "float32", "fixed-size binary of 8 bytes"),
    ],
)
def test_what_is_left_to_pyarrow(tmp_path: Path, table: Any, n_classes: int, dtype: str, why: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(table), path)
    (answer,) = planned(path, n_classes, dtype)
    assert isinstance(answer, str)
    assert answer.startswith(why)


def test_a_name_with_dots_behind_nested_columns(tmp_path: Path) -> None:
    x, path = matrix(50, 3), tmp_path / "a.parquet"
    nested = pa.array([{"a": [{"b": 1, "c": 2}], "d": 1.0}] * 50)
    pq.write_table(pa.table({"s": nested, "my.logits": listed(x)}), path)
    schema = pq.ParquetFile(path).schema
    leaf = len(schema) - 1
    with closing(LocalRanges(str(path))) as whole:
        chunk = plan(schema, leaf, column_chunks(whole, leaf)[0], 0, 3, "float32", whole)
        assert isinstance(chunk, LogitsChunk)
        (rows,) = read_rows(chunk, whole, 1 << 20)
    assert rows.values.tobytes() == x.tobytes()


def test_an_encoding_left_to_pyarrow(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"x": pa.array([b"12345678"])})
    pq.write_table(table, path, use_dictionary=False, column_encoding="DELTA_LENGTH_BYTE_ARRAY")
    (answer,) = planned(path, 2, "float32")
    assert answer == "encoding DELTA_LENGTH_BYTE_ARRAY"


# ---- others ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "n_classes", "dtype"),
    pairwise(["uncompressed", "snappy", "zstd", "lz4", "gzip", "brotli"], CLASSES, ["float32", "float64"]),
)
def test_polars(tmp_path: Path, dtype: str, n_classes: int, codec: Any) -> None:
    x = matrix(9_000 // n_classes, n_classes, dtype)
    path = tmp_path / "a.parquet"
    array = pl.Series("logits", x).reshape((len(x), n_classes))
    for series in (array, array.arr.to_list()):
        for size in (None, 1000):
            pl.DataFrame({"logits": series}).write_parquet(path, compression=codec, data_page_size=size)
            assert check(path, n_classes, dtype).tobytes() == x.tobytes()
    rows = [*x[:5].tolist(), None, [1.0] * (n_classes + 1)]
    pl.DataFrame({"logits": pl.Series(rows, dtype=pl.List(pl.Float32))}).write_parquet(path, compression=codec)
    check(path, n_classes, "float32")


@pytest.mark.parametrize(
    ("codec", "n_classes", "dtype", "version"),
    pairwise(
        ["uncompressed", "snappy", "zstd", "lz4_raw", "gzip", "brotli"], CLASSES, ["float32", "float64"], ["v1", "v2"]
    ),
)
def test_duckdb(tmp_path: Path, dtype: str, n_classes: int, codec: str, version: str) -> None:
    x = matrix(9_000 // n_classes, n_classes, dtype)
    path = tmp_path / "a.parquet"
    options = f"format parquet, compression {codec}, parquet_version {version}"
    with duckdb.connect() as db:
        for kind in (pa.list_, lambda t: pa.list_(t, n_classes)):
            db.register("t", pa.table({"logits": listed(x, kind)}))
            db.sql(f"copy t to '{path}' ({options}, row_group_size 3000)")
            assert check(path, n_classes, dtype).tobytes() == x.tobytes()
        rows = pa.array([*x[:5].tolist(), None, [], [1.0, None]], pa.list_(pa.from_numpy_dtype(dtype)))
        db.register("t", pa.table({"logits": rows}))
        db.sql(f"copy t to '{path}' ({options})")
        check(path, n_classes, dtype)


@pytest.mark.parametrize(
    ("codec", "n_classes", "dtype", "version"),
    pairwise(
        ["uncompressed", "snappy", "zstd(3)", "lz4_raw", "gzip(6)", "brotli(3)"], CLASSES, DTYPES,
        ["parquet_1_0", "parquet_2_0"],
    ),
)  # fmt: skip
def test_parquet_rs(tmp_path: Path, dtype: str, n_classes: int, codec: Any, version: Any) -> None:
    x = matrix(9_000 // n_classes, n_classes, dtype)
    path = tmp_path / "a.parquet"
    for kind, options in (
        (pa.list_, {"dictionary_enabled": True, "encoding": "plain"}),
        (pa.large_list, {"encoding": "plain", "data_page_size_limit": 2000, "write_batch_size": 7}),
        (lambda t: pa.list_(t, n_classes), {"encoding": "byte_stream_split", "max_row_group_size": 1000}),
    ):
        table = arro3.core.Table.from_arrow(pa.table({"logits": listed(x, kind)}))
        options = {"dictionary_enabled": False, **options}
        arro3.io.write_parquet(table, path, compression=codec, writer_version=version, **options)
        assert check(path, n_classes, dtype).tobytes() == x.tobytes()


def test_parquet_rs_writes_halves_in_deltas_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = arro3.core.Table.from_arrow(pa.table({"logits": listed(matrix(10, 4, "float16"))}))
    arro3.io.write_parquet(table, path, writer_version="parquet_2_0", dictionary_enabled=False)
    (answer,) = planned(path, 4, "float16")
    assert answer == "encoding DELTA_BYTE_ARRAY"


def test_duckdb_splits_a_row_over_two_pages(tmp_path: Path) -> None:
    """Its pages of 100 MB end wherever a vector of values does."""
    x = matrix(27_000, 1000)
    path = tmp_path / "a.parquet"
    duckdb.from_arrow(pa.table({"logits": listed(x)})).create_view("straddling")
    duckdb.sql(f"copy straddling to '{path}' (format parquet, compression uncompressed)")
    (chunk,) = planned(path, 1000, "float32")
    assert isinstance(chunk, LogitsChunk)
    with closing(LocalRanges(str(path), chunk.begin, chunk.end)) as source:
        first = PageReader(chunk, source, 1 << 30).next()
        assert first is not None
        assert first.entries % 1000 != 0
        at = 0
        for values, bad, row in read_rows(chunk, source, 1 << 20):
            assert row == at
            assert not bad
            assert values.tobytes() == x[at : at + len(values)].tobytes()
            at += len(values)
    assert at == len(x)


@pytest.mark.parametrize("codec", [None, "SNAPPY", "GZIP", "ZSTD", "BROTLI"])
def test_fastparquet_binary(tmp_path: Path, codec: Any) -> None:
    x = matrix(300, 50)
    path = tmp_path / "a.parquet"
    rows: list[bytes | None] = [row.tobytes() for row in x]
    for options in ({}, {"fixed_text": {"logits": 200}}, {"row_group_offsets": 100}):
        frame = pd.DataFrame({"logits": pd.Series(rows, dtype=object)})
        fastparquet.write(str(path), frame, compression=codec, object_encoding="bytes", **options)
        assert check(path, 50, "float32").tobytes() == x.tobytes()
    rows[7] = None
    frame = pd.DataFrame({"logits": pd.Series(rows, dtype=object)})
    fastparquet.write(str(path), frame, compression=codec, object_encoding="bytes")
    check(path, 50, "float32")


@pytest.mark.parametrize("engine", ["pyarrow"])
def test_pandas(tmp_path: Path, engine: Any) -> None:
    x = matrix(300, 50)
    pd.DataFrame({"logits": list(x)}).to_parquet(tmp_path / "a.parquet", engine=engine)
    assert check(tmp_path / "a.parquet", 50, "float32").tobytes() == x.tobytes()
