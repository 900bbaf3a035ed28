"""Buckets of rows for the jackknife, where rows are not alike: those of a cluster share a bucket, and equal rows do.

Buckets are the groups of one more column, so whatever is summed by group is summed by bucket too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastxent.kernels.hashed import mixed
from fastxent.scoring.rows import ScoredRows
from fastxent.state.clusters import Clusters
from fastxent.state.component import Summands
from fastxent.state.keys import EncodedColumn, Keys

BUCKET = "\0bucket"  # no column of a dump is called so
_STEP = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


class Buckets:
    """The table of buckets: its groups are numbered and exist from the start.

    bins: int. Bins of the calibration.
    """

    def __init__(self, count: int, bins: int) -> None:
        self.count, self.bins, self.column = count, bins, BUCKET
        self.keys = Keys(f"str:{k:03}" for k in range(count))  # sorted

    def column_of(self, summands: Summands, clusters: Clusters) -> EncodedColumn:
        """The bucket of each used row."""
        of_clusters = summands.clusters
        if of_clusters is not None:
            hashed = clusters.hashes()[of_clusters]
        else:
            hashed = hashed_rows(summands.rows) if summands.rows.hashed is None else summands.rows.hashed
        return EncodedColumn(self.keys.names, self.of(hashed))

    def of(self, hashed: np.ndarray) -> np.ndarray:
        """(n,) int64 the buckets of hashes."""
        found: np.ndarray = (((hashed >> _HALF) * np.uint64(self.count)) >> _HALF).astype(np.int64)
        return found


def hashed_rows(rows: ScoredRows) -> np.ndarray:
    """(n,) uint64 hashes of the numbers of rows."""
    return _hashed((rows.nll, rows.confidence, rows.entropy, rows.brier, rows.target, rows.weight))


def hashed_pairs(rows: ScoredRows, second: ScoredRows) -> np.ndarray:
    """(n,) uint64 hashes of the numbers of rows of two dumps."""
    return _hashed((rows.nll, rows.confidence, second.nll, second.confidence, rows.target))


def _hashed(columns: Iterable[np.ndarray | None]) -> np.ndarray:
    given = [np.ascontiguousarray(column).view(np.uint64) for column in columns if column is not None]
    found = np.zeros(len(given[0]), np.uint64)
    with np.errstate(over="ignore"):
        for column in given:
            found = (found + column) * _STEP
            found ^= found >> _HALF
    return mixed(found)
