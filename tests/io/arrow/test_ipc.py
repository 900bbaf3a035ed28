"""Arrow IPC files and streams that lie, are incomplete, or change while they are read."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import fastxent as fx
from dumps import lists
from fastxent.errors import ColumnError, SourceError
from fastxent.io.source import open_source

N, C = 40, 10
X = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
Y = np.arange(N) % C
FORMS = {"arrow": pa.ipc.new_file, "arrows": pa.ipc.new_stream}


def write(path: Path, batches: list[pa.RecordBatch], form: str = "arrow", **options: Any) -> Path:
    with FORMS[form](str(path), batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        for batch in batches:
            out.write_batch(batch)
    return path


def good(rows: int = N) -> pa.RecordBatch:
    logits = lists(X[:rows], sized=True)
    return pa.record_batch({"logits": logits, "target": Y[:rows]})


def rows_of(path: Path, columns: list[str] = ["target"]) -> list[Any]:  # noqa: B006 - not changed
    """What is in the columns beside the logits, row by row."""
    source = open_source(path, logits="logits", columns=columns)
    batches = [batch for unit in source.units() for batch in unit.read(1 << 30, 7 * C * 4, whole=True)]
    return [row for batch in batches for row in zip(*(batch.columns[n].to_pylist() for n in columns), strict=True)]


# ---- buffers that lie ------------------------------------------------------------------------------------------------


def int32(*values: int) -> pa.Buffer:
    return pa.py_buffer(np.array(values, np.int32))


def int64(*values: int) -> pa.Buffer:
    return pa.py_buffer(np.array(values, np.int64))


def floats(n: int) -> pa.Array:
    return pa.array(np.zeros(n, np.float32))


BYTES = pa.py_buffer(bytes(200))
VIEWS = {
    "far": [[40, 0, 0, 0], [40, 0, 0, 10**9]],
    "near": [[40, 0, 0, 0], [40, 0, 0, 192]],
    "buffer": [[40, 0, 0, 0], [40, 0, 7, 0]],
    "negative": [[40, 0, 0, 0], [40, 0, 0, -40]],
    "negative buffer": [[40, 0, 0, 0], [40, 0, -1, 0]],
    "length": [[40, 0, 0, 0], [-40, 0, 0, 0]],
}
LISTS = {  # the last offset of each is right: that much Arrow proves by itself
    "ends outside the file": (pa.list_, int32(0, 50, 60, 20)),
    "falling": (pa.list_, int32(0, -10, 0, 20)),
    "far": (pa.large_list, int64(0, 2**62, 2**62 + 10, 20)),
    "very negative": (pa.large_list, int64(0, -(2**62), 10, 20)),
}
LIST_VIEWS = {"far": ((0, 10**9), (10, 10)), "negative": ((0, -10), (10, 10)), "size": ((0, 9), (10, -1))}


def lies() -> Iterator[tuple[str, pa.Array]]:
    """Columns that Arrow would follow out of its buffers."""
    for name, views in VIEWS.items():
        data = b"".join(np.array(view, np.int32).tobytes() for view in views)
        yield f"binary view {name}", pa.Array.from_buffers(pa.binary_view(), 2, [None, pa.py_buffer(data), BYTES])
    for name, (kind, offsets) in LISTS.items():
        for bits in (b"\x07", b"\x06"):
            buffers = [pa.py_buffer(bits), offsets]
            column = pa.Array.from_buffers(kind(pa.float32()), 3, buffers, children=[floats(20)])
            yield f"list {name} {bits.hex()}", column
    for name, (starts, sizes) in LIST_VIEWS.items():
        buffers = [None, int32(*starts), int32(*sizes)]
        yield f"list view {name}", pa.Array.from_buffers(pa.list_view(pa.float32()), 2, buffers, children=[floats(20)])
    yield "binary offsets", pa.Array.from_buffers(pa.binary(), 3, [None, int32(0, 4000, 4040, 80), BYTES])


LIES = dict(lies())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LIES)
def test_logits_that_point_outside_their_buffers(name: str, form: str, tmp_path: Path) -> None:
    logits = LIES[name]
    schema = pa.schema([pa.field("logits", logits.type, metadata={"dtype": "float32"}), ("target", pa.int64())])
    batch = pa.RecordBatch.from_arrays([logits, pa.array(Y[: len(logits)])], schema=schema)
    path = write(tmp_path / "x", [batch], form)
    with pytest.raises(SourceError, match=r"x: column 'logits' of record batch 0 is damaged"):
        rows_of(path)


def dictionary(indices: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b"]), safe=False)


@pytest.mark.parametrize(
    "column",
    [
        dictionary(pa.array([0, 7], pa.int32())),
        dictionary(pa.array([-1, 1], pa.int8())),
        pa.StructArray.from_arrays([dictionary(pa.array([0, 2], pa.int8()))], ["kind"]),
        pa.Array.from_buffers(pa.string(), 2, [None, int32(0, 900, 4), BYTES]),
        pa.Array.from_buffers(pa.string(), 2, [None, int32(0, 2, 4), pa.py_buffer(b"\xff\xfe\xff\xff")]),
        pa.Array.from_buffers(pa.string_view(), 2, [None, int32(20, 0, 0, 0, 20, 0, 0, 190), BYTES]),
        pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x01"), int64(1, 2)], null_count=2),
    ],
)
def test_columns_beside_that_point_outside_their_buffers(column: pa.Array, tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_arrays([*good(2).columns, column], names=["logits", "target", "kind"])
    path = write(tmp_path / "x", [batch])
    assert rows_of(path) == [(0,), (1,)]  # what is not read is not looked at
    with pytest.raises(SourceError, match=r"column 'kind' of record batch 0 is damaged"):
        rows_of(path, ["target", "kind"])


def test_views_of_null_rows_are_not_followed(tmp_path: Path) -> None:
    views = int32(3, int.from_bytes(b"abc\0", "little"), 0, 0, 40, 0, 77, 10**9)
    column = pa.Array.from_buffers(pa.string_view(), 2, [pa.py_buffer(b"\x01"), views])
    batch = pa.RecordBatch.from_arrays([*good(2).columns, column], names=["logits", "target", "kind"])
    assert rows_of(write(tmp_path / "x", [batch]), ["kind"]) == [("abc",), (None,)]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("change", [1, 8, -8, 1 << 40])
def test_a_compressed_buffer_of_another_size(codec: str, change: int, tmp_path: Path) -> None:
    batch = pa.record_batch({"logits": lists(np.zeros((N, C), np.float32), sized=True), "target": Y})
    path = write(tmp_path / "x", [batch], compression=codec)
    data, size = path.read_bytes(), struct.pack("<q", N * C * 4)
    assert data.count(size) == 1
    path.write_bytes(data.replace(size, struct.pack("<q", N * C * 4 + change)))
    with pytest.raises(SourceError, match="column 'logits' of record batch 0 is damaged"):
        rows_of(path)


# ---- columns of every kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_every_type_is_read_as_it_was_written(form: str, compression: str | None, tmp_path: Path) -> None:
    words = [None if k % 7 == 3 else f"a word of more than twelve bytes, {k}"[: k * 3] for k in range(N)]
    numbers = pa.array([None if k % 5 == 2 else k for k in range(N)])
    short = pa.array([None if k % 4 == 1 else list(range(k % 3)) for k in range(N)], pa.list_(pa.int8()))
    views = pa.array(short.to_pylist(), pa.list_view(pa.int8()))
    columns = {
        "word": pa.array(words), "large": pa.array(words, pa.large_string()), "view": pa.array(words, pa.string_view()),
        "kind": pa.array(words).dictionary_encode(), "list": short, "list view": views,
        "struct": pa.StructArray.from_arrays([pa.array(words), numbers], ["a", "b"], mask=pa.array(Y == 3)),
        "map": pa.array([[(str(k), k)] * (k % 3) for k in range(N)], pa.map_(pa.string(), pa.int64())),
        "flag": pa.array([None if k % 3 == 1 else k % 2 == 0 for k in range(N)]), "null": pa.nulls(N),
        "decimal": pa.array(range(N), pa.decimal128(9, 2)), "time": numbers.cast(pa.timestamp("us")),
    }  # fmt: skip
    logits = lists(X, sized=True)
    whole = pa.record_batch([logits, *columns.values()], names=["logits", *columns])
    parts = [whole.slice(0, 17), whole.slice(17)] if form == "arrows" else [whole]
    path = write(tmp_path / "x", parts, form, compression=compression)
    for name, column in columns.items():
        assert [row[0] for row in rows_of(path, [name])] == column.to_pylist(), name
    assert [row[0] for row in rows_of(path, ["struct.a"])] == [
        None if y == 3 else w for y, w in zip(Y, words, strict=True)
    ]


def test_dictionaries_that_grow_or_are_replaced_along_a_stream(tmp_path: Path) -> None:
    parts = [["a", "b", "a"], ["b", "c", "d"], ["x", "y", "x"]]
    batches = [
        pa.record_batch({"logits": good(3)["logits"], "kind": pa.array(words).dictionary_encode()}) for words in parts
    ]
    for emit in (False, True):
        path = write(tmp_path / "x", batches, "arrows", emit_dictionary_deltas=emit)
        assert rows_of(path, ["kind"]) == [(word,) for words in parts for word in words]
    last = open_source(path, logits="logits", columns=["kind"])
    unit = list(last.units())[-1]
    assert [b.columns["kind"].to_pylist() for b in unit.read(1 << 30, 1 << 20, whole=True)] == parts


def test_files_of_polars(tmp_path: Path) -> None:
    words = ["a", None, "a word of more than twelve bytes", "b"] * 10
    frame = pl.DataFrame(
        {"logits": X.tolist(), "word": words, "target": Y}, schema_overrides={"logits": pl.List(pl.Float32)}
    )
    frame = frame.with_columns(kind=pl.col("word").cast(pl.Categorical))
    for compression in ("uncompressed", "lz4", "zstd"):
        frame.write_ipc(tmp_path / "x.arrow", compression=compression)
        assert rows_of(tmp_path / "x.arrow", ["word", "kind"]) == [(word, word) for word in words]
        frame.write_ipc_stream(tmp_path / "x.arrows", compression=compression)
        assert rows_of(tmp_path / "x.arrows", ["word", "kind"]) == [(word, word) for word in words]


def test_a_union_that_is_asked_for_is_refused(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    batch = pa.RecordBatch.from_arrays([union, *good(2).columns], names=["u", "logits", "target"])
    path = write(tmp_path / "x", [batch])
    assert rows_of(path) == [(0,), (1,)]
    with pytest.raises(ColumnError, match=r"cannot read a column of type .*union.*; cast the column"):
        rows_of(path, ["u"])


# ---- files that are incomplete ---------------------------------------------------------------------------------------


def messages(path: Path) -> list[tuple[int, int]]:
    """Begin and end of each message, the schema's first."""
    data = path.read_bytes()
    handle = pa.BufferReader(data)
    handle.seek(8 if data.startswith(b"ARROW1") else 0)
    found = []
    for _ in range(4):
        begin = handle.tell()
        pa.ipc.read_message(handle)
        found.append((begin, handle.tell()))
    return found


def test_a_stream_must_end_with_its_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "x.arrows", [good(9)] * 3, "arrows")
    data = path.read_bytes()
    for _, end in messages(path):
        path.write_bytes(data[:end])
        with pytest.raises(SourceError, match=r"cannot read .*x\.arrows: the end-of-stream mark is missing.*complete"):
            rows_of(path)
    path.write_bytes(data + data)
    with pytest.raises(SourceError, match="bytes follow the end of the stream"):
        rows_of(path)


def test_a_file_must_list_each_of_its_batches_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.arrow", [good(9)] * 3)
    data, (_, *batches) = path.read_bytes(), messages(path)
    first, second = (struct.pack("<q", begin) for begin, _ in batches[:2])
    at = data.rindex(first)
    changed = bytearray(data)
    changed[at : at + 8] = second
    path.write_bytes(changed)
    with pytest.raises(SourceError, match="footer"):
        rows_of(path)
    count = at - 4  # the number of blocks comes before them
    assert changed[count : count + 4] == struct.pack("<I", 3)
    changed = bytearray(data)
    changed[count : count + 4] = struct.pack("<I", 2)
    path.write_bytes(changed)
    with pytest.raises(SourceError, match="footer does not list the message at byte"):
        rows_of(path)


def test_a_batch_that_claims_more_rows_than_its_bytes_can_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "x.arrow", [good(7)])
    data = path.read_bytes()
    begin, end = messages_of_one(data)
    part = data[begin:end].replace(struct.pack("<q", 7), struct.pack("<q", 1 << 50))
    path.write_bytes(data[:begin] + part + data[end:])
    with pytest.raises(SourceError, match="a record batch claims 1125899906842624 rows"):
        rows_of(path)


def messages_of_one(data: bytes) -> tuple[int, int]:
    """The metadata of the first record batch."""
    handle = pa.BufferReader(data)
    handle.seek(8)
    pa.ipc.read_message(handle)
    begin = handle.tell()
    return begin, begin + 8 + int.from_bytes(data[begin + 4 : begin + 8], "little")


# ---- files that change -----------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, 4000)


def rewrite(path: Path) -> None:
    data = path.read_bytes()
    with path.open("r+b") as out:
        out.write(data)
    os.utime(path, ns=(0, 0))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def make(path: Path, form: str) -> Path:
    if form == "npy":
        np.save(path / "target.npy", np.tile(Y, 100))
        np.save(path / "logits.npy", np.tile(X, (100, 1)))
        return path / "logits.npy"
    return write(path / f"x.{form}", [good()] * 100, form)


@pytest.mark.parametrize("form", [*FORMS, "npy"])
@pytest.mark.parametrize("change", [cut, rewrite, replace, Path.unlink])
def test_a_file_that_changes_while_it_is_read(change: Callable[[Path], None], form: str, tmp_path: Path) -> None:
    path = make(tmp_path, form)
    source = open_source(path, logits="logits", columns=["target"])
    batches = (batch for unit in source.units() for batch in unit.read(1 << 30, 5 * C * 4, whole=True))
    next(batches)
    change(path)
    with pytest.raises(SourceError, match=rf"{path.name}: it (changed|was removed) while it was read"):
        list(batches)


# ---- many files ------------------------------------------------------------------------------------------------------


@contextmanager
def few_open_files(spare: int) -> Iterator[None]:
    """At most ``spare`` more open files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = max(int(name) for name in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("form", FORMS)
def test_files_are_closed_until_their_turn(form: str, tmp_path: Path) -> None:
    for k in range(80):
        write(tmp_path / f"{k:03}.{form}", [good(2)], form)
    with few_open_files(30):
        assert fx.evaluate(tmp_path, threads=2).rows.total == 160


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed_size_list", "binary", "tensor"])
@pytest.mark.parametrize("first", [0, 3])
def test_rows_one_behind_the_other_are_read_as_they_lie(tmp_path: Path, kind: str, first: int, monkeypatch) -> None:
    """No Arrow array is made of them, whatever the layout and wherever in its buffers a column begins."""
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    rows = {
        "list": pa.array(list(x), pa.list_(pa.float32())),
        "large_list": pa.array(list(x), pa.large_list(pa.float32())),
        "fixed_size_list": lists(x, sized=True),
        "binary": pa.array([row.tobytes() for row in x], pa.binary(16)),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(x),
    }[kind]
    field = pa.field("logits", rows.type, metadata={"dtype": "float32"} if kind == "binary" else None)
    table = pa.table([rows, pa.array(np.arange(50) % 4)], schema=pa.schema([field, pa.field("target", pa.int64())]))
    path = tmp_path / "x.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.slice(first), max_chunksize=20)
    monkeypatch.setattr("fastxent.io.layout.RowReader.block", None)
    assert fx.evaluate(path).metrics["cross_entropy"].value == fx.cross_entropy(x[first:], np.arange(first, 50) % 4)


def test_each_record_batch_is_looked_at_once_for_a_unit(tmp_path: Path, monkeypatch) -> None:
    """The time of a run does not grow with the square of the number of record batches."""
    from fastxent.io.arrow.batches import Batches

    table = pa.table({"logits": list(np.eye(4, dtype=np.float32)) * 30, "target": [0, 1, 2, 3] * 30})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    source = open_source(tmp_path / "x.arrow", logits="logits", columns=["target"])
    looks = []
    message = Batches._message
    monkeypatch.setattr(Batches, "_message", lambda self, at: looks.append(at) or message(self, at))
    monkeypatch.setattr("fastxent.io.arrow.part.UNIT_BYTES", 128)
    units = list(source.units())
    assert len(units) > 10
    assert sum(batch.rows for unit in units for batch in unit.read(1000, 1 << 20, False)) == 120
    assert len(looks) <= 60 + len(units)


def test_lengths_beyond_the_offsets_of_a_list_view(tmp_path: Path) -> None:
    """A length that its metadata claims may be too large for the type of the offsets."""
    views = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_view(pa.float32()))
    batch = pa.RecordBatch.from_arrays([views, pa.array([0, 1])], names=["logits", "target"])
    path = write(tmp_path / "x", [batch])
    data = path.read_bytes()
    claimed = struct.pack("<qq", 4, 0)  # rows and nulls of the values
    assert data.count(claimed) >= 1
    path.write_bytes(data.replace(claimed, struct.pack("<qq", 30_064_771_157, 0)))
    assert len(rows_of(path)) == 2
