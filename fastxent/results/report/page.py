"""Sections on a page: one HTML file that contains its style, scripts and plots.

A content security policy in the page forbids all requests, and all scripts but those whose hashes it lists.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastxent._version import __version__
from fastxent.results.report.palette import variables
from fastxent.results.report.svg import printable


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        anchor: str. The id of the section, for links.
        title: str. Its heading, also shown in the table of contents.
        body: Markup. Its HTML.
    """

    anchor: str
    title: str
    body: Markup


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: str. The header.
        kind: str. "text", "number", "bar" (a number with a bar) or "interval".
        hint: str. The tooltip of the header.
    """

    title: str
    kind: str = "number"
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: str. The text.
        key: str. The number that the column is sorted by; empty for none.
        start, end: float or None. The ends of the bar or interval, in percent of the width of the cell.
        tone: str. "good" or "bad" colours the text.
    """

    text: str
    key: str = ""
    start: float | None = None
    end: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class HtmlTable:
    """A table that readers can sort.

    Attributes:
        caption: str. Its name, for screen readers.
        columns: sequence of Column.
        rows: sequence of sequences of Cell.
        paged: bool. True adds a filter and pages.
        note: str. A sentence below the table.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    paged: bool = True
    note: str = ""


def page(
    title: str, subtitle: str, sections: Sequence[Section], *, style: str = "", scripts: Sequence[str] = ()
) -> str:
    """Return an HTML document.

    Args:
        title: str. Its title and first heading.
        subtitle: str. The line below the heading.
        sections: sequence of Section.
        style: str. CSS in addition to that of every page.
        scripts: sequence of str. JavaScript in addition to that of every page.
    """
    running = [_resource("tables.js"), *scripts]
    document = render(
        "page.html.j2", title=title, subtitle=subtitle, sections=sections, style=Markup(_style() + style),
        scripts=[Markup(script) for script in running], hashes=[_digest(script) for script in running],
        version=__version__,
    )  # fmt: skip
    return str(document)


def table(rows: HtmlTable) -> Markup:
    """Return the HTML of a table, for sections without a template."""
    return Markup(_environment().get_template("parts.html.j2").module.table(rows))  # type: ignore[attr-defined]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def fragment(title: str, body: Markup) -> str:
    """Return an HTML element that contains its style, for pages of other programs."""
    return str(render("fragment.html.j2", title=title, body=body, style=Markup(_style())))


def render(template: str, **values: Any) -> Markup:
    """Return the HTML of a template of this package. All values but `Markup` are escaped."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fastxent.results.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    return environment


@cache
def _resource(name: str) -> str:
    return files("fastxent.results.report").joinpath(name).read_text(encoding="utf-8").strip()


def _style() -> str:
    return _resource("page.css").replace("/* light */", variables(0)).replace("/* dark */", variables(1))
