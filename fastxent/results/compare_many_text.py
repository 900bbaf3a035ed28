"""Several comparisons with one base as text: tables for a terminal of 80 columns, and Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from fastxent.names import printable
from fastxent.results.comparison import Compared, MetricComparison
from fastxent.results.comparison_text import TextTable, counts, interval, marked_down, p_value, rendered
from fastxent.results.comparisons import SetValues, shared
from fastxent.results.text import MAX_SLICES, WIDTH, count, number, plain_text, value_text
from fastxent.results.values import labels

MAIN = ("cross_entropy", "perplexity", "accuracy", "f1", "micro_f1", "roc_auc", "macro_roc_auc", "brier_score")
_MOST_DUMPS = 4  # columns of a table of slices in a terminal


def heading(result: SetValues[Any]) -> str:
    """Return the base, the number of dumps and the counts of rows, classes and clusters in one line."""
    first = next(iter(result.comparisons.values()))
    dumps = len(result.comparisons)
    return printable(" · ".join([
        f"{result.base} → {dumps} dump{'s' if dumps > 1 else ''}", *counts(first, (result.base, "some dumps"))
    ]))  # fmt: skip


def chosen(result: SetValues[Any]) -> list[str]:
    """Return the metrics that are shown: the main ones of the task, and all scores."""
    first = next(iter(result.comparisons.values()))
    names = shared(result.comparisons.values())
    found = [name for name in names if name in MAIN or name in first.config.scores]
    return found or names


def metric_table(result: SetValues[Any], name: str) -> TextTable:
    """Return one metric of all dumps, with the difference to the base."""
    each = {dump: found.metrics[name] for dump, found in result.comparisons.items()}
    base = next(iter(each.values())).a
    return TextTable(
        [name, "value", "difference", "95 % interval", "p", "p (Holm)"],
        [
            (result.base, value_text(base, 4), "", "", "", ""),
            *((dump, value_text(m.b, 4), value_text(m.difference, 3, 3), interval(m.difference), *_p_values(m))
              for dump, m in each.items()),
        ],
    )  # fmt: skip


def _p_values(m: MetricComparison) -> tuple[str, str]:
    return p_value(m.p_value), "" if m.adjusted_p_value is None else p_value(m.adjusted_p_value)


def together(result: SetValues[Any]) -> TextTable | None:
    """Return what the base and each dump make of a row: divergence, agreement and flips; None without logits."""
    if not any(found.divergences for found in result.comparisons.values()):
        return None
    flips = all(found.flips is not None for found in result.comparisons.values())
    headers = ["with the base", "KL mean", "KL 99 %", "same top"]
    headers += ["right→wrong", "wrong→right", "p"] if flips else []

    def row(dump: str, found: Compared) -> tuple[str, ...]:
        kl = found.divergences["kl_divergence_ab"]
        same = "" if found.same_top_1 is None else number(found.same_top_1.value, 4)
        cells = [dump, value_text(kl.mean, 4, 3), number(kl.quantiles.get(0.99, math.nan), 3), same]
        if flips and found.flips is not None:
            f = found.flips
            cells += [count(f.right_to_wrong), count(f.wrong_to_right), p_value(f.p_value)]
        return tuple(cells)

    return TextTable(headers, [row(dump, found) for dump, found in result.comparisons.items()])


def slice_table(result: SetValues[Any], column: str, most: int | None = None, dumps: int | None = None) -> TextTable:
    """Return the difference of the first metric in each slice; * marks an adjusted p-value below 5 %."""
    name = chosen(result)[0]
    shown = list(itertools.islice(result.comparisons.items(), dumps))
    first = shown[0][1].slices[column]
    headers = [column, "rows", *(dump for dump, _ in shown)]
    rows = []
    for (value, part), label in zip(itertools.islice(first.items(), most), labels(first), strict=False):
        cells = [label, count(part.rows.used)]
        for _, found in shown:
            other = found.slices[column].get(value)
            m = None if other is None else other.metrics[name]
            below = m is not None and m.adjusted_p_value is not None and m.adjusted_p_value < 0.05
            cells.append("" if m is None else f"{value_text(m.difference, 3, 2)}{' *' if below else ''}")
        rows.append(tuple(cells))
    left, hidden = len(first) - len(rows), len(result.comparisons) - len(shown)
    notes = [f"difference of {name}", "* p-value below 5 %, adjusted for the number of slices"]
    notes += [f"{left} more values of {printable(column)}"] if left else []
    notes += [f"{hidden} more dumps"] if hidden else []
    return TextTable(headers, rows, f"{'; '.join(notes)}{'; the JSON has all' if left or hidden else ''}")


def tables(
    result: SetValues[Any], most: int | None = None, dumps: int | None = None
) -> Iterator[TextTable | list[str]]:
    """Return the tables. most: slices of a column; dumps: dumps beside each other; None for all."""
    for name in chosen(result):
        yield metric_table(result, name)
    found = together(result)
    if found is not None:
        yield found
    if not chosen(result):
        return
    for column in next(iter(result.comparisons.values())).slices:
        yield slice_table(result, column, most, dumps)


def caution(result: SetValues[Any]) -> str | None:
    """Return a sentence, if the rows or clusters are so few that the intervals are approximate."""
    return next((found.caution for found in result.comparisons.values() if found.caution is not None), None)


def terminal(result: SetValues[Any], width: int = WIDTH) -> str:
    """Return plain text, at most ``width`` columns wide."""
    shown = tables(result, MAX_SLICES, _MOST_DUMPS)
    return plain_text(rendered(heading(result), shown, caution(result), result.warnings), width)


def markdown(result: SetValues[Any]) -> str:
    """Return Markdown tables of metrics, divergences and slices."""
    return marked_down(heading(result), tables(result), caution(result), result.warnings)
