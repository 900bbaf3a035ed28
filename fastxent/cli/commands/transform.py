"""``fastxent transform``: log-softmax, softmax or gradients of every row, written to a file."""

from __future__ import annotations

from typing import Any, get_args

import click

from fastxent.cli import arguments, options
from fastxent.cli.arguments import local_files, source_of
from fastxent.cli.finish import Sinks, check_conditions, finish, progress
from fastxent.cli.flags import declared, running
from fastxent.cli.options import Command, section
from fastxent.cli.output import chosen_format
from fastxent.errors import ConfigError
from fastxent.options.choices import Output
from fastxent.options.declared import SECTIONS
from fastxent.options.runs import TransformOptions


@click.command(cls=Command, short_help="Write log-softmax, softmax or gradients of every row.", epilog="""\b
Examples:
  fastxent transform dump.parquet log_probs.parquet --keep id
  fastxent transform dump.parquet gradient.arrow --kind grad --reduction sum
  fastxent transform dump.parquet half.parquet --kind softmax --dtype float16""")  # fmt: skip
@arguments.SOURCES_BEFORE_DEST
@arguments.DEST
@declared(TransformOptions, "Transform", *SECTIONS, hidden=("target_logprob", "ids", "other", "n_classes"))
@options.printing
@section("Output", arguments.output("result"))
@running(TransformOptions)
def transform(**given: Any) -> int:
    """Write log-softmax, softmax or the gradient of every row to a new file, and print the metrics.

    DEST ends in .parquet or .arrow; it is written to a temporary name and renamed. SOURCE is the same as in fastxent
    eval.
    """
    import fastxent as fx

    result_file = given.pop("result")
    if result_file in get_args(Output):
        raise ConfigError(f"--output must name a file, got {result_file!r}; give --kind {result_file}")
    conditions, verbose = given.pop("fail_if"), given.pop("verbose")
    sinks = Sinks(chosen_format(given.pop("format_"), result_file), result_file)
    check_conditions(conditions, given)
    sinks.check([given["dest"]], lambda: local_files(given["source"], given["targets"]))
    quiet = given["quiet"]
    with progress(given, "transforming") as report:
        result = fx.transform(source_of(given.pop("source")), given.pop("dest"), progress=report, **given)
    return finish(result, conditions, sinks, quiet, verbose)
