"""Files that are written again, cut short or replaced while they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent import evaluate
from fastxent.errors import BadRowError, SourceError, Where
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
    reads = (batch for unit in source.units() for batch in unit.read(1 << 30, 400 * 32, whole=True))
    for _ in range(batches):
        next(reads)
    change(path)
    with pytest.raises(SourceError, match=r"a\.parquet: it changed while it was read; run again") as got:
        list(reads)
    assert "\n" not in str(got.value)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, "list")
    units = open_source(path, logits="logits").units()
    first = next(units)
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.parquet: it was removed while it was read"):
        list(first.read(1 << 30, 1 << 20, whole=True))


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


def test_a_bad_row_of_a_file_that_has_changed(tmp_path: Path) -> None:
    """The scorer's errors are raised outside of the block, which their generator is closed in."""
    path = tmp_path / "a"
    path.write_bytes(b"one")
    file = File(str(path), str(path))
    version = Version.of(file)

    def batches() -> Iterator[int]:
        with unchanged(file, version):
            yield 1
            yield 2

    def score(change: bool) -> None:
        with closing(batches()) as found:
            for _ in found:
                if change:
                    path.write_bytes(b"other")
                raise BadRowError(Where("a", None, 0), 0, "NaN logits")

    with closing(batches()) as found:
        next(found)  # closed without an error
    with pytest.raises(BadRowError, match="NaN logits"):
        score(change=False)
    with pytest.raises(SourceError, match=r"a: it changed while it was read") as got:
        score(change=True)
    assert isinstance(got.value.__cause__, BadRowError)


@pytest.mark.parametrize("layout", ["list", "columns"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_bad_row_is_the_fault_of_a_rewritten_file(
    layout: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    write(path, layout)
    table = pq.read_table(path)
    target = table.schema.get_field_index("target")
    pq.write_table(table.set_column(target, "target", pa.array(np.full(4000, 99))), path, row_group_size=1000)
    logits = "logits" if layout == "list" else "l*"
    with pytest.raises(BadRowError):
        evaluate(path, logits=logits, threads=threads)
    seen = BadRowError.__init__

    def rewritten(self: BadRowError, *arguments: object) -> None:
        os.utime(path, ns=(1, 1))
        seen(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BadRowError, "__init__", rewritten)
    with pytest.raises(SourceError, match=r"a\.parquet: it changed while it was read; run again on a finished file"):
        evaluate(path, logits=logits, threads=threads)
