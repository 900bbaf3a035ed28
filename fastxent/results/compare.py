"""The result of a comparison: its values, and the forms they are shown in."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any, Self

from fastxent.results import comparison_read, encoding
from fastxent.results.comparison import CompareValues
from fastxent.results.loggable import Loggable


@dataclass(frozen=True, repr=False, eq=False)
class CompareResult(Loggable, CompareValues):
    """The result of `compare`: read-only values, printed as tables.

    ``result.metrics["cross_entropy"].difference.ci95`` is the interval of the paired difference, b - a.

    Attributes:
        rows: ComparedRows. Counts of rows: total, used (in both), ignored, bad, only_a, only_b.
        metrics: dict of name to MetricComparison (a, b, difference, p_value, correlation, …; flips of a score that is
            0 or 1 in all rows).
        perplexity_ratio: Metric or None. Perplexity of b over that of a.
        divergences: dict. "kl_divergence_ab", "kl_divergence_ba" and "js_divergence", each a Divergence (mean, max,
            quantiles, by_confidence), in nats; of a multilabel dump, the mean over the labels of a row. Empty without
            logits.
        same_top_1: Metric or None. The share of rows with the same predicted class (or labels).
        target_probability: TargetProbability or None. The change of the probability of the target (mean over labels).
        flips: Flips or None. Rows by whether either dump predicts the target (all labels).
        rank: RankChange or None. The change of the rank of the target, with more than two classes.
        slices: dict of column to dict of value to Compared: the fields above, of the rows of a slice.
        largest: tuple of ChangedRow. The rows that changed most. Empty without logits.
        names: (str, str). Names of the two dumps.
        config: EvalConfig. The options.
        clusters: int or None. Number of clusters.
        timing: dict or None. Seconds, rates and threads of the run.
        files: two tuples of str. The input files of either dump.
        warnings: tuple of str. What may be wrong with the dumps or the options.
        versions: dict of str to str. Versions of fastxent and of the libraries that it uses.
        state: CompareState or None. The state that the result was computed from.
        score_rows: dict of name to RowCounts. Counts of rows for each of ``scores``: ignored are also those where it is
            null in either dump.
    """

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the result with these values; the inverse of `to_dict`, without ``state``.

        Raises:
            StateError: if the values are not those of a comparison.
        """
        return comparison_read.from_dict(cls, values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the result with this JSON text; the inverse of `to_json`, without ``state``.

        Raises:
            StateError: if the text is not that of a comparison.
        """
        return cls.from_dict(encoding.read(text, "comparison"))

    def __repr__(self) -> str:
        from fastxent.results.comparison_text import terminal

        return terminal(self)

    def to_markdown(self) -> str:
        """Return Markdown tables of metrics, divergences and slices."""
        from fastxent.results.comparison_text import markdown

        return markdown(self)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a self-contained HTML report.

        Args:
            path: str or path. The file to write.

        Raises:
            OutputError: if the file cannot be written, or matplotlib or jinja2 is not installed.
        """
        from fastxent.results.report import comparison_html, write

        write(comparison_html, self, path)
