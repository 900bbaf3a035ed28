"""Page headers: what is parsed, what is stepped over, and that nothing else passes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastxent.io.parquet import thrift
from tests.io.parquet.handmade import struct, varint, zigzag

V1 = {1: 0, 2: 1000, 3: 900, 4: -5, 5: {1: 24, 2: 0, 3: 3, 4: 3}}
V2 = {1: 3, 2: 1000, 3: 900, 8: {1: 24, 2: 1, 3: 8, 4: 9, 5: 10, 6: 20, 7: False}}


def parse(data: bytes) -> tuple[int, np.ndarray]:
    slots = thrift.new_header()
    return thrift.read_page_header(np.frombuffer(data, np.uint8), slots), slots


def test_data_page() -> None:
    data = struct(V1)
    size, slots = parse(data + b"behind")
    assert size == len(data)
    assert slots[: thrift.NUM_NULLS].tolist() == [0, 1000, 900, -5, 24, 0, 3, 3]
    assert slots[thrift.NUM_NULLS] == slots[thrift.IS_COMPRESSED] == thrift.MISSING


def test_data_page_v2_and_dictionary() -> None:
    size, slots = parse(struct(V2))
    assert size > 0
    assert slots[thrift.CRC] == thrift.MISSING
    assert slots[thrift.NUM_VALUES : thrift.ENCODING + 1].tolist() == [24, 9]
    assert slots[thrift.NUM_NULLS : thrift.SUBHEADER].tolist() == [1, 8, 10, 20, 0]
    size, slots = parse(struct({1: 2, 2: 8, 3: 8, 7: {1: 2, 2: 0, 3: True}}))
    assert size > 0
    assert slots[thrift.NUM_VALUES : thrift.ENCODING + 1].tolist() == [2, 0]


def test_statistics_and_unknown_fields_are_stepped_over() -> None:
    statistics = {1: b"x" * 300, 2: b"", 3: 1 << 40, 7: True, 8: False, 20: {1: {2: b"deep"}}}
    size, slots = parse(struct({**V1, 5: {**V1[5], 5: statistics}, 400: 7}))  # type: ignore[dict-item]
    assert size > 0
    assert slots[thrift.NUM_VALUES] == 24
    tail = struct(V1)[:-1]
    for unknown in (
        b"\x43\x7f",  # a byte
        b"\x44" + zigzag(-300),
        b"\x47" + bytes(8),  # a double
        b"\x49\x25" + zigzag(3) + zigzag(-4),  # a list of two i32
        b"\x49\xf8" + varint(16) + (varint(2) + b"ab") * 16,  # a long list of binaries
        b"\x4a\x37" + bytes(24),  # a set of doubles
        b"\x49\x2c" + struct({1: 5}) + struct({2: b"ab"}),  # a list of structs
        b"\x49\x29\x12\x01\x02",  # a list of lists of bools
    ):
        assert parse(tail + unknown + b"\0")[0] == len(tail + unknown) + 1


def test_every_cut_asks_for_more() -> None:
    data = struct({**V1, 5: {**V1[5], 5: {1: b"min", 2: b"max"}}})  # type: ignore[dict-item]
    for end in range(len(data)):
        assert parse(data[:end])[0] == thrift.NEED_MORE


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct({1: 7, 2: 1, 3: 1}), id="type that does not exist"),
        pytest.param(struct({1: 0, 2: 1, 3: 1}), id="no subheader"),
        pytest.param(struct({1: 0, 2: 1, 3: 1, 8: V2[8]}), id="subheader of another type"),
        pytest.param(struct({**V1, 2: -1}), id="negative size"),
        pytest.param(struct({**V1, 2: 1 << 31}), id="size beyond 32 bits"),
        pytest.param(struct({**V1, 5: {1: -1, 2: 0, 3: 3, 4: 3}}), id="negative count"),
        pytest.param(struct({**V1, 5: {1: 1, 2: 0, 3: 3}}), id="missing encoding"),
        pytest.param(struct({**V2, 8: {1: 24, 2: 1, 3: 8, 4: 9, 5: 10}}), id="missing length"),
        pytest.param(struct({2: 1, 3: 1, 5: V1[5]}), id="no type"),
        pytest.param(struct({**V1, 3: True}), id="size as bool"),
        pytest.param(struct({**V1, 5: 3}), id="subheader as number"),
        pytest.param(struct({**V1, 8: V2[8]}), id="two subheaders"),
        pytest.param(b"\x15\x00\x05\x02\x00", id="type twice"),
        pytest.param(struct(V1)[:-1] + b"\x4b\x00\0", id="a map"),
        pytest.param(struct(V1)[:-1] + b"\x49\x1f\x00\0", id="a list of type 15"),
        pytest.param(struct(V1)[:-1] + b"\x4d\0", id="type 13"),
        pytest.param(b"\x15" + b"\xff" * 11, id="endless varint"),
        pytest.param(struct(V1)[:-1] + b"\x48" + varint(1 << 40), id="huge binary"),
        pytest.param(b"\x1c" * 40, id="deep nesting"),
        pytest.param(b"\x05" + zigzag(-3) + b"\0\0", id="negative field"),
        pytest.param(b"\0", id="empty"),
    ],
)
def test_refused(data: bytes) -> None:
    assert parse(data)[0] == thrift.BROKEN


def test_headers_of_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"x": np.arange(5000.0)})
    pq.write_table(table, path, data_page_size=4096, write_page_checksum=True, use_dictionary=False, compression="zstd")
    info = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = path.read_bytes()
    at, values = info.data_page_offset, 0
    while at < info.data_page_offset + info.total_compressed_size:
        size, slots = parse(data[at:])
        assert size > 0
        at += size + int(slots[thrift.COMPRESSED])
        values += int(slots[thrift.NUM_VALUES])
    assert at == info.data_page_offset + info.total_compressed_size
    assert values == 5000


def test_random_bytes_never_reach_behind_the_buffer() -> None:
    rng = random.Random(0)
    base = struct(V1)
    for _ in range(20_000):
        data = bytearray(base if rng.random() < 0.7 else rng.randbytes(rng.randint(0, 60)))
        for _ in range(rng.randint(0, 4)):
            if data:
                data[rng.randrange(len(data))] = rng.choice([0, 1, 0x15, 0x1C, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        size, slots = parse(bytes(data))
        assert size in (thrift.NEED_MORE, thrift.BROKEN) or 0 < size <= len(data)
        if size > 0:
            assert slots[thrift.TYPE] in range(4)
            assert slots[thrift.COMPRESSED] >= 0
