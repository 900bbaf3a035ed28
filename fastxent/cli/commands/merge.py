"""``fastxent merge``: the metrics of saved states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from fastxent.cli import arguments, options
from fastxent.cli.finish import Sinks, finish
from fastxent.cli.merging import merged
from fastxent.cli.options import Command, option, section
from fastxent.cli.progress import progress_bar


@click.command(cls=Command, short_help="Merge states saved by eval or compare --state.", epilog="""\b
Examples:
  fastxent eval part-1.parquet --state part-1.state
  fastxent eval part-2.parquet --state part-2.state
  fastxent merge part-*.state --output result.json
  fastxent merge shard-*.state                   the N states of eval --shard K/N""")  # fmt: skip
@click.argument("state_files", nargs=-1, required=True, metavar="STATE...")
@options.printing
@section(
    "Output",
    arguments.output(),
    arguments.REPORT,
    arguments.STATE,
    arguments.LOG,
    option("--partial", is_flag=True, show_default=False, help="Merge even if shards are missing."),
    options.QUIET,
)
def merge(state_files: tuple[str, ...], partial: bool, quiet: bool, **given: Any) -> int:
    """Merge saved states, and print the metrics of all their rows: bit-identical to the metrics of one run.

    The order of the states does not matter. These are errors: states with different options, a state or shard that is
    given twice, a missing shard, and shards together with the state of a whole run.
    """
    conditions, sinks = given.pop("fail_if"), Sinks.of(given)
    replace(sinks, state=None).check([], lambda: state_files)  # --state may name one of the merged states
    sinks.check([], lambda: ())
    with progress_bar(False if quiet else None, "merging"):
        state = merged(state_files, partial)
        result: Any = replace(state.result(), state=state)
    return finish(result, conditions, sinks, quiet)
