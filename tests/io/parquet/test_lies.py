"""Parquet files that contradict themselves: one error that names the file and the place, never a figure."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.errors import SourceError
from tests.io.parquet import compact as c
from tests.io.parquet.handmade import varint

X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
TARGET = np.arange(32) % 4
HUGE = (1 << 31) - 1


def written(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **{"row_group_size": 16, "compression": "none", **options})
    return sink.getvalue()


def native(**options: Any) -> bytes:
    return written({"logits": list(X), "target": TARGET}, **options)


def foreign(**options: Any) -> bytes:
    """A file that pyarrow reads, targets included."""
    return written({**{f"l{k}": X[:, k] for k in range(X.shape[1])}, "target": TARGET}, **options)


BOTH = pytest.mark.parametrize(("make", "logits"), [(native, "logits"), (foreign, "l*")], ids=["native", "pyarrow"])


def refused(data: bytes, path: Path, message: str, **options: Any) -> None:
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message) as got:
        fx.evaluate(path, **options)
    assert str(path) in str(got.value)
    assert "\n" not in str(got.value)


def test_a_footer_written_again_is_the_same() -> None:
    data = native(write_page_index=True)
    assert c.with_footer(data, lambda fields: None) == data


# ---- footers ---------------------------------------------------------------------------------------------------------


def _more_rows(f: c.Struct) -> None:
    c.put(f, c.ROWS, 33)


def _no_rows(f: c.Struct) -> None:
    c.put(f, c.ROWS, 16)
    c.put(c.groups(f)[1], c.GROUP_ROWS, 0)


def _negative_rows(f: c.Struct) -> None:
    c.put(f, c.ROWS, 0)
    c.put(c.groups(f)[1], c.GROUP_ROWS, -16)


def _twice(f: c.Struct) -> None:
    c.put(f, c.ROWS, 48)
    c.groups(f).append(c.groups(f)[1])


def _left_out(f: c.Struct) -> None:
    c.groups(f).pop()


def _of_another(f: c.Struct) -> None:
    c.put(c.chunks(c.groups(f)[1])[1], c.DATA, c.chunks(c.groups(f)[0])[1][c.DATA][1])


def _overlapping(f: c.Struct) -> None:
    first = c.chunks(c.groups(f)[1])[1]
    c.put(first, c.SIZE, first[c.SIZE][1] + 20)
    c.put(first, c.DATA, first[c.DATA][1] - 20)


def _swapped(f: c.Struct) -> None:
    c.groups(f)[1][c.CHUNKS][1][1].reverse()


def _misnamed(f: c.Struct) -> None:
    c.put(c.chunks(c.groups(f)[1])[1], c.PATH, (c.BINARY, [b"other"]))


def _mistyped(f: c.Struct) -> None:
    c.put(c.chunks(c.groups(f)[1])[1], c.TYPE, 5)


def _fewer_values(f: c.Struct) -> None:
    c.put(c.chunks(c.groups(f)[1])[1], c.VALUES, 12)


def _fewer_logits(f: c.Struct) -> None:
    c.put(c.chunks(c.groups(f)[1])[0], c.VALUES, 12)


def _no_column(f: c.Struct) -> None:
    c.groups(f)[1][c.CHUNKS][1][1].pop()


def _outside(f: c.Struct) -> None:
    c.put(c.chunks(c.groups(f)[1])[1], c.SIZE, 1 << 40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_more_rows, "its footer counts 33 rows, and its row groups 32"),
        (_no_rows, "row group 1, column '.*': .* values in 0 rows"),
        (_negative_rows, "row group 1: it has -16 rows"),
        (_twice, "row group 2, column 'logits.list.element': its bytes from .* are those of another chunk too"),
        (_left_out, "its footer counts 32 rows, and its row groups 16"),
        (_of_another, "row group 1, column 'target': its bytes from .* are those of another chunk too"),
        (_overlapping, "row group 1, column 'target': its bytes from .* are those of another chunk too"),
        (_swapped, "row group 1, column 'logits.list.element': its type is not that of the schema"),
        (_misnamed, "row group 1, column 'target': its chunk is that of another column"),
        (_mistyped, "row group 1, column 'target': its type is not that of the schema"),
        (_fewer_values, "row group 1, column 'target': 12 values in 16 rows"),
        (_fewer_logits, "row group 1, column 'logits.list.element': 12 values in 16 rows"),
        (_no_column, "row group 1: it has 1 columns, but the schema has 2"),
        (_outside, "row group 1, column 'target': its 1099511627776 bytes from .* lie outside the pages"),
    ],
)
def test_footers_that_contradict_themselves(change: Callable[[c.Struct], None], message: str, tmp_path: Path) -> None:
    refused(c.with_footer(native(use_dictionary=False), change), tmp_path / "a.parquet", message)


def test_fewer_rows_than_one_column_a_class_has(tmp_path: Path) -> None:
    def change(f: c.Struct) -> None:
        c.put(f, c.ROWS, 28)
        c.put(c.groups(f)[1], c.GROUP_ROWS, 12)

    data = written({**{f"l{k}": X[:, k] for k in range(4)}, "target": TARGET})
    message = "row group 1, column 'l0': 16 values in 12 rows"
    refused(c.with_footer(data, change), tmp_path / "a.parquet", message, logits="l*")


def test_columns_that_are_not_read_may_be_anything(tmp_path: Path) -> None:
    def change(f: c.Struct) -> None:
        c.put(c.chunks(c.groups(f)[1])[2], c.VALUES, 12)

    path = tmp_path / "a.parquet"
    path.write_bytes(c.with_footer(written({"logits": list(X), "target": TARGET, "other": TARGET}), change))
    assert fx.evaluate(path).metrics["cross_entropy"].value == fx.cross_entropy(X, TARGET)


# ---- pages of columns beside the logits ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("values", [HUGE, 17, 12, 0])
def test_pages_of_more_or_fewer_values_than_the_footer_says(
    make: Any, logits: str, version: str, values: int, tmp_path: Path
) -> None:
    def change(header: c.Struct, body: bytes) -> bytes:
        head = header[5 if version == "1.0" else 8][1]
        c.put(head, 1, values)
        if version == "2.0":
            c.put(head, 2, values)  # all of them null
        return body

    data = c.with_page(make(use_dictionary=False, data_page_version=version), change)
    message = f"{values} values where the footer leaves 16" if values > 16 else f"{16 - values} values with it"
    if make is native and values == 12:
        message = "its bytes of values do not match its levels"
    refused(data, tmp_path / "a.parquet", f"row group 1, column 'target', page .*: .*{message}", logits=logits)


@BOTH
def test_a_page_that_reaches_over_its_chunk(make: Any, logits: str, tmp_path: Path) -> None:
    def change(header: c.Struct, body: bytes) -> bytes:
        c.put(header, 3, len(body) + 1000)
        return body

    data = c.with_page(make(use_dictionary=False), change)
    message = "row group 1, column 'target', page 0: .* extend past the end"
    refused(data, tmp_path / "a.parquet", message, logits=logits)


@BOTH
@pytest.mark.parametrize("uncompressed", [HUGE, 300 << 20])
def test_pages_that_would_take_all_memory(make: Any, logits: str, uncompressed: int, tmp_path: Path) -> None:
    def change(header: c.Struct, body: bytes) -> bytes:
        c.put(header, 2, uncompressed)
        return body

    data = c.with_page(make(use_dictionary=False, compression="snappy"), change)
    message = (
        f"{uncompressed} bytes are too many for 16 values" if make is native else f"its {uncompressed} bytes exceed"
    )
    refused(data, tmp_path / "a.parquet", f"column 'target', page 0: {message}", logits=logits)


@BOTH
def test_dictionaries_of_more_values_than_bytes(make: Any, logits: str, tmp_path: Path) -> None:
    def change(header: c.Struct, body: bytes) -> bytes:
        c.put(header[7][1], 1, HUGE)
        return body

    data = c.with_page(make(use_dictionary=["target"]), change, dictionary=True)
    message = f"page 0: {HUGE} values do not fit in a dictionary of 32 bytes"
    if make is native:
        message = f"dictionary page: it has 32 bytes for {HUGE} entries"
    refused(data, tmp_path / "a.parquet", f"column 'target', {message}", logits=logits)


@pytest.mark.parametrize("index", [4, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("kind", ["plain", "dictionary", "struct", "list"])
def test_dictionary_indices_out_of_range(index: int, kind: str, tmp_path: Path) -> None:
    names: Any = pa.array([f"k{k}" for k in TARGET])
    if kind != "plain":
        names = names.dictionary_encode()
    if kind == "struct":
        names = pa.StructArray.from_arrays([names], ["inner"])
    if kind == "list":
        names = pa.ListArray.from_arrays(pa.array(np.arange(33), pa.int32()), names)

    def change(header: c.Struct, body: bytes) -> bytes:
        at = 0
        for _ in range(2 if kind == "list" else 1):  # behind the levels
            at += 4 + int.from_bytes(body[at : at + 4], "little")
        indices = body[:at] + b"\x20" + varint(16 << 1) + index.to_bytes(4, "little")
        for field in (2, 3):
            c.put(header, field, len(indices))
        return indices

    data = c.with_page(written({"logits": list(X), "target": TARGET, "name": names}), change)
    path, dest = tmp_path / "a.parquet", tmp_path / "b.parquet"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet, row group 1"):
        fx.convert(path, dest, keep="name")
    assert not dest.exists()


@pytest.mark.parametrize("column", ["target", "weight", "l2"])
def test_checksums_of_all_columns_are_verified(column: str, tmp_path: Path) -> None:
    columns = {**{f"l{k}": X[:, k] for k in range(4)}, "target": TARGET, "weight": np.linspace(1, 2, 32)}
    data = bytearray(written(columns, use_dictionary=False, write_page_checksum=True))
    data[data.index(np.asarray(columns[column][16:]).tobytes()) + 5] ^= 1
    refused(bytes(data), tmp_path / "a.parquet", "row group [01].*CRC", logits="l*", weight="weight")


# ---- what only looks wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2.8", "1.2.9"])
@pytest.mark.parametrize("name", ["logits", "target"])
def test_sizes_of_old_parquet_mr(version: str, name: str, tmp_path: Path) -> None:
    """Up to 1.2.8 they leave out the header of the dictionary page (PARQUET-816)."""
    data = native()

    def change(f: c.Struct) -> None:
        c.put(f, c.CREATED, f"parquet-mr version {version} (build x)".encode())
        for group in c.groups(f):
            chunk = c.chunks(group)[0 if name == "logits" else 1]
            at = chunk[c.DICTIONARY][1]
            c.put(chunk, c.SIZE, chunk[c.SIZE][1] - (c.decode(data, at)[1] - at))

    path = tmp_path / "a.parquet"
    changed = c.with_footer(data, change)
    if version == "1.2.9":
        refused(changed, path, "row group 0.* page .*: (its header is malformed|.* extend past the end)")
    else:
        path.write_bytes(changed)
        assert fx.evaluate(path).metrics["cross_entropy"].value == fx.cross_entropy(X, TARGET)
