"""``fastxent convert``: a dump rewritten into the layout that reads fastest."""

from __future__ import annotations

from typing import Any

import click

from fastxent.cli import arguments, options
from fastxent.cli.arguments import local_files, source_of
from fastxent.cli.finish import Sinks, progress, say_times
from fastxent.cli.flags import declared, running
from fastxent.cli.options import Command, section
from fastxent.cli.output import chosen_format, deliver
from fastxent.options.runs import ConvertOptions


@click.command(cls=Command, short_help="Rewrite a dump into the layout that reads fastest.", epilog="""\b
Examples:
  fastxent convert dump.parquet fast.parquet
  fastxent convert 'shards/*.parquet' half.parquet --dtype bfloat16
  fastxent convert dump.parquet dump.arrow --keep id,target""")  # fmt: skip
@arguments.SOURCES_BEFORE_DEST
@arguments.DEST
@declared(ConvertOptions, "Convert", "Columns")
@section("Output", options.FORMAT, arguments.output("result"))
@running(ConvertOptions)
def convert(**given: Any) -> int:
    """Rewrite a dump into the layout that reads fastest, and print the cost of rounding its scores.

    DEST ends in .parquet or .arrow; it is written to a temporary name and renamed. SOURCE is the same as in fastxent
    eval.
    """
    import fastxent as fx

    result_file, verbose = given.pop("result"), given.pop("verbose")
    format_ = chosen_format(given.pop("format_"), result_file)
    Sinks(format_, result_file).check([given["dest"]], lambda: local_files(given["source"], given["targets"]))
    with progress(given, "converting") as report:
        result = fx.convert(source_of(given.pop("source")), given.pop("dest"), progress=report, **given)
    deliver(result, format_, result_file)
    if verbose:
        say_times(result.timing)
    return 0
