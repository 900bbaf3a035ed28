"""Mutated Arrow files and streams through the reader: a seeded run of any length.

    python -m tests.io.arrow.fuzz_arrow --count 100000 --seed 1

Each case takes a small file, breaks it (bits, bytes, numbers, lengths, truncation, messages left out or repeated) and
reads every column. The reader may refuse it with an error of fastxent, or read rows; a file that lost or repeats a
message must be refused. Anything else ends the run: a signal, another exception, a case of more than ten seconds, or
memory beyond a fixed allowance.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fastxent.errors import FastxentError
from fastxent.io.source import open_source
from tests import fuzzing

ROWS, CLASSES = 30, 5
NUMBERS = (-1, 0, 1, 4, 7, 8, 127, 1 << 31, (1 << 31) - 1, 1 << 40, -(1 << 62))


@dataclass
class Seed:
    """A file as it should be."""

    data: bytes
    rows: int
    ends: list[int]  # where its messages end, the schema's first


def _logits(rng: np.random.Generator) -> dict[str, pa.Array]:
    """The logits in every layout, some rows of which are no rows."""
    x = rng.normal(size=(ROWS, CLASSES)).astype(np.float32)
    lists: list[list[float | None] | None] = x.tolist()
    lists[3], lists[5], lists[7] = None, [], [None] * CLASSES
    blobs = [None if row is None else np.float32(row).tobytes() for row in x.tolist()]
    blobs[4] = None
    fixed = pa.FixedSizeListArray.from_arrays(x.ravel(), CLASSES)
    kinds = {f"list {k}": pa.array(lists, kind) for k, kind in enumerate(_list_types())}
    kinds |= {f"blob {kind}": pa.array(blobs, kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())}
    kinds["fixed"] = fixed
    kinds["fixed binary"] = pa.array(blobs, pa.binary(4 * CLASSES))
    kinds["tensor"] = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (CLASSES,)), fixed)
    return kinds


def _list_types() -> list[pa.DataType]:
    item = pa.float32()
    return [pa.list_(item), pa.large_list(item), pa.list_view(item), pa.large_list_view(item)]


def _beside(rng: np.random.Generator) -> dict[str, pa.Array]:
    """Columns of every kind of buffer."""
    words = [
        None if k % 7 == 3 else f"a word of more than twelve bytes {k % 4}" if k % 2 else f"w{k}" for k in range(ROWS)
    ]
    numbers = pa.array([None if k % 5 == 2 else k for k in range(ROWS)], pa.int32())
    return {
        "target": pa.array(rng.integers(0, CLASSES, ROWS)),
        "word": pa.array(words),
        "large": pa.array(words, pa.large_string()),
        "view": pa.array(words, pa.string_view()),
        "kind": pa.array(words).dictionary_encode(),
        "nested": pa.StructArray.from_arrays([pa.array(words).dictionary_encode(), numbers], ["kind", "number"]),
        "flag": pa.array([None if k % 6 == 1 else k % 2 == 0 for k in range(ROWS)]),
        "map": pa.array([[("k", k)] if k % 3 else None for k in range(ROWS)], pa.map_(pa.string(), pa.int64())),
        "decimal": pa.array(range(ROWS), pa.decimal128(9, 2)),
        "null": pa.nulls(ROWS),
    }


def make_seeds() -> list[Seed]:
    """Every layout, codec and form, each at least once."""
    rng = np.random.default_rng(0)
    beside = _beside(rng)
    seeds = []
    for name, logits in _logits(rng).items():
        tag = {"dtype": "float32"} if "b" in name.split()[0] or "binary" in name else None
        columns = {"logits": logits, **beside}
        fields = [
            pa.field(key, array.type, metadata=tag if key == "logits" else None) for key, array in columns.items()
        ]
        table = pa.table(list(columns.values()), schema=pa.schema(fields))
        for compression in (None, "lz4", "zstd"):
            for new in (pa.ipc.new_file, pa.ipc.new_stream):
                sink = io.BytesIO()
                options = pa.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=True)
                with new(sink, table.schema, options=options) as out:
                    out.write_table(table, max_chunksize=13)
                data = sink.getvalue()
                seeds.append(Seed(data, ROWS, _ends(data)))
    return seeds


def _ends(data: bytes) -> list[int]:
    at = 8 if data.startswith(b"ARROW1") else 0
    handle = pa.BufferReader(data)
    ends = []
    for message in _messages(handle, at):
        ends.append(handle.tell())
        del message
    return ends


def _messages(handle: pa.BufferReader, at: int) -> Iterator[pa.Message]:
    handle.seek(at)
    while True:
        try:
            yield pa.ipc.read_message(handle)
        except EOFError:
            return


def mutate(seed: Seed, rng: random.Random) -> tuple[bytes, bool]:
    """A broken copy, and whether it must be refused."""
    data = bytearray(seed.data)
    how = rng.random()
    if how < 0.05:
        return bytes(data[: rng.randrange(1, len(data))]), True
    if how < 0.1:  # a message is missing, or there twice
        k = rng.randrange(1, len(seed.ends))
        message = data[seed.ends[k - 1] : seed.ends[k]]
        if data.startswith(b"ARROW1"):
            return bytes(data[: seed.ends[k]] + message + data[seed.ends[k] :]), True
        if rng.random() < 0.5:
            return bytes(data[: seed.ends[k]]), True  # and with it the mark at the end
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(8, len(data))
        kind = rng.random()
        if kind < 0.35:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.65:
            data[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        else:
            size = rng.choice([4, 8])
            at = at // size * size
            number = rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randrange(-100, 1000)
            data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data), False


def read(path: Path, rng: random.Random) -> int:
    """Every row and column, as consumers do."""
    beside = ["target", "word", "large", "view", "kind", "nested", "nested.kind", "flag", "map", "decimal", "null"]
    rng.shuffle(beside)
    source = open_source(path, logits="logits", columns=beside[: rng.randint(0, len(beside))])
    rows = 0
    for unit in source.units():
        whole = rng.random() < 0.5
        for batch in unit.read(1 << 30, rng.choice([1, 100, 1 << 20]), True) if whole else unit.read(9, 100, False):
            n = 0
            for block in batch.blocks:
                if any(not 0 <= k < len(block.values) for k in block.bad):
                    raise AssertionError("a bad row outside its block")
                n += len(block.values.copy())
            if n != batch.rows:
                raise AssertionError("blocks of other rows than their batch")
            for column in batch.columns.values():
                if len(column) != n or len(column.to_pylist()) != n:
                    raise AssertionError("a column of another length")
            rows += n
            if rows > 100_000:
                raise AssertionError("more rows than the file can mean")
    if rows != source.rows:
        raise AssertionError(f"{rows} rows where the file has {source.rows}")
    return rows


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    seeds = make_seeds()
    with tempfile.TemporaryDirectory() as folder:
        return fuzzing.outcomes_of(lambda rng: _outcome(rng, seeds, Path(folder) / "dump"), count, seed)


def _outcome(rng: random.Random, seeds: list[Seed], path: Path) -> str:
    base = rng.choice(seeds)
    data, refuse = mutate(base, rng)
    path.write_bytes(data)
    try:
        read(path, rng)
    except FastxentError:
        return "refused"
    if refuse and data != base.data:
        raise AssertionError("a file that is incomplete was read")
    return "read"


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
