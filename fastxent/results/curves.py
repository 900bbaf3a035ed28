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
class GainsCurve:
    """Cumulative gains at falling thresholds: what is gained by acting on the rows of the highest scores first.

    Attributes:
        threshold: float (points,). As in `RocCurve`.
        share: float (points,). Share of all rows that are predicted positive.
        gain: float (points,). Share of the positive rows among them: the recall.
        lift: float (points,). gain / share: how many times more positive rows than a random choice finds.
    """

    threshold: tuple[float, ...]
    share: tuple[float, ...]
    gain: tuple[float, ...]
    lift: tuple[float, ...]


@dataclass(frozen=True)
class OperatingPoint:
    """The rates at one threshold: a row is predicted positive if its score is at least the threshold.

    Attributes:
        threshold: float. A score as the dump holds it: log-odds or a probability.
        precision, recall, f1: float.
        false_positive_rate, false_negative_rate: float.
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    false_positive_rate: float
    false_negative_rate: float


@dataclass(frozen=True)
class Curves:
    """At most 512 points of each curve, and two points chosen among all thresholds.

    Attributes:
        roc: RocCurve.
        precision_recall: PrecisionRecallCurve.
        gains: GainsCurve.
        best_f1: OperatingPoint. The highest threshold with the largest F1.
        equal_error: OperatingPoint. The highest threshold whose false positive rate is nearest to its false negative
            rate.
    """

    roc: RocCurve
    precision_recall: PrecisionRecallCurve
    gains: GainsCurve
    best_f1: OperatingPoint
    equal_error: OperatingPoint
