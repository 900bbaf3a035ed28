"""Large pages and dictionaries, read slice by slice: the same rows, and the same errors, as when read whole."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.errors import SourceError
from fastxent.io.parquet import pages, slices
from fastxent.io.parquet.reader import read_rows
from fastxent.io.parquet.slices import SliceReader
from fastxent.io.storage.local import LocalRanges
from tests.io.parquet.handmade import (
    DICTIONARY,
    Layout,
    chunk_of,
    column,
    dictionary_page,
    expected,
    levels_of,
    number,
    page,
)
from tests.io.parquet.test_runs import outcome, rows_of

PLAIN = [
    replace(layout, version=version, checksum=checksum)
    for layout in (
        Layout(3, packed=0.3),
        Layout(5, optional=False, optional_element=False, dtype="float64"),
        Layout(1, dtype="float16"),
        Layout(4, binary="fixed"),
        Layout(7, binary="fixed", optional=False, dtype="float16"),
        Layout(4, binary="bytes"),
    )
    for version in (1, 2)
    for checksum in (False, True)
]
LOOKED_UP = [replace(layout, encoding=DICTIONARY) for layout in PLAIN if layout.binary == "fixed"]


class Counted:
    """How many rows came in slices."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rows, self._patch = 0, patch
        for name in ("rows", "looked_up"):
            patch.setattr(SliceReader, name, self._counting(getattr(SliceReader, name)))

    def _counting(self, method: Any) -> Any:
        def counting(*args: Any) -> Iterator[Any]:
            for found in method(*args):
                self.rows += len(found[0] if isinstance(found, tuple) else found)
                yield found

        return counting

    def whole(self, *args: Any) -> tuple[bytes, dict[int, str], str]:
        with self._patch.context() as patch:
            patch.setattr(slices, "LARGE", 1 << 30)
            return outcome(*args)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(slices, "LARGE", 60)
    monkeypatch.setattr(slices, "SLICE", 50)
    monkeypatch.setattr(slices, "WIDE", 1)
    return Counted(monkeypatch)


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.parametrize("per_page", [30, 41, 130])
def test_large_pages(layout: Layout, per_page: int, counted: Counted, tmp_path: Path) -> None:
    rows, entries = rows_of(layout, 130), 1 if layout.binary else layout.n_classes
    if layout.n_classes == 1:
        per_page *= 4
    chunk, data = column(rows, range(0, 130 * entries, per_page * entries), layout)
    for max_bytes in (1, 100, 1 << 20):
        counted.rows = 0
        got = outcome(tmp_path / "a", chunk, data, max_bytes)
        assert got == (expected(rows, layout)[0].tobytes(), {}, "")
        assert counted.rows >= 130 // per_page * per_page


@pytest.mark.parametrize("layout", PLAIN + LOOKED_UP)
def test_odd_rows_among_many(layout: Layout, counted: Counted, tmp_path: Path) -> None:
    """Nulls, ragged rows, rows over two pages and rows that repeat, anywhere."""
    rng = random.Random(0)
    entries = 1 if layout.binary else layout.n_classes
    for case in range(20):
        rows = rows_of(layout, 90)
        cuts = {rng.randrange(90) * entries for _ in range(3)}
        for _ in range(rng.randrange(3)):
            at, how = rng.randrange(90), rng.randrange(4)
            if how == 0 and layout.optional:
                rows[at] = None
            elif how == 1 and layout.optional_element and not layout.binary:
                rows[at] = [*rows[at][:-1], None] if rows[at] else None
            elif how == 2 and not layout.binary:
                rows[at] = [1.0] * (2 * entries)
            elif how == 2:
                rows[at : at + 4] = rows[:4]
            else:
                cuts.add(rng.randrange(90 * entries))
        if layout.version == 2 and not layout.binary:  # those pages begin with a row
            cuts &= {k for k, level in enumerate(levels_of(rows, layout)[0]) if level == 0}
        chunk, data = column(rows, sorted(cuts), replace(layout, seed=case))
        args = tmp_path / "a", chunk, data, rng.choice([1, 60, 1 << 20])
        assert outcome(*args) == counted.whole(*args)
        values, reasons = expected(rows, layout)
        assert outcome(*args)[1:] == (reasons, "")
        assert len(outcome(*args)[0]) == values.nbytes
    assert counted.rows > 250


@pytest.mark.parametrize("layout", PLAIN + LOOKED_UP)
def test_mutated_pages_read_as_they_do_whole(layout: Layout, counted: Counted, tmp_path: Path) -> None:
    rng = random.Random(1)
    entries = 1 if layout.binary else layout.n_classes
    rows = rows_of(layout, 90)
    chunk, data = column(rows, [40 * entries], layout)
    errors = 0
    for _ in range(250):
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(4, len(broken)) if rng.random() < 0.5 else rng.randrange(4, 60)
            if rng.random() < 0.7:
                broken[at] = rng.choice([0, 1, 2, 3, 127, 128, 255, rng.randrange(256), broken[at] ^ 1])
            else:
                broken[at : at + 1] = b"" if rng.random() < 0.5 else bytes([broken[at]] * 2)
        cut = replace(chunk, end=min(chunk.end, len(broken)))
        args = tmp_path / "a", cut, bytes(broken)
        got, plain = outcome(*args), counted.whole(*args)
        assert got == plain or (got[2] and plain[2])  # of two errors either may come first
        errors += got[2] != ""
        if layout.checksum and not got[2]:
            assert got[0] == expected(rows, layout)[0].tobytes()
    assert errors > 20
    assert counted.rows > 100


@pytest.mark.parametrize("layout", [layout for layout in PLAIN + LOOKED_UP if layout.checksum])
def test_a_wrong_checksum_is_told_before_any_row(layout: Layout, counted: Counted, tmp_path: Path) -> None:
    rows = rows_of(layout, 90 * (4 if layout.n_classes == 1 else 1))
    chunk, data = column(rows, [], layout)
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    got = outcome(tmp_path / "a", chunk, bytes(broken))
    assert got[0] == b""
    assert "its checksum does not match" in got[2]
    assert counted.rows == 0


def test_more_levels_than_are_looked_at(counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_LEVELS", (3, 8))
    layout = Layout(3, packed=0.3)
    rows = rows_of(layout, 90)
    args = tmp_path / "a", *column(rows, [], layout)
    assert outcome(*args) == counted.whole(*args) == (expected(rows, layout)[0].tobytes(), {}, "")
    assert counted.rows == 0


@pytest.mark.parametrize("encoding", [0, DICTIONARY])
def test_a_file_that_shrinks_while_it_is_read(encoding: int, counted: Counted, tmp_path: Path) -> None:
    layout = Layout(4, binary="fixed", encoding=encoding)
    chunk, data = column(rows_of(layout, 90), [], layout)
    path = tmp_path / "a"
    path.write_bytes(data)
    with closing(LocalRanges(str(path), chunk.begin, chunk.end)) as source:
        reads = read_rows(chunk, source, 1 << 20)
        next(reads)
        os.truncate(path, 200)
        with pytest.raises(SourceError, match="became shorter"):
            list(reads)


def test_a_dictionary_is_read_where_a_page_asks_for_it(tmp_path: Path) -> None:
    """Most parts of a row group hold none of the pages that use its dictionary."""
    layout = Layout(4, checksum=True)
    rows = rows_of(layout, 20)
    plain = page(*levels_of(rows, layout), layout, random.Random(0))
    looked_up = replace(
        layout, encoding=DICTIONARY, dictionary=sorted({number(v, layout) for row in rows for v in row})
    )
    first = bytearray(dictionary_page(looked_up))
    first[-1] ^= 1
    packed = page(*levels_of(rows, layout), looked_up, random.Random(0))
    path, truth = tmp_path / "a", expected(rows, layout)[0].tobytes()
    for pages_, error in (([plain], ""), ([plain, packed], "dictionary page: its checksum does not match")):
        chunk, data = chunk_of([bytes(first), *pages_], 80 * len(pages_), 20 * len(pages_), layout)
        got = outcome(path, chunk, data)
        assert got[0] == (b"" if error else truth)
        assert error in got[2]


def written(path: Path, n: int, n_classes: int, *, dictionary: bool, checksum: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(n, n_classes)).astype(np.float32), rng.integers(n_classes, size=n)
    blobs = pa.Array.from_buffers(pa.binary(4 * n_classes), n, [None, pa.py_buffer(x)])
    pq.write_table(
        pa.table({"logits": blobs, "target": target}), path, compression="none", use_dictionary=dictionary,
        write_page_checksum=checksum,
    )  # fmt: skip
    return x, target


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
def test_huge_pages_take_little_memory_and_give_the_same_figures(
    dictionary: bool, checksum: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    x, target = written(path, 400, 25_000, dictionary=dictionary, checksum=checksum)  # one page of 40 MB
    truth = fx.evaluate({"logits": x, "target": target}).to_dict()
    for threads, memory in ((1, "512MB"), (3, "1MB")):
        fx.evaluate(path, logits_dtype="float32", threads=threads, memory=memory)
        tracemalloc.start()
        result = fx.evaluate(path, logits_dtype="float32", threads=threads, memory=memory).to_dict()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20
        for name in ("metrics", "rows", "calibration", "per_class", "nll_histogram", "nll_quantiles"):
            assert result[name] == truth[name]
