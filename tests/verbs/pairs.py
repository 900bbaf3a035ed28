"""Two dumps of the same rows, and their comparison the slow, obvious way, in NumPy and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import scipy.stats

import reference as ref
from dumps import lists

ROWS, CLASSES = 331, 23
RNG = np.random.default_rng(11)
A = (RNG.normal(size=(ROWS, CLASSES)) * 3).astype(np.float32)
B = (A + RNG.normal(size=A.shape) * RNG.choice([0.01, 0.3, 2.0], (ROWS, 1))).astype(np.float32)
TARGET = np.where(RNG.random(ROWS) < 0.5, A.argmax(axis=1), RNG.integers(0, CLASSES, ROWS))
TARGET[::29] = -100
COLUMNS = {
    "id": [f"row {i}" for i in range(ROWS)],
    "kind": [None if k == 2 else "ab"[k] for k in RNG.integers(0, 3, ROWS)],
    "doc": RNG.integers(0, 40, ROWS),
    "weight": RNG.choice([0.5, 1.0, 2.25, 0.0], ROWS),
    "n_bytes": RNG.integers(1, 9, ROWS),
}


def dump(logits: np.ndarray, target: Any = TARGET, **columns: Any) -> pa.Table:
    """A table of lists of logits and a target, with other columns."""
    return pa.table({"logits": lists(logits), "target": target, **columns})


def both() -> tuple[pa.Table, pa.Table]:
    """The two dumps; the columns beside are in the first."""
    return dump(A, **COLUMNS), dump(B)


class Paired:
    """The numbers of the used rows of either dump, each one long double."""

    def __init__(self, a: np.ndarray = A, b: np.ndarray = B, target: np.ndarray = TARGET) -> None:
        self.used = target != -100
        target = target[self.used]
        self.a, self.b = (ref.row_statistics(x[self.used], target) for x in (a, b))
        pairs = (a[self.used], b[self.used]), (b[self.used], a[self.used])
        self.kl_ab, self.kl_ba = (np.asarray(ref.kl_divergence(*pair, reduction="none"), float) for pair in pairs)
        self.js = np.asarray(ref.js_divergence(*pairs[0], reduction="none"), float)

    def numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """What the mean of a metric is taken of, in either dump."""
        of = {
            "cross_entropy": lambda s: s.nll, "accuracy": lambda s: s.rank == 0, "top_5_accuracy": lambda s: s.rank < 5,
            "mean_reciprocal_rank": lambda s: 1 / (s.rank + 1.0), "brier_score": lambda s: s.brier,
            "entropy": lambda s: s.entropy, "confidence": lambda s: s.confidence, "z_loss": lambda s: s.lse**2,
        }[name]  # fmt: skip
        return tuple(np.asarray(of(s), float) for s in (self.a, self.b))  # type: ignore[return-value]


MEANS = ("cross_entropy", "accuracy", "top_5_accuracy", "mean_reciprocal_rank", "brier_score", "entropy", "confidence",
         "z_loss")  # fmt: skip


def ratio_error(u: np.ndarray, d: np.ndarray, clusters: np.ndarray | None = None) -> tuple[float, float, int]:
    """(Σu / Σd, its standard error, rows or clusters), by residuals."""
    value = u.sum() / d.sum()
    residuals = u - value * d
    if clusters is not None:
        residuals = np.bincount(np.unique(clusters, return_inverse=True)[1], residuals)
    n = len(residuals)
    return float(value), float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / abs(d.sum())), n


def interval(value: float, stderr: float, n: int) -> tuple[float, float]:
    half = scipy.stats.t.ppf(0.975, n - 1) * stderr
    return value - half, value + half
