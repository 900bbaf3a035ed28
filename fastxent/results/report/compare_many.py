"""The sections of the report of several comparisons with one base: the tables of its text, each with its plot."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from fastxent.results.compare_many_text import caution, chosen, metric_table, slice_table, together
from fastxent.results.comparison_text import TextTable
from fastxent.results.comparisons import SetValues, shared
from fastxent.results.report import comparison_plots as plots
from fastxent.results.report.comparison import laid_out, listed
from fastxent.results.report.evaluation import drawn, inputs
from fastxent.results.report.page import Section, render, table
from fastxent.results.report.svg import printable


def sections(result: SetValues[Any]) -> list[Section]:
    """Return a section for each main metric, for all others, for what two dumps make of a row, and for each column."""
    main = chosen(result)
    first = next(iter(result.comparisons.values()))
    found = [Section(f"metric-{k}", name, _metric(result, name))
             for k, name in enumerate(main)]  # fmt: skip
    note = caution(result)
    if note is not None and found:
        found[0] = Section(found[0].anchor, found[0].title, found[0].body + Markup("<p>{}</p>").format(note))
    both = together(result)
    if both is not None:
        found.append(Section("both", "Each dump with the base", _table(both)))
    others = [name for name in shared(result.comparisons.values()) if name not in main]
    if others:
        found.append(Section("others", "Other metrics", Markup().join(_table(metric_table(result, n)) for n in others)))
    for k, column in enumerate(first.slices if main else ()):
        part = slice_table(result, column)
        body = _table(part) + Markup("<p>{}</p>").format(part.more)
        found.append(Section(f"slices-{k}", f"Slices by {printable(column, 40)}", body))
    files = dict.fromkeys(name for each in result.comparisons.values() for side in each.files for name in side)
    found.append(Section("input", "Input and options", inputs(first, list(files))))
    if result.warnings:
        found.append(Section("warnings", "Warnings", listed(result.warnings)))
    return found


def _table(part: TextTable) -> Markup:
    return table(laid_out(part))


def _metric(result: SetValues[Any], name: str) -> Markup:
    body = _table(metric_table(result, name))
    if not any(math.isfinite(each.metrics[name].difference.stderr) for each in result.comparisons.values()):
        return body
    caption = (
        f"Difference of {name.replace('_', ' ')} between each dump and {printable(result.base, 40)}, with the 95 % "
        "interval of paired rows. The dashed line is no difference. The intervals are not adjusted for the number of "
        "dumps; the p-values of the last column of the table are (Holm)."
    )
    pictures = [drawn(plots.dump_differences(result, name), caption)]
    return body + render("evaluation.html.j2", part="calibration", plots=pictures, bins=None)
