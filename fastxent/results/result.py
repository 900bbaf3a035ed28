"""The result of an evaluation: its values, and the forms they are shown and logged in."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from fastxent.results.evaluation import EvalValues
from fastxent.results.loggable import Loggable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class EvalResult(Loggable, EvalValues):
    """The result of `evaluate`: read-only values, printed as tables.

    ``result.metrics["accuracy"].value`` is the accuracy of all rows;
    ``result.slices["kind"]["code"].metrics["accuracy"]`` is that of the rows whose column "kind" is "code".

    Attributes:
        rows: RowCounts. Counts of all rows: total, used, ignored, bad.
        metrics: dict of name to Metric (value, stderr, ci95). The metrics of all rows.
        calibration: Calibration. Bins of the confidence.
        reliability: Reliability or None. Finer cells of the confidence with their isotonic line, and
            ``reliability.consistency_band()``; None without metrics of calibration, or with negative weights.
        per_class: PerClass. Counts and metrics of each class.
        nll_histogram: Histogram. The distribution of the NLL of a row.
        nll_quantiles: dict of float to float. Quantile levels from 0 to 1, and the NLL in nats at each.
        slices: dict of column to dict of value to Slice (rows, metrics).
        config: EvalConfig. The options of the evaluation.
        clusters: int or None. Number of clusters that standard errors are computed from; None without clusters.
        timing: dict or None. Seconds, rates and threads of the run.
        files: tuple of str. The input files.
        warnings: tuple of str. What may be wrong with the rows.
        versions: dict of program to version. The programs that computed the result.
        curves: Curves or None. Of a binary dump with rows of both classes: ``curves.roc``,
            ``curves.precision_recall``, ``curves.gains``, and the thresholds ``curves.best_f1`` and
            ``curves.equal_error``.
        score_rows: dict of name to RowCounts. Counts of rows for each of ``scores``: ignored are also those without it.
        confusion: Confusion or None. Rows by target and prediction, of up to 1,000 classes; ``confusion.matrix()``.
        most_confused: MostConfused or None. The pairs of a target and another prediction with the most rows.
        worst: tuple of WorstRow. With ``worst=k``, the k rows of largest loss, by id or place.
        until: Until or None. With ``until=``, how many rows were read, and how wide intervals are.
        state: EvalState or None. The state, to be saved or merged; None for a result read from JSON, and with
            ``until=``, because intervals of a state do not know that the run could stop.
    """

    def __repr__(self) -> str:
        from fastxent.results.text import terminal

        return terminal(self)

    def to_markdown(self) -> str:
        """Return Markdown tables of metrics and slices."""
        from fastxent.results.text import markdown

        return markdown(self)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write a self-contained HTML report.

        Args:
            path: str or path. The file to write.

        Raises:
            OutputError: if the file cannot be written, or matplotlib or jinja2 is not installed.
        """
        from fastxent.results.report import html, write

        write(html, self, path)

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook; None, so that the notebook prints tables, without matplotlib or jinja2."""
        if not all(importlib.util.find_spec(name) for name in ("jinja2", "matplotlib")):
            return None
        from fastxent.results.report import notebook_html

        return notebook_html(self)

    def plot_reliability(self) -> Figure:
        """Plot the accuracy of each bin against its confidence, above the number of rows in each bin.

        The line is the isotonic regression on finer cells. The band is where it lies for 90 % of calibrated dumps with
        the same confidences, if rows are independent; there is none with clusters, and for multilabel dumps.
        """
        from fastxent.results.report import plot

        return plot("reliability", self)

    def plot_roc_curve(self) -> Figure:
        """Plot the ROC curve of a binary dump. ConfigError for other results."""
        from fastxent.results.report import plot

        return plot("roc_curve", self)

    def plot_precision_recall_curve(self) -> Figure:
        """Plot precision against recall of a binary dump. ConfigError for other results."""
        from fastxent.results.report import plot

        return plot("precision_recall_curve", self)

    def plot_gains_curve(self) -> Figure:
        """Plot the share of positives among the highest scores of a binary dump. ConfigError for other results."""
        from fastxent.results.report import plot

        return plot("gains_curve", self)

    def plot_nll_histogram(self) -> Figure:
        """Plot the distribution of the NLL of a row, above its cumulative distribution."""
        from fastxent.results.report import plot

        return plot("nll_histogram", self)

    def plot_slices(self, column: str | None = None, metric: str | None = None) -> Figure:
        """Plot a metric of each slice with its 95 % interval.

        Args:
            column: str or None. The column of the slices; the first one by default.
            metric: str or None. The name of the metric; the first one by default.

        Raises:
            ConfigError: if the result does not have the column or the metric.
        """
        from fastxent.results.report import plot

        return plot("forest", self, column=column, metric=metric)
