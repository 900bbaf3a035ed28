"""Mutated ``.pt`` files through `evaluate`: a seeded run of any length.

    python -m tests.peers.fuzz_torch --count 20000 --seed 1

Each case takes a small file of torch and breaks some of its bytes. The file may be refused with an error of fastxent,
or its rows are used, ignored or bad. Anything else ends the run.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections import Counter
from pathlib import Path

import torch

import fastxent as fx
from tests import fuzzing
from tests.io.fuzz_npz import ROWS, X, Y, broken, read


def seeds() -> list[bytes]:
    """Files of several types."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        place = io.BytesIO()
        torch.save({"logits": torch.from_numpy(X).to(dtype), "target": torch.from_numpy(Y[:ROWS])}, place)
        found.append(place.getvalue())
    return found


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    files = seeds()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        for data in files:  # compiles what cases need
            path.write_bytes(data)
            fx.evaluate(path)
        return fuzzing.outcomes_of(lambda rng: _outcome(rng, files, path), count, seed)


def _outcome(rng: random.Random, files: list[bytes], path: Path) -> str:
    path.write_bytes(broken(rng.choice(files), rng))
    return fuzzing.outcome(lambda: read(path, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
