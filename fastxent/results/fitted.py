"""The result of `fit_temperature`."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import ClassVar

from fastxent.results.evaluation import EvalValues
from fastxent.results.result import EvalResult
from fastxent.results.temperature import TemperatureValues


@dataclass(frozen=True, repr=False)
class TemperatureFit(TemperatureValues):
    """The temperature that minimises the cross-entropy of a dump, and what it changes.

    Attributes:
        temperature: Metric. Scores are divided by it. NaN if no temperature minimises the loss; ``note`` says why.
        bracket: (float, float). Temperatures that the minimum is proven to lie between; 0 or infinity for no bound.
        results: dict of EvalResult. "before": at temperature 1. "after": cross-fitted, that is each fold is scored with
            the temperature of the other folds; absent without a temperature.
        folds: float (folds,). The temperature that each fold is scored with.
        slices: slices[column][value] is a `TemperatureSlice`.
        reads: int. How often the scores were read.
        note: str or None. A sentence if there is no temperature.
        timing: dict or None. Seconds, rates and threads of all reads.
    """

    kind: ClassVar[type[EvalValues]] = EvalResult

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a report with the metrics and reliability diagrams before and after, as one file. Atomic."""
        from fastxent.results.report import fit_html, write

        write(fit_html, self, path)
