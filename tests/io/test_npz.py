"""``.npz`` files: stored and compressed members, and archives that are damaged."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastxent as fx
from fastxent.cli.program import run
from fastxent.io.arrays import ForwardUnit
from fastxent.io.source import open_source
from tests.fuzzing import short_run

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(700, 6)).astype(np.float32), RNG.integers(0, 6, 700)
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.fixture(params=SAVE)
def save(request: pytest.FixtureRequest) -> Any:
    return SAVE[request.param]


def test_members_are_columns(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "preds.npz"
    save(path, logits=X, target=Y, group=Y % 3, count=np.int64(3), objects=np.array([None] * 700))
    expected = fx.evaluate({"logits": X, "target": Y, "group": Y % 3}, by="group")
    for how in ({}, {"threads": 2}, {"memory": "1MB"}):
        assert fx.evaluate(path, by="group", **how).state == expected.state
    units = [pickle.loads(pickle.dumps(unit)) for unit in fx.plan(path, by="group")]  # noqa: S301 - our own
    assert fx.merge_states([unit.run() for unit in units]).result().metrics == expected.metrics


def test_rows_come_in_any_order_and_size(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save(path, logits=X.astype(">f8"), target=Y.astype(np.uint8))
    for whole in (False, True):
        opened = open_source(path, logits="logits", columns=["target"])
        for unit in opened.units():
            assert isinstance(unit, ForwardUnit) == (save is np.savez_compressed)
            for _ in range(2):  # from the beginning again
                batches = [(b, [block.values for block in b.blocks]) for b in unit.read(90, 400, whole)]
                assert np.array_equal(np.concatenate([v for _, blocks in batches for v in blocks]), X)
                assert np.array_equal(pa.concat_arrays([b.columns["target"] for b, _ in batches]).to_numpy(), Y)


def test_fortran_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", logits=np.asfortranarray(X), target=Y)
    assert fx.evaluate(tmp_path / "a.npz").state == fx.evaluate({"logits": X, "target": Y}).state
    np.savez_compressed(tmp_path / "b.npz", logits=np.asfortranarray(X), target=Y)
    with pytest.raises(fx.SourceError, match=r"'logits\.npy': compressed arrays in Fortran order"):
        fx.evaluate(tmp_path / "b.npz")


def test_compare_and_convert(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", logits=X, target=Y, id=np.arange(700))
    order = RNG.permutation(700)
    np.savez(tmp_path / "b.npz", logits=X[order] * 2, target=Y[order], id=order)
    found = fx.compare(tmp_path / "a.npz", tmp_path / "b.npz", on="id")
    expected = fx.compare({"logits": X, "target": Y}, {"logits": X * 2, "target": Y})
    assert found.metrics == expected.metrics
    by_position = fx.compare(tmp_path / "a.npz", {"logits": X * 2, "target": Y})
    assert by_position.metrics == expected.metrics
    fx.convert(tmp_path / "a.npz", tmp_path / "a.parquet")
    assert fx.evaluate(tmp_path / "a.parquet").rows.used == 700


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            archive.writestr(name, data)
    return place.getvalue()


def npy(array: np.ndarray) -> bytes:
    place = io.BytesIO()
    np.save(place, array, allow_pickle=True)
    return place.getvalue()


LOGITS, TARGET = npy(X), npy(Y)
HEADER = b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 9000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(("logits.npy", LOGITS), ("logits.npy", LOGITS)), "it holds 'logits' twice"),
        (zipped(), "holds no arrays"),
        (zipped(("unnamed", LOGITS)).replace(b"unnamed", b"\0nnamed"), r"member '' is not a \.npy file"),
        (zipped(("logits.npy", LOGITS), ("a.txt", b"")), r"member 'a\.txt' is not a \.npy file"),
        (zipped(("logits.npy", LOGITS[:-1])), r"'logits\.npy': it should hold 16800 bytes of values, but holds 16799"),
        (zipped(("logits.npy", LOGITS + b"x")), "1 bytes follow its array"),
        (zipped(("logits.npy", b"x" * 300)), r"'logits\.npy': it is not a \.npy file"),
        (zipped(("logits.npy", HEADER)), "its header claims 2147483647 bytes"),
        (zipped(("logits.npy", npy(np.array([None])))), "it holds Python objects"),
        (zipped(("logits.npy", LOGITS), method=zipfile.ZIP_LZMA), "its compression is not supported"),
        (zipped(("logits.npy", LOGITS))[:-30], "File is not a zip file"),
        (zipped(("logits.npy", LOGITS))[3000:], "unknown format"),
    ],
)
def test_archives_that_are_damaged(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(fx.SourceError, match=message) as error:
        fx.evaluate(tmp_path / "x.npz")
    assert "\n" not in str(error.value)


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    data = bytearray(zipped(("logits.npy", LOGITS), ("target.npy", TARGET), method=zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\x01\x02") + 16
    data[at] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(fx.SourceError, match=r"x\.npz.*: Bad CRC-32 for file 'logits\.npy'"):
        fx.evaluate(tmp_path / "x.npz")


def test_inspect_ends_in_a_line_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", logits=X, labels=Y)
    assert run(["inspect", str(tmp_path / "x.npz")]) == 0
    line = f"fastxent eval {tmp_path / 'x.npz'} --target labels"
    assert capsys.readouterr().out.endswith(f"run:\n  {line}\n")
    assert run(line.split()[1:]) == 0


def test_lists_of_structs_as_duckdb_wrote_arrays(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    child = pa.StructArray.from_arrays([pa.array(X.reshape(-1))], ["element"])
    logits = pa.ListArray.from_arrays(pa.array(np.arange(0, 700 * 6 + 1, 6), pa.int32()), child)
    table = pa.table({"logits": logits, "target": Y})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=300)
    expected = fx.evaluate({"logits": X, "target": Y})
    assert fx.evaluate(tmp_path / "x.parquet").state == expected.state
    assert fx.evaluate(table.slice(5)).state == fx.evaluate({"logits": X[5:], "target": Y[5:]}).state
    holes = pa.StructArray.from_arrays([pa.array(X[:2].reshape(-1))], ["x"], mask=pa.array([k == 7 for k in range(12)]))
    rows = pa.table({"logits": pa.ListArray.from_arrays(pa.array([0, 6, 12], pa.int32()), holes), "target": Y[:2]})
    with pytest.raises(fx.BadRowError, match="row 1: logits hold a null, at class 1"):
        fx.evaluate(rows)


def test_mutated_archives_never_crash_hang_or_give_more_rows() -> None:
    counts = short_run("tests.io.fuzz_npz", 300, bounds=False)
    assert min(counts["refused"], counts["read"]) > 50
