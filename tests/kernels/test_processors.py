"""The same bits on other processors: kernels compiled for older ones, in processes of their own, against this one's."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

import fastxent as fx
from fastxent.kernels.launch import RowOptions, RowPass, row_buffers
from fastxent.kernels.matrix import Matrix
from fastxent.kernels.pairs import sweep_pairs
from fastxent.kernels.rows.divergences import FIELDS


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def rows(dtype: str, c: int) -> list[object]:
    """Records, losses and gradients of rows of ``c`` classes."""
    rng = np.random.default_rng(c)
    x = (rng.normal(size=(37, c)) * 5).astype(dtype)
    x[3, 0] = -np.inf
    target = rng.integers(c, size=37)
    loss, grad = fx.cross_entropy_with_grad(x, target)
    return [digest(*fx.row_statistics(x, target), grad), loss.hex()]


def divergences() -> str:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(33, 700)) * 5).astype(np.float32)
    y = (x + rng.normal(size=x.shape) * rng.choice([1e-3, 0.1, 2, 20], (33, 1))).astype(np.float32)
    x[3, 0] = -np.inf
    sides = [
        RowPass(Matrix.of(v, "float32"), np.zeros(33, np.int64), -100, RowOptions(), full=True, chunk=256,
                into=row_buffers(33))
        for v in (x, y)
    ]  # fmt: skip
    out = np.zeros((FIELDS, 33))
    sweep_pairs(*sides, out, 0)
    return digest(out)


def binary() -> str:
    x = np.linspace(-30, 30, 999).astype(np.float32)
    return fx.binary_cross_entropy_with_logits(x, (x > 1).astype(np.float32)).hex()


PARTS = {
    "float32, few classes": lambda: [rows("float32", c) for c in (2, 10)],
    "float32, many classes": lambda: [rows("float32", c) for c in (100, 1500)],
    "float64, few classes": lambda: [rows("float64", c) for c in (2, 10)],
    "float64, many classes": lambda: [rows("float64", c) for c in (100, 1500)],
    "divergences": divergences,
    "binary": binary,
}
# What LLVM may use: 256-bit registers, and no instruction that looks up a table. A kernel takes seconds to compile:
# each of the two processors computes in both float types, with few classes and with many.
AVX2, AVX = "+avx2,+avx,+fma,+f16c,+sse4.2,+popcnt,+bmi,+bmi2", "+avx,+fma,+f16c,+sse4.2"
OLDER = [
    (AVX2, ["float32, few classes", "float64, many classes", "divergences"]),
    (AVX, ["float64, few classes", "float32, many classes", "binary"]),
]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are processors of x86")
@pytest.mark.parametrize(("features", "parts"), OLDER, ids=["avx2", "avx"])
def test_older_processors_give_the_same_bits(features: str, parts: list[str]) -> None:
    older = os.environ | {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, __file__, *parts], env=older, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [PARTS[name]() for name in parts]


if __name__ == "__main__":
    print(json.dumps([PARTS[name]() for name in sys.argv[1:]]))
