"""Bytes by range: the same from a map and from reads, and never beyond what there is."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

import fastxent as fx
from fastxent.errors import SourceError
from fastxent.io.storage import local as ranges, remote
from fastxent.io.storage.local import LocalRanges
from fastxent.io.storage.remote import ReadRanges, RemoteBytes
from tests.io.held import held


@pytest.fixture
def big(tmp_path: Path) -> tuple[Path, bytes]:
    data = random.Random(0).randbytes(3_000_001)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    return path, data


def test_any_range(big: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = big
    monkeypatch.setattr(ranges, "MOST_KEPT", 50_000)
    monkeypatch.setattr(remote, "_BLOCK", 30_000)
    monkeypatch.setattr(remote, "_LEAST", 1000)
    rng = random.Random(1)
    with contextlib.ExitStack() as stack:
        sources = [LocalRanges(str(path), 1000, 2_999_000), held(data, "a", 1000, 2_999_000)]
        for ahead, whole in ((100_000, True), (5000, True), (100_000, False), (0, False)):
            fetch = RemoteBytes(pafs.LocalFileSystem(), str(path)).fetch
            sources.append(ReadRanges(fetch, "a", 1000, 2_999_000, ahead, whole=whole))
        for source in sources:
            stack.callback(source.close)
        kept = []
        offset = 1000
        for _ in range(300):
            length = rng.choice([0, 1, 100, 20_000, 200_000])
            offset = offset + length if rng.random() < 0.8 else rng.randrange(1000, 2_999_001)
            offset = min(offset, 2_999_000)
            length = min(length, 2_999_000 - offset)
            for source in sources:
                view = source.view(offset, length)
                assert view.tobytes() == data[offset : offset + length]
                assert not view.flags.writeable
                kept.append((view, offset, length))
                source.passed(offset)
        for source in sources:
            source.close()
        for view, at, size in kept:  # what is held stays as it was, whatever was passed or closed
            assert view.tobytes() == data[at : at + size]


def test_ranges_outside_are_refused(big: tuple[Path, bytes]) -> None:
    path, data = big
    for source in (LocalRanges(str(path), 10, 100), held(data, "a", 10, 100)):
        with closing(source):
            for offset, length in ((9, 1), (10, 91), (101, 0), (100, 1), (50, -1), (-5, 20)):
                with pytest.raises(SourceError, match="lie outside"):
                    source.view(offset, length)


@pytest.mark.parametrize(("begin", "end"), [(0, 3_000_002), (-1, 5), (7, 6)])
def test_a_file_shorter_than_its_footer_says(big: tuple[Path, bytes], begin: int, end: int) -> None:
    with pytest.raises(SourceError, match="incomplete or damaged"):
        LocalRanges(str(big[0]), begin, end)


def test_a_file_that_shrinks_while_it_is_read(big: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = big
    with closing(LocalRanges(str(path))) as source:
        source.view(0, 100)
        os.truncate(path, 1_000_000)
        with pytest.raises(SourceError, match="became shorter"):
            source.view(2_000_000, 100)
    monkeypatch.setattr(remote, "_DELAYS", ())
    with pytest.raises(
        SourceError, match=r"cannot read bytes 999999 to .* of a, tried 1 times: the server sent 1 bytes"
    ):
        held(path.read_bytes(), "a", 0, 3_000_001).view(999_999, 2)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        LocalRanges(str(tmp_path / "none"))


def test_an_empty_range(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    with closing(LocalRanges(str(path))) as source:
        assert source.view(0, 0).size == 0


def test_bytes_into_several_pieces_of_memory(big: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """`scatter`, also where the system gives fewer bytes at a time than were asked for."""
    path, data = big
    rng, preadv = random.Random(2), os.preadv

    def some(fd: int, rooms: list[memoryview], offset: int) -> int:
        return preadv(fd, [rooms[0][: rng.choice([1, 7, 1000])]] if rng.random() < 0.5 else rooms[:2], offset)

    with closing(LocalRanges(str(path), 10, 2_000_000)) as source:
        for short in (False, True):
            if short:
                monkeypatch.setattr(os, "preadv", some)
            for _ in range(30):
                memory = [bytearray(rng.choice([0, 1, 10, 5000])) for _ in range(rng.randint(1, 9))]
                offset = rng.randrange(10, 1_900_000)
                rooms = [memoryview(piece) for piece in memory]
                source.scatter(offset, rooms)
                assert b"".join(memory) == data[offset : offset + sum(map(len, memory))]
        for offset in (9, 1_999_000, -1):
            with pytest.raises(SourceError, match="outside the column chunk"):
                source.scatter(offset, [memoryview(bytearray(2000))])


def test_a_file_that_became_shorter_is_an_error_not_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(10_000))
    with closing(LocalRanges(str(path))) as source:
        os.truncate(path, 5000)
        with pytest.raises(SourceError, match="became shorter"):
            source.scatter(4000, [memoryview(bytearray(500)), memoryview(bytearray(2000))])


# ---- read-ahead ------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """[begin, end) of all that the system is asked to fetch."""
    found: list[tuple[int, int]] = []

    def fadvise(fd: int, offset: int, length: int, advice: int) -> None:
        assert advice == 3
        assert 0 < length <= ranges._ASKED
        found.append((offset, offset + length))

    monkeypatch.setattr(os, "posix_fadvise", fadvise, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    monkeypatch.setattr(ranges, "_AHEAD", 400_000)
    monkeypatch.setattr(ranges, "_SURE", -1.0)  # no read is fast enough
    return found


def test_what_is_read_next_has_been_asked_for(big: tuple[Path, bytes], asked: list[tuple[int, int]]) -> None:
    path, data = big
    rng = random.Random(3)
    with closing(LocalRanges(str(path), 0, None, ahead=2_500_000)) as source:
        offset = 1000
        for turn in range(1000):
            length = rng.randrange(1, 40_000)
            memory = bytearray(length)
            source.scatter(offset, [memoryview(memory)])
            assert memory == data[offset : offset + length]
            offset += length
            if turn:  # the first was not known to be slow
                assert asked[-1][1] == max(min(offset + 400_000, 2_500_000), asked[-1][1]) <= offset + 400_000
            if offset > 2_900_000:
                break
    assert all(before[1] == after[0] for before, after in itertools.pairwise(asked))  # all of it, and once
    assert asked[0][0] < 1000 + 80_000
    assert asked[-1][1] == 2_500_000


def test_a_file_in_memory_is_not_asked_for(
    big: tuple[Path, bytes], asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_SURE", 1e9)
    with closing(LocalRanges(str(big[0]), ahead=3_000_001)) as source:
        for at in range(0, 3_000_000, 100_000):
            source.view(at, 100_000)
    assert not asked


@pytest.mark.parametrize("system", ["has no advice", "takes no advice"])
def test_systems_without_read_ahead(big: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    def refused(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    if system == "has no advice":
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fadvise", refused, raising=False)
    monkeypatch.setattr(ranges, "_SURE", -1.0)
    path, data = big
    with closing(LocalRanges(str(path), ahead=3_000_001)) as source:
        for at in range(0, 3_000_000, 100_000):
            assert source.view(at, 100_000).tobytes() == data[at : at + 100_000]


def test_an_evaluation_asks_for_its_logits_and_no_more(
    tmp_path: Path, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_AHEAD", 5_000_000)
    rng = np.random.default_rng(0)
    values = pa.array(rng.normal(size=150 * 20_000).astype(np.float32))
    table = pa.table(
        {
            "other": [bytes(40_000)] * 150,
            "logits": pa.FixedSizeListArray.from_arrays(values, 20_000),
            "target": np.arange(150),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_dictionary=False, compression="none", data_page_size=100_000)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    begin, size = column.data_page_offset, column.total_compressed_size
    found = fx.evaluate(path).metrics["cross_entropy"].value
    assert min(asked)[0] > begin
    assert max(end for _, end in asked) == begin + size
    assert sum(end - begin for begin, end in asked) > size // 2
    assert found == fx.evaluate(table).metrics["cross_entropy"].value
