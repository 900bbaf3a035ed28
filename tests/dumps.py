"""A small dump in several files of odd sizes, for tests of divided and interrupted evaluations."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS, CLASSES = 700, 23
OPTIONS = dict(by=("kind", "doc"), cluster="doc", weight="weight", label_smoothing=0.1)


def lists(values: np.ndarray, *, sized: bool = False) -> pa.Array:
    """Rows of numbers (n, C) as lists; ``sized``: as lists of a fixed size."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return rows if sized else rows.cast(pa.list_(flat.type))


def table(rows: int = ROWS, seed: int = 7) -> pa.Table:
    """Logits that are right more often than not, and columns for `OPTIONS`."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, CLASSES)) * 3).astype(np.float32)
    guess = rng.integers(0, CLASSES, rows)
    return pa.table(
        {
            "logits": lists(logits),
            "target": np.where(rng.random(rows) < 0.6, logits.argmax(axis=1), guess),
            "kind": rng.choice(["a", "b", "c"], rows),
            "doc": rng.integers(0, 40, rows),
            "weight": rng.choice([0.5, 1.0, 2.25, -0.25], rows),
        }
    )


def files(folder: Path, rows: pa.Table | None = None) -> list[Path]:
    """The rows in files of odd sizes and row groups, an empty one among them."""
    rows = table() if rows is None else rows
    n = rows.num_rows
    edges = [0, 1, n // 5, n // 5 + 1, n // 2, n // 2, n - 9, n]
    paths = []
    for k, (a, b) in enumerate(itertools.pairwise(edges)):
        paths.append(folder / f"part-{k}.parquet")
        pq.write_table(rows.slice(a, b - a), paths[-1], row_group_size=1 + 13 * k)
    return paths
