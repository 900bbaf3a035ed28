"""The parts of a state: each sums one thing about all rows, and all are added to, merged and stored alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from fastxent.kernels.fold import Terms
from fastxent.scoring.rows import BinaryRows, ScoredRows
from fastxent.state.keys import EncodedColumn
from fastxent.state.metrics import Plan, bin_of


@dataclass
class Summands:
    """Rows of a batch as parts take them, computed once: ``status`` and ``by`` of all rows, the rest of the used rows.

    A row is used here if its status is USED and its weight is not 0.
    """

    labelled: bool  # rows have targets
    losses: bool  # rows have losses
    status: np.ndarray
    mask: np.ndarray  # (n,) whether a row is used
    by: dict[str, EncodedColumn]
    rows: ScoredRows  # (used,)
    terms: Terms  # the columns of the plan, of the used rows
    confidence: np.ndarray  # (used,) w·confidence
    right: np.ndarray  # (used,) whether the prediction is right; in binary dumps the target, 0..1
    weight: np.ndarray | None  # (used,)
    bins: np.ndarray  # (used,) calibration bin
    clusters: np.ndarray | None = None  # (used,) cluster numbers

    @classmethod
    def of(
        cls, plan: Plan, rows: ScoredRows, status: np.ndarray, mask: np.ndarray, by: dict[str, EncodedColumn], bins: int
    ) -> Summands:
        """``rows``: those that ``mask`` selects."""
        confidence = rows.confidence if rows.weight is None else rows.confidence * rows.weight
        place = bin_of(rows.confidence, bins)
        right = rows.rank == 0 if plan.labelled else np.zeros(len(place), bool)
        if isinstance(rows, BinaryRows) and plan.labelled:
            right = rows.positive
        terms, weight = plan.terms(rows), rows.weight
        return cls(plan.labelled, plan.losses, status, mask, by, rows, terms, confidence, right, weight, place)


class Part(Protocol):
    """One part of a state."""

    def add(self, rows: Summands) -> None:
        """Add rows, in place."""
        ...

    def absorb(self, other: Self, clusters: np.ndarray) -> None:
        """Add the same part of another state, in place; cluster c of that state is ``clusters[c]`` here."""
        ...

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store, equal for equal contents; ``clusters`` is the order of clusters."""
        ...

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit.

        keys: keys of the groups, in order; empty for a part without groups.
        clusters: number of clusters.
        """
        ...
