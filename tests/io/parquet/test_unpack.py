"""What decodes bytes of pages, each against a plain one: snappy, indices of a dictionary, levels of equal lists."""

import contextlib
import random

import numpy as np
import pyarrow as pa
import pytest

from fastxent.io.parquet import levels as lv
from fastxent.io.parquet.snappy import decompress_snappy, snappy_size
from fastxent.io.parquet.unpack import expand
from fastxent.io.storage.buffers import read_only

GUARD = 64  # bytes around what a kernel may write


def guarded(size):
    memory = np.full(size + 2 * GUARD, 171, np.uint8)
    return memory, memory[GUARD : GUARD + size]


def hybrid(rng, width, n):
    """(the bytes of runs of both kinds, the numbers in them), at least n."""
    data, numbers = bytearray(), []
    while len(numbers) < n:
        if rng.random() < 0.5:
            groups = rng.choice([0, 1, 1, 2, 5, 40, 70])
            header, chosen = groups << 1 | 1, [rng.randrange(1 << width) for _ in range(8 * groups)]
            packed = sum(number << k * width for k, number in enumerate(chosen))
            body = packed.to_bytes(groups * width, "little")
        else:
            count, number = rng.choice([0, 1, 7, 8, 9, 63, 64, 500]), rng.randrange(1 << width)
            header, chosen, body = count << 1, [number] * count, number.to_bytes((width + 7) // 8, "little")
        while header > 127:
            data.append(header & 127 | 128)
            header >>= 7
        data.append(header)
        data += body
        numbers += chosen
    return bytes(data), numbers


def cursor_at(data, width):
    cursor = np.zeros(8, np.int64)
    cursor[[lv.END, lv.WIDTH]] = len(data), width
    return cursor


@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 8, 9, 12, 19, 32])
def test_indices_are_looked_up_in_any_pieces(width):
    rng = random.Random(width)
    for _ in range(40):
        data, numbers = hybrid(rng, width, 300)
        table = np.random.default_rng(width).permutation(1 << min(width, 19)).astype(np.uint32)
        buf, cursor = read_only(np.frombuffer(data, np.uint8)), cursor_at(data, width)
        memory, raw = guarded(4 * len(numbers))
        out, at, found = raw.view(np.uint32), 0, 0
        while at < len(out) and not found:
            k = min(len(out) - at, rng.choice([1, 3, 8, 100, 1000]))
            found = expand(buf, cursor, table, out[at : at + k])
            at += k
        assert (memory[:GUARD] == 171).all()
        assert (memory[-GUARD:] == 171).all()
        assert found == (width == 32)  # of so many no table is as long
        if width < 32:
            np.testing.assert_array_equal(out, table[numbers])


@pytest.mark.parametrize("width", [1, 3, 8, 11])
def test_runs_that_end_early_and_indices_behind_the_table_are_told(width):
    rng = random.Random(width)
    for _ in range(200):
        data, numbers = hybrid(rng, width, 100)
        out, buf = np.zeros(len(numbers), np.uint32), read_only(np.frombuffer(data, np.uint8))
        table = np.arange(max(numbers), dtype=np.uint32) if max(numbers) else np.zeros(1, np.uint32)
        if max(numbers):
            assert expand(buf, cursor_at(data, width), table, out) == 1
        cut = rng.randrange(len(data))
        whole = np.arange(1 << width, dtype=np.uint32)
        found = expand(buf[:cut], cursor_at(data[:cut], width), whole, out)
        assert found == -1 or out.tolist() == numbers  # what was cut away may be an empty run
        if cut < len(data) // 2:
            assert found == -1


def texts(rng):
    """Bytes that compress by literals and copies of all lengths and distances."""
    pieces, size = [], rng.choice([1, 10, 90, 1000, 70_000, 200_000])
    while sum(map(len, pieces)) < size:
        how = rng.random()
        if how < 0.3:
            pieces.append(rng.randbytes(rng.choice([1, 4, 17, 60, 61, 300, 70_000])))
        elif how < 0.6:
            pieces.append(rng.randbytes(rng.randint(1, 20)) * rng.randint(1, 40))
        else:
            before = b"".join(pieces[-3:])
            pieces.append(before[rng.randrange(len(before) + 1) :][: rng.randint(1, 90)])
    return b"".join(pieces)[:size]


def test_snappy_is_decompressed_as_arrow_does_it():
    rng, codec = random.Random(1), pa.Codec("snappy")
    for _ in range(150):
        text = texts(rng)
        body = read_only(np.frombuffer(codec.compress(text, asbytes=True), np.uint8))
        memory, out = guarded(len(text))
        assert decompress_snappy(body, out)
        assert out.tobytes() == text
        assert (memory[:GUARD] == 171).all()
        assert (memory[-GUARD:] == 171).all()
        assert not decompress_snappy(body, out[:-1])
        assert not decompress_snappy(body[:-1], out)


def test_damaged_snappy_is_refused_where_arrow_refuses_it():
    rng, codec, outcomes = random.Random(2), pa.Codec("snappy"), set()
    for _ in range(4000):
        text = texts(rng)[:400]
        body = bytearray(codec.compress(text, asbytes=True))
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(len(body))
            body[at] = rng.choice([0, 1, 2, 3, 252, 255, rng.randrange(256), body[at] ^ 1 << rng.randrange(8)])
        memory, out = guarded(len(text))
        found = decompress_snappy(read_only(np.frombuffer(bytes(body), np.uint8)), out)
        assert (memory[:GUARD] == 171).all()
        assert (memory[-GUARD:] == 171).all()
        due = None
        if snappy_size(np.frombuffer(body, np.uint8))[0] == len(text):
            with contextlib.suppress(OSError):
                due = codec.decompress(bytes(body), len(text), asbytes=True)
        assert found == (due is not None)
        if found:
            assert out.tobytes() == due
        outcomes.add(found)
    assert outcomes == {False, True}


@pytest.mark.parametrize("n_classes", [1, 2, 3, 5, 6, 7, 8, 10, 12, 17, 40])
def test_packed_levels_of_equal_lists_are_proven_and_others_are_not(n_classes):
    rng = random.Random(n_classes)
    for _ in range(150):
        n, phase = rng.choice([1, 7, 8, 64, 500, 3000]), rng.randrange(n_classes)
        levels = [int((phase + k) % n_classes != 0) for k in range(n)]
        if rng.random() < 0.7:
            levels[rng.randrange(n)] ^= 1
            regular = False
        else:
            regular = True
        groups, packed = (n + 7) // 8, sum(level << k for k, level in enumerate(levels))
        header = groups << 1 | 1
        start = bytes([header]) if header < 128 else bytes([header & 127 | 128, header >> 7])
        data = start + packed.to_bytes(groups, "little")
        buf = read_only(np.frombuffer(data, np.uint8))
        assert lv.repetition_is_regular(buf, 0, len(data), n, n_classes, phase) == regular
