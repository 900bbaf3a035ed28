"""``fastxent compare``: two dumps of the same rows, or several with one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from fastxent.cli import arguments, options
from fastxent.cli.arguments import local_files
from fastxent.cli.conditions import DUMP
from fastxent.cli.finish import Sinks, check_conditions, finish, progress
from fastxent.cli.flags import declared, running
from fastxent.cli.options import Command, section
from fastxent.options.declared import SECTIONS
from fastxent.options.runs import CompareOptions
from fastxent.results.comparison import number_names

if TYPE_CHECKING:
    from fastxent.results.compare import CompareResult
    from fastxent.results.compare_many import CompareSet

DEFAULT_NAMES = ("a", "b")


@click.command(cls=Command, short_help="Compare dumps of the same rows.", epilog="""\b
Examples:
  fastxent compare base.parquet quantised.parquet
  fastxent compare a.parquet b.parquet --on doc_id,position
  fastxent compare samples_a.jsonl samples_b.jsonl --scores acc --on doc_id
  fastxent compare base/ new/ --by language --cluster document --names base,new
  fastxent compare a.parquet b.parquet --fail-if 'cross_entropy.difference>0.01'
  fastxent compare a.parquet b.parquet --fail-if 'kl_divergence_ab.p99>0.1'
  fastxent compare base.parquet q2.parquet q4.parquet q8.parquet
  fastxent compare base.parquet q4.parquet q8.parquet --fail-if 'dump=q8:accuracy.difference<-1%'

\b
A difference is B - A, row by row, with the standard error of paired rows.

Exit codes: 0 success, 1 a --fail-if condition holds, 2 invalid usage or input, 70 internal
error, 129, 130 and 143 ended by SIGHUP, SIGINT and SIGTERM.""")  # fmt: skip
@click.argument("a")
@click.argument("others", metavar="B...", nargs=-1, required=True)
@declared(CompareOptions, "Compare", *SECTIONS)
@options.printing
@section("Output", arguments.output(), arguments.REPORT, arguments.STATE, arguments.LOG)
@running(CompareOptions)
def compare(**given: Any) -> int:
    """Compare dumps of the same rows: the difference of every metric, KL and JS divergence, and flips.

    With several B, each is compared with A in one pass, and p-values are also adjusted for the number of dumps.
    Dumps without logits are compared by the means of --scores and the loss of --target-logprob.

    A and B are each a file, a glob, a folder or a URL. Rows are matched by position, or with --on by their ids.
    """
    import fastxent as fx
    from fastxent.verbs.comparisons import named

    a, others = given.pop("a"), given.pop("others")
    many = len(others) > 1
    conditions, sinks, verbose = given.pop("fail_if"), Sinks.of(given), given.pop("verbose")
    check_conditions(conditions, given, partial(number_names, scores=given["scores"] or ()),
                     columns=(DUMP,) if many else ())  # fmt: skip
    names = given["names"]
    if many:
        names = None if tuple(names) == DEFAULT_NAMES else names
        dumps = named(others, names)[1]
        for condition in conditions:
            condition.of_dump(dumps)
    sinks.check([], lambda: local_files((a, *others), given["targets"]))
    quiet = given["quiet"]
    with progress(given, "comparing") as report:
        result: CompareResult | CompareSet
        if many:
            result = fx.compare_many(a, others, progress=report, **{**given, "names": names})
        else:
            result = fx.compare(a, others[0], progress=report, **given)
    return finish(result, conditions, sinks, quiet, verbose)
