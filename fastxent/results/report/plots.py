"""The plots of an evaluation. Each function takes a result and returns a figure, for pages and for notebooks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fastxent.errors import ConfigError
from fastxent.names import some
from fastxent.results.curves import Curves, OperatingPoint
from fastxent.results.evaluation import EvalValues
from fastxent.results.report.drawing import count_axis, finite_ends, forest_of, largest, single, stacked, styled
from fastxent.results.report.palette import ACCENT, MUTED, PAPER, SECOND, SOFT
from fastxent.results.report.svg import Drawing, printable
from fastxent.results.text import count, number
from fastxent.results.values import Metric, labels

_MARKED = {0.5: "median", 0.95: "95th percentile"}  # quantiles of the NLL drawn as lines


@styled
def reliability(result: EvalValues) -> Drawing:
    """Plot the accuracy of each bin against its mean confidence, above the number of rows in each bin.

    Of a binary dump, plot the share of positive rows against the mean prediction. The isotonic line and its consistency
    band lie over the bins.
    """
    figure, (top, below) = stacked(4.6)
    bins = result.calibration
    mean, share = calibrated(result)
    used = [i for i, n in enumerate(bins.count) if n and math.isfinite(bins.accuracy[i])]
    low, high, confidence, accuracy = (
        [column[i] for i in used] for column in (bins.lower, bins.upper, bins.confidence, bins.accuracy)
    )
    rows = [bins.count[i] for i in used]
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration")
    width = [b - a for a, b in zip(low, high, strict=True)]
    top.bar(low, accuracy, width, align="edge", color=SOFT, edgecolor=PAPER, linewidth=1)
    top.vlines(confidence, confidence, accuracy, color=SECOND, linewidth=1.6, label="gap")
    top.scatter(confidence, accuracy, s=26, color=ACCENT, zorder=3, clip_on=False, gid="bins", label="bin")
    figure.tips["bins"] = [
        f"({number(a, 3)}, {number(b, 3)}]: {count(n)} rows, {mean} {number(c, 4)}, {share} {number(d, 4)}"
        for a, b, n, c, d in zip(low, high, rows, confidence, accuracy, strict=True)
    ]
    _add_isotonic(top, result)
    top.set(xlim=(0, 1), ylim=(0, 1.03), ylabel=share)
    top.legend(loc="upper left", fontsize=9.5, labelcolor=MUTED)
    for i, (left, step, n) in enumerate(zip(low, width, rows, strict=True)):
        below.bar(left, n, step, align="edge", color=SOFT, edgecolor=PAPER, linewidth=1, gid=f"count-{i}")
        figure.tips[f"count-{i}"] = [f"({number(left, 3)}, {number(left + step, 3)}]: {count(n)} rows"]
    count_axis(below, rows)
    below.set(xlabel=mean, ylabel="rows")
    return figure


def has_band(result: EvalValues) -> bool:
    """Return whether the isotonic line has a consistency band: only if rows are independent."""
    return result.reliability is not None and result.clusters is None and result.task != "multilabel"


def _add_isotonic(ax: Any, result: EvalValues) -> None:
    """Draw the isotonic line, and its consistency band."""
    found = result.reliability
    if found is None:
        return
    if has_band(result):
        low, high = found.consistency_band()
        ax.fill_between(found.confidence, low, high, color=ACCENT, alpha=0.18, linewidth=0, gid="band",
                        label="90 % if calibrated")  # fmt: skip
    ax.plot(found.confidence, found.isotonic, color=ACCENT, linewidth=1.6, gid="isotonic", label="isotonic")


def calibrated(result: EvalValues) -> tuple[str, str]:
    """Return the names of the two numbers that calibration compares."""
    return ("confidence", "accuracy") if result.task == "multiclass" else ("prediction", "positive share")


def _curves(result: EvalValues) -> Curves:
    if result.curves is None:
        raise ConfigError("cannot plot a curve: the result has none; only binary dumps with rows of both classes do")
    return result.curves


@styled
def roc_curve(result: EvalValues) -> Drawing:
    """Plot the true positive rate against the false positive rate."""
    roc, equal = _curves(result).roc, _curves(result).equal_error
    figure, ax = single(4.4)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.plot(roc.false_positive_rate, roc.true_positive_rate, color=ACCENT, linewidth=1.8)
    _mark(figure, ax, equal.false_positive_rate, equal.recall, "equal error", equal)
    ax.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="false positive rate", ylabel="true positive rate")
    return figure


@styled
def precision_recall_curve(result: EvalValues) -> Drawing:
    """Plot precision against recall."""
    found, best = _curves(result).precision_recall, _curves(result).best_f1
    figure, ax = single(4.4)
    ax.axhline(found.precision[-1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.plot(found.recall, found.precision, color=ACCENT, linewidth=1.8)
    _mark(figure, ax, best.recall, best.precision, "best F1", best)
    ax.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    return figure


@styled
def gains_curve(result: EvalValues) -> Drawing:
    """Plot the share of the positive rows among the rows of the highest scores."""
    found = _curves(result).gains
    figure, ax = single(4.4)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.plot((0.0, *found.share), (0.0, *found.gain), color=ACCENT, linewidth=1.8)
    ax.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="share of all rows, highest scores first", ylabel="share of positives")
    return figure


def _mark(figure: Drawing, ax: Any, x: float, y: float, name: str, point: OperatingPoint) -> None:
    """Draw a point of a curve, with its rates as a tip."""
    place = name.lower().replace(" ", "-")
    ax.scatter([x], [y], s=34, color=SECOND, zorder=3, clip_on=False, gid=place)
    figure.tips[place] = [
        f"{name}: threshold {number(point.threshold, 4)}, precision {number(point.precision, 4)}, recall "
        f"{number(point.recall, 4)}, F1 {number(point.f1, 4)}"
    ]


@styled
def nll_histogram(result: EvalValues) -> Drawing:
    """Plot the distribution of the NLL of a row, above its cumulative distribution.

    The area of a bar is its share of rows: the height is that share, divided by the width on the logarithmic axis.
    """
    figure, (top, below) = stacked(4.0)
    edges, counts = _coarser(_finite(result.nll_histogram.edges), result.nll_histogram.counts)
    total = sum(counts) + result.nll_histogram.infinite
    running = list(itertools.accumulate(counts, initial=0))
    for i, (a, b, n) in enumerate(zip(edges, edges[1:], counts, strict=False)):
        if n:
            density = n / total / math.log2(b / a)
            top.bar(a, density, b - a, align="edge", color=SOFT, edgecolor=PAPER, linewidth=0.5, gid=f"nll-{i}")
            figure.tips[f"nll-{i}"] = [f"{number(a, 3)} to {number(b, 3)} nats: {count(n)} rows"]
    if counts:
        below.plot(edges, [n / total for n in running], color=ACCENT, linewidth=1.8)
        for ax in (top, below):
            ax.set_xscale("log")
            ax.set_xlim(edges[0], edges[-1])
        decades = LogLocator(numticks=7)
        below.xaxis.set_major_locator(decades)
        below.xaxis.set_minor_formatter(NullFormatter())
        below.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        named = [(name, result.nll_quantiles.get(q, math.nan)) for q, name in _MARKED.items()]
        named = [(name, at) for name, at in named if edges[0] <= at <= edges[-1]]
        for _, at in named:
            top.axvline(at, color=SECOND, linewidth=1.2, linestyle=(0, (4, 2)))
        lines = " · ".join(f"{name} {number(at, 3)}" for name, at in named)
        top.set_title(lines, loc="left", color=SECOND, fontsize=9.5)
    for ax in (top, below):
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
    top.set_ylabel("share of rows")
    below.set(xlabel="NLL of a row (nats)", ylabel="cumulative", ylim=(0, 1.03))
    return figure


@styled
def confidence_accuracy(result: EvalValues) -> Drawing:
    """Plot accuracy against mean confidence: each slice as a point, and all rows with their 95 % intervals."""
    figure, ax = single(4.0)
    ax.axline((0, 0), slope=1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    named = [
        (f"{column} = {label}", part)
        for column, values in result.slices.items()
        for label, part in zip(labels(values), values.values(), strict=True)
    ]
    marks = [(name, part.rows.used, *_pair(part.metrics)) for name, part in largest(named)]
    marks = [mark for mark in marks if math.isfinite(mark[2].value) and math.isfinite(mark[3].value)]
    if marks:
        most = max(rows for _, rows, _, _ in marks)
        x, y = [c.value for _, _, c, _ in marks], [a.value for _, _, _, a in marks]
        size = [12 + 50 * rows / most for _, rows, _, _ in marks]
        ax.scatter(x, y, s=size, color=SOFT, edgecolor=ACCENT, linewidth=0.8, gid="slices", label="slices")
        figure.tips["slices"] = [
            f"{printable(name, 60)}: confidence {number(c.value, 4)}, accuracy {number(a.value, 4)}, {count(rows)} rows"
            for name, rows, c, a in marks
        ]
    c, a = _pair(result.metrics)
    ends = [end for metric in (c, a) for end in (metric.value, *metric.ci95) if math.isfinite(end)]
    if math.isfinite(c.value) and math.isfinite(a.value):
        ax.hlines([a.value], c.ci95[0], c.ci95[1], color=SECOND, linewidth=1.6)
        ax.vlines([c.value], a.ci95[0], a.ci95[1], color=SECOND, linewidth=1.6)
        ax.scatter([c.value], [a.value], s=44, color=SECOND, zorder=3, gid="whole", label="all rows, 95 % interval")
        figure.tips["whole"] = [f"all rows: confidence {number(c.value, 4)}, accuracy {number(a.value, 4)}"]
    ends += [metric.value for mark in marks for metric in mark[2:]]
    low, high = max(min(ends, default=0.0), 0.0), min(max(ends, default=1.0), 1.0)
    pad = max(0.06 * (high - low), 0.01)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), xlabel="mean confidence", ylabel="accuracy")
    ax.locator_params(nbins=6)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=9.5, labelcolor=MUTED)
    return figure


@styled
def forest(result: EvalValues, column: str | None = None, metric: str | None = None) -> Drawing:
    """Plot a metric of each slice with its 95 % interval, smallest first. The dashed line is the metric of all rows.

    Args:
        result: EvalValues. The result.
        column: str or None. The column of the slices; the first one by default.
        metric: str or None. The name of the metric; the first one by default.

    Raises:
        ConfigError: if the result does not have the column or the metric.
    """
    metric = _chosen(metric, result.metrics, "metric")
    column = _chosen(column, result.slices, "column")
    parts, whole = result.slices[column], result.metrics[metric]
    drawn = sorted(
        ((name, m) for name, part in largest(zip(labels(parts), parts.values(), strict=True))
         if finite_ends(m := part.metrics[metric])),
        key=lambda entry: min(finite_ends(entry[1])),
    )  # fmt: skip
    return forest_of(drawn, whole, metric.replace("_", " "))


def _chosen(name: str | None, there: dict[str, Any], what: str) -> str:
    if name is None and there:
        return next(iter(there))
    if name is None:
        raise ConfigError("cannot plot slices: the result has none; evaluate the dump with by=COLUMN")
    if name not in there:
        raise ConfigError(f"invalid {what} {name!r}; expected one of: {some(there) or 'none'}")
    return name


def _pair(metrics: dict[str, Metric]) -> tuple[Metric, Metric]:
    undefined = Metric(math.nan)
    return metrics.get("confidence", undefined), metrics.get("accuracy", undefined)


def _finite(edges: Sequence[float]) -> list[float]:
    """Return edges for a logarithmic axis: the bins from 0 and to infinity are drawn as wide as a doubling."""
    found = list(edges)
    if found and found[0] == 0:
        found[0] = found[1] / 2 if math.isfinite(found[1]) else 2.0**-31
    if found and found[-1] == math.inf:
        found[-1] = found[-2] * 2
    return found


def _coarser(edges: list[float], counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Join 2, 4 or 8 neighbouring bins if there are few rows for the number of bins. 8 bins are a doubling."""
    target = min(64, max(12, math.isqrt(sum(counts))))
    group = next((g for g in (1, 2, 4) if len(counts) <= g * target), 8)
    if not counts:
        return [], []
    # An edge is 2**e · (1 + k/8). Groups start at multiples of the group size in k, so doublings are not split.
    place = [round((math.frexp(edge)[0] * 2 - 1) * 8) for edge in edges]
    cuts = [0, *(i for i in range(1, len(counts)) if place[i] % group == 0), len(counts)]
    return [edges[i] for i in cuts], [sum(counts[a:b]) for a, b in itertools.pairwise(cuts)]
