"""What goes through pyarrow is said: by `evaluate`, by `inspect`, and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastxent as fx
from fastxent.io.inspect import describe
from tests.cli.running import Cli

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
TARGET = np.arange(60) % 4


def native(path: Path) -> None:
    pq.write_table(pa.table({"logits": list(X), "target": TARGET}), path)


def deltas(path: Path) -> None:
    blobs = pa.array([row.tobytes() for row in X], pa.binary())
    field = pa.field("logits", pa.binary(), metadata={"dtype": "float32"})
    table = pa.Table.from_arrays([blobs, pa.array(TARGET)], schema=pa.schema([field, ("target", pa.int64())]))
    encodings = {"logits": "DELTA_LENGTH_BYTE_ARRAY", "target": "PLAIN"}
    pq.write_table(table, path, use_dictionary=False, column_encoding=encodings)


def columns(path: Path) -> None:
    pq.write_table(pa.table({**{f"logit_{k}": X[:, k] for k in range(4)}, "target": TARGET}), path)


def struct(path: Path) -> None:
    pq.write_table(pa.table({"out": pa.array([{"logits": row} for row in X]), "target": TARGET}), path)


CASES = [
    (native, "logits", None),
    (deltas, "logits", "encoding DELTA_LENGTH_BYTE_ARRAY"),
    (columns, "logit_*", "one column per class"),
    (struct, "out.logits", "logits inside a struct"),
]


@pytest.mark.parametrize(("write", "logits", "reason"), CASES)
def test_evaluate_says_what_it_could_not_read_itself(
    write: Callable[[Path], None], logits: str, reason: str | None, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    write(path)
    result = fx.evaluate(path, logits=logits)
    assert result.metrics["cross_entropy"].value == pytest.approx(fx.cross_entropy(X, TARGET), rel=1e-12)
    assert result.timing is not None
    assert result.timing["fallbacks"] == ([] if reason is None else [{"file": str(path), "reason": reason}])
    assert fx.EvalResult.from_dict(json.loads(result.to_json())).timing == result.timing
    result.to_html(tmp_path / "a.html")
    code, _, err = cli("eval", path, "--logits", logits, "--verbose")
    assert code == 0
    assert err.count("was read through pyarrow") == (reason is not None)
    assert reason is None or f"{path} was read through pyarrow, which is slower: {reason}\n" in err


def test_the_list_is_bounded(tmp_path: Path) -> None:
    for k in range(30):
        columns(tmp_path / f"{k:02}.parquet")
    timing = fx.evaluate(tmp_path, logits="logit_*").timing
    assert timing is not None
    assert len(timing["fallbacks"]) == 20


def test_transform_says_it_too(tmp_path: Path) -> None:
    columns(tmp_path / "a.parquet")
    timing = fx.transform(tmp_path / "a.parquet", tmp_path / "out.arrow", logits="logit_*").timing
    assert timing is not None
    assert [found["reason"] for found in timing["fallbacks"]] == ["one column per class"]


def test_inspect_names_the_reader(cli: Cli, tmp_path: Path) -> None:
    for write, _, reason in CASES[:3]:
        path = tmp_path / f"{write.__name__}.parquet"
        write(path)
        assert describe(path).readers == {str(path): reason}
        told = "the native reader" if reason is None else f"pyarrow, which is slower: {reason}"
        assert f"read by    {told}\n" in cli("inspect", path)[1]
        storage = json.loads(cli("inspect", path, "--format", "json")[1])["storage"]
        assert storage["fallbacks"] == ([] if reason is None else [{"file": str(path), "reason": reason}])


def test_inspect_of_many_files(tmp_path: Path) -> None:
    native(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet", use_dictionary=False, compression="none")
    assert set(describe(tmp_path).readers.values()) == {None}
    broken = table.set_column(0, "logits", pa.array(X.astype(np.float64).tolist()))
    pq.write_table(broken, tmp_path / "c.parquet")
    assert len(describe(tmp_path).readers) == 2  # c is of another type: `eval` says so


def test_inspect_survives_a_codec_that_does_not_exist(cli: Cli, tmp_path: Path) -> None:
    """pyarrow 26 aborts the process when it is asked for it."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"logits": X[:, 0], "target": TARGET}), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x18\x06logits\x15\x0c", len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    data[at + 9] = 0x3B
    path.write_bytes(data)
    found = describe(path, "logits")
    assert found.codecs == ["number -30"]
    code, _, err = cli("eval", path, "--logits", "logit*")
    assert code == 2
    assert err.startswith("fastxent: ")
    assert str(path) in err
