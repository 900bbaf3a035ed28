"""``fastxent convert``: a dump in the layout that reads fastest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fastxent.cli import options
from fastxent.cli.commands import _destination, _local_files, _progress, _Sinks, _source, output
from fastxent.cli.leave import say
from fastxent.cli.options import Command, Items, option, section
from fastxent.cli.output import chosen_format, deliver


def _kept(ctx: click.Context, param: click.Parameter, value: Iterable[list[str]]) -> list[str] | None:
    """All columns where the option is not given; none for ``--keep ''``."""
    given = list(value)
    return [name for names in given for name in names] if given else None


_FLOATS = click.Choice(["float16", "bfloat16", "float32", "float64"])


@click.command(cls=Command, short_help="Rewrite a dump into the layout that reads fastest.", epilog="""\b
Examples:
  fastxent convert dump.parquet fast.parquet
  fastxent convert 'shards/*.parquet' half.parquet --dtype bfloat16
  fastxent convert dump.parquet dump.arrow --keep id,target""")  # fmt: skip
@click.argument("source", nargs=-1, callback=options.both, metavar="SOURCE...")
@click.argument("dest", callback=_destination)
@section(
    "Convert",
    option("--layout", type=click.Choice(["binary", "list"]), default=None, show_default=False,
           help="Rows of bytes, or fixed-size lists; binary in Parquet and list in Arrow files if not given."),
    option("--dtype", type=_FLOATS, default=None, help="Of the scores in the new file; their own if not given."),
    option("--keep", multiple=True, type=Items(), metavar="COLUMN,...", callback=_kept, show_default=False,
           help="Columns to carry over; all if not given."),
    option("--on-overflow", type=click.Choice(["error", "inf"]), default="error",
           help="A score too large for --dtype: stop, or let it become infinite and count it."),
)  # fmt: skip
@section(
    "Columns",
    option("--logits", default="logits", metavar="COLUMN", callback=options._one_or_many,
           help="Scores: a list column, or 'logit_*' / 'a,b,c' for one column a class."),
    option("--logits-dtype", type=_FLOATS, default=None,
           help="What binary or 16-bit integer scores hold, where the file does not say."),
    option("--target", default="target", metavar="COLUMN",
           help="Class ids of the rows whose loss is compared before and after."),
    option("--ignore-index", type=int, default=-100, help="Target of rows to leave out of that."),
)  # fmt: skip
@section("Output", options.FORMAT, output("figures"))
@options.running()
def convert(**given: Any) -> int:
    """Rewrite a dump into the layout that reads fastest, and print what rounding its scores cost.

    DEST ends in .parquet or .arrow; it is complete under its name, or not there. SOURCE is what eval takes.
    """
    import fastxent as fx
    from fastxent.engine.timing import lines

    figures, verbose = given.pop("figures"), given.pop("verbose")
    format_ = chosen_format(given.pop("format_"), figures)
    _Sinks(format_, figures).check([given["dest"]], lambda: _local_files(given["source"]))
    with _progress(given, "converting") as progress:
        result = fx.convert(_source(given.pop("source")), given.pop("dest"), progress=progress, **given)
    deliver(result, format_, figures)
    if verbose:
        for line in lines(result.timing or {}):
            say(line)
    return 0
