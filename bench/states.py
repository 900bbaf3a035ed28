"""How large states are, and what merging them costs, by classes, slices, bins and clusters: rows for docs/scaling.md.

.venv/bin/python -m bench.states
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

import fastxent as fx
from fastxent.scoring.rows import ScoredRows
from fastxent.state.evaluation import EvalState

CASES: dict[str, dict[str, int]] = {
    "10 classes": dict(classes=10, rows=100_000),
    "1 000 classes": dict(classes=1_000, rows=100_000),
    "128 256 classes, all seen": dict(classes=128_256, rows=1_000_000),
    "128 256 classes, 1 000 rows": dict(classes=128_256, rows=1_000),
    "100 slices": dict(classes=10, rows=100_000, slices=100),
    "10 000 slices": dict(classes=10, rows=200_000, slices=10_000),
    "10 000 slices, 100 bins": dict(classes=10, rows=200_000, slices=10_000, bins=100),
    "1 000 clusters": dict(classes=10, rows=100_000, clusters=1_000),
    "100 000 clusters": dict(classes=10, rows=400_000, clusters=100_000),
    "1 000 clusters in 100 slices": dict(classes=10, rows=400_000, clusters=1_000, slices=100),
}


def rows_of(n: int, classes: int, slices: int, clusters: int, seed: int) -> ScoredRows:
    """Scored rows as a classifier gives them."""
    rng = np.random.default_rng(seed)
    nll = rng.exponential(1.5, n)
    ids = rng.integers(0, classes, n)
    return ScoredRows(
        status=np.zeros(n, np.int8), target=ids, loss=nll, class_weight=None, nll=nll, lse=nll + 8.0,
        confidence=np.exp(-nll), predicted=rng.permutation(ids), rank=(nll > 0.7).astype(np.int64),
        entropy=nll / 2, brier=1.0 - np.exp(-nll), weight=None, n_bytes=None,
        cluster=pa.array(rng.integers(0, clusters, n)) if clusters else None,
        by={"slice": pa.array(rng.integers(0, slices, n))} if slices else {},
    )  # fmt: skip


def measure(classes: int, rows: int, slices: int = 0, clusters: int = 0, bins: int = 15) -> dict[str, Any]:
    """Sizes in bytes, seconds of writing, reading and merging in place."""
    config = fx.EvalConfig(
        n_classes=classes, bins=bins, by=("slice",) if slices else (), cluster="cluster" if clusters else None
    )
    first, second = (EvalState.empty(config).add(rows_of(rows, classes, slices, clusters, seed)) for seed in (0, 1))
    data, write = _timed(lambda: first.to_bytes(compression=1))
    again, read = _timed(lambda: EvalState.from_bytes(data))
    _, merge = _timed(lambda: again.absorb(second))
    _, result = _timed(again.result)
    return {"bytes": len(data), "write": write, "read": read, "merge": merge, "result": result}


def _timed(work: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def main() -> None:
    measure(classes=3, rows=10)  # compiles
    print("| state | bytes on disk | write | read | merge | result |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, case in CASES.items():
        found = measure(**case)
        times = " | ".join(f"{found[kind] * 1e3:,.1f} ms" for kind in ("write", "read", "merge", "result"))
        print(f"| {name} | {found['bytes']:,} | {times} |", flush=True)


if __name__ == "__main__":
    main()
