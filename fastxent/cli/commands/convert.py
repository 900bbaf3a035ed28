"""``fastxent convert``: a dump rewritten into the layout that reads fastest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fastxent.cli import arguments, options
from fastxent.cli.arguments import local_files, source_of
from fastxent.cli.finish import Sinks, progress, say_times
from fastxent.cli.items import Items
from fastxent.cli.options import Command, choice, declared, option, section
from fastxent.cli.output import chosen_format, deliver
from fastxent.options.choices import FloatName, Layout, OnOverflow


def _kept(ctx: click.Context, param: click.Parameter, value: Iterable[list[str]]) -> list[str] | None:
    """Return the columns; None, for all of them, if the option is not given, and no column for ``--keep ''``."""
    given = list(value)
    return [name for names in given for name in names] if given else None


@click.command(cls=Command, short_help="Rewrite a dump into the layout that reads fastest.", epilog="""\b
Examples:
  fastxent convert dump.parquet fast.parquet
  fastxent convert 'shards/*.parquet' half.parquet --dtype bfloat16
  fastxent convert dump.parquet dump.arrow --keep id,target""")  # fmt: skip
@arguments.SOURCES_BEFORE_DEST
@arguments.DEST
@section(
    "Convert",
    option("--layout", type=choice(Layout), default=None, show_default="binary in Parquet, list in Arrow",
           help="Rows as fixed-size binary, or as fixed-size lists."),
    option("--dtype", type=choice(FloatName), default=None, show_default="that of the scores",
           help="Float type of the scores in the new file."),
    option("--keep", multiple=True, type=Items(), metavar="COLUMN,...", callback=_kept, show_default="all",
           help="Columns to copy to the new file."),
    option("--on-overflow", type=choice(OnOverflow), default="error",
           help="Stop at a score too large for --dtype, or write infinity."),
)  # fmt: skip
@section(
    "Columns",
    declared("logits"),
    declared("logits_dtype"),
    declared("target", help="Class ids of the rows whose loss is compared."),
    declared("ignore_index", help="Target of rows that are not compared."),
)
@section("Output", options.FORMAT, arguments.output("result"))
@options.running()
def convert(**given: Any) -> int:
    """Rewrite a dump into the layout that reads fastest, and print the cost of rounding its scores.

    DEST ends in .parquet or .arrow. It is written to a temporary name and renamed. SOURCE is as in fastxent eval.
    """
    import fastxent as fx

    result_file, verbose = given.pop("result"), given.pop("verbose")
    format_ = chosen_format(given.pop("format_"), result_file)
    Sinks(format_, result_file).check([given["dest"]], lambda: local_files(given["source"]))
    with progress(given, "converting") as report:
        result = fx.convert(source_of(given.pop("source")), given.pop("dest"), progress=report, **given)
    deliver(result, format_, result_file)
    if verbose:
        say_times(result.timing)
    return 0
