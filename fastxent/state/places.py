"""Where a table keeps the sums of each pair of a group and a cluster."""

from __future__ import annotations

import numpy as np

from fastxent.kernels.hashed import Numbers
from fastxent.kernels.tally import sort_by_group

_CLUSTER_BITS = 40  # of a pair of group and cluster, as one number


class Places:
    """Pairs of a group and a cluster, numbered from 0 in the order of their first appearance.

    every: bool. There is one group, and every cluster has rows in it: clusters are their own numbers.
    """

    def __init__(self, every: bool = False) -> None:
        self._every, self._count, self._pairs = every, 0, Numbers()

    def __len__(self) -> int:
        return self._count

    def of(self, groups: np.ndarray | None, clusters: np.ndarray) -> np.ndarray:
        """(n,) the numbers of pairs; those that are new get the next ones. Without ``groups`` all are of group 0."""
        if self._every:
            self._count = max(self._count, int(clusters.max(initial=-1)) + 1)
            return clusters
        found = self._pairs.codes(clusters if groups is None else groups << _CLUSTER_BITS | clusters)
        self._count = len(self._pairs)
        return found

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Group and cluster of each number."""
        if self._every:
            return np.zeros(self._count, np.int64), np.arange(self._count)
        return self._pairs.distinct >> _CLUSTER_BITS, self._pairs.distinct & (1 << _CLUSTER_BITS) - 1

    def by_group(self, groups: int) -> list[np.ndarray]:
        """For each group the numbers of its clusters, in order."""
        of, _ = self.pairs()
        begins, order = np.zeros(groups + 2, np.int64), np.empty(len(of), np.int64)
        sort_by_group(of, begins, order)
        return np.split(order, begins[1:-1])[:groups]

    def load(self, pairs: np.ndarray, groups: int, clusters: int) -> None:
        """Take over pairs (n, 2) of so many groups and clusters, in order; ValueError if they do not fit."""
        if np.any(pairs < 0) or np.any(pairs >= (groups, clusters)):
            raise ValueError("clusters out of range")
        numbers = pairs[:, 0] << _CLUSTER_BITS | pairs[:, 1]
        if self._every and not np.array_equal(numbers, np.arange(clusters)):
            raise ValueError("clusters without rows")
        self.of(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))
        if len(self) < len(pairs):
            raise ValueError("a pair of group and cluster is there twice")
