"""The report of a temperature: what it changes, and the reliability before and after."""

from __future__ import annotations

import math

from markupsafe import Markup

from fastxent.results.report import plots
from fastxent.results.report.comparison import listed
from fastxent.results.report.evaluation import drawn, line_of
from fastxent.results.report.page import Cell, Column, HtmlTable, Section, render, table
from fastxent.results.temperature import SHOWN, TemperatureValues
from fastxent.results.text import count, number
from fastxent.results.values import labels


def sections(fit: TemperatureValues) -> list[Section]:
    """Return the sections of the report."""
    found = [Section("temperature", "Temperature", _sentences(fit) + table(_metrics(fit)))]
    pictures = [
        drawn(
            plots.reliability(result),
            f"Reliability {name}: {share} of the rows in each bin of {mean}. {line_of(result)}".strip(),
        )
        for name, result in fit.results.items()
        if result.has_calibration
        for mean, share in [plots.calibrated(result)]
    ]
    if fit.warnings:
        found.append(Section("warnings", "Warnings", listed(fit.warnings)))
    if pictures:
        body = render("evaluation.html.j2", part="calibration", plots=pictures, bins=None)
        found.append(Section("reliability", "Reliability", body))
    for i, column in enumerate(fit.slices):
        found.append(Section(f"slices-{i}", f"Temperature by {column}", table(_slices(fit, column))))
    return found


def _sentences(fit: TemperatureValues) -> Markup:
    low, high = fit.bracket
    proven = "" if fit.note else f"The minimum is proven to lie between {number(low, 8)} and {number(high, 8)}."
    return Markup("").join(Markup("<p>{}</p>").format(line) for line in (*fit.lines()[1:], proven) if line)


def _cell(value: float, digits: int = 5) -> Cell:
    return Cell(number(value, digits), "" if math.isnan(value) else repr(value))


def _metrics(fit: TemperatureValues) -> HtmlTable:
    sides = [fit.before, *([fit.after] if fit.after else [])]
    columns = [Column("metric", "text"), Column("before"), *([Column("after")] if fit.after else [])]
    rows = [[Cell(name), *(_cell(side[name].value) for side in sides)] for name in SHOWN if name in fit.before]
    note = "After: each fold of the rows is scored with the temperature of the others." if fit.after else ""
    return HtmlTable("Metrics before and after", columns, rows, paged=False, note=note)


def _slices(fit: TemperatureValues, column: str) -> HtmlTable:
    titles = ("rows", "temperature", "stderr", "cross-entropy before")
    rows = [
        [Cell(label), Cell(count(part.rows.used), str(part.rows.used)), _cell(part.temperature.value),
         _cell(part.temperature.stderr, 3), _cell(part.cross_entropy.value)]
        for label, part in zip(labels(fit.slices[column]), fit.slices[column].values(), strict=True)
    ]  # fmt: skip
    return HtmlTable(f"Temperature by {column}", [Column(column, "text"), *map(Column, titles)], rows)
