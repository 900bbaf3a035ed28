"""The report: one HTML file that opens offline, made from nothing but what the JSON of a result holds.

`evaluation` turns a result into sections, `page` puts sections on a page, `figures` draws and `svg` inlines what was
drawn. A report of another kind of result is another module beside `evaluation`; the page is the same.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from fastxent.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastxent.results.evaluation import EvalValues


def write_html(result: EvalValues, path: str | PathLike[str]) -> None:
    """Write the report of ``result``: complete under ``path``, or not there.

    Raises:
        OutputError: the file cannot be written, or the packages that draw it are not installed.
    """
    from fastxent.io.storage.atomic import check_destination, write_atomic

    check_destination(path)
    write_atomic(path, html(result))


def html(result: EvalValues) -> str:
    """The report as text."""
    require()
    from fastxent.results.report.evaluation import sections, title
    from fastxent.results.report.page import page
    from fastxent.results.text import heading

    return page(title(result), heading(result), sections(result))


def notebook_html(result: EvalValues) -> str:
    """The report for the output of a notebook cell: figures and headline, without scripts or long tables."""
    require()
    from fastxent.results.report.evaluation import summary
    from fastxent.results.report.page import fragment
    from fastxent.results.text import heading

    return fragment(heading(result), summary(result))


def plot(name: str, result: EvalValues, **options: Any) -> Figure:
    """One of the figures of the report, by name."""
    require()
    from fastxent.results.report import figures

    drawn: Figure = getattr(figures, name)(result, **options)
    return drawn


def require() -> None:
    """Refuse, in one line, to draw without the packages that draw."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OutputError(f"reports need {error.name}; install it with: pip install 'fastxent[report]'") from error
