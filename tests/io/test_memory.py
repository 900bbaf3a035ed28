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

ROWS, CLASSES = 50_000, 1_000  # 200 MB of float32

READ = """
import sys
from fastxent.io.source import open_source
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
source = open_source(sys.argv[1], logits="logits", columns=["target"])
before, rows, total = peak(), 0, 0.0
for unit in source.units():
    for batch in unit.read(1 << 30, 4 << 20, whole=True):
        rows += len(batch.columns["target"])
        total += float(batch.whole().values.sum(dtype="f8"))
print(rows, total, (peak() - before) >> 10)
"""


def table() -> pa.Table:
    logits = pa.array(np.arange(ROWS * CLASSES, dtype=np.float32) % 7)
    offsets = pa.array(np.arange(0, ROWS * CLASSES + 1, CLASSES, dtype=np.int32))
    return pa.table({"logits": pa.ListArray.from_arrays(offsets, logits), "target": np.arange(ROWS)})


def write_parquet(path: Path) -> None:
    pq.write_table(table(), path, row_group_size=ROWS, use_dictionary=False, compression="none")


def write_file(path: Path) -> None:
    with pa.ipc.new_file(str(path), table().schema) as out:
        out.write_batch(table().to_batches()[0])


def write_stream(path: Path) -> None:
    with pa.ipc.new_stream(str(path), table().schema) as out:
        out.write_table(table(), max_chunksize=1_000)


def write_npy(path: Path) -> None:
    path.mkdir()
    np.save(path / "logits.npy", table()["logits"].chunk(0).values.to_numpy().reshape(ROWS, CLASSES))
    np.save(path / "target.npy", np.arange(ROWS))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("write", "megabytes"),
    [(write_parquet, 130), (write_file, 90), (write_stream, 60), (write_npy, 60)],
)
def test_memory_stays_far_below_the_file(write: Callable[[Path], None], megabytes: int, tmp_path: Path) -> None:
    write(tmp_path / "dump")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "dump")], check=True, capture_output=True, text=True, timeout=300
    )
    rows, total, peak = done.stdout.split()
    assert int(rows) == ROWS
    assert float(total) == float((np.arange(ROWS * CLASSES) % 7).sum())
    assert int(peak) < megabytes, f"{peak} MB for batches of 4 MB"
