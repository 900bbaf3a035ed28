"""Columns of numbers beside the logits, read from their pages: what pyarrow reads, as any writer stores them."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

import fastxent as fx
from fastxent.errors import SourceError
from fastxent.io.parquet import flat, slices, walk
from fastxent.io.parquet.footer import Footer
from fastxent.io.parquet.part import NativeUnit
from fastxent.io.source import open_source
from fastxent.io.storage.local import LocalRanges

ROWS = 1500
RNG = np.random.default_rng(8)
TYPES = [*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64"]


def numbers(kind: str, distinct: int, nulls: float, runs: int) -> pa.Array:
    """Some numbers of the whole range of a type, a few of them null, in runs of equal ones."""
    dtype = np.dtype(kind)
    pool = RNG.integers(0, 256, (distinct, dtype.itemsize), dtype=np.uint8).view(dtype)[:, 0]
    if dtype.kind == "f":
        pool = np.where(np.isnan(pool), 0, pool).astype(dtype)
    chosen = np.repeat(RNG.integers(0, distinct, -(-ROWS // runs)), runs)[:ROWS]
    mask = np.repeat(RNG.random(-(-ROWS // runs)) < nulls, runs)[:ROWS]
    return pa.array(pool[chosen], mask=mask)


def read(path: Path, steps: list[tuple[bool, int]]) -> list[pa.Array]:
    """The column "y" of each row group: some rows skipped, some taken, one after the other."""
    with closing(LocalRanges(str(path))) as whole:
        footer = Footer(whole)
        footer.proven(footer.holding(["y"]))
        chunks = flat.flat_columns(footer, ["y"])["y"]
    found = []
    for chunk in chunks:
        with flat.opened(str(path), [chunk]) as (column,):
            left, parts = chunk.rows, []
            for skipped, n in [*steps, (False, ROWS)]:
                n = min(n, left)
                if skipped:
                    column.skip(n)
                    parts.append(None)
                else:
                    parts.append(column.take(n))
                left -= n
        found.append(parts)
    return found


@settings(max_examples=80)
@given(
    kind=st.sampled_from(TYPES),
    distinct=st.sampled_from([1, 2, 9, 700]),
    nulls=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    runs=st.sampled_from([1, 3, 50]),
    nullable=st.booleans(),
    writing=st.fixed_dictionaries(
        {
            "compression": st.sampled_from(["none", "snappy", "zstd", "lz4"]),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "use_dictionary": st.booleans(),
            "data_page_size": st.sampled_from([1, 900, 1 << 20]),
            "row_group_size": st.sampled_from([7, 1100, ROWS]),
        }
    ),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=6),
)
def test_any_writer(tmp_path_factory, kind, distinct, nulls, runs, nullable, writing, steps):
    column = numbers(kind, distinct, nulls if nullable else 0.0, runs)
    path = tmp_path_factory.mktemp("flat") / "dump.parquet"
    table = pa.table([column], pa.schema([pa.field("y", column.type, nullable)]))
    pq.write_table(table, path, write_batch_size=64, **writing)
    begin, group = 0, writing["row_group_size"]
    for parts in read(path, steps):
        at, rows = begin, min(group, ROWS - begin)
        for part, (_, n) in zip(parts, [*steps, (False, ROWS)], strict=True):
            n = min(n, begin + rows - at)
            if part is not None:
                part.validate(full=True)
                assert part.equals(column.slice(at, n))
                assert part.type == column.type
            at += n
        begin += rows
    assert begin == ROWS


def test_pages_that_stay_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "LARGE", 100)
    column = numbers("int64", 700, 0.0, 1)
    pq.write_table(pa.table({"y": column}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    ((first, _, last),) = read(tmp_path / "a.parquet", [(False, 300), (True, 401)])
    assert first.equals(column[:300])
    assert last.equals(column[701:])


def dump(path: Path, **options: Any) -> tuple[pa.Table, dict[str, Any]]:
    """A dump whose rows have null targets, and weights."""
    target = pa.array(RNG.integers(0, 3, ROWS), mask=RNG.random(ROWS) < 0.2)
    x = RNG.normal(size=(ROWS, 3)).astype(np.float32)
    table = pa.table({"logits": list(x), "target": target, "w": RNG.random(ROWS), "g": RNG.integers(0, 4, ROWS)})
    pq.write_table(table, path, **options)
    return table, {"weight": "w", "by": "g"}


@pytest.mark.parametrize("name", ["text", "plain"])
def test_the_same_metrics_as_from_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, and with a column that pyarrow reads."""
    monkeypatch.setattr("fastxent.io.parquet.part._LEAST_QUARTER", 1000)
    path = tmp_path / "a.parquet"
    table, options = dump(path, data_page_size=500, write_batch_size=50, row_group_size=1000)
    if name == "text":
        table = table.set_column(3, "g", pa.array([f"g{k}" for k in table["g"].to_pylist()]))
        pq.write_table(table, path, data_page_size=500, write_batch_size=50, row_group_size=1000)
    units = list(open_source(path, logits="logits", columns=["target", "w", "g"]).units())
    assert len(units) > 2
    for unit in units:
        assert isinstance(unit, NativeUnit)
        assert [chunk.column for chunk in unit.numbers] == (["target", "w"] if name == "text" else ["target", "w", "g"])
        assert unit.columns.names == (("g",) if name == "text" else ())
    assert fx.evaluate(path, **options).state.to_bytes(0) == fx.evaluate(table, **options).state.to_bytes(0)


def test_columns_that_pyarrow_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "delta": np.arange(5), "when": pa.array(range(5), pa.timestamp("ns")), "yes": [True, False, None, True, True],
        "half": np.arange(5, dtype=np.float16), "of": [{"a": k} for k in range(5)], "text": list("abcde"),
        "kind": pa.array(list("abcde")).dictionary_encode(), "y": np.arange(5),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path, use_dictionary=["y"], column_encoding={"delta": "DELTA_BINARY_PACKED"})
    with closing(LocalRanges(str(path))) as whole:
        assert list(flat.flat_columns(Footer(whole), [*columns, "of.a", "none"])) == ["y"]


def test_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table, options = dump(path, use_dictionary=False, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(table["w"].to_numpy().tobytes()) + 9] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="row group 0, column 'w', page 0: its checksum does not match"):
        fx.evaluate(path, **options)


def test_more_rows_than_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"y": np.arange(10)}), path)
    with closing(LocalRanges(str(path))) as whole:
        (chunk,) = flat.flat_columns(Footer(whole), ["y"])["y"]
    for method in ("take", "skip"):
        with flat.opened(str(path), [chunk]) as (column,), pytest.raises(SourceError, match="fewer rows"):
            getattr(column, method)(11)


def outcome(path: Path, walked: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The column "y", or the error."""
    with monkeypatch.context() as patched:
        if not walked:
            patched.setattr(walk, "walk_pages", lambda *_: 0)
        try:
            return [part.to_pylist() for parts in read(path, [(False, 100), (True, 333)]) for part in parts if part]
        except SourceError as error:
            return str(error)


@pytest.mark.parametrize("codec", ["none", "snappy"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_damage_is_told_as_page_by_page(
    codec: str, version: str, dictionary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes changed anywhere in the pages: the same rows, or the same error, as from the reader of single pages."""
    path, column = tmp_path / "a.parquet", numbers("int32", 9, 0.3, 3)
    pq.write_table(
        pa.table({"y": column}), path, compression=codec, data_page_version=version, use_dictionary=dictionary,
        data_page_size=300, write_batch_size=64, write_page_checksum=version == "1.0",
    )  # fmt: skip
    data = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(0).column(0)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    assert outcome(path, True, monkeypatch) == outcome(path, False, monkeypatch) == [
        column[:100].to_pylist(), column[433:].to_pylist()
    ]  # fmt: skip
    told = set()
    for k in range(150):
        pick = random.Random(k)
        damaged = bytearray(data)
        for _ in range(pick.choice([1, 1, 4])):
            damaged[pick.randrange(begin, begin + chunk.total_compressed_size)] = pick.choice([0, 1, 2, 127, 128, 255])
        path.write_bytes(damaged)
        found = outcome(path, True, monkeypatch)
        assert found == outcome(path, False, monkeypatch)
        told.add(found.split(": ")[-1] if isinstance(found, str) else "")
    assert len(told) >= 3
