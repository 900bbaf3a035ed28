"""The plots of a comparison of two dumps. Each function takes a result and returns a figure."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from fastxent.results.comparison import DIVERGENCE_TITLES, CompareValues, Flips, MetricComparison
from fastxent.results.comparisons import SetValues
from fastxent.results.report.drawing import count_axis, forest_of, largest, limits, single, styled
from fastxent.results.report.palette import ACCENT, INK, MUTED, PANEL, PAPER, SECOND, SOFT, THIRD
from fastxent.results.report.svg import Drawing, printable
from fastxent.results.text import count, number
from fastxent.results.values import Metric, labels

_LINES = {"kl_divergence_ab": (ACCENT, "o"), "kl_divergence_ba": (SECOND, "s"), "js_divergence": (THIRD, "^")}
_MARKED = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)  # quantiles on the axis


def relative(found: MetricComparison) -> Metric:
    """Return the difference in percent of the metric of the first dump; NaN if that is 0."""
    base = abs(found.a.value)
    if not (math.isfinite(base) and base):
        return Metric(math.nan)
    low, high = (100 * end / base for end in found.difference.ci95)
    return Metric(100 * found.difference.value / base, ci95=(low, high))


@styled
def differences(result: CompareValues) -> Drawing:
    """Plot the difference of each metric in percent of the first dump, with its 95 % interval."""
    drawn = [(name, relative(m)) for name, m in result.metrics.items()]
    drawn = [(name.replace("_", " "), m) for name, m in drawn if math.isfinite(m.value)]
    return forest_of(drawn, Metric(0.0), f"change in % of {printable(result.names[0], 22)}")


@styled
def slice_differences(result: CompareValues, column: str, metric: str) -> Drawing:
    """Plot the difference of a metric in each slice with its 95 % interval, smallest first.

    The dashed line is the difference of all rows, the grey line is no difference.
    """
    parts, whole = result.slices[column], result.metrics[metric].difference
    found = [
        (name, part.metrics[metric].difference)
        for name, part in largest(zip(labels(parts), parts.values(), strict=True))
    ]
    drawn = sorted(((name, m) for name, m in found if math.isfinite(m.value)), key=lambda entry: entry[1].value)
    figure = forest_of(drawn, whole, f"change of {metric.replace('_', ' ')}")
    (ax,) = figure.axes
    ax.axvline(0.0, color=MUTED, linewidth=1)
    ax.set_xlim(limits([*(m for _, m in drawn), whole], Metric(0.0)))
    return figure


@styled
def dump_differences(result: SetValues[Any], metric: str) -> Drawing:
    """Plot the difference of a metric between each dump and the base, with its 95 % interval."""
    found = [(name, each.metrics[metric].difference) for name, each in result.comparisons.items()]
    found = [(name, difference) for name, difference in found if math.isfinite(difference.value)]
    return forest_of(found, Metric(0.0), f"difference of {metric.replace('_', ' ')}")


def drawable(result: CompareValues, name: str) -> list[tuple[float, float]]:
    """Return the quantiles of a divergence that a logarithmic axis can show."""
    return [(q, v) for q, v in result.divergences[name].quantiles.items() if 0 < v < math.inf]


@styled
def divergence_quantiles(result: CompareValues) -> Drawing:
    """Plot the quantiles of each divergence on a logarithmic axis. At least one must be `drawable`."""
    figure, ax = single(4.0)
    for name, (colour, marker) in _LINES.items():
        found = drawable(result, name)
        title = DIVERGENCE_TITLES[name]
        places = [q for q, _ in found]
        ax.plot(places, [v for _, v in found], color=colour, linewidth=1.4)
        if found:
            ax.scatter(places, [v for _, v in found], s=20, color=colour, marker=marker, zorder=3, gid=name,
                       label=title)  # fmt: skip
            figure.tips[name] = [f"{title}, quantile {100 * q:g} %: {number(v, 4)} nats" for q, v in found]
    ax.set_xscale("logit")
    ax.set_xlim(0.0007, 0.9993)
    ax.xaxis.set_major_locator(FixedLocator(_MARKED))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    values = [v for name in _LINES for _, v in drawable(result, name)]
    ax.set_yscale("log")
    ax.set_ylim(min(values) / 2, max(values) * 2)
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9.5, labelcolor=MUTED)
    ax.set(xlabel="quantile of the rows", ylabel="divergence (nats)")
    return figure


@styled
def flips(result: CompareValues, found: Flips) -> Drawing:
    """Plot the rows by whether either dump is right: counts and shares in two rows of two fields."""
    figure, ax = single(2.6)
    fields = [
        (0, 0, found.both_right, "both right"), (1, 0, found.right_to_wrong, "right → wrong"),
        (0, 1, found.wrong_to_right, "wrong → right"), (1, 1, found.both_wrong, "both wrong"),
    ]  # fmt: skip
    total = sum(rows for _, _, rows, _ in fields)
    for x, y, rows, name in fields:
        gid = f"flips-{x}-{y}"
        ax.bar(x, 1, 1, bottom=y - 0.5, color=PANEL if x == y else SOFT, edgecolor=PAPER, linewidth=3, gid=gid)
        share = f"{number(100 * rows / total, 3)} %" if total else "–"
        figure.tips[gid] = [f"{name}: {count(rows)} rows, {share}"]
        ax.text(x, y - 0.12, count(rows), ha="center", va="center", color=INK, fontsize=13)
        ax.text(x, y + 0.22, share, ha="center", va="center", color=INK, fontsize=9.5)
    a, b = (printable(name, 16) for name in result.names)
    ax.set_xticks([0, 1], [f"{b}\nright", f"{b}\nwrong"])
    ax.set_yticks([0, 1], [f"{a}\nright", f"{a}\nwrong"])
    ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
    ax.tick_params(length=0, labelcolor=INK, labelbottom=False, labeltop=True)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    return figure


@styled
def target_change(result: CompareValues) -> Drawing:
    """Plot how many rows have each change of the probability of the target."""
    assert result.target_probability is not None  # the dumps have targets
    edges, counts = result.target_probability.histogram
    figure, ax = single(3.4)
    bars = [(a, b, n) for a, b, n in zip(edges, edges[1:], counts, strict=False) if n]
    for i, (a, b, n) in enumerate(bars):
        ax.bar(a, n, b - a, align="edge", color=SOFT, edgecolor=PAPER, linewidth=0.5, gid=f"change-{i}")
        figure.tips[f"change-{i}"] = [f"{number(a, 3)} to {number(b, 3)}: {count(n)} rows"]
    count_axis(ax, [n for _, _, n in bars])
    ax.axvline(0.0, color=SECOND, linewidth=1.2, linestyle=(0, (4, 2)))
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])
    ax.set(xlim=(-1, 1), xlabel="change of the probability of the target", ylabel="rows")
    return figure
