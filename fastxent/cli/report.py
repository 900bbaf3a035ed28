"""``fastxent report``: the HTML report of a result that was saved as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from fastxent.cli.leave import say
from fastxent.cli.options import QUIET, Command, option, section
from fastxent.cli.output import put, to_stdout
from fastxent.errors import StateError
from fastxent.io.writers import check_not_source


@click.command(cls=Command, short_help="The HTML report of a saved result.", epilog="""\b
Examples:
  fastxent eval dump.parquet --output figures.json
  fastxent report figures.json
  fastxent report figures.json -o report.html""")  # fmt: skip
@click.argument("result", metavar="RESULT")
@section(
    "Output",
    option(
        "--output", "-o", metavar="FILE", help="Where to write it, beside RESULT if not given; - is standard output."
    ),
    QUIET,
)
def report(result: str, output: str | None, quiet: bool) -> int:
    """Write the HTML report of RESULT, the JSON that fastxent eval wrote.

    One file that opens offline: figures, tables, and what was read.
    """
    from fastxent.results.result import EvalResult

    try:
        text = Path(result).read_text(encoding="utf-8")
    except OSError as error:
        raise StateError(f"cannot read the result {result!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StateError(f"{result}: not a result of fastxent: not UTF-8 text") from None
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
