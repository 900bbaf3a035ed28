"""Nanoseconds per row that the state takes, on one thread, by slices and clusters: rows of two classes.

.venv/bin/python -m bench.group_rows
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

import fastxent as fx
from bench.states import rows_of
from fastxent.state.evaluation import EvalState

_ROWS, _BATCH, _CLUSTERS = 1_000_000, 65_536, 200_000


def columns() -> dict[str, tuple[pa.Array | None, pa.Array | None]]:
    """A slice column and a cluster column for each case."""
    rng = np.random.default_rng(0)
    texts = np.array([f"language-{k}" for k in range(20)])[rng.integers(0, 20, _ROWS)]
    five, users = pa.array(rng.integers(0, 5, _ROWS)), rng.integers(0, _CLUSTERS, _ROWS)
    named = pa.array(np.char.add("user-", users.astype(str)))
    return {
        "no groups": (None, None),
        "20 slices, whole numbers": (pa.array(rng.integers(0, 20, _ROWS)), None),
        "20 slices, dictionary of texts": (pa.array(texts).dictionary_encode(), None),
        "20 slices, texts": (pa.array(texts), None),
        "200 000 clusters": (None, pa.array(users)),
        "200 000 clusters, sorted": (None, pa.array(np.sort(users))),
        "200 000 clusters, texts": (None, named),
        "200 000 clusters in 5 slices": (five, pa.array(users)),
    }


def measure(by: pa.Array | None, cluster: pa.Array | None, rounds: int = 3) -> tuple[float, float]:
    """The least nanoseconds per row of adding, and of the result."""
    config = fx.EvalConfig(
        n_classes=2, by=("slice",) if by is not None else (), cluster=None if cluster is None else "cluster"
    )
    batches = [rows_of(_BATCH, 2, 0, 0, seed) for seed in range(_ROWS // _BATCH)]
    for i, batch in enumerate(batches):
        batch.by = {} if by is None else {"slice": by.slice(i * _BATCH, _BATCH)}
        batch.cluster = None if cluster is None else cluster.slice(i * _BATCH, _BATCH)
    times = []
    for _ in range(rounds):
        state, start = EvalState.empty(config), time.perf_counter()
        for batch in batches:
            state.add(batch)
        added = time.perf_counter()
        state.result()
        times.append((added - start, time.perf_counter() - added))
    add, result = (min(kind) * 1e9 / (len(batches) * _BATCH) for kind in zip(*times, strict=True))
    return add, result


def main() -> None:
    print("| rows | add | result |\n| --- | ---: | ---: |")
    for name, (by, cluster) in columns().items():
        add, result = measure(by, cluster)
        print(f"| {name} | {add:.1f} ns | {result:.1f} ns |", flush=True)


if __name__ == "__main__":
    main()
