"""``fastxent report``: the HTML report of a result that was saved as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from fastxent.cli.leave import say
from fastxent.cli.options import QUIET, Command, option, section
from fastxent.cli.output import put, to_stdout
from fastxent.errors import StateError
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
    """Write the HTML report of RESULT, a JSON file that fastxent eval --output wrote.

    The report is one file with metrics, plots, tables and the list of input files. It opens offline.
    """
    from fastxent.results.result import EvalResult

    try:
        text = Path(result).read_text(encoding="utf-8")
    except OSError as error:
        raise StateError(f"cannot read the result {result!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StateError(f"cannot read the result {result!r}: it is not UTF-8 text") from None
    try:
        found = EvalResult.from_json(text)
    except StateError as error:
        raise StateError(f"{result}: {error}") from None
    if to_stdout(output):
        from fastxent.results.report import html

        put(html(found))
        return 0
    dest = output if output is not None else str(Path(result).with_suffix(".html"))
    check_not_source(dest, [result])
    found.to_html(dest)
    if not quiet:
        say(f"wrote {dest}")
    return 0
