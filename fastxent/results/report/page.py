"""Sections on a page: one file with its style, its script and its figures in it, which asks for nothing else.

A policy in the page itself forbids every request, and every script but the one whose hash it names.
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
    """A part of a report: the anchor and the title that the contents list, and its body."""

    anchor: str
    title: str
    body: Markup


@dataclass(frozen=True)
class Column:
    """A column of a table; ``kind`` is "text", "number", "bar" (a number with a bar) or "interval"."""

    title: str
    kind: str = "number"
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it sorts by, and where its bar or its interval lies, in percent of the width.

    ``tone``: "good" or "bad", for a word that is read at a glance.
    """

    text: str
    key: str = ""
    start: float | None = None
    end: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted and, if ``paged``, filtered and leafed through."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    paged: bool = True
    note: str = ""


def page(
    title: str, subtitle: str, sections: Sequence[Section], *, style: str = "", scripts: Sequence[str] = ()
) -> str:
    """A whole HTML document; ``style`` and ``scripts`` are what it has beyond those of every page."""
    running = [_resource("tables.js"), *scripts]
    document = render(
        "page.html.j2", title=title, subtitle=subtitle, sections=sections, style=Markup(_style() + style),
        scripts=[Markup(script) for script in running], hashes=[_digest(script) for script in running],
        version=__version__,
    )  # fmt: skip
    return str(document)


def table(rows: Table) -> Markup:
    """A table, for a section that has no template of its own."""
    return Markup(_environment().get_template("parts.html.j2").module.table(rows))  # type: ignore[attr-defined]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def fragment(title: str, body: Markup) -> str:
    """An element with its own style, for a page that is not ours."""
    return str(render("fragment.html.j2", title=title, body=body, style=Markup(_style())))


def render(template: str, **values: Any) -> Markup:
    """A template of this package; every value is escaped unless it is markup of our own making."""
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
