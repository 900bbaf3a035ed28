"""A batch costs its own rows: never the row group, never the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS, CLASSES = 20_000, 1_000  # 80 MB of float32
MEGABYTES = 40

READ = """
import sys
from fastxent.io.source import open_source
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
def read(path):
    rows, total = 0, 0.0
    for unit in open_source(path, logits="logits", columns=["target"]).units():
        for batch in unit.read(1 << 30, 4 << 20, whole=True):
            rows += len(batch.columns["target"])
            total += float(batch.whole().values.sum(dtype="f8"))
    return rows, total
read(sys.argv[1])  # few rows, for which what is compiled and imported takes memory
before = peak()
print(*read(sys.argv[2]), (peak() - before) >> 10)
"""


def table(rows: int) -> pa.Table:
    logits = pa.array(np.arange(rows * CLASSES, dtype=np.float32) % 7)
    offsets = pa.array(np.arange(0, rows * CLASSES + 1, CLASSES, dtype=np.int32))
    return pa.table({"logits": pa.ListArray.from_arrays(offsets, logits), "target": np.arange(rows)})


def write_parquet(path: Path, rows: pa.Table) -> None:
    pq.write_table(rows, path, row_group_size=ROWS, use_dictionary=False, compression="none")


def write_file(path: Path, rows: pa.Table) -> None:
    with pa.ipc.new_file(str(path), rows.schema) as out:
        out.write_batch(rows.to_batches()[0])


def write_stream(path: Path, rows: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), rows.schema) as out:
        out.write_table(rows, max_chunksize=1_000)


def write_npy(path: Path, rows: pa.Table) -> None:
    path.mkdir()
    np.save(path / "logits.npy", rows["logits"].chunk(0).values.to_numpy().reshape(-1, CLASSES))
    np.save(path / "target.npy", rows["target"].to_numpy())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("write", [write_parquet, write_file, write_stream, write_npy])
def test_memory_stays_far_below_the_file(write: Callable[[Path, pa.Table], None], tmp_path: Path) -> None:
    write(tmp_path / "few", table(10))
    write(tmp_path / "dump", table(ROWS))
    paths = [str(tmp_path / name) for name in ("few", "dump")]
    done = subprocess.run([sys.executable, "-c", READ, *paths], check=True, capture_output=True, text=True, timeout=300)
    rows, total, peak = done.stdout.split()
    assert int(rows) == ROWS
    assert float(total) == float((np.arange(ROWS * CLASSES) % 7).sum())
    assert int(peak) < MEGABYTES, f"{peak} MB for batches of 4 MB"
