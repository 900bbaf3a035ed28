"""Dicts of arrays, .npy and .safetensors against the arrays themselves."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from fastxent.errors import ColumnError, FastxentError, SourceError
from fastxent.io.source import open_source
from fastxent.io.storage.files import File
from fastxent.io.tensors import read_safetensors

N, C = 120, 7
X = np.random.default_rng(1).normal(size=(N, C))
Y = np.arange(N)
DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16}


def rows_of(source: Any, send: bool = False, **options: Any) -> tuple[np.ndarray, list, str]:
    """Logits, targets and dtype, read in small batches."""
    opened = open_source(source, logits=options.pop("logits", "logits"), columns=["target"], **options)
    rows, target = [], []
    assert opened.rows == N
    for unit in opened.units():
        unit = pickle.loads(pickle.dumps(unit)) if send else unit  # noqa: S301 - our own
        at = unit.where.first_row
        for batch in unit.read(1 << 30, 13 * C * 4, whole=True):
            assert batch.where.first_row == at
            block = batch.whole()
            assert block.bad == {}
            at += batch.rows
            rows.append(block.values.copy())
            target += batch.columns["target"].to_pylist()
    return np.concatenate(rows), target, opened.dtype


def expect(source: Any, kind: str = "float32", **options: Any) -> None:
    rows, target, found = rows_of(source, **options)
    truth = X.astype(DTYPES[kind])
    assert found == kind
    assert rows.tobytes() == truth.tobytes()
    assert target == list(Y)


def write_safetensors(path: Path, **tensors: tuple[str, np.ndarray]) -> None:
    header: dict[str, Any] = {"__metadata__": {"made": "here"}}
    body = b""
    for name, (dtype, array) in tensors.items():
        extent = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": extent}
        body += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


# ---- in memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_dtype_and_order(dtype: str) -> None:
    x = X.astype(DTYPES[dtype])
    expect({"logits": x, "target": Y}, dtype)
    expect({"logits": np.asfortranarray(x), "target": Y.astype(np.uint8)}, dtype)
    expect({"logits": np.repeat(x, 2, axis=0)[::2], "target": np.repeat(Y, 3)[::3]}, dtype)
    expect({"logits": x.reshape(4, 30, C), "target": Y.reshape(4, 30)}, dtype)
    frozen = x.copy()
    frozen.setflags(write=False)
    expect({"logits": frozen, "target": Y.tolist()}, dtype)


def test_logits_in_row_order_are_not_copied() -> None:
    x = X.astype(np.float32)
    batch = next(next(open_source({"logits": x}, logits="logits").units()).read(1 << 30, 1 << 20, whole=True))
    assert np.shares_memory(batch.whole().values, x)


def test_arrays_of_other_makers() -> None:
    x = X.astype(np.float32)
    expect({"logits": x.astype(">f4"), "target": Y.astype(">i8")})
    expect({"logits": pa.array(list(x)), "target": pl.Series(Y)})
    expect({"logits": pl.Series(list(x)), "target": pa.chunked_array([Y[:50], Y[50:]])})
    expect({**{f"p{j}": x[:, j] for j in range(C)}, "target": Y}, logits="p*")
    expect({"logits": X.astype(ml_dtypes.bfloat16).view(np.uint16), "target": Y}, "bfloat16", dtype="bfloat16")


def test_columns_beside_them() -> None:
    soft = np.random.default_rng(0).random((N, C))
    masked = np.ma.array(Y, mask=Y == 3)
    words = np.array([f"w{i % 4}" for i in Y])
    source = {
        "logits": X,
        "soft": soft,
        "masked": masked,
        "words": words,
        "object": words.astype(object),
        "other": Y[:3],
    }
    opened = open_source(source, logits="logits", columns=["soft", "masked", "words", "object"])
    batch = next(next(opened.units()).read(1 << 30, 1 << 20, whole=True))
    assert np.array_equal(np.array(batch.columns["soft"].to_pylist()), soft)
    assert batch.columns["masked"].to_pylist() == [None if i == 3 else i for i in Y]
    assert batch.columns["words"].to_pylist() == batch.columns["object"].to_pylist() == list(words)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"logits": X, "target": Y[:-1]}, SourceError, "got 120 rows for 'logits' and 119 for 'target'"),
        ({"logits": X}, ColumnError, "no column 'target' in <arrays>"),
        (
            {"logits": X.astype(np.complex128), "target": Y},
            ColumnError,
            "cannot use an array of complex128 as a column",
        ),
        ({"logits": X.astype(np.int64), "target": Y}, ColumnError, "must be a list"),
        ({"logits": X[:, 0].astype(np.int64), "target": Y}, ColumnError, "one column per class"),
        ({"logits": X[:, :0], "target": Y}, ColumnError, "0 bytes"),
        ({"logits": 3.0, "target": Y}, ColumnError, "must be an array, got a float"),
        ({"logits": X.astype(ml_dtypes.bfloat16).view(np.uint16), "target": Y}, ColumnError, 'dtype="bfloat16"'),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(arrays, logits="logits", columns=["target"])


# ---- .npy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_npy_pairs_however_they_are_named(dtype: str, order: str, tmp_path: Path) -> None:
    logits, target = tmp_path / "logits.npy", tmp_path / "target.npy"
    np.save(logits, np.asarray(X.astype(DTYPES[dtype]), order=order))
    np.save(target, Y)
    options = {"dtype": "bfloat16"} if dtype == "bfloat16" else {}
    for source in (tmp_path, logits, [target, logits], f"{tmp_path}/*.npy", {"logits": str(logits), "target": target}):
        expect(source, dtype, send=True, **options)


def test_a_missing_half_of_the_pair(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", X)
    with pytest.raises(ColumnError, match=r"no column 'target' in .*logits\.npy"):
        open_source(tmp_path / "logits.npy", logits="logits", columns=["target"])
    with pytest.raises(SourceError, match=r"target\.npy: no such file"):
        open_source({"logits": X, "target": str(tmp_path / "target.npy")}, logits="logits", columns=["target"])


def test_npy_files_that_are_broken(tmp_path: Path) -> None:
    path = tmp_path / "logits.npy"
    np.save(path, X)
    whole = path.read_bytes()
    for keep in (7, 60, 127, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(SourceError, match=r"logits\.npy"):
            open_source(path, logits="logits")
    np.save(path, np.array([{"a": 1}, 2], object), allow_pickle=True)
    with pytest.raises(SourceError, match="Python objects"):
        open_source(path, logits="logits")
    np.save(path, np.float64(3))
    with pytest.raises(SourceError, match="a single number"):
        open_source(path, logits="logits")


# ---- .safetensors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "code"), [("float64", "F64"), ("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")]
)
def test_safetensors(dtype: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "dump.safetensors"
    write_safetensors(
        path, other=("U8", Y[:1].astype(np.uint8)), logits=(code, X.astype(DTYPES[dtype])), target=("I64", Y)
    )
    expect(path, dtype, send=True)


def test_safetensors_shards_are_rows_one_after_the_other(tmp_path: Path) -> None:
    x = X.astype(np.float32)
    write_safetensors(tmp_path / "1.safetensors", logits=("F32", x[:50]), target=("I64", Y[:50]))
    write_safetensors(tmp_path / "2.safetensors", logits=("F32", x[50:]), target=("I64", Y[50:]))
    expect(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[1, 2]", "unknown format"),
        (b"{nonsense", "not valid JSON"),
        (b"{" + b'"a":[' * 100_000, "not valid JSON"),
        (b'{"logits": 3}', "invalid description of tensor"),
        (b'{"logits": {"dtype": "F32", "shape": [2, -2], "data_offsets": [0, 16]}}', "invalid description of tensor"),
        (b'{"logits": {"dtype": "F32", "shape": [2, 2.0], "data_offsets": [0, 16]}}', "invalid description of tensor"),
        (b'{"logits": {"dtype": "Q4", "shape": [2, 2], "data_offsets": [0, 16]}}', "type Q4 is not supported"),
        (b'{"logits": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}}', "wrong size"),
        (b'{"logits": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 32]}}', "ends outside the file"),
        (b'{"logits": {"dtype": "F32", "shape": [9999999999, 9999999999], "data_offsets": [0, 16]}}', "wrong size"),
    ],
)
def test_safetensors_headers_are_not_believed(header: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(FastxentError, match=message):
        open_source(path, logits="logits")


@given(st.data())
def test_a_damaged_safetensors_header_is_an_error_or_reads_inside_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    write_safetensors(path, logits=("F32", X.astype(np.float32)), target=("I64", Y))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 200))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        tensors = read_safetensors(File(str(path), str(path)))
        opened = open_source(path, logits="logits", columns=["target"])
        batches = [batch for unit in opened.units() for batch in unit.read(1 << 30, 1 << 20, whole=True)]
    except FastxentError:
        return
    for tensor in tensors.values():
        assert tensor.offset + int(np.prod(tensor.shape)) * tensor.dtype.itemsize <= len(content)
    assert sum(batch.rows for batch in batches) == opened.rows


# ---- beside the logits -----------------------------------------------------------------------------------------------

UNUSED: dict[str, Any] = {
    "complex": np.zeros(N, complex),
    "a number": 3,
    "a text": "model-a",
    "nothing": None,
    "mixed": [[1], "a", {}],
    "objects": np.array(["a", {}, None], object),
    "deeper": np.zeros((N, 3, 5)),
    "shorter": Y[:3],
}


def test_other_entries_of_a_dict_are_left_alone_until_they_are_named() -> None:
    expect({"logits": X, "target": Y, **UNUSED}, "float64")
    for name in UNUSED:
        with pytest.raises(FastxentError, match=f"{name!r}|model-a|840 rows"):
            open_source({"logits": X, "target": Y, **UNUSED}, logits="logits", columns=["target", name])
    with pytest.raises(ColumnError, match="'p1' must be an array, got a NoneType"):  # of a family, none is left out
        open_source({"p0": X[:, 0], "p1": None, "p2": X[:, 2]}, logits="p*")
    with pytest.raises(ColumnError, match="got '1' twice"):
        open_source({"logits": X, 1: Y, "1": Y}, logits="logits")


def test_other_files_of_a_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("complex", "a number", "objects", "deeper", "shorter"):
        np.save(tmp_path / f"{name}.npy", UNUSED[name], allow_pickle=True)
    np.save(tmp_path / "logits.npy", X)
    np.save(tmp_path / "target.npy", Y)
    expect(tmp_path, "float64")
    with pytest.raises(FastxentError, match="cannot use an array of complex128 as a column"):
        open_source(tmp_path, logits="logits", columns=["complex"])


def test_other_tensors_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    extra = np.zeros(N, np.uint64)
    write_safetensors(path, c=("C64", extra), logits=("F64", X), target=("I64", Y), f=("F4", extra))
    expect(path, "float64")
    with pytest.raises(ColumnError, match=r"cannot read tensor 'c' of .*: type C64 is not supported"):
        open_source(path, logits="logits", columns=["c"])


def test_tensors_that_overlap_or_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    one = '"%s": {"dtype": "F32", "shape": [2, 2], "data_offsets": [%d, %d]}'
    for entries, message in (
        ([("logits", 0, 16), ("other", 8, 24)], "tensors 'logits' and 'other' overlap"),
        ([("logits", 0, 16), ("logits", 16, 32)], "names 'logits' twice"),
    ):
        header = f"{{{', '.join(one % entry for entry in entries)}}}".encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(32))
        with pytest.raises(SourceError, match=message):
            open_source(path, logits="logits")


@pytest.mark.parametrize("shape", [(-3, 4), (3, -4), (-3, -4)])
def test_npy_headers_of_negative_shapes(shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "logits.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(48))
    with pytest.raises(SourceError, match=r"logits\.npy: invalid shape \(-?3, -?4\)"):
        open_source(path, logits="logits")


def test_npy_files_of_several_arrays(tmp_path: Path) -> None:
    with (tmp_path / "logits.npy").open("wb") as file:
        np.save(file, X)
        np.save(file, X)
    with pytest.raises(SourceError, match=r"bytes follow its array"):
        open_source(tmp_path, logits="logits")


def test_fortran_order_with_leading_dimensions(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.asfortranarray(X.reshape(20, 6, C)))
    np.save(tmp_path / "target.npy", np.asfortranarray(Y.reshape(20, 6)))
    expect(tmp_path, "float64")


def test_structured_arrays_are_columns() -> None:
    rows = np.empty(N, [("logits", np.float32, C), ("target", np.int64)])
    rows["logits"], rows["target"] = X, Y
    expect(rows)
