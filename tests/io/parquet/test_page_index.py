"""The offset index: what it says of pages is what their headers say, and a wrong one costs no row."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import arro3.core
import arro3.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dumps import lists
from fastxent.errors import SourceError
from fastxent.io.parquet import part as parquet, reader as native
from fastxent.io.parquet.chunk import LogitsChunk, plan
from fastxent.io.parquet.footer import column_chunks
from fastxent.io.parquet.page_index import page_locations
from fastxent.io.parquet.reader import read_rows, split
from fastxent.io.source import open_source
from fastxent.io.storage.local import LocalRanges

X = np.random.default_rng(0).normal(size=(3000, 7)).astype(np.float32)
TARGET = np.arange(3000) % 7


def table() -> pa.Table:
    return pa.table({"logits": lists(X),
                     "target": TARGET})  # fmt: skip


def by_pyarrow(path: Path, **options: Any) -> None:
    options = {"write_page_index": True, "data_page_size": 2000, "write_batch_size": 100, **options}
    pq.write_table(table(), path, **options)


def by_parquet_rs(path: Path, **options: Any) -> None:
    arro3.io.write_parquet(
        arro3.core.Table.from_arrow(table()), path, data_page_size_limit=2000, write_batch_size=64,
        dictionary_enabled=options.get("use_dictionary", False), compression="uncompressed",
    )  # fmt: skip


def planned(path: Path) -> LogitsChunk:
    with closing(LocalRanges(str(path))) as whole:
        chunk = plan(pq.ParquetFile(path).schema, 0, column_chunks(whole, 0)[0], 0, 7, "float32", whole)
    assert isinstance(chunk, LogitsChunk)
    return chunk


def rows(chunk: LogitsChunk, path: Path) -> np.ndarray:
    with closing(LocalRanges(str(path), chunk.begin, chunk.end)) as source:
        return np.concatenate([np.array(values) for values, _, _ in read_rows(chunk, source, 1 << 20)])


@pytest.mark.parametrize("write", [by_pyarrow, by_parquet_rs])
@pytest.mark.parametrize("options", [{"use_dictionary": False}, {"use_dictionary": True}])
def test_what_the_headers_say(write: Any, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, **options)
    chunk = planned(path)
    with closing(LocalRanges(str(path))) as source:
        found = page_locations(chunk, source)
        walked = [page for page in native._walk(chunk, source) if page[2] >= 0]
        assert found is not None
        assert len(found) > 15
        assert [(offset, row * 7) for offset, _, row in found.tolist()] == [page[:2] for page in walked]
        assert split(chunk, source, 10_000) == split(chunk, source, 10_000, walk=False)
        parts = split(chunk, source, 10_000)
    assert len(parts) > 2
    assert np.concatenate([rows(part, path) for part in parts]).tobytes() == X.tobytes()


def test_no_header_is_read_where_there_is_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    by_pyarrow(path, use_dictionary=False, compression="none")
    monkeypatch.setattr(parquet, "_LEAST_PART", 10_000)
    monkeypatch.setattr(native, "_walk", None)
    units = list(open_source(path, logits="logits", columns=["target"]).units())
    assert len(units) > 3
    logits, targets = [], []
    for unit in units:
        for batch in unit.read(1 << 30, 5000, whole=True):
            logits.append(np.array(batch.whole().values))
            targets += batch.columns["target"].to_pylist()
    assert np.concatenate(logits).tobytes() == X.tobytes()
    assert targets == TARGET.tolist()


def test_without_an_index(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    by_pyarrow(path, write_page_index=False)
    chunk = planned(path)
    with closing(LocalRanges(str(path))) as source:
        assert chunk.page_index is None
        assert page_locations(chunk, source) is None
        assert split(chunk, source, 5_000, walk=False) == [chunk]
        assert len(split(chunk, source, 5_000)) > 1


def test_an_index_outside_the_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    by_pyarrow(path)
    chunk, size = planned(path), path.stat().st_size
    with closing(LocalRanges(str(path))) as source:
        for where in ((-1, 10), (0, size + 1), (size - 3, 4), (10, 0), (10, -5), (1 << 62, 1 << 62), (0, 1 << 30)):
            assert page_locations(replace(chunk, page_index=where), source) is None


def test_a_damaged_index_costs_no_row(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.parquet", random.Random(0)
    by_pyarrow(path, use_dictionary=False)
    chunk, data = planned(path), path.read_bytes()
    assert chunk.page_index is not None
    begin, size = chunk.page_index
    told = {"read": 0, "refused": 0}
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            broken[begin + rng.randrange(size)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        path.write_bytes(broken)
        try:
            with closing(LocalRanges(str(path))) as source:
                parts = split(chunk, source, 3000)
            got = np.concatenate([rows(part, path) for part in parts])
        except SourceError:
            told["refused"] += 1
        else:
            assert [part.first_row for part in parts] == [0, *np.cumsum([part.rows for part in parts])[:-1]]
            assert got.tobytes() == X.tobytes()
            told["read"] += 1
    assert told["read"] > 1000
    assert told["refused"] > 5
