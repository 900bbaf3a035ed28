"""``fastxent report``: the HTML report of a result that was saved as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastxent.cli.leave import say
from fastxent.cli.options import QUIET, Command, option, section
from fastxent.cli.output import put, to_stdout
from fastxent.errors import StateError
from fastxent.io.storage.atomic import check_destination, write_atomic
from fastxent.io.writers import check_not_source


@click.command(cls=Command, short_help="Write the HTML report of a saved result.", epilog="""\b
Examples:
  fastxent eval dump.parquet --output result.json
  fastxent report result.json
  fastxent report result.json -o report.html""")  # fmt: skip
@click.argument("result", metavar="RESULT")
@section(
    "Output",
    option("--output", "-o", metavar="FILE", show_default="RESULT with the suffix .html",
           help="File of the report; - is standard output."),
    QUIET,
)  # fmt: skip
def report(result: str, output: str | None, quiet: bool) -> int:
    """Write the HTML report of RESULT, a JSON file from fastxent eval, compare or calibrate --output.

    The report is one file with metrics, plots, tables and the list of input files. It opens offline.
    """
    from fastxent.results import encoding

    try:
        text = Path(result).read_text(encoding="utf-8")
    except OSError as error:
        raise StateError(f"cannot read the result {result!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StateError(f"cannot read the result {result!r}: it is not UTF-8 text") from None
    try:
        page = _page(encoding.read(text, "result"))
    except StateError as error:
        raise StateError(f"{result}: {error}") from None
    if to_stdout(output):
        put(page)
        return 0
    dest = output if output is not None else str(Path(result).with_suffix(".html"))
    check_not_source(dest, [result])
    check_destination(dest)
    write_atomic(dest, page)
    if not quiet:
        say(f"wrote {dest}")
    return 0


def _page(values: Any) -> str:
    """Return the report of a result of any kind, which its schema names."""
    from fastxent.results import comparison, comparisons, temperature
    from fastxent.results.compare import CompareResult
    from fastxent.results.compare_many import CompareSet
    from fastxent.results.fitted import TemperatureFit
    from fastxent.results.report import comparison_html, fit_html, html, set_html
    from fastxent.results.result import EvalResult

    schema = values.get("schema") if isinstance(values, dict) else None
    if schema == comparison.SCHEMA:
        return comparison_html(CompareResult.from_dict(values))
    if schema == comparisons.SCHEMA:
        return set_html(CompareSet.from_dict(values))
    if schema == temperature.SCHEMA:
        return fit_html(TemperatureFit.from_dict(values))
    return html(EvalResult.from_dict(values))
