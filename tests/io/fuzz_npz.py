"""Mutated ``.npz`` files through `evaluate`: a seeded run of any length.

    python -m tests.io.fuzz_npz --count 20000 --seed 1

Each case takes a small archive of stored or compressed members, and breaks some of its bytes, of a member before it is
put in the archive, or its end. The file may be refused with an error of fastxent, or its rows are used, ignored or bad.
Anything else ends the run.
"""

from __future__ import annotations

import io
import random
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import fastxent as fx
from tests import fuzzing

ROWS = 12
X, Y = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32), np.arange(ROWS) % 3


def broken(data: bytes, rng: random.Random) -> bytes:
    """Some bytes of the data are changed, missing or there twice."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not found:
            break
        at, how = rng.randrange(len(found)), rng.random()
        if how < 0.4:
            found[at] ^= 1 << rng.randrange(8)
        elif how < 0.7:
            found[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif how < 0.8:
            found[at : at + 4] = rng.choice([0, 1, 1 << 16, (1 << 31) - 1, (1 << 32) - 1]).to_bytes(4, "little")
        elif how < 0.9:
            del found[at : at + rng.randrange(1, 9)]
        else:
            found[at:at] = found[at : at + rng.randrange(1, 40)]
    return bytes(found[: rng.randrange(1, len(found))] if rng.random() < 0.1 else found) or b"P"


def mutate(rng: random.Random) -> bytes:
    """A broken archive."""
    inside = rng.random() < 0.4
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, array in (("logits", X), ("target", Y)):
            member = io.BytesIO()
            np.save(member, np.asfortranarray(array) if rng.random() < 0.2 else array)
            data = member.getvalue()
            archive.writestr(f"{name}.npy", broken(data, rng) if inside and rng.random() < 0.5 else data)
    return place.getvalue() if inside else broken(place.getvalue(), rng)


def read(path: Path, rng: random.Random) -> str:
    """What became of a file."""
    result = fx.evaluate(path, on_bad_row="skip", threads=1, memory=rng.choice(["1MB", "512MB"]))
    counts = result.rows
    if counts.total != counts.used + counts.ignored + counts.bad or counts.total > 100_000:
        raise AssertionError(f"rows that do not add up: {counts}")
    return "read in part" if counts.bad or counts.ignored else "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        for dtype in (np.float16, np.float32, np.float64):  # compiles what cases need
            np.savez(path, logits=X.astype(dtype), target=Y)
            fx.evaluate(path)
        return fuzzing.outcomes_of(lambda rng: _outcome(rng, path), count, seed)


def _outcome(rng: random.Random, path: Path) -> str:
    path.write_bytes(mutate(rng))
    return fuzzing.outcome(lambda: read(path, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
