"""Mutated llama.cpp files through the reader: a seeded run of any length.

    python -m tests.io.llama.fuzz_llama --count 100000 --seed 1

Each case takes a small file, breaks it (bits, bytes, numbers of the header, truncation, more bytes) and reads every row
and column. The reader may refuse the file with an error of fastxent, or read rows: then all that the header promises,
those that are not there as bad rows. Anything else ends the run: a signal, another exception, a case of more than ten
seconds, or memory beyond a fixed allowance.
"""

from __future__ import annotations

import random
import struct
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from fastxent.errors import FastxentError
from fastxent.io.source import open_source
from tests import fuzzing
from tests.io.llama import handmade

NUMBERS = (-1, 0, 1, 2, 3, 5, 8, 100, 1 << 16, 1 << 24, (1 << 31) - 1, -(1 << 31))
COLUMNS = ("target", "token", "position", "chunk", "logits")


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """A broken copy."""
    data = bytearray(seed)
    how = rng.random()
    if how < 0.15:
        return bytes(data[: rng.randrange(8, len(data))])
    if how < 0.25:
        return bytes(data) + rng.randbytes(rng.randrange(1, 100))
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        kind = rng.random()
        if kind < 0.4:
            number = rng.choice(NUMBERS) if rng.random() < 0.5 else rng.randrange(-3, 200)
            struct.pack_into("<i", data, rng.choice([8, 12, 16]), number)
        else:
            at = rng.randrange(8, len(data))
            data[at] = data[at] ^ 1 << rng.randrange(8) if kind < 0.7 else rng.choice([0, 127, 128, 255])
    return bytes(data)


def read(path: Path, rng: random.Random) -> int:
    """The number of bad rows, once every row and column has been read."""
    beside = rng.sample(COLUMNS, rng.randint(0, len(COLUMNS)))
    source = open_source(path, logits="logits", columns=beside)
    rows, bad = 0, 0
    for unit in source.units():
        for batch in unit.read(rng.choice([1, 9, 1000]), rng.choice([1, 100, 1 << 20]), rng.random() < 0.5):
            n = 0
            for block in batch.blocks:
                if block.values.shape[1] != source.n_classes:
                    raise AssertionError("a row of another length")
                if not np.isnan(block.values[list(block.bad)]).all():
                    raise AssertionError("a bad row that holds numbers")
                n, bad = n + len(block.values), bad + len(block.bad)
            if n != batch.rows or any(len(column) != n for column in batch.columns.values()):
                raise AssertionError("parts or columns of other rows than their batch")
            rows += n
    if rows != source.rows:
        raise AssertionError(f"{rows} rows where the file has {source.rows}")
    return bad


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    seeds = [handmade.example(*shape) for shape in [(5, 12, 7), (1, 3, 1), (2, 64, 30), (9, 4, 2)]]
    with tempfile.TemporaryDirectory() as folder:
        return fuzzing.outcomes_of(lambda rng: _outcome(rng, seeds, Path(folder) / "dump.kld"), count, seed)


def _outcome(rng: random.Random, seeds: list[bytes], path: Path) -> str:
    base = rng.choice(seeds)
    data = mutate(base, rng)
    path.write_bytes(data)
    try:
        bad = read(path, rng)
    except FastxentError as error:
        if "\n" in str(error) or str(path) not in str(error):
            raise AssertionError("an error that does not name the file in one line") from error
        return "refused"
    if len(data) < len(base) and data == base[: len(data)] and not bad:
        raise AssertionError("a file that is cut short was read as a whole one")
    return "read in part" if bad else "read"


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
