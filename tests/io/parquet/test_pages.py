"""Pages made by hand: rows over two pages, ragged and null rows, every encoding; and broken ones."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastxent.errors import SourceError
from fastxent.io.parquet.reader import read_rows, split
from tests.io.held import held
from tests.io.parquet.handmade import (
    DICTIONARY,
    PLAIN,
    SPLIT,
    Layout,
    Row,
    chunk_of,
    column,
    dictionary_page,
    expected,
    fold,
    levels_of,
    page,
    read,
    struct,
    wrap,
)

CODECS = [None, "SNAPPY", "ZSTD", "LZ4_RAW", "GZIP", "BROTLI"]
finite = st.sampled_from([0.0, -1.5, 2.0, 3.25, -4.0, 65504.0])


def same(rows: list[Any], layout: Layout, cuts: list[int], max_bytes: int = 1 << 20) -> None:
    got, bad = read(*column(rows, cuts, layout), max_bytes)
    values, reasons = expected(rows, layout)
    assert bad == reasons
    assert got.dtype == values.dtype
    good = [k for k in range(len(rows)) if k not in reasons]
    assert got[good].tobytes() == values[good].tobytes()
    placeholder = got[sorted(reasons)]
    assert (placeholder == 0x7FC0).all() if layout.dtype == "bfloat16" else np.isnan(placeholder).all()


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[Row], Layout]:
    n_classes = draw(st.sampled_from([1, 2, 3, 7, 8, 9, 10, 16, 37]))
    layout = Layout(
        n_classes,
        dtype=draw(st.sampled_from(["float16", "float32", "float64"])),
        optional=draw(st.booleans()),
        optional_element=draw(st.booleans()),
        codec=draw(st.sampled_from(CODECS)),
        version=draw(st.sampled_from([1, 2])),
        encoding=draw(st.sampled_from([PLAIN, DICTIONARY, SPLIT])),
        checksum=draw(st.booleans()),
        packed=draw(st.sampled_from([0.0, 0.5, 1.0])),
        seed=draw(st.integers(0, 1000)),
    )
    value = st.one_of(finite, st.none()) if layout.optional_element and draw(st.booleans()) else finite
    row: st.SearchStrategy[Any] = st.lists(value, min_size=n_classes, max_size=n_classes)
    if draw(st.booleans()):
        row = st.one_of(row, st.lists(value, max_size=2 * n_classes + 1))
    if layout.optional and draw(st.booleans()):
        row = st.one_of(row, st.none())
    return draw(st.lists(row, max_size=40)), layout


@settings(max_examples=400)
@given(lists(), st.lists(st.integers(1, 400), max_size=5), st.sampled_from([1, 64, 500, 1 << 20]))
def test_lists_of_every_kind_in_pages_cut_anywhere(
    case: tuple[list[Row], Layout], cuts: list[int], max_bytes: int
) -> None:
    rows, layout = case
    if layout.version == 2:  # those begin with a row
        rep = levels_of(rows, layout)[0]
        cuts = [cut for cut in cuts if cut < len(rep) and rep[cut] == 0]
    same(rows, layout, cuts, max_bytes)


@settings(max_examples=200)
@given(st.data())
def test_binary_rows(data: st.DataObject) -> None:
    n_classes = data.draw(st.sampled_from([1, 2, 5, 32]))
    layout = Layout(
        n_classes,
        dtype=data.draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"])),
        binary=data.draw(st.sampled_from(["fixed", "bytes"])),
        optional=data.draw(st.booleans()),
        codec=data.draw(st.sampled_from(CODECS)),
        version=data.draw(st.sampled_from([1, 2])),
        seed=data.draw(st.integers(0, 1000)),
    )
    layout.encoding = data.draw(st.sampled_from([PLAIN, DICTIONARY] + [SPLIT] * (layout.binary == "fixed")))
    size = n_classes * layout.number.itemsize
    row: st.SearchStrategy[Any] = st.binary(min_size=size, max_size=size)
    if layout.binary == "bytes" and data.draw(st.booleans()):
        row = st.one_of(row, st.binary(max_size=2 * size))
    if layout.optional and data.draw(st.booleans()):
        row = st.one_of(row, st.none())
    rows = data.draw(st.lists(row, max_size=30))
    same(
        rows, layout, data.draw(st.lists(st.integers(1, 30), max_size=4)), data.draw(st.sampled_from([1, 100, 1 << 20]))
    )


@pytest.mark.parametrize("codec", CODECS)
def test_a_row_over_many_pages(codec: str | None) -> None:
    rows: list[Row] = [[float(k + r) for k in range(1000)] for r in range(7)]
    for step in (1, 3, 333, 999, 1000, 1001, 2500):
        same(rows, Layout(1000, codec=codec, seed=step), list(range(step, 7000, step)))


def test_a_ragged_row_whose_page_ends_where_it_should_have_ended() -> None:
    rows: list[Row] = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0], [1.0, 1.0, 1.0]]
    for max_bytes in (12, 1 << 20):  # 12: pages are large enough to be views
        same(rows, Layout(3), [6], max_bytes)


@pytest.mark.parametrize("n_classes", [1, 2, 3, 5, 7, 8, 9, 10, 13, 16, 17, 64, 1000])
@pytest.mark.parametrize("packed", [0.0, 0.5, 1.0])
def test_the_levels_of_one_ragged_row_are_never_taken_for_regular(n_classes: int, packed: float) -> None:
    """The same number of entries and of row starts, one of them in the wrong place: every place must be looked at."""
    rng = random.Random(n_classes)
    for wrong in range(0, 24, 1 if n_classes < 100 else 5):
        rows: list[Row] = [[float(rng.randint(0, 9)) for _ in range(n_classes)] for _ in range(26)]
        rows[wrong] = [1.0] * (n_classes + 1)
        rows[wrong + 1] = [1.0] * (n_classes - 1)
        same(rows, Layout(n_classes, packed=packed, seed=wrong), [], n_classes * 4)


@pytest.mark.parametrize("max_def", ["optional", "optional_element"])
@pytest.mark.parametrize("packed", [0.0, 0.5, 1.0])
def test_one_null_is_always_found(max_def: str, packed: float) -> None:
    for wrong in range(40):
        rows: list[Row] = [[float(k), 1.0, 2.0] for k in range(41)]
        rows[wrong] = None if max_def == "optional" else [1.0, 2.0, None]
        layout = Layout(3, optional=max_def == "optional", optional_element=max_def != "optional", packed=packed)
        same(rows, layout, [], 12)


def test_a_null_in_a_page_that_holds_a_value_for_every_entry() -> None:
    layout, rows = Layout(3), [*ROWS[:5], [1.0, None, 2.0], *ROWS[6:]]
    rep, definition, values = levels_of(rows, layout)
    pages = [page(rep, definition, [*values, bytes(4)], layout, random.Random(0))]
    assert read(*chunk_of(pages, 24, 8, layout), 12)[1] == {5: "logits hold a null, at class 1"}


def test_pages_without_entries_and_index_pages_are_stepped_over() -> None:
    layout, rng = Layout(2), random.Random(0)
    parts = levels_of([[1.0, 2.0], [3.0, 4.0]], layout)
    cut = [page(*(part[:3] for part in parts), layout, rng), page(*(part[3:] for part in parts), layout, rng)]
    pages = [cut[0], page([], [], [], layout, rng), wrap(1, 3, b"abc", {6: {}}, layout), cut[1]]
    got, bad = read(*chunk_of(pages, 4, 2, layout))
    assert got.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert bad == {}


def test_parts_of_a_chunk_cover_its_rows() -> None:
    rows: list[Row] = [[float(r), float(c)] for r, c in enumerate(range(500))]
    for encoding in (PLAIN, DICTIONARY):
        chunk, data = column(rows, list(range(0, 1000, 30)), Layout(2, encoding=encoding))
        source = held(data, "by hand", chunk.begin, chunk.end)
        parts = split(chunk, source, 400)
        assert len(parts) > 3
        assert [part.first_row for part in parts] == [0, *np.cumsum([part.rows for part in parts])[:-1]]
        got = np.concatenate([read(part, data)[0] for part in parts])
        assert got.tobytes() == expected(rows, Layout(2))[0].tobytes()


def test_parts_of_rows_of_varying_length_do_not_pass() -> None:
    rows: list[Row] = [[1.0, 2.0]] * 20
    rows[3], rows[4], rows[15] = [1.0], [1.0], [1.0, 2.0, 3.0, 4.0]
    chunk, data = column(rows, [6, 8, 10, 20, 28, 30, 32], Layout(2))
    parts = split(chunk, held(data, "by hand", chunk.begin, chunk.end), 20)
    assert len(parts) > 1
    with pytest.raises(SourceError):
        for part in parts:
            read(part, data)


def test_a_chunk_with_null_rows_stays_whole() -> None:
    chunk, data = column([[1.0, 2.0], None] * 100, list(range(0, 300, 20)), Layout(2))
    assert split(chunk, held(data, "by hand", chunk.begin, chunk.end), 50) == [chunk]


# ---- broken ----------------------------------------------------------------------------------------------------------

ROWS: list[Row] = [[1.0, 2.0, 3.0]] * 8


def breaks(chunk: Any, data: bytes, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        read(chunk, data)
    assert str(caught.value).startswith("cannot read by hand, row group 0")


def one_page(layout: Layout, rows: list[Row] = ROWS) -> tuple[list[int], list[int], list[bytes | None]]:
    return levels_of(rows, layout)


def test_a_flipped_bit_is_told_by_the_checksum() -> None:
    for version in (1, 2):
        for codec in CODECS:
            chunk, data = column(ROWS, [9], Layout(3, version=version, codec=codec, checksum=True))
            breaks(chunk, data[:-1] + bytes([data[-1] ^ 1]), "page 1: its checksum does not match")


def test_counts_of_the_footer() -> None:
    chunk, data = column(ROWS, [9], Layout(3))
    breaks(replace(chunk, rows=7), data, "more rows than the footer says")
    breaks(replace(chunk, rows=9), data, "1 rows fewer than the footer says")
    breaks(replace(chunk, entries=25), data, "page 2: the page is missing, and 1 values with it")
    breaks(replace(chunk, entries=23), data, "page 1: it has 15 values where the footer leaves 14")
    breaks(replace(chunk, end=chunk.end - 1), data, "page 1: its .* bytes extend past the end")


def test_a_header_that_is_no_header() -> None:
    chunk, data = column(ROWS, [], Layout(3))
    breaks(chunk, data[:4] + b"\xff" + data[5:], "page 0: its header is malformed")
    breaks(replace(chunk, end=8), data, "page 0: its header is malformed")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("step", [1, -1, 1000, 1 << 30])
def test_declared_sizes_that_lie(codec: str | None, step: int) -> None:
    """A page that decompresses to less than declared must not end in what the memory held before."""
    layout = Layout(3, codec=codec)
    header = struct({1: 0, 2: 124, 3: 124, 5: {1: 24, 2: PLAIN, 3: 3, 4: 3}})
    data = page(*one_page(layout), replace(layout, codec=None), random.Random(0))
    data = data[len(header) :]
    lying = wrap(0, len(data) + step, fold(data, layout), {5: {1: 24, 2: PLAIN, 3: 3, 4: 3}}, layout)
    breaks(*chunk_of([lying], 24, 8, layout), "page 0: ")
    honest = wrap(0, len(data), fold(data, layout), {5: {1: 24, 2: PLAIN, 3: 3, 4: 3}}, layout)
    assert read(*chunk_of([honest], 24, 8, layout))[1] == {}


def test_values_more_or_fewer_than_levels() -> None:
    for encoding in (PLAIN, SPLIT):
        for version in (1, 2):
            layout = Layout(3, encoding=encoding, version=version)
            rep, definition, values = one_page(layout)
            for odd in (values[:-1], [*values, *values[:3]]):
                broken = page(rep, definition, odd, layout, random.Random(0))
                breaks(*chunk_of([broken], 24, 8, layout), "page 0: its bytes of values do not match its levels")


def test_levels_that_end_too_early_or_lie_outside() -> None:
    layout = Layout(3)
    rep, definition, values = one_page(layout)
    short = wrap(0, 4, b"\xff\xff\xff\x7f", {5: {1: 24, 2: PLAIN, 3: 3, 4: 3}}, layout)
    breaks(*chunk_of([short], 24, 8, layout), "page 0: its levels extend past its end")
    short = wrap(0, 3, bytes(3), {5: {1: 24, 2: PLAIN, 3: 3, 4: 3}}, layout)
    breaks(*chunk_of([short], 24, 8, layout), "page 0: its levels extend past its end")
    early = page(rep[:16], definition[:16], values, replace(layout, packed=0.0), random.Random(0))
    early = early.replace(struct({1: 16, 2: 0, 3: 3, 4: 3}), struct({1: 24, 2: 0, 3: 3, 4: 3}))
    breaks(*chunk_of([early], 24, 8, layout), "page 0: its levels are malformed or end too early")
    v2 = wrap(3, 100, b"abc", {8: {1: 24, 2: 0, 3: 8, 4: 0, 5: 50, 6: 50}}, layout)
    breaks(*chunk_of([v2], 24, 8, layout), "page 0: its levels extend past its end")


def test_a_page_that_begins_inside_a_row_that_never_began() -> None:
    layout = Layout(3)
    rep, definition, values = one_page(layout)
    broken = page([1, *rep[1:]], definition, values, layout, random.Random(0))
    breaks(*chunk_of([broken], 24, 8, layout), "page 0: its first row has no start")


def test_dictionaries() -> None:
    layout = Layout(3, encoding=DICTIONARY)
    _, data = column(ROWS, [9], layout)
    small = replace(layout, dictionary=layout.dictionary[:2])
    pages = [dictionary_page(small), data[4 + len(dictionary_page(layout)) :]]
    breaks(*chunk_of(pages, 24, 8, layout), "page 0: a dictionary index is outside the dictionary")
    breaks(*chunk_of(pages[1:], 24, 8, layout), "page 0: a dictionary index is outside the dictionary")
    breaks(*chunk_of([pages[0], *pages], 24, 8, layout), "page 0: the dictionary is not the first page")
    lying = wrap(2, 12, b"".join(layout.dictionary), {7: {1: 4, 2: PLAIN}}, layout)
    breaks(*chunk_of([lying, *pages[1:]], 24, 8, layout), "dictionary page: it has 12 bytes for 4 entries")


def test_encodings_and_types_that_do_not_go_together() -> None:
    layout = Layout(3)
    for encoding in (3, 4, 5, 6, 7, 99):
        broken = page(*one_page(layout), replace(layout, encoding=encoding), random.Random(0))
        breaks(*chunk_of([broken], 24, 8, layout), f"page 0: encoding {encoding} is not valid for its type")
    old = wrap(0, 3, b"abc", {5: {1: 24, 2: PLAIN, 3: 3, 4: 4}}, layout)
    breaks(*chunk_of([old], 24, 8, layout), "page 0: its levels are not run-length encoded")


def test_a_page_larger_than_allowed_takes_no_memory() -> None:
    layout = Layout(3, codec="ZSTD")
    bomb = wrap(0, (1 << 31) - 1, b"abc", {5: {1: 24, 2: PLAIN, 3: 3, 4: 3}}, layout)
    breaks(*chunk_of([bomb], 24, 8, layout), "page 0: .* bytes are too many for 24 values")
    bomb = wrap(0, (1 << 31) - 1, b"abc", {5: {1: 1 << 30, 2: PLAIN, 3: 3, 4: 3}}, layout)
    chunk, data = chunk_of([bomb], 1 << 30, 1 << 28, layout)
    breaks(chunk, data, "page 0: its 2147483647 bytes exceed the limit")
    chunk, data = column(ROWS, [], layout)
    with pytest.raises(SourceError, match="exceed the limit of 20"):
        list(read_rows(chunk, held(data, "by hand", chunk.begin, chunk.end), 1 << 20, max_page=20))
