"""Are the bits of a row of logits those of its state and its place modulo `ROWS`? Prints the shapes where they are not.

Run by test_heads.py for the kernels of several processors.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info

from fastxent.io import heads

SHAPES = [(2, 300), (3, 50), (10, 768), (17, 160), (70, 400), (100, 33), (257, 100), (1003, 16), (1500, 577)]


def differing(classes: int, width: int, dtype: type) -> bool:
    """Multiply the same rows in products of several sizes, among other rows; are some bits different?"""
    rng = np.random.default_rng(width)
    head = heads.Head.open(rng.normal(size=(classes, width)).astype(dtype), None, 1 << 30, 1).of_states("float32")
    states = rng.normal(size=(head.least_rows, width)).astype(dtype)
    first = head.logits(states).tobytes()
    for more in (48, 96, 5 * 48, 1200):
        others = rng.normal(size=(head.least_rows + more, width)).astype(dtype)
        for begin in {0, 48, more}:
            product = others.copy()
            product[begin : begin + len(states)] = states
            if head.logits(product)[begin : begin + len(states)].tobytes() != first:
                return True
    return False


if __name__ == "__main__":
    heads._PANEL_BYTES = 400_000  # several panels
    kernels = {library.get("architecture") for library in threadpool_info() if library["user_api"] == "blas"}
    print("kernels:", *kernels)
    print("differ:", *(f"{np.dtype(t).name} {s}" for t in (np.float32, np.float64) for s in SHAPES if differing(*s, t)))
