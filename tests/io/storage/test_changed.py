"""Files that are written again, cut short or replaced while they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.errors import SourceError
from fastxent.io.source import open_source
from fastxent.io.storage.files import File
from fastxent.io.storage.identity import Version, unchanged

X = np.random.default_rng(0).normal(size=(4000, 8)).astype(np.float32)


def write(path: Path, layout: str, seed: int = 0) -> None:
    target = np.random.default_rng(seed).integers(0, 8, 4000)
    logits = {"list": {"logits": list(X)}, "columns": {f"l{k}": X[:, k] for k in range(8)}}[layout]
    pq.write_table(pa.table({**logits, "target": target}), path, row_group_size=1000, use_dictionary=False)


def rewrite(path: Path) -> None:
    other = path.with_name("other")
    write(other, "list", seed=1)
    data = other.read_bytes()
    with path.open("r+b") as file:  # the same inode
        file.write(data)


def replace(path: Path) -> None:
    """Another file of the same size and time under the same name."""
    status = path.stat()
    other = path.with_name("other")
    shutil.copy(path, other)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


@pytest.mark.parametrize("change", [rewrite, replace, truncate])
@pytest.mark.parametrize("layout", ["list", "columns"])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_mixture_of_two_versions_is_never_read(
    change: Callable[[Path], None], layout: str, batches: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    write(path, layout)
    source = open_source(path, logits="logits" if layout == "list" else "l*", columns=["target"])
    reads = (batch for unit in source.units() for batch in unit.batches(400 * 32))
    for _ in range(batches):
        next(reads)
    change(path)
    with pytest.raises(SourceError, match=r"a\.parquet changed while it was read; run again") as got:
        list(reads)
    assert "\n" not in str(got.value)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, "list")
    units = open_source(path, logits="logits").units()
    first = next(units)
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.parquet was removed while it was read"):
        list(first.batches(1 << 20))


def test_only_what_has_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    file = File(str(path), str(path))
    version = Version.of(file)
    with unchanged(file, version):
        path.read_bytes()
    with pytest.raises(SourceError, match=r"^damaged$"), unchanged(file, version):
        raise SourceError("damaged")
    with pytest.raises(KeyError), unchanged(file, version):
        path.write_bytes(b"other")
        raise KeyError
