"""`evaluate` of hidden states with an output head, in turn with the product of BLAS alone and with torch.

python -m pytest bench/test_hidden.py [--quick]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import fastxent as fx
from bench import peers
from bench.cases import use_threads
from bench.cpus import available_cpus
from bench.turns import Effort, Turns

ROWS, QUICK_ROWS, WIDTH = 4096, 768, 1024


def _torch(states: np.ndarray, head: np.ndarray, target: np.ndarray, threads: int) -> Any:
    """Return linear and cross_entropy of torch as one call; None if torch is missing."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    x, w, y = (torch.from_numpy(array) for array in (states, head, target))

    def call() -> Any:
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, w), y)

    return call


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("classes", [32_000])
def test_hidden(classes: int, dtype: str, effort: Effort, benchmark: BenchmarkFixture) -> None:
    rng, n, threads = np.random.default_rng(0), QUICK_ROWS if effort.quick else ROWS, available_cpus()
    states = rng.standard_normal((n, WIDTH), dtype=np.float32)
    head = (rng.standard_normal((classes, WIDTH), dtype=np.float32) / np.float32(32)).astype(dtype)
    target = rng.integers(0, classes, n)
    wide, out = head.astype(np.float32), np.empty((n, classes), np.float32)
    use_threads(threads)
    turns = Turns(effort.patience(marked=True))
    turns.add("product", lambda: np.matmul(states, wide.T, out=out), always=True)
    torch = _torch(states, wide, target, threads)
    if torch is not None:
        turns.add("torch", torch)

    def ours() -> fx.EvalResult:
        return fx.evaluate({"hidden": states, "target": target}, logits="hidden", head=head)

    found = ours().metrics["cross_entropy"].value
    assert abs(found / float(fx.cross_entropy(states @ wide.T, target)) - 1) < 1e-5
    seconds = turns.run(benchmark, ours, effort.rounds(marked=False))
    if seconds is None:
        return
    nbytes = out.nbytes
    benchmark.extra_info.update(
        {
            "job": "evaluate hidden", "layout": dtype, "classes": classes, "threads": threads, "seconds": seconds,
            "bytes": nbytes, "gb_per_second": nbytes / seconds / 1e9, "times_product": seconds / turns.best["product"],
            "peers_gb_per_second": {}, "peers_missing": peers.missing(),
        }
    )  # fmt: skip
    if "torch" in turns.best:
        benchmark.extra_info["times_torch"] = seconds / turns.best["torch"]
