"""Rows read where they lie in files, in any order: those of the file, or none where they cannot be found."""

from __future__ import annotations

import copy
import ctypes
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.errors import SourceError
from fastxent.io import in_place as near, scattered
from fastxent.io.scattered import in_place
from fastxent.io.source import open_source

ROWS, C = 60, 600


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    """The files count as being in memory, however busy the machine is."""
    monkeypatch.setattr(near, "_SURE", 1e3)


def numbers(dtype: str = "float32") -> np.ndarray:
    return (np.arange(ROWS * C).reshape(ROWS, C) % 1999).astype(dtype)


def write(path: Path, rows: pa.Array, **options) -> None:
    options = {"compression": "none", "use_dictionary": False, **options}
    pq.write_table(pa.table({"logits": rows, "target": np.zeros(len(rows), np.int64)}), path, **options)


def lists(x: np.ndarray) -> pa.Array:
    return pa.array(list(x), pa.list_(pa.from_numpy_dtype(x.dtype)))


def read(path, order: np.ndarray, **options) -> np.ndarray | None:
    with in_place(open_source(path, logits="logits", columns=("target",), **options), order) as found:
        if found is None:
            return None
        parts = [found.read(begin, min(begin + 7, len(order)), C) for begin in range(0, len(order), 7)]
        return np.concatenate([np.asarray(part.flatten()) for part in parts]).reshape(len(order), C)


ORDER = np.random.default_rng(3).permutation(ROWS)[: ROWS - 4]
LAYOUTS = {
    "one page": {},
    "pages that cut rows": {"data_page_size": 4000, "write_batch_size": 70},
    "row groups": {"row_group_size": 7, "data_page_size": 3000, "write_batch_size": 64},
    "second version": {"data_page_version": "2.0", "data_page_size": 4000, "write_batch_size": 64},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_parquet(tmp_path, layout, dtype):
    x = numbers(dtype)
    write(tmp_path / "a.parquet", lists(x[:40]), **LAYOUTS[layout])
    write(tmp_path / "b.parquet", lists(x[40:]), **LAYOUTS[layout])
    np.testing.assert_array_equal(read(tmp_path, ORDER), x[ORDER])


def test_rows_of_other_layouts(tmp_path):
    x = numbers("float16")
    tmp_path.joinpath("npy").mkdir()
    np.save(tmp_path / "npy" / "logits.npy", x)
    np.save(tmp_path / "npy" / "target.npy", np.zeros(ROWS, np.int64))
    np.testing.assert_array_equal(read(tmp_path / "npy", ORDER), x[ORDER])
    binary = pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * C), ROWS, [None, pa.py_buffer(x)])
    write(tmp_path / "c.parquet", binary, data_page_size=2000)
    np.testing.assert_array_equal(read(tmp_path / "c.parquet", ORDER, dtype="float16"), x[ORDER])


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda rows: rows, {"compression": "snappy"}),
        (lambda rows: rows, {"use_dictionary": True}),
        (lambda rows: rows, {"write_page_checksum": True}),
        (lambda rows: rows, {"use_byte_stream_split": True}),
        (lambda rows: pa.concat_arrays([rows, pa.nulls(1, rows.type)]), {}),
        (lambda rows: pa.concat_arrays([rows, pa.array([[1.0] * 10, [1.0] * (2 * C - 10)], rows.type)]), {}),
    ],
)
def test_rows_that_have_to_be_decoded_are_not_found(tmp_path, change, options):
    write(tmp_path / "a.parquet", change(lists(numbers())), **options)
    assert read(tmp_path / "a.parquet", ORDER) is None


def test_rows_that_are_small_or_slow_are_not_found(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", lists(numbers()))
    monkeypatch.setattr(near, "_SURE", 0.0)
    assert read(tmp_path / "a.parquet", ORDER) is None
    monkeypatch.setattr(near, "_SURE", 1e3)
    monkeypatch.setattr(scattered, "_LEAST", 4 * C + 1)
    assert read(tmp_path / "a.parquet", ORDER) is None


def test_a_file_that_becomes_shorter_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, lists(numbers()))
    with (
        pytest.raises(SourceError, match=r"a.parquet.*changed"),
        in_place(open_source(path, logits="logits", columns=("target",)), np.arange(ROWS)) as found,
    ):
        assert found is not None
        path.write_bytes(path.read_bytes()[:2000])
        found.read(0, ROWS, C)


def test_another_process_opens_the_files_itself(tmp_path):
    write(tmp_path / "a.parquet", lists(numbers()))
    with in_place(open_source(tmp_path / "a.parquet", logits="logits", columns=("target",)), ORDER) as found:
        other = copy.deepcopy(found)  # as pickle has it
        assert other.read(3, 9, C).equals(found.read(3, 9, C))


def test_reads_that_a_signal_interrupts_are_repeated(tmp_path, monkeypatch):
    """As on a network folder: here, two reads of three give -1."""
    calls = []

    @ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
    def interrupted(file, to, count, offset):
        calls.append(offset)
        if len(calls) % 3:
            return -1
        data = os.pread(file, min(count, 1000), offset)
        ctypes.memmove(to, data, len(data))
        return len(data)

    write(tmp_path / "a.parquet", lists(numbers()))
    monkeypatch.setattr(near, "pread", lambda: ctypes.cast(interrupted, ctypes.c_void_p).value)
    assert np.array_equal(read(tmp_path / "a.parquet", ORDER), numbers()[ORDER])
    assert len(calls) > 2 * ROWS
