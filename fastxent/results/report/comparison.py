"""The sections of the report of a comparison: the tables of its text, which readers can sort."""

from __future__ import annotations

import re

from markupsafe import Markup

from fastxent.results.comparison import CompareValues
from fastxent.results.comparison_text import TextTable, tables
from fastxent.results.report.page import Cell, Column, Section, Table, table

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")


def sections(result: CompareValues) -> list[Section]:
    """Return one section for each table, and one for the lines between them."""
    found = []
    for place, part in enumerate(tables(result)):
        if isinstance(part, TextTable):
            title, body = part.headers[0].capitalize(), table(_laid_out(part))
        else:
            lines = [Markup("<li>{}</li>").format(line) for line in part]
            title, body = "Both dumps together", Markup("<ul>{}</ul>").format(Markup().join(lines))
        found.append(Section(f"part-{place}", title, body))
    if result.warnings:
        lines = [Markup("<li>{}</li>").format(warning) for warning in result.warnings]
        found.append(Section("warnings", "Warnings", Markup("<ul>{}</ul>").format(Markup().join(lines))))
    return found


def _laid_out(part: TextTable) -> Table:
    columns = [Column(header, "text" if place == 0 else "number") for place, header in enumerate(part.headers)]
    rows = [[Cell(text, key=_key(text)) for text in row] for row in part.rows]
    return Table(part.headers[0], columns, rows, paged=len(rows) > 20)


def _key(text: str) -> str:
    """Return the number that a cell begins with, to sort by."""
    found = _NUMBER.match(text.replace(",", ""))
    return found[0] if found else ""
