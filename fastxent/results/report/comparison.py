"""The sections of the report of a comparison: the tables of its text, which readers can sort, each with its plots."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from markupsafe import Markup

from fastxent.results.comparison import CompareValues
from fastxent.results.comparison_text import TextTable, is_bounded, tables
from fastxent.results.report import comparison_plots as plots
from fastxent.results.report.drawing import MOST_SLICES
from fastxent.results.report.evaluation import drawn, inputs
from fastxent.results.report.page import Cell, Column, HtmlTable, Section, render, table
from fastxent.results.report.svg import printable
from fastxent.results.text import count

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
Pictures = list[tuple[Markup, str]]


def sections(result: CompareValues) -> list[Section]:
    """Return one section for each table with its plots, and one for the lines between them."""
    found: list[Section] = []
    pictures: Iterator[Pictures] = iter([
        _metrics(result), *([[]] if any(map(is_bounded, result.metrics.values())) else []),
        *([_divergences(result)] if result.divergences else []),
        *(_slices(result, column) for column in result.slices), [],
    ])  # fmt: skip
    for place, part in enumerate(tables(result)):
        if isinstance(part, TextTable):
            title, body, beside = part.headers[0].capitalize(), table(laid_out(part)), next(pictures)
        else:
            title, body, beside = "Both dumps together", listed(part), _rows(result)
        body += Markup("<p>{}</p>").format(result.caution) if result.caution is not None and not found else ""
        if beside:
            body += render("evaluation.html.j2", part="calibration", plots=beside, bins=None)
        found.append(Section(f"part-{place}", title, body))
    files = [name for side in result.files for name in side]
    found.append(Section("input", "Input and options", inputs(result, files)))
    if result.warnings:
        found.append(Section("warnings", "Warnings", listed(result.warnings)))
    return found


def listed(lines: Iterable[str]) -> Markup:
    """Return lines as a list."""
    return Markup("<ul>{}</ul>").format(Markup().join(Markup("<li>{}</li>").format(line) for line in lines))


def _names(result: CompareValues) -> tuple[str, str]:
    a, b = (printable(name, 40) for name in result.names)
    return a, b


def _metrics(result: CompareValues) -> Pictures:
    a, b = _names(result)
    caption = (
        f"Change of each metric from {a} to {b}, in percent of {a}, with its 95 % interval. An interval that does not "
        "meet the dashed line at 0 is a change that chance alone seldom makes."
    )
    undefined = sum(not math.isfinite(plots.relative(m).value) for m in result.metrics.values())
    if undefined:
        caption += f" Metrics without a finite change in percent ({count(undefined)}) are only in the table."
    return [drawn(plots.differences(result), caption)]


def _divergences(result: CompareValues) -> Pictures:
    if not any(plots.drawable(result, name) for name in result.divergences):
        return []
    return [drawn(
        plots.divergence_quantiles(result),
        "Quantiles of the divergence of a row: at 99 %, 99 of 100 rows have at most this divergence. The axis of the "
        "divergence is logarithmic; values of 0 and infinite values are not drawn.",
    )]  # fmt: skip


def _rows(result: CompareValues) -> Pictures:
    a, b = _names(result)
    found = []
    if result.flips is not None:
        caption = (
            f"Rows by whether {a} and {b} predict the target. The coloured fields are the flips: rows that only one "
            "of the two predicts correctly."
        )
        found.append(drawn(plots.flips(result, result.flips), caption))
    for name, metric in result.metrics.items():
        if metric.flips is not None:
            caption = f"Rows by whether {printable(name, 40)} is 1 (right) or 0 (wrong) in {a} and in {b}."
            found.append(drawn(plots.flips(result, metric.flips), caption))
    if result.target_probability is not None and result.target_probability.histogram[1]:
        caption = (
            f"Change of the probability of the target from {a} to {b}, in number of rows. On the right of the dashed "
            f"line, {b} gives the target a higher probability; the first bar there has the rows without a change too. "
            "If few rows change much, the axis of the rows is logarithmic."
        )
        found.append(drawn(plots.target_change(result), caption))
    return found


def _slices(result: CompareValues, column: str) -> Pictures:
    metric, parts = next(iter(result.metrics), None), result.slices[column]
    if metric is None or not parts:
        return []
    caption = (
        f"Change of {metric.replace('_', ' ')} in each slice with its 95 % interval. The dashed line is the change of "
        "all rows, the grey line is no change. The intervals are not adjusted for the number of slices."
    )
    if len(parts) > MOST_SLICES:
        caption += f" Only the {MOST_SLICES} slices with the most rows are shown, of {count(len(parts))}."
    undefined = sum(not math.isfinite(part.metrics[metric].difference.value) for part in parts.values())
    if undefined:
        caption += f" Slices without a finite value ({count(undefined)}) are only in the table."
    return [drawn(plots.slice_differences(result, column, metric), caption)]


def laid_out(part: TextTable) -> HtmlTable:
    """Return a table of text as one that readers can sort."""
    columns = [Column(header, "text" if place == 0 else "number") for place, header in enumerate(part.headers)]
    rows = [[Cell(text, key=_key(text)) for text in row] for row in part.rows]
    return HtmlTable(part.headers[0], columns, rows, paged=len(rows) > 20)


def _key(text: str) -> str:
    """Return the number that a cell begins with, to sort by."""
    found = _NUMBER.match(text.replace(",", ""))
    return found[0] if found else ""
