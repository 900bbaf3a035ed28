"""Whole dumps elsewhere: the figures of local files, with few requests, and errors that leave nothing running."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import fastxent as fx
from dumps import lists
from fastxent.errors import SourceError
from fastxent.io.storage.files import find_files
from tests.io.storage.fetching import MB, WAIT

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Slow(MemoryFileSystem):
    """Memory behind a line: requests take a moment, are counted, and some are cut."""

    protocol = "slow"
    store: dict[str, Any] = {}  # noqa: RUF012 - fsspec keeps it on the class
    pseudo_dirs = [""]  # noqa: RUF012
    log: list[tuple[str, int, int]] = []  # noqa: RUF012
    stumbles = False  # the first request for each range fails
    dead: tuple[str, int] | None = None  # a byte of a file: every request for it fails
    latency = 0.001
    lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("slow://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        assert start is not None
        assert end is not None
        with self.lock:
            first = (path, start, end) not in self.log
            self.log.append((path, start, end))
        time.sleep(self.latency)
        if (self.stumbles and first) or (self.dead and path == self.dead[0] and start <= self.dead[1] < end):
            raise ConnectionResetError("the line is dead")
        if path not in self.store:
            raise FileNotFoundError(path)
        return bytes(self.store[path].getbuffer()[start:end])

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        assert "r" not in mode, "a handle of fsspec's own would read ahead in its own way"
        return super()._open(path, mode, **how)


N, C = 3000, 500
X = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
TABLE = pa.table({"logits": lists(X, sized=True), "target": np.arange(N) % C})
LISTS = TABLE.set_column(0, "logits", lists(X))


def npy(values: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, values)
    return sink.getvalue()


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **({"use_dictionary": False, "compression": "none"} | options))
    return sink.getvalue()


def ipc(make: Callable[..., Any], compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with make(sink, TABLE.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
        out.write_table(TABLE, max_chunksize=500)
    return sink.getvalue()


def columns() -> bytes:
    return parquet(pa.table({**{f"logits_{j}": X[:, j] for j in range(20)}, "target": np.arange(N) % 20}))


DUMPS: dict[str, Callable[[], dict[str, bytes]]] = {
    "list": lambda: {"a.parquet": parquet(LISTS)},
    "fixed": lambda: {"a.parquet": parquet(TABLE)},
    "row groups": lambda: {"a.parquet": parquet(TABLE, row_group_size=400, compression="zstd")},
    "files": lambda: {f"k={k}/a.parquet": parquet(TABLE.slice(k * 1000, 1000)) for k in range(3)},
    "columns": lambda: {"a.parquet": columns()},
    "arrow": lambda: {"a.arrow": ipc(pa.ipc.new_file)},
    "arrow lz4": lambda: {"a.arrow": ipc(pa.ipc.new_file, "lz4")},
    "stream": lambda: {"a.arrows": ipc(pa.ipc.new_stream)},
    "npy": lambda: {"logits.npy": npy(X), "target.npy": npy(np.arange(N) % C)},
}
LOGITS = {"columns": "logits_*"}


@pytest.fixture
def slow() -> Iterator[type[Slow]]:
    fsspec.register_implementation("slow", Slow, clobber=True)
    Slow.store.clear()
    Slow.stumbles = False
    Slow.dead = None
    Slow.log.clear()
    yield Slow
    Slow.store.clear()


def put(dump: str) -> int:
    filesystem, size = fsspec.filesystem("slow"), 0
    for name, content in DUMPS[dump]().items():
        filesystem.pipe_file(f"/dump/{name}", content)
        size += len(content)
    return size


@pytest.mark.parametrize("dump", DUMPS)
def test_every_format_gives_the_figures_of_local_files(dump: str, slow: type[Slow], tmp_path: Any) -> None:
    size = put(dump)
    for name, content in DUMPS[dump]().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    logits = LOGITS.get(dump, "logits")
    here = fx.evaluate(tmp_path, logits=logits, threads=1)
    slow.log.clear()
    there = fx.evaluate("slow://dump", logits=logits, threads=2)
    assert (there.rows, there.metrics) == (here.rows, here.metrics)
    read = sum(end - start for _, start, end in slow.log)
    assert read < 1.3 * size + 3 * MB, "more than the file is fetched"
    assert len(slow.log) < 60
    assert max(end - start for _, start, end in slow.log) <= 4 * MB
    # cut lines change nothing
    slow.log.clear()
    slow.stumbles = True
    assert fx.evaluate("slow://dump", logits=logits, threads=2).metrics == here.metrics
    assert len(slow.log) > len(set(slow.log)), "no request failed"
    slow.stumbles = False
    fx.transform("slow://dump", tmp_path / "o.arrow", logits=logits)
    fx.convert("slow://dump", tmp_path / "o.parquet", logits=logits)
    assert fx.evaluate(tmp_path / "o.parquet").metrics == here.metrics


@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9])
def test_a_byte_that_stays_unreadable_is_one_error_and_no_thread_is_left(
    dump: str, place: float, slow: type[Slow]
) -> None:
    put(dump)
    largest = max(slow.store, key=lambda path: slow.store[path].getbuffer().nbytes)
    slow.dead = largest, int(place * slow.store[largest].getbuffer().nbytes)
    with pytest.raises(
        SourceError, match=r"^cannot read bytes .* of slow://dump/.* tried 4 times: the line is dead"
    ) as got:
        fx.evaluate("slow://dump", logits=LOGITS.get(dump, "logits"), threads=2)
    assert "\n" not in str(got.value)


def test_a_footer_is_fetched_once_however_many_units_read_it(slow: type[Slow]) -> None:
    size = put("row groups")
    fx.evaluate("slow://dump", threads=2)
    assert sum(end == size for _, _, end in slow.log) == 1
    assert len(slow.log) == len(set(slow.log))


def test_many_files_are_looked_at_together(slow: type[Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    put("files")
    together = threading.Barrier(3)
    fetch = slow.cat_file

    def first_together(self: Slow, path: str, start: int, end: int) -> bytes:
        if start == 0 and len(slow.log) < 3:
            together.wait(WAIT)  # breaks where one file waits for another
        return fetch(self, path, start, end)

    monkeypatch.setattr(slow, "cat_file", first_together)
    result = fx.evaluate("slow://dump", by="k")
    assert list(result.slices["k"]) == [0, 1, 2]


def test_a_file_that_is_gone_after_it_was_found(slow: type[Slow]) -> None:
    put("fixed")
    (file,) = find_files("slow://dump/a.parquet")
    slow.store.clear()
    with (
        pytest.raises(SourceError, match=r"^cannot read slow://dump/a.parquet: no such file or folder"),
        file.open() as handle,
    ):
        handle.read(10)
