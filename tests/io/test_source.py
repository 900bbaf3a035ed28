"""Every kind of source gives the same rows, once each, in order, in batches of bounded size."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

from dumps import lists
from fastxent.errors import ColumnError, SourceError
from fastxent.io.batch import Source
from fastxent.io.source import open_source
from fastxent.io.storage.files import _glob_arrow

N, C = 1000, 10
ROW = C * 4
X = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
Y = np.arange(N)

TABLES = {
    "list": pa.table({"logits": list(X), "target": Y, "kind": pa.array([f"k{i % 3}" for i in Y]).dictionary_encode()}),
    "fixed": pa.table({"logits": lists(X, sized=True), "target": Y}),
    "large": pa.table({"logits": pa.array(list(X), pa.large_list(pa.float32())), "target": Y}),
    "blob": pa.table(
        [pa.array([row.tobytes() for row in X], pa.binary(4 * C)), pa.array(Y)],
        schema=pa.schema([pa.field("logits", pa.binary(4 * C), metadata={"dtype": "float32"}), ("target", pa.int64())]),
    ),
    "tensor": pa.table(
        {
            "logits": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (C,)), lists(X, sized=True)),
            "target": Y,
        }
    ),
    "struct": pa.table({"out": pa.array([{"logits": row, "n": 1} for row in X]), "target": Y}),
    "columns": pa.table({**{f"logit_{j}": X[:, j] for j in reversed(range(C))}, "target": Y}),
}
NAME = {"columns": "logit_*", "struct": "out.logits"}


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=300)


def write_small_pages(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=700, data_page_size=512, compression="zstd", data_page_version="2.0")


def write_plain(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, use_dictionary=False, compression="none", store_schema=True)


def ipc(writer: Callable[..., Any], compression: str | None) -> Callable[[pa.Table, Path], None]:
    def write(table: pa.Table, path: Path) -> None:
        with writer(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
            out.write_table(table, max_chunksize=130)

    return write


WRITERS = {
    "parquet": write_parquet,
    "parquet-small-pages": write_small_pages,
    "parquet-plain": write_plain,
    "file": ipc(pa.ipc.new_file, None),
    "file-zstd": ipc(pa.ipc.new_file, "zstd"),
    "stream": ipc(pa.ipc.new_stream, None),
    "stream-lz4": ipc(pa.ipc.new_stream, "lz4"),
}


def read(source: Source, max_bytes: int = 77 * ROW, send: bool = False) -> tuple[np.ndarray, dict[str, list]]:
    """All rows; each unit and batch is checked for its place and size on the way."""
    rows: list[np.ndarray] = []
    columns: dict[str, list] = {}
    places: dict[str, int] = {}
    most = max(1, max_bytes // (source.n_classes * (2 if source.dtype in ("float16", "bfloat16") else 4)))
    for unit in source.units():
        if send:
            unit = pickle.loads(pickle.dumps(unit))  # noqa: S301 - our own
        at = unit.where.first_row
        assert at == places.get(unit.where.file, 0)
        for batch in unit.read(1 << 30, max_bytes, whole=True):
            part = batch.whole()
            n, c = part.values.shape
            assert batch.rows == n
            assert (batch.where.file, batch.where.row_group) == (unit.where.file, unit.where.row_group)
            assert batch.where.first_row == at
            assert 1 <= n <= most
            assert c == source.n_classes
            assert part.dtype == source.dtype
            assert part.bad == {}
            rows.append(part.values.copy())
            for name, column in batch.columns.items():
                assert len(column) == n
                columns.setdefault(name, []).extend(column.to_pylist())
            at += n
        if unit.rows is not None:
            assert at - unit.where.first_row == unit.rows
            assert unit.nbytes == unit.rows * source.n_classes * rows[-1].itemsize
        places[unit.where.file] = at
    return (np.concatenate(rows) if rows else np.empty((0, source.n_classes))), columns


def expect_all(source: Source, times: int = 1, **how: Any) -> None:
    rows, columns = read(source, **how)
    assert rows.dtype == np.float32
    assert rows.tobytes() == np.concatenate([X] * times).tobytes()
    assert columns["target"] == list(Y) * times


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("layout", TABLES)
def test_every_format_and_layout(layout: str, writer: str, tmp_path: Path) -> None:
    path = tmp_path / "dump"  # no suffix: what a file is, its first bytes tell
    WRITERS[writer](TABLES[layout], path)
    source = open_source(path, logits=NAME.get(layout, "logits"), columns=["target"])
    assert (source.n_classes, source.dtype, source.files) == (C, "float32", [str(path)])
    if not writer.startswith("stream"):
        assert (source.rows, source.nbytes) == (N, N * ROW)
    expect_all(source)
    expect_all(source, send=True)
    expect_all(source, max_bytes=1)
    expect_all(source, max_bytes=1 << 30)


@pytest.mark.parametrize("layout", TABLES)
def test_tables_in_memory(layout: str) -> None:
    table = TABLES[layout]
    name = NAME.get(layout, "logits")
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1, 600), table.slice(601)])
    for source in (table, chunked, table.combine_chunks().to_batches()[0]):
        opened = open_source(source, logits=name, columns=["target"])
        assert (opened.rows, opened.nbytes) == (N, N * ROW)
        expect_all(opened)
        expect_all(opened)
    assert [u.where.file for u in open_source(table, logits=name).units()] == ["<table>"]


def test_a_reader_is_read_once_and_no_row_of_the_first_look_is_lost() -> None:
    leading = pa.table({"logits": pa.array([[]] * 3, pa.list_(pa.float32())), "target": [7, 7, 7]})
    reader = pa.concat_tables([leading, TABLES["list"].select(["logits", "target"])]).to_reader(max_chunksize=2)
    source = open_source(reader, logits="logits", columns=["target"])
    assert source.rows is None
    batches = [batch for unit in source.units() for batch in unit.read(1 << 30, 1 << 20, whole=True)]
    assert sum(batch.rows for batch in batches) == N + 3
    assert [reason for batch in batches for reason in batch.whole().bad.values()] == [
        f"0 logits where {C} are expected"
    ] * 3
    with pytest.raises(SourceError, match="cannot read <reader> twice"):
        next(source.units())


@pytest.mark.parametrize("make", [pl.from_arrow, lambda t: t.to_pandas(), lambda t: pl.from_arrow(t).lazy().collect()])
def test_anything_with_an_arrow_stream(make: Callable[[pa.Table], Any]) -> None:
    source = open_source(make(TABLES["list"]), logits="logits", columns=["target"])
    expect_all(source)
    expect_all(source)


def test_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    expect_all(open_source(duckdb.from_arrow(TABLES["list"]), logits="logits", columns=["target"]))


class Shrinking:
    """A stream that is not the same when read again."""

    def __init__(self) -> None:
        self.left = [TABLES["fixed"], TABLES["fixed"].slice(0, 10)]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.left.pop(0).__arrow_c_stream__(requested_schema)


def test_a_stream_that_changed_is_told() -> None:
    source = open_source(Shrinking(), logits="logits", columns=["target"])
    expect_all(source)
    with pytest.raises(SourceError, match="cannot read <Shrinking> twice: it had 1000 rows first and 10"):
        list(source.units())


def test_datasets(tmp_path: Path) -> None:
    table = TABLES["fixed"].append_column("part", pa.array(["a"] * 400 + ["b"] * 600))
    kind = ds.partitioning(pa.schema([("part", pa.string())]), flavor="hive")
    ds.write_dataset(table, tmp_path, format="parquet", partitioning=kind)
    whole = open_source(ds.dataset(tmp_path, partitioning="hive"), logits="logits", columns=["target", "part"])
    assert len(whole.files) == 2
    expect_all(whole, send=True)
    assert read(whole)[1]["part"] == ["a"] * 400 + ["b"] * 600
    some = ds.dataset(tmp_path, partitioning="hive").filter(ds.field("target") >= 990)
    assert read(open_source(some, logits="logits", columns=["target"]))[1]["target"] == list(range(990, 1000))
    feather = tmp_path / "x.arrow"
    WRITERS["file"](TABLES["fixed"], feather)
    expect_all(open_source(ds.dataset(feather, format="ipc"), logits="logits", columns=["target"]))
    pq.write_table(TABLES["fixed"], tmp_path / "groups.parquet", row_group_size=100)
    fragment = next(iter(ds.dataset(tmp_path / "groups.parquet").get_fragments())).subset(row_group_ids=[2])
    cut = ds.FileSystemDataset([fragment], TABLES["fixed"].schema, fragment.format, fragment.filesystem)
    assert read(open_source(cut, logits="logits", columns=["target"]))[1]["target"] == list(range(200, 300))


# ---- many files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A hive folder: two folds, three files, and things that are no data."""
    table = TABLES["list"]
    for name, part in [("fold=0/b", (0, 300)), ("fold=0/a", (300, 500)), ("fold=10/a", (500, 1000))]:
        path = tmp_path / "lang=en%20us" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(table.slice(part[0], part[1] - part[0]), path)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "half.parquet").write_text("x")
    return tmp_path


IN_ORDER = [*range(300, 500), *range(300), *range(500, 1000)]


@pytest.mark.parametrize("how", ["folder", "glob", "deep glob", "list", "url", "memory", "memory glob"])
def test_folders_globs_lists_and_urls(folder: Path, how: str) -> None:
    if how.startswith("memory"):
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.put(f"{folder}/", "/dump", recursive=True)
    inside = "lang=en%20us"
    source = {
        "folder": folder,
        "glob": f"{folder}/lang=*/fold=*/*.parquet",
        "deep glob": f"{folder}/**/*.parquet",
        "list": [folder / inside / "fold=0", f"{folder}/{inside}/*=10"],
        "url": folder.as_uri(),
        "memory": "memory://dump",
        "memory glob": "memory://dump/lang=*/*/*.parquet",
    }[how]
    hive = how not in ("list",)
    opened = open_source(source, logits="logits", columns=["target", "kind", *(["fold", "lang"] if hive else [])])
    assert opened.rows == N
    rows, columns = read(opened, send=not how.startswith("memory"))
    assert rows.tobytes() == X[IN_ORDER].tobytes()
    assert columns["target"] == IN_ORDER
    assert columns["kind"] == [f"k{i % 3}" for i in IN_ORDER]
    if hive:
        assert columns["fold"] == [0] * 500 + [10] * 500
        assert set(columns["lang"]) == {"en us"}
        assert opened.schema.field("fold").type == pa.int64()
        assert opened.schema.field("lang").type == pa.string()
    assert all(name.endswith(("fold=0/a.parquet", "fold=0/b.parquet", "fold=10/a.parquet")) for name in opened.files)


def test_folder_names_that_are_no_numbers_or_null(tmp_path: Path) -> None:
    for key in ("v=007", "v=8", "v=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / key).mkdir()
        pq.write_table(TABLES["fixed"].slice(0, 1), tmp_path / key / "x.parquet")
    opened = open_source(tmp_path, logits="logits", columns=["v"])
    assert read(opened)[1]["v"] == ["007", "8", None]


def test_a_column_of_the_file_wins_over_its_folder(tmp_path: Path) -> None:
    (tmp_path / "target=5").mkdir()
    pq.write_table(TABLES["fixed"], tmp_path / "target=5" / "x.parquet")
    expect_all(open_source(tmp_path, logits="logits", columns=["target"]))


def test_mixed_formats_layouts_and_empty_files(tmp_path: Path) -> None:
    pq.write_table(TABLES["list"].slice(0, 0), tmp_path / "0.parquet")
    pq.write_table(TABLES["list"].slice(0, 400), tmp_path / "1.parquet")
    WRITERS["file"](TABLES["fixed"].slice(400, 300), tmp_path / "2.arrow")
    WRITERS["stream"](TABLES["large"].slice(700), tmp_path / "3.arrows")
    WRITERS["file"](TABLES["large"].slice(0, 0), tmp_path / "4.arrow")
    expect_all(open_source(tmp_path, logits="logits", columns=["target"]))


def test_a_literal_name_with_wildcard_characters(tmp_path: Path) -> None:
    write_parquet(TABLES["fixed"], tmp_path / "a[1].parquet")
    expect_all(open_source(tmp_path / "a[1].parquet", logits="logits", columns=["target"]))


def test_nothing_but_empty_files() -> None:
    empty = TABLES["fixed"].slice(0, 0)
    source = open_source(empty, logits="logits", columns=["target"])
    assert (source.n_classes, source.rows, list(source.units())) == (C, 0, [])
    with pytest.raises(SourceError, match="cannot evaluate <table>: there are no rows"):
        open_source(TABLES["list"].slice(0, 0), logits="logits")


def test_leading_null_rows_in_a_file(tmp_path: Path) -> None:
    rows = [None] * 50 + [[]] * 2 + [row.tolist() for row in X[:8]]
    table = pa.table({"logits": pa.array(rows, pa.list_(pa.float32())), "target": np.arange(60)})
    for name, write in WRITERS.items():
        write(table, tmp_path / name)
        source = open_source(tmp_path / name, logits="logits", columns=["target"])
        assert source.n_classes == C
        bad: dict[int, str] = {}
        values = []
        for batch in (batch for unit in source.units() for batch in unit.read(1 << 30, 7 * ROW, whole=True)):
            part = batch.whole()
            bad |= {batch.where.first_row + i: reason for i, reason in part.bad.items()}
            values.append(part.values.copy())
        assert list(bad) == list(range(52))
        got = np.concatenate(values)
        assert np.array_equal(got[52:], X[:8])
        assert np.isnan(got[:52]).all()


@pytest.mark.parametrize("rows", [[None, None], [[], []], [None, []]])
def test_no_row_tells_the_classes(rows: list) -> None:
    with pytest.raises(ColumnError, match="cannot read logits from column 'logits' of <table>"):
        open_source(pa.table({"logits": pa.array(rows, pa.list_(pa.float32()))}), logits="logits")


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"logits": list(X)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"logits": list(X[:, :9])}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"got 10 in .*a\.parquet and 9 in .*b\.parquet"):
        open_source(tmp_path, logits="logits")
    pq.write_table(pa.table({"logits": list(X.astype(np.float64))}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"float32 in .*a\.parquet and float64 in .*b\.parquet"):
        open_source(tmp_path, logits="logits")
    pq.write_table(pa.table({"p0": X[:, 0], "p1": X[:, 1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"p0": X[:, 0], "p1": X[:, 1], "p2": X[:, 2]}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet and .*b\.parquet together: their logits columns"):
        open_source(tmp_path, logits="p*")


def test_a_ragged_file_of_the_right_mean_length_is_found_row_by_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"logits": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"logits": [[1.0], [2.0, 3.0, 4.0]]}), tmp_path / "b.parquet")
    batches = [
        b for unit in open_source(tmp_path, logits="logits").units() for b in unit.read(1 << 30, 1 << 20, whole=True)
    ]
    assert [list(batch.whole().bad) for batch in batches] == [[], [0, 1]]


def test_missing_columns(tmp_path: Path) -> None:
    pq.write_table(TABLES["fixed"], tmp_path / "a.parquet")
    with pytest.raises(ColumnError, match=r"no column 'targets' in .*a\.parquet; did you mean 'target'"):
        open_source(tmp_path, logits="logits", columns=["targets"])
    pq.write_table(TABLES["fixed"].drop_columns("target"), tmp_path / "b.parquet")
    with pytest.raises(ColumnError, match=r"no column 'target' in .*b\.parquet"):
        open_source(tmp_path, logits="logits", columns=["target"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"id\x01logits\n1\x012\n", "unknown format; supported formats are Parquet"),
        (b"id\x01logits\n", r"copy \(select \* from read_csv\('FILE'\)\) to 'x\.parquet', if DuckDB can read the file"),
        (b'{"id":\n 1}\n', r"row 0 is not a JSON object in one line"),
        (b"SQLite format 3\0", r"a SQLite database; .*sqlite_scan\('FILE', 'TABLE'\)"),
        (bytes(8) + b"DUCK" + bytes(100), r"a DuckDB database; .*copy TABLE to 'x\.parquet'"),
        (b"\x89HDF\r\n\x1a\n", r"is HDF5; .*h5py\.File\(FILE\)"),
        (b"ORC" + bytes(100), r"is ORC; .*pyarrow\.orc\.read_table\(FILE\)"),
        (b"Obj\x01" + bytes(100), r"is Avro; .*read_avro\('FILE'\)"),
        (b"PK\x03\x04" + bytes(100), "File is not a zip file"),
        (b"\x80\x04}q" + bytes(100), r"a pickle .*unpickling runs code; .*numpy\.savez"),
        (b"PAR1" + bytes(100), "footer is damaged or cut off"),
        (b"PAR1", "footer is damaged or cut off"),
        (b"ARROW1\0\0" + bytes(100), "check that the file is complete"),
        (b"\xff\xff\xff\xff" + bytes(100), "check that the file is complete"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "check that the file is complete"),
        (b"\x93NUMPY\x01\x00\x10\x00garbage", "check that the file is complete"),
    ],
)
def test_files_that_are_not_what_they_should_be(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=rf"x\.parquet.*{message}"):
        list(open_source(tmp_path / "x.parquet", logits="logits").units())


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_cut_short_anywhere_is_an_error_and_never_fewer_rows(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    WRITERS[writer](TABLES["fixed"].slice(0, 300), path)
    whole = path.read_bytes()
    for keep in [*range(8, len(whole) - 16, len(whole) // 40), len(whole) - 12]:
        path.write_bytes(whole[:keep])
        with pytest.raises(SourceError, match=re.escape(str(path))):
            read(open_source(path, logits="logits", columns=["target"]))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/dump.parquet", "nowhere/dump.parquet: no such file or folder"),
        ("nowhere/*.parquet", "cannot read 'nowhere/.*: no file matches"),
        ("memory://nowhere/x.parquet", "memory://nowhere/x.parquet: no such file"),
        ("memory://nowhere/*.parquet", "cannot read 'memory:.*: no file matches"),
        ("nosuch://x", "no file system is known for nosuch://"),
        ("", "empty path"),
        ([], "source must not be an empty list"),
        ({}, "source must not be an empty dict"),
        (3, "invalid source of type int"),
    ],
)
def test_sources_that_are_none(source: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(source, logits="logits")


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(SourceError, match="holds no data files"):
        open_source(tmp_path, logits="logits")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")  # rows that would be dropped are not passed over
    with pytest.raises(ColumnError, match=r"no column 'logits' in .*rows\.csv"):
        open_source(tmp_path, logits="logits")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "locked.parquet"
    write_parquet(TABLES["fixed"], path)
    path.chmod(0)
    yield path
    path.chmod(0o600)


def test_permission_denied(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # who may read everything: let the system call say no

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("fastxent.io.storage.files.open", refuse, raising=False)
    with pytest.raises(SourceError, match=r"locked\.parquet: permission denied"):
        open_source(locked, logits="logits")


def test_fsspec_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(SourceError, match=r"pip install 'fastxent\[remote\]'"):
        open_source("memory://x", logits="logits")


def test_a_row_group_that_lies_about_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for layout, column, message in (
        ("columns", "target", "row group 0: it holds 5 rows, but its footer has 300"),
        ("list", "kind", "row group 0: the columns beside the logits end 295 rows early"),
    ):
        write_parquet(TABLES[layout], tmp_path / "x.parquet")
        source = open_source(tmp_path / "x.parquet", logits=NAME.get(layout, "logits"), columns=[column])
        unit = next(source.units())
        five = TABLES[layout].slice(0, 5).combine_chunks().to_batches()
        with monkeypatch.context() as patched:
            patched.setattr(pq.ParquetFile, "iter_batches", lambda *_, five=five, **__: iter(five))
            with pytest.raises(SourceError, match=message):
                list(unit.read(1 << 30, 1 << 20, whole=True))


def test_pandas_frames_keep_their_nulls() -> None:
    frame = pd.DataFrame({"logits": [[1.0, 2.0], None, [3.0, 4.0]], "target": pd.array([0, None, 1], "Int64")})
    unit = next(open_source(frame, logits="logits", columns=["target"]).units())
    batch = next(unit.read(1 << 30, 1 << 20, whole=True))
    assert batch.whole().bad == {1: "logits are null"}
    assert batch.columns["target"].to_pylist() == [0, None, 1]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.parquet", ["top"]),
        ("*/*.parquet", ["a=1/x0", "a=2/y0"]),
        ("**/*.parquet", ["a=1/b/x1", "a=1/x0", "a=2/y0", "top"]),
        ("a=[12]/*0*.par*", ["a=1/x0", "a=2/y0"]),
        ("a=1/**/x?.parquet", ["a=1/b/x1", "a=1/x0"]),
    ],
)
def test_globs_on_filesystems_of_pyarrow(pattern: str, found: list[str], tmp_path: Path) -> None:
    for name in ("a=1/x0", "a=1/b/x1", "a=2/y0", "top"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    paths = _glob_arrow(pafs.LocalFileSystem(), f"{tmp_path}/{pattern}")
    assert sorted(paths) == [f"{tmp_path}/{name}.parquet" for name in found]
