"""The same bits on other processors: kernels compiled for older ones, in processes of their own, against this one's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

FIGURES = """
import hashlib, json
import numpy as np
import fastxent as fx
from fastxent.kernels.launch import RowOptions, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.pairs import sweep_pairs
from fastxent.kernels.rows.divergences import FIELDS

found = {}
for dtype in (np.float32, np.float64):
    for c in (2, 10, 100, 1500):
        rng = np.random.default_rng(c)
        x = (rng.normal(size=(37, c)) * 5).astype(dtype)
        x[3, 0] = -np.inf
        target = rng.integers(c, size=37)
        record = fx.row_statistics(x, target)
        loss, grad = fx.cross_entropy_with_grad(x, target)
        parts = [np.ascontiguousarray(a) for a in (*record, grad)]
        digest = hashlib.sha256(b"".join(a.tobytes() for a in parts)).hexdigest()
        found[f"{np.dtype(dtype).name} {c}"] = [digest, loss.hex()]
rng = np.random.default_rng(1)
x = (rng.normal(size=(33, 700)) * 5).astype(np.float32)
y = (x + rng.normal(size=x.shape) * rng.choice([1e-3, 0.1, 2, 20], (33, 1))).astype(np.float32)
x[3, 0] = -np.inf
rows = [RowPass(Matrix.of(v, "float32"), np.zeros(33, np.int64), -100, RowOptions(), full=True, chunk=256,
                into=row_buffers(33)) for v in (x, y)]
out = np.zeros((FIELDS, 33))
sweep_pairs(*rows, out, 0)
found["divergences"] = hashlib.sha256(out.tobytes()).hexdigest()
x = np.linspace(-30, 30, 999).astype(np.float32)
found["binary"] = fx.binary_cross_entropy_with_logits(x, (x > 1).astype(np.float32)).hex()
print(json.dumps(found))
"""
# What LLVM may use: 256-bit registers, and no instruction that looks up a table.
OLDER = {"x86_64": ("+avx2,+avx,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2", "+avx,+fma,+f16c,+sse4.2"), "AMD64": ()}


def figures(**environment: str) -> dict[str, object]:
    """What `FIGURES` prints where Numba is told of another processor."""
    done = subprocess.run(
        [sys.executable, "-c", FIGURES], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("features", OLDER.get(platform.machine(), ()))
def test_older_processors_give_the_same_bits(features):
    older = figures(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES=features)
    assert older == figures()
