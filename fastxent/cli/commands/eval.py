"""``fastxent eval``: the metrics of a dump."""

from __future__ import annotations

from typing import Any

import click

from fastxent.cli import arguments, options
from fastxent.cli.arguments import local_files, source_of
from fastxent.cli.finish import Sinks, check_conditions, finish, progress
from fastxent.cli.flags import declared, flags, running
from fastxent.cli.options import Command, section
from fastxent.errors import ConfigError
from fastxent.options.declared import SECTIONS
from fastxent.options.runs import EvaluateOptions


@click.command("eval", cls=Command, short_help="Compute every metric of a dump, with error bars.", epilog="""\b
Examples:
  fastxent eval dump.parquet
  fastxent eval 'shards/*.parquet' --by language --cluster document --n-bytes bytes
  fastxent eval dump.parquet --logits 'logit_*' --target label
  fastxent eval documents.parquet --target labels --shift 1 --cluster document
  fastxent eval predictions.csv --logits 'prob_*' --input probs --target label
  fastxent eval dump.parquet --targets labels.csv --on filename
  fastxent eval s3://bucket/dump/ --format json --per-row losses.parquet
  fastxent eval dump.parquet --fail-if 'cross_entropy>2.1' --fail-if 'rows.bad>0'
  fastxent eval huge/ --resume progress          after a crash, run the same command again
  fastxent eval huge/ --shard 3/16 --state 3.state
  fastxent eval huge/ --until 'cross_entropy.stderr<0.001'      stop when this holds

\b
Every metric has a standard error. Metrics are bit-identical for any --threads, any
--memory and any order of files.

Exit codes: 0 success, 1 a --fail-if condition holds, 2 invalid usage or input, 70 internal
error, 129, 130 and 143 ended by SIGHUP, SIGINT and SIGTERM.""")  # fmt: skip
@arguments.SOURCES
@declared(EvaluateOptions, *SECTIONS)
@options.printing
@section(
    "Output",
    arguments.output(),
    arguments.REPORT,
    *flags(EvaluateOptions, "Output"),
    arguments.STATE,
    arguments.LOG,
)
@running(EvaluateOptions)
def eval_(**given: Any) -> int:
    """Evaluate a dump: compute every metric, with error bars, from one read of the logits.

    SOURCE is a file, a glob, a folder or a URL. Several sources are read as one dump. Folders named key=value become
    columns.
    """
    import fastxent as fx

    conditions, sinks, verbose = given.pop("fail_if"), Sinks.of(given), given.pop("verbose")
    check_conditions(conditions, given)
    if given["until"] is not None and sinks.state is not None:
        raise ConfigError(
            "--until cannot be combined with --state, because the intervals of a state do not know that the run could "
            "stop; omit one of them"
        )
    sinks.check([given["per_row"]], lambda: local_files(given["source"], given["targets"]))
    quiet = given["quiet"]
    with progress(given, "evaluating") as report:
        result = fx.evaluate(source_of(given.pop("source")), progress=report, **given)
    return finish(result, conditions, sinks, quiet, verbose)
