"""The curves of a binary dump, read-only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RocCurve:
    """Rates at falling thresholds: a row is predicted positive if its score is at least the threshold.

    Attributes:
        threshold: float (points,). Scores as the dump holds them: log-odds or probabilities. The first is infinite.
        false_positive_rate: float (points,). Share of the negative rows that are predicted positive.
        true_positive_rate: float (points,). Share of the positive rows that are predicted positive.
    """

    threshold: tuple[float, ...]
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall at falling thresholds.

    Attributes:
        threshold: float (points,). As in `RocCurve`.
        precision: float (points,). Share of the rows predicted positive that are positive.
        recall: float (points,). Share of the positive rows that are predicted positive.
    """

    threshold: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """At most 512 points of each curve.

    Attributes:
        roc: RocCurve.
        precision_recall: PrecisionRecallCurve.
    """

    roc: RocCurve
    precision_recall: PrecisionRecallCurve
