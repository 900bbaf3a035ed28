"""Scored rows: about ten numbers per row. Metrics and states see nothing else of a row."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from fastxent.kernels.launch import LossTerms, RowOptions
    from fastxent.kernels.matrix import Matrix
    from fastxent.scoring.targets import Prepared

USED, IGNORED, BAD_LOGITS, BAD_TARGET = 0, 1, 2, 3  # values of ScoredRows.status


@dataclass(frozen=True)
class Kept:
    """What a second sweep over the logits of a batch needs."""

    columns: dict[str, pa.Array]  # of the rows that passed the filter
    given: Matrix  # their logits as they were read
    logits: Matrix  # the same as the kernels read them: within ``clip``
    soft: Matrix | None
    options: RowOptions  # for losses
    plain: RowOptions  # for softmax: only the exponentials are summed
    terms: LossTerms
    clip: tuple[float, float] | None


@dataclass(frozen=True)
class KeptOdds:
    """What is needed to write the probabilities or the gradient of a batch of rows of one number each."""

    columns: dict[str, pa.Array]  # of the rows that passed the filter
    values: np.ndarray  # as they were read; float32 or float64
    positive: np.ndarray  # float64: the target, before smoothing


@dataclass(frozen=True)
class KeptColumns:
    """What is kept of a batch of rows without logits."""

    columns: dict[str, pa.Array]  # of the rows that passed the filter


@dataclass(frozen=True)
class ClassGaps:
    """Σ (p - y) of the used rows of a batch by class and bin: see `kernels.classwise`."""

    sums: np.ndarray  # int64 (C, bins)


@dataclass
class ScoredRows:
    """n rows scored. Every array is n long; values of rows whose status is not USED mean nothing.

    All numbers are functions of the row alone, never of its place in a batch. Nats.
    """

    status: np.ndarray  # int8: USED, IGNORED, BAD_LOGITS (NaN, +inf, nothing finite, no row), BAD_TARGET
    target: np.ndarray  # int64 class ids; for soft targets the most probable class; without labels all NO_TARGET
    loss: np.ndarray  # float64: the training loss, class weight and label smoothing included, w_y not divided out
    class_weight: np.ndarray | None  # float64 w_y, the share in the denominator of cross_entropy; None = all 1
    nll: np.ndarray  # float64: -log p(target), nothing else in it
    lse: np.ndarray  # float64
    confidence: np.ndarray  # float64: probability of the predicted class
    predicted: np.ndarray  # int64: first index of the maximum
    rank: np.ndarray  # int64: of the target; 0 is "predicted == target"
    entropy: np.ndarray  # float64
    brier: np.ndarray  # float64
    weight: np.ndarray | None = None  # float64 sample weights; None = 1 for all
    n_bytes: np.ndarray | None = None  # float64
    cluster: pa.Array | None = None
    by: dict[str, pa.Array] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # float64 each: numbers the dump holds; NaN is null
    unnormalised: int = 0  # rows of probabilities that do not sum to 1 within 1e-3, or contradict their target's
    soft_targets: int = 0  # rows whose targets are probabilities
    unnormalised_targets: int = 0  # rows of soft targets that do not
    probabilities: int = 0  # rows of logits within 0..1 whose sum is 1; of one number, rows of log-odds within 0..1
    kept: Kept | KeptOdds | KeptColumns | None = None  # of a batch that is read again
    class_gaps: ClassGaps | None = None  # if they are wanted
    hashed: np.ndarray | None = None  # uint64: of a pair of rows, by which either is put into a bucket
    prepared: Prepared | None = None  # the batch: where it is, and its columns

    def select(self, mask: np.ndarray) -> Self:
        """The rows of ``mask``; columns of groups stay as they are, since they are looked up elsewhere."""
        chosen = {f.name: value[mask] for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray)}
        scores = {name: values[mask] for name, values in self.scores.items()}
        return replace(self, **chosen, scores=scores)


@dataclass
class BinaryRows(ScoredRows):
    """Rows of one number each. ``target`` and ``predicted`` are 1 for the positive class, else 0; ``rank`` is 0 where
    they agree; ``confidence`` is the probability of the positive class; ``brier`` is (probability - target)²."""

    score: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64: log-odds or probability, as given
    positive: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64 0..1: the target; 0 without labels
    minus_ones: int = 0  # used rows whose target is -1
    zeros: int = 0  # used rows whose target is 0


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass
class TopkRows(ScoredRows):
    """Rows that list their likeliest classes. ``rank``, ``entropy`` and ``brier`` are the least that is possible; the
    fields of the same name with "high" are the most. ``nll`` and ``loss`` are NaN where the NLL is not known."""

    nll_low: np.ndarray = field(default_factory=_none)  # float64
    nll_high: np.ndarray = field(default_factory=_none)  # float64
    rank_high: np.ndarray = field(default_factory=_none)  # int64
    entropy_high: np.ndarray = field(default_factory=_none)  # float64
    brier_high: np.ndarray = field(default_factory=_none)  # float64
    listed: np.ndarray = field(default_factory=_none)  # float64: 1 where the target is listed
    mass: np.ndarray = field(default_factory=_none)  # float64: probability of the listed classes together
    own: np.ndarray = field(default_factory=_none)  # float64: log p of a target that is known, not listed; else NaN
    rest_low: np.ndarray = field(default_factory=_none)  # float64: probability of all others, at least
    rest_high: np.ndarray = field(default_factory=_none)  # float64: and at most
    cut: np.ndarray = field(default_factory=_none)  # float64: none of these others exceeds it
    tokens: pa.Array | None = None  # the likeliest class of every row, where classes are strings without numbers


def _no_labels() -> np.ndarray:
    return np.empty((0, 0))


@dataclass
class MultilabelRows(ScoredRows):
    """Rows of one number per label. ``loss``, ``brier`` and ``entropy`` are sums over the labels of a row that are not
    ignored, ``nll`` their mean; ``rank`` is the number of labels that are predicted wrongly."""

    score: np.ndarray = field(default_factory=_no_labels)  # (n, C) log-odds or probabilities, as given
    positive: np.ndarray = field(default_factory=_no_labels)  # (n, C) 0..1: the targets; NaN where ignored
    called: np.ndarray = field(default_factory=_no_labels)  # bool (n, C): predicted labels
    probability: np.ndarray = field(default_factory=_no_labels)  # float64 (n, C)
    losses: np.ndarray = field(default_factory=_no_labels)  # float64 (n, C): NLL
    counted: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64: labels that are not ignored
    held: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64: sum of their targets
    calls: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64: how many of them are predicted
    both: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64: sum of the targets of those
