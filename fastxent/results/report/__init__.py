"""The report: one HTML file that opens offline, made only from values that the JSON of a result holds.

`evaluation` makes sections from a result, `page` puts sections on a page, `plots` draws with matplotlib in the style of
`drawing`, and `svg` inlines the plots. A report of another kind of result is another module beside `evaluation`, with
the same page.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

from fastxent.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastxent.results.comparison import CompareValues
    from fastxent.results.comparisons import SetValues
    from fastxent.results.evaluation import EvalValues
    from fastxent.results.temperature import TemperatureValues


Result = TypeVar("Result")


def write(draw: Callable[[Result], str], result: Result, path: str | PathLike[str]) -> None:
    """Write the report of a result. The write is atomic.

    Args:
        draw: function of the result, such as `html`. It returns the report.
        result: the result.
        path: str or path. The file to write.

    Raises:
        OutputError: if the file cannot be written, or matplotlib or jinja2 is not installed.
    """
    from fastxent.io.storage.atomic import check_destination, write_atomic

    check_destination(path)
    write_atomic(path, draw(result))


def html(result: EvalValues) -> str:
    """Return the report as HTML text."""
    require()
    from fastxent.results.report.evaluation import sections, title
    from fastxent.results.report.page import page
    from fastxent.results.text import heading

    return page(title(result), heading(result), sections(result))


def set_html(result: SetValues[Any]) -> str:
    """Return the report of several comparisons as HTML text."""
    require()
    from fastxent.results.compare_many_text import heading
    from fastxent.results.report.compare_many import sections
    from fastxent.results.report.page import page

    return page(f"{result.base} → {', '.join(result.comparisons)}", heading(result), sections(result))


def comparison_html(result: CompareValues) -> str:
    """Return the report of a comparison as HTML text."""
    require()
    from fastxent.results.comparison_text import heading
    from fastxent.results.report.comparison import sections
    from fastxent.results.report.page import page

    return page(" → ".join(result.names), heading(result), sections(result))


def fit_html(fit: TemperatureValues) -> str:
    """Return the report of a temperature as HTML text."""
    require()
    from fastxent.results.report.page import page
    from fastxent.results.report.temperature import sections

    return page("Temperature", fit.lines()[0], sections(fit))


def notebook_html(result: EvalValues) -> str:
    """Return the report for the output of a notebook cell: metrics and plots, without scripts or long tables."""
    require()
    from fastxent.results.report.evaluation import summary
    from fastxent.results.report.page import fragment
    from fastxent.results.text import heading

    return fragment(heading(result), summary(result))


def plot(name: str, result: EvalValues, **options: Any) -> Figure:
    """Return one plot of the report.

    Args:
        name: str. A function of `plots`.
        result: EvalValues. The result.
        options: Keywords of that function.
    """
    require()
    from fastxent.results.report import plots

    drawn: Figure = getattr(plots, name)(result, **options)
    return drawn


def require() -> None:
    """Raise `OutputError` if matplotlib or jinja2 is not installed."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OutputError(
            f"cannot draw reports: {error.name} is not installed; run pip install 'fastxent[report]'"
        ) from error
