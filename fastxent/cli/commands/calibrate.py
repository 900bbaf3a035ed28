"""``fastxent calibrate``: the temperature that minimises the cross-entropy of a dump."""

from __future__ import annotations

from typing import Any

import click

from fastxent.cli import arguments, options
from fastxent.cli.arguments import local_files, source_of
from fastxent.cli.finish import Sinks, progress, say_times
from fastxent.cli.flags import declared, running
from fastxent.cli.leave import say
from fastxent.cli.options import Command, section
from fastxent.cli.output import chosen_format, deliver
from fastxent.options.runs import TemperatureOptions


@click.command(cls=Command, short_help="Find the temperature that minimises the cross-entropy.", epilog="""\b
Examples:
  fastxent calibrate dump.parquet
  fastxent calibrate validation.parquet --output fit.json --report fit.html
  fastxent eval test.parquet --temperature @fit.json
  fastxent calibrate dump.parquet --by language --cluster document""")  # fmt: skip
@arguments.SOURCES
@declared(TemperatureOptions, "Columns", "Loss", "Metrics")
@section("Output", options.FORMAT, arguments.output(), arguments.REPORT)
@running(TemperatureOptions)
def calibrate(**given: Any) -> int:
    """Find the temperature that minimises the cross-entropy of a dump, and its standard error, from about three reads.

    The metrics after recalibration are cross-fitted: no row is scored with a temperature that was fitted to it.
    SOURCE is the same as in fastxent eval.
    """
    import fastxent as fx

    output, report_file, verbose = given.pop("output"), given.pop("report"), given.pop("verbose")
    format_ = chosen_format(given.pop("format_"), output)
    Sinks(format_, output, report_file).check([], lambda: local_files(given["source"], given["targets"]))
    quiet = given["quiet"]
    with progress(given, "calibrating") as report:
        fit = fx.fit_temperature(source_of(given.pop("source")), progress=report, **given)
    if not quiet:
        for warning in fit.warnings:
            say(f"warning: {warning}")
    steps = [] if report_file is None else [lambda: fit.to_html(report_file)]
    deliver(fit, format_, output, *steps)
    if verbose:
        say_times(fit.timing)
    return 0
