"""Runs of like pages: the same rows, and the same errors, as page by page."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastxent.errors import SourceError
from fastxent.io.parquet.chunk import LogitsChunk
from fastxent.io.parquet.pages import PageReader
from fastxent.io.parquet.reader import read_rows
from fastxent.io.parquet.runs import RunReader
from fastxent.io.storage.local import LocalRanges
from tests.io.parquet.handmade import Layout, Row, chunk_of, column, expected, levels_of, page

LAYOUTS = [
    replace(layout, version=version, checksum=checksum, alike=True)
    for layout in (
        Layout(3, packed=0.0),
        Layout(8, dtype="float16", packed=1.0),
        Layout(5, optional=False, optional_element=False, dtype="float64"),
        Layout(1, packed=0.5),
        Layout(4, binary="fixed"),
        Layout(4, binary="bytes", optional=False),
    )
    for version in (1, 2)
    for checksum in (False, True)
]


def rows_of(layout: Layout, n: int) -> list[Any]:
    x = np.arange(n * layout.n_classes).reshape(n, -1) % 1000
    return [row.astype(layout.number).tobytes() if layout.binary else [float(v) for v in row] for row in x]


def outcome(path: Path, chunk: LogitsChunk, data: bytes, max_bytes: int = 1 << 20) -> tuple[bytes, dict[int, str], str]:
    """(rows, what is wrong with them, error)"""
    path.write_bytes(data)
    pieces, bad, at = [], {}, 0
    try:
        with closing(LocalRanges(str(path), chunk.begin, chunk.end)) as source:
            for values, wrong, first in read_rows(chunk, source, max_bytes):
                assert first == at
                bad.update({at + k: reason for k, reason in wrong.items()})
                pieces.append(np.array(values).tobytes())
                at += len(values)
    except SourceError as error:
        return b"", {}, str(error)
    return b"".join(pieces), bad, ""


class Counted:
    """How many pages came in runs, and which parts of a file they were asked for behind."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pages, self._patch = 0, patch
        skip = PageReader.skip

        def counted(reader: PageReader, pages: int, nbytes: int, entries: int) -> None:
            self.pages += pages
            skip(reader, pages, nbytes, entries)

        patch.setattr(PageReader, "skip", counted)

    def page_by_page(self, *args: Any) -> tuple[bytes, dict[int, str], str]:
        with self._patch.context() as patch:
            patch.setattr(RunReader, "after", lambda *_: None)
            return outcome(*args)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_page", [1, 6, 13])
def test_alike_pages(layout: Layout, per_page: int, counted: Counted, tmp_path: Path) -> None:
    rows, entries = rows_of(layout, 130), 1 if layout.binary else layout.n_classes
    chunk, data = column(rows, range(0, 130 * entries, per_page * entries), layout)
    for max_bytes in (1, 100, 1 << 20):
        counted.pages = 0
        got = outcome(tmp_path / "a", chunk, data, max_bytes)
        assert got == (expected(rows, layout)[0].tobytes(), {}, "")
        if layout.checksum:  # which takes five bytes, and now and then fewer: that ends a run
            assert counted.pages > (130 // per_page - 2) // 3 - 2
        else:
            assert counted.pages == 130 // per_page - 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_odd_page_among_many(layout: Layout, counted: Counted, tmp_path: Path) -> None:
    """Null and ragged rows, rows over two pages, pages of another size, anywhere in a run."""
    rng = random.Random(0)
    entries = 1 if layout.binary else layout.n_classes
    for case in range(30):
        rows = rows_of(layout, 60)
        cuts = set(range(0, 60 * entries, 4 * entries))
        at, how = rng.randrange(60), rng.randrange(5)
        if how == 0 and layout.optional:
            rows[at] = None
        elif how == 1 and layout.optional_element and not layout.binary:
            rows[at] = [*rows[at][:-1], None]
        elif how == 2 and not layout.binary:
            rows[at] = rows[at] * 2
        elif how == 2 and layout.binary == "bytes":
            rows[at] += b"abc"
        elif how == 3:
            cuts.add(rng.randrange(60 * entries))
        else:
            cuts.discard(at // 4 * 4 * entries)
        if layout.version == 2 and not layout.binary:  # those pages begin with a row
            starts = {k for k, level in enumerate(levels_of(rows, layout)[0]) if level == 0}
            cuts &= starts
        chunk, data = column(rows, sorted(cuts), replace(layout, seed=case))
        args = tmp_path / "a", chunk, data, rng.choice([1, 60, 1 << 20])
        assert outcome(*args) == counted.page_by_page(*args)
        values, reasons = expected(rows, layout)
        got = outcome(*args)
        assert got[1:] == (reasons, "")
        assert len(got[0]) == values.nbytes
    assert counted.pages > 50


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutated_pages_read_as_they_do_page_by_page(layout: Layout, counted: Counted, tmp_path: Path) -> None:
    rng = random.Random(1)
    entries = 1 if layout.binary else layout.n_classes
    rows = rows_of(layout, 48)
    chunk, data = column(rows, range(0, 48 * entries, 4 * entries), layout)
    errors = 0
    for _ in range(100):
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randrange(4, len(broken))
            if rng.random() < 0.7:
                broken[at] = rng.choice([0, 1, 2, 3, 127, 128, 255, rng.randrange(256), broken[at] ^ 1])
            else:
                broken[at : at + 1] = b"" if rng.random() < 0.5 else bytes([broken[at]] * 2)
        cut = replace(chunk, end=min(chunk.end, len(broken)))
        args = tmp_path / "a", cut, bytes(broken)
        got, plain = outcome(*args), counted.page_by_page(*args)
        assert got == plain or (got[2] and plain[2])  # of two errors either may come first
        errors += got[2] != ""
        if layout.checksum and not got[2]:
            assert got[0] == expected(rows, layout)[0].tobytes()
    assert errors > 20
    assert counted.pages > 100


def test_headers_mutated_one_byte_at_a_time(counted: Counted, tmp_path: Path) -> None:
    """Every byte of the head of a page in the middle of a run, set to every value."""
    layout = Layout(3, alike=True)
    rows = rows_of(layout, 24)
    for version in (1, 2):
        layout.version = version
        chunk, data = column(rows, range(0, 72, 12), layout)
        size = (len(data) - 4) // 6
        head = size - 4 * 12
        for at in range(4 + 3 * size, 4 + 3 * size + head):
            for value in range(0, 256, 1 if at % 4 == 0 else 17):
                broken = data[:at] + bytes([value]) + data[at + 1 :]
                args = tmp_path / "a", chunk, broken
                assert outcome(*args) == counted.page_by_page(*args)
    assert counted.pages > 0


def test_what_follows_a_run(counted: Counted, tmp_path: Path) -> None:
    """The last row of a run has ended only if the page behind it begins one: index pages and pages of nothing say
    nothing about that."""
    layout = Layout(2)
    plain = rows_of(layout, 12)
    pages = [page(*levels_of(plain[k : k + 2], layout), layout, random.Random(0)) for k in range(0, 12, 2)]
    more = page([1, 1, 0, 1], [3] * 4, [bytes(4)] * 4, layout, random.Random(0))  # goes on with the row before
    empty = page([], [], [], layout, random.Random(0))
    for behind, bad in (
        ([more], {11: "4 logits where 2 are expected"}),
        ([empty, more], {11: "4 logits where 2 are expected"}),
    ):
        chunk, data = chunk_of([*pages, *behind], 28, 13, layout)
        args = tmp_path / "a", chunk, data
        got = outcome(*args)
        assert got == counted.page_by_page(*args)
        assert got[1:] == (bad, "")
    assert counted.pages > 0


def test_row_type() -> None:
    row: Row = [1.0]
    assert rows_of(Layout(1), 2)[1] == row
