"""The drawing functions of all reports: style and size, forest plots, axes of counts.

Plots are as wide as a phone, which then shows them unscaled. pyplot is not imported, so no global state changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fastxent.results.report.palette import ACCENT, GRID, INK, MUTED, PAPER, SECOND
from fastxent.results.report.svg import Drawing, printable
from fastxent.results.text import number, value_text
from fastxent.results.values import Metric, RowCounts


class Group(Protocol):
    """All rows or a slice, of any kind of result."""

    @property
    def rows(self) -> RowCounts: ...


Keywords = ParamSpec("Keywords")
Result = TypeVar("Result")
AnyGroup = TypeVar("AnyGroup", bound=Group)

MOST_SLICES = 200  # in a plot; those with the most rows are shown
_WIDTH = 4.8  # inches; about the width of a phone
_STYLE: Any = {
    "font.size": 10.5, "text.color": INK, "text.parse_math": False,
    "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.facecolor": "none", "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": GRID, "grid.linewidth": 0.7, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "legend.frameon": False,
}  # fmt: skip


def styled(
    draw: Callable[Concatenate[Result, Keywords], Drawing],
) -> Callable[Concatenate[Result, Keywords], Drawing]:
    """Draw in the style of the report, whatever the style of the session is."""

    @functools.wraps(draw)
    def drawn(result: Result, *args: Keywords.args, **options: Keywords.kwargs) -> Drawing:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(result, *args, **options)

    return cast(Callable[Concatenate[Result, Keywords], Drawing], drawn)


def single(height: float) -> tuple[Drawing, Axes]:
    """Return a figure with one plot. height: float. Inches."""
    figure = Drawing(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def stacked(height: float) -> tuple[Drawing, tuple[Axes, Axes]]:
    """Return a figure with a plot above a lower one with the same x-axis. height: float. Inches."""
    figure = Drawing(figsize=(_WIDTH, height), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    top.tick_params(labelbottom=False)
    return figure, (top, below)


def forest_of(drawn: Sequence[tuple[str, Metric]], whole: Metric, label: str) -> Drawing:
    """Plot named metrics with their 95 % intervals, from top to bottom.

    Args:
        drawn: sequence of (str, Metric). Names, and metrics with `finite_ends`. Bounds are a wide bar.
        whole: Metric. Its value is a dashed line, if it is finite.
        label: str. Of the axis.
    """
    figure, ax = single(1.0 + 0.21 * max(len(drawn), 2))
    at = range(len(drawn))
    first, last = shown = limits([m for _, m in drawn], whole)
    ends = [tuple(min(max(end, first), last) for end in m.ci95) for _, m in drawn]  # an end may be infinite
    ax.hlines(at, [end[0] for end in ends], [end[1] for end in ends], color=ACCENT, linewidth=1.6)
    tips = [f"{printable(name, 60)}: {with_interval(m)}" for name, m in drawn]
    exact = [i for i in at if not math.isnan(drawn[i][1].value)]
    ax.scatter([drawn[i][1].value for i in exact], exact, s=26, color=ACCENT, zorder=3, gid="slices")
    figure.tips["slices"] = [tips[i] for i in exact]
    wide = [(i, *m.bounds) for i, (_, m) in enumerate(drawn) if math.isnan(m.value) and m.bounds is not None]
    if wide:
        places = [i for i, _, _ in wide]
        lows, highs = [max(low, first) for _, low, _ in wide], [min(high, last) for _, _, high in wide]
        ax.hlines(places, lows, highs, color=ACCENT, linewidth=7, alpha=0.45, gid="bounds")
        figure.tips["bounds"] = [tips[i] for i in places]
    if math.isfinite(whole.value):
        ax.axvline(whole.value, color=SECOND, linewidth=1.2, linestyle=(0, (4, 2)))
    ax.set_yticks(at, [printable(name, 26) for name, _ in drawn])
    ax.set(xlim=shown, ylim=(len(drawn) - 0.4, -0.6), xlabel=label)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.tick_params(axis="x", labeltop=len(drawn) > 25)  # a long plot is scrolled: show the scale at both ends
    ax.grid(visible=False, axis="y")
    return figure


def limits(metrics: Iterable[Metric], whole: Metric) -> tuple[float, float]:
    """Return the range of an axis that shows every value. Intervals far wider than typical ones are cut."""
    found = [m for m in (*metrics, whole) if finite_ends(m)]
    if not found:
        return 0.0, 1.0
    values = [end for m in found for end in finite_ends(m)]
    low, high = min(values), max(values)
    ends = [end for m in found for end in m.ci95 if math.isfinite(end)]
    typical = sorted(m.ci95[1] - m.ci95[0] for m in found if math.isfinite(m.ci95[1] - m.ci95[0])) or [0.0]
    reach = 2 * max(high - low, typical[len(typical) // 2])
    low, high = min([low, *(max(end, low - reach) for end in ends)]), max([high, *(min(e, high + reach) for e in ends)])
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def finite_ends(metric: Metric) -> list[float]:
    """Return the value of a metric, or its bounds if they are all that is known, without what is not finite."""
    known = (metric.value,) if metric.bounds is None or not math.isnan(metric.value) else metric.bounds
    return [end for end in known if math.isfinite(end)]


def with_interval(metric: Metric) -> str:
    """Return a metric and its interval as text."""
    low, high = metric.ci95
    interval = "" if math.isnan(low) else f" ({number(low, 4)} … {number(high, 4)})"
    return value_text(metric) + interval


def count_axis(ax: Axes, counts: Sequence[int]) -> None:
    """Label the y-axis of bars of ``counts``. The axis is logarithmic if the counts differ much."""
    if counts and max(counts) > 50 * min(counts):
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.8)
        ax.yaxis.set_major_locator(LogLocator(numticks=4))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))


def largest(groups: Iterable[tuple[str, AnyGroup]]) -> list[tuple[str, AnyGroup]]:
    """Return the slices with the most rows, at most `MOST_SLICES`."""
    return sorted(groups, key=lambda entry: -entry[1].rows.used)[:MOST_SLICES]
