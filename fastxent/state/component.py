"""The components of a state: each sums one thing about all rows, and all are added to, merged and stored alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np

from fastxent.kernels.cuts import Cuts
from fastxent.kernels.fold import Terms
from fastxent.kernels.grouped import Words
from fastxent.scoring.rows import BinaryRows, ScoredRows
from fastxent.state.keys import EncodedColumn
from fastxent.state.metrics import MetricPlan


class Together(NamedTuple):
    """The used rows of a batch, as a table of all rows adds them."""

    bins: list[Cuts]
    sums: list[Words]


@dataclass
class Summands:
    """Rows of a batch as components take them, computed once: ``status``, ``by`` of all rows, the rest of used rows.

    A row is used here if its status is USED and its weight is not 0.
    """

    labelled: bool  # rows have targets
    losses: bool  # rows have losses
    status: np.ndarray
    mask: np.ndarray  # (n,) whether a row is used
    by: dict[str, EncodedColumn]
    rows: ScoredRows  # (used,)
    n: int  # of these
    terms: Terms  # the columns of the plan
    calibration: tuple[np.ndarray, ...]  # confidence, and what else `tally_calibration` takes
    clusters: np.ndarray | None = None  # (used,) cluster numbers
    together: Together | None = None  # the used rows, once a table has summed them

    @classmethod
    def of(
        cls, plan: MetricPlan, rows: ScoredRows, status: np.ndarray, mask: np.ndarray, by: dict[str, EncodedColumn]
    ) -> Summands:
        """``rows``: those that ``mask`` selects."""
        positive = rows.positive if isinstance(rows, BinaryRows) and plan.labelled else None
        calibration = (
            _column(rows.confidence, np.float64),
            _column(rows.rank if plan.labelled else None, np.int64),
            _column(positive, np.float64),
            _column(rows.weight, np.float64),
        )
        n = len(rows.confidence)
        return cls(plan.labelled, plan.losses, status, mask, by, rows, n, plan.terms(rows), calibration)


def _column(values: np.ndarray | None, dtype: type) -> np.ndarray:
    """A column as kernels take it; an empty one is none."""
    return np.zeros(0, dtype) if values is None else np.ascontiguousarray(values, dtype)


class Component(Protocol):
    """One component of a state."""

    def add(self, rows: Summands) -> None:
        """Add rows, in place."""
        ...

    def absorb(self, other: Self, clusters: np.ndarray) -> None:
        """Add the same component of another state, in place; cluster c of that state is ``clusters[c]`` here."""
        ...

    def arrays(self, clusters: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store, equal for equal contents; ``clusters`` is the order of clusters."""
        ...

    def load(self, arrays: dict[str, np.ndarray], keys: list[str], clusters: int) -> None:
        """Take over stored arrays; ValueError if they do not fit.

        keys: keys of the groups, in order; empty for a component without groups.
        clusters: number of clusters.
        """
        ...
