"""The commands. Each hands its options to the Python API and prints what comes back; the API is imported on use."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from fastxent.cli import options
from fastxent.cli.conditions import Condition
from fastxent.cli.leave import say
from fastxent.cli.merge import merged
from fastxent.cli.options import Command, Items, option, section
from fastxent.cli.output import Report, chosen_format, deliver, emit, progress_bar, to_stdout
from fastxent.errors import ColumnError, ConfigError, OutputError
from fastxent.io.storage.atomic import check_destination, write_atomic
from fastxent.io.writers import check_not_source
from fastxent.names import some

if TYPE_CHECKING:
    from fastxent.results.result import EvalResult

FAILED = 1
_KINDS = ("log_softmax", "softmax", "grad")  # of transform


def _destination(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value == "-":
        raise OutputError("cannot write '-': only --output writes to standard output; name a file")
    if value is not None:
        check_destination(value)
    return value


def _result_destination(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    return value if to_stdout(value) else _destination(ctx, param, value)


def _report_destination(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        from fastxent.results.report import require

        require()
    return _destination(ctx, param, value)


def _trackers(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        from fastxent.results.trackers import check

        for tracker in value:
            check(tracker)
    return value


_sources = click.argument("source", nargs=-1, required=True, metavar="SOURCE...")
_report = option("--report", metavar="FILE", callback=_report_destination, help="Write an HTML report too.")


def output(*names: str) -> options.Setting:
    """The option that writes a command's result as JSON."""
    return option("--output", "-o", *names, metavar="FILE", callback=_result_destination,
                  help="Write the result as JSON; - is standard output.")  # fmt: skip


_log = option("--log", multiple=True, metavar="TRACKER", callback=_trackers, show_default=False,
              help="Log to jsonl:FILE or mlflow:URI too. Repeatable.")  # fmt: skip
_state = option("--state", metavar="FILE", callback=_destination, help="Save the state, for fastxent merge.")


@click.command("eval", cls=Command, short_help="Every figure of a dump, with error bars.", epilog="""\b
Examples:
  fastxent eval dump.parquet
  fastxent eval 'shards/*.parquet' --by language --cluster document --n-bytes bytes
  fastxent eval dump.parquet --logits 'logit_*' --target label
  fastxent eval s3://bucket/dump/ --format json --per-row losses.parquet
  fastxent eval dump.parquet --fail-if 'cross_entropy>2.1' --fail-if 'rows.bad>0'
  fastxent eval huge/ --resume progress            after a crash: the same line again
  fastxent eval huge/ --shard 3/16 --state 3.state

\b
Every figure comes with a standard error. Figures are the same, bit for bit, for any
--threads, any --memory and any order of files.

Exit codes: 0 ok, 1 a --fail-if held, 2 bad usage or bad input, 70 a fault of fastxent,
129, 130 and 143 ended by SIGHUP, SIGINT and SIGTERM.""")  # fmt: skip
@_sources
@options.columns
@options.loss
@options.figures
@options.printing
@section(
    "Output",
    output(),
    _report,
    option("--per-row", metavar="FILE", callback=_destination, help="Write each row's loss, rank, … as Parquet."),
    option("--id", metavar="COLUMN", help="Row names, for --per-row."),
    _state,
    _log,
)
@options.running(
    option("--resume", metavar="FOLDER",
           help="Keep the state of what is finished here; run again after a crash, and it goes on from there."),
    option("--shard", metavar="K/N", help="Only part K of N, as in 3/16; with --state, for fastxent merge."),
    option("--engine", type=click.Choice(["local", "ray"]), default="local",
           help="Threads of this machine, or a Ray cluster (RAY_ADDRESS)."),
)  # fmt: skip
def eval_(**given: Any) -> int:
    """Evaluate a dump: every figure, with error bars, from one read of the logits.

    SOURCE is a file, a glob, a folder (hive partitions become columns) or a URL; several are one dump.
    """
    import fastxent as fx

    conditions, sinks, verbose = given.pop("fail_if"), _Sinks.of(given), given.pop("verbose")
    _check_conditions(conditions, given)
    sinks.check([given["per_row"]], lambda: _local_files(given["source"]))
    quiet = given["quiet"]
    try:
        with _progress(given, "evaluating") as progress:
            result = fx.evaluate(_source(given.pop("source")), progress=progress, **given)
    except KeyboardInterrupt:
        if given["resume"] is None:
            raise
        raise KeyboardInterrupt(
            f"interrupted; what is finished is in {given['resume']}: the same command goes on from there"
        ) from None
    return _finish(result, conditions, sinks, quiet, verbose)


@click.command(cls=Command, short_help="Write log-softmax, softmax or gradients of every row.", epilog="""\b
Examples:
  fastxent transform dump.parquet log_probs.parquet --keep id
  fastxent transform dump.parquet gradient.arrow --kind grad --reduction sum
  fastxent transform dump.parquet half.parquet --kind softmax --dtype float16""")  # fmt: skip
@click.argument("source", nargs=-1, callback=options.both, metavar="SOURCE...")
@click.argument("dest", callback=_destination)
@section(
    "Transform",
    option("--kind", "output", type=click.Choice(_KINDS), default="log_softmax", help="What is written for every row."),
    option("--reduction", type=click.Choice(["mean", "sum", "none"]), default="mean",
           help="Of the loss that grad is the gradient of."),
    option("--dtype", type=click.Choice(["float16", "bfloat16", "float32", "float64"]), default=None,
           help="Of what is written; the scores' own if not given."),
    option("--keep", multiple=True, type=Items(), metavar="COLUMN,...", callback=options.flatten, show_default=False,
           help="Columns to carry over."),
)  # fmt: skip
@options.columns
@options.loss
@options.figures
@options.printing
@section("Output", output("figures"))
@options.running()
def transform(**given: Any) -> int:
    """Write log-softmax, softmax or the gradient of every row to a new file, and print the figures.

    DEST ends in .parquet or .arrow; it is complete under its name, or not there.
    """
    import fastxent as fx

    figures = given.pop("figures")
    if figures in _KINDS:
        raise ConfigError(f"--output must name a file, got {figures!r}; give --kind {figures}")
    conditions, verbose = given.pop("fail_if"), given.pop("verbose")
    sinks = _Sinks(chosen_format(given.pop("format_"), figures), figures)
    _check_conditions(conditions, given)
    sinks.check([given["dest"]], lambda: _local_files(given["source"]))
    quiet = given["quiet"]
    with _progress(given, "transforming") as progress:
        result = fx.transform(_source(given.pop("source")), given.pop("dest"), progress=progress, **given)
    return _finish(result, conditions, sinks, quiet, verbose)


@click.command(cls=Command, short_help="Merge states saved by eval --state.", epilog="""\b
Examples:
  fastxent eval part-1.parquet --state part-1.state
  fastxent eval part-2.parquet --state part-2.state
  fastxent merge part-*.state --output figures.json
  fastxent merge shard-*.state                       of eval --shard K/N, all N of them""")  # fmt: skip
@click.argument("state_files", nargs=-1, required=True, metavar="STATE...")
@options.printing
@section(
    "Output",
    output(),
    _report,
    _state,
    _log,
    option("--partial", is_flag=True, show_default=False, help="Figures of the shards there are, though some are not."),
    options.QUIET,
)
def merge(state_files: tuple[str, ...], partial: bool, quiet: bool, **given: Any) -> int:
    """Merge saved states: the figures of all their rows, bit for bit those of one run.

    States merge in any order. Refused are states of differing options, a state or a shard given twice, shards
    of which some are missing, and shards together with the state of an undivided run.
    """
    conditions, sinks = given.pop("fail_if"), _Sinks.of(given)
    replace(sinks, state=None).check([], lambda: state_files)  # a state may grow under its own name
    sinks.check([], lambda: ())
    with progress_bar(False if quiet else None, "merging"):
        state = merged(state_files, partial)
        result = replace(state.result(), state=state)
    return _finish(result, conditions, sinks, quiet)


@click.command(cls=Command, short_help="What is in a dump, and the eval line to run.", epilog="""\b
Examples:
  fastxent inspect dump.parquet
  fastxent inspect 'shards/*.parquet' --logits scores --format json""")  # fmt: skip
@_sources
@section(
    "Output",
    option("--logits", metavar="COLUMN", help="Describe this column, not the likeliest."),
    option("--format", "format_", type=click.Choice(["table", "json", "none"]), default=None, show_default=False,
           help="Form of the printed result; a table by default."),
    output("output"),
)  # fmt: skip
def inspect(source: tuple[str, ...], logits: str | None, format_: str | None, output: str | None) -> int:
    """Look at a dump; of its rows only the first are read.

    Schema, layout, rows, classes, which columns look like what, and the eval line to run.
    """
    from fastxent.cli.description import Shown
    from fastxent.io.inspect import describe

    format_ = chosen_format(format_, output)
    _Sinks(format_, output).check([], lambda: _local_files(source))
    found = describe(_source(source), logits)
    named = [candidate for candidate in found.logits if logits in (None, candidate.name)]
    if logits is not None and not named:
        raise ColumnError(f"column {logits!r} holds no logits; candidates: "
                          f"{some(candidate.name for candidate in found.logits) or 'none'}")  # fmt: skip
    chosen, scores = (named[0] if named else None), "logits"
    if chosen is not None:
        from fastxent.io.sample import score_kind, slice_columns

        with progress_bar(None, "inspecting"):
            scores = score_kind(_source(source), chosen)
            found.roles["by"] = slice_columns(_source(source), chosen, list(dict.fromkeys(found.roles["by"])))
    deliver(Shown(found, chosen, source, scores), format_, output)
    return 0


@click.command(cls=Command, short_help="Compile ahead what eval needs.", epilog="""\b
Examples:
  fastxent warmup
  FASTXENT_CACHE_DIR=/opt/fastxent fastxent warmup       into an image, for all its users""")  # fmt: skip
def warmup() -> int:
    """Compile ahead what eval needs, and print the folder it is kept in.

    Every dtype, few classes and many. Without it the first eval of a kind compiles what it needs, in some seconds.
    """
    from fastxent.kernels.jit import writable_cache
    from fastxent.verbs.warmup import warm_up

    folder = writable_cache()
    warm_up(lambda name, done, total: say(f"[{done + 1}/{total}] {name}"))
    emit(str(folder))
    return 0


@contextmanager
def _progress(given: dict[str, Any], label: str) -> Iterator[Report | None]:
    """Take the options about messages out of ``given`` and act on them."""
    wanted, quiet = given.pop("progress"), given.pop("quiet")
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        with progress_bar(False if quiet else wanted, label) as report:
            yield report


def _source(given: tuple[str, ...]) -> str | list[str]:
    return given[0] if len(given) == 1 else list(given)


@dataclass(frozen=True)
class _Sinks:
    """Where a result goes."""

    format_: str
    output: str | None
    report: str | None = None
    state: str | None = None
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: dict[str, Any]) -> _Sinks:
        """Taken out of the options."""
        output = given.pop("output")
        return cls(chosen_format(given.pop("format_"), output), output, given.pop("report"), given.pop("state"),
                   given.pop("log"))  # fmt: skip

    def check(self, others: Iterable[str | None], sources: Callable[[], Iterable[str]]) -> None:
        """Refuse to write over a source, or two things to one file. ``sources`` are listed only if an output exists."""
        logs = [tracker.removeprefix("jsonl:") for tracker in self.log if tracker.startswith("jsonl:")]
        output = None if to_stdout(self.output) else self.output
        paths = [path for path in (output, self.report, self.state, *logs, *others) if path is not None]
        files = [os.path.realpath(path) for path in paths]
        for path, file in zip(paths, files, strict=True):
            if files.count(file) > 1 and (os.path.isfile(file) or not os.path.exists(path)):
                raise OutputError(f"cannot write {path!r} twice: each output is a file of its own; choose another name")
        there = [path for path in paths if os.path.isfile(path)]
        found = list(sources()) if there else []
        for path in there:
            check_not_source(path, found)

    def steps(self, result: EvalResult) -> Iterator[Callable[[], object]]:
        """What writes the result to all places but ``output``."""
        if (state := self.state) is not None:
            yield lambda: _save(result, state)
        if (report := self.report) is not None:
            yield lambda: result.to_html(report)
        yield from (functools.partial(result.log, tracker) for tracker in self.log)


def _local_files(source: tuple[str, ...]) -> list[str]:
    from fastxent.io.storage.files import find_files

    return [file.path for path in source for file in find_files(path) if file.local]


def _check_conditions(conditions: tuple[Condition, ...], given: dict[str, Any]) -> None:
    """A condition on a figure or slice that will not exist is found before the run, not after it."""
    if not conditions:
        return
    from fastxent.engine.job import names
    from fastxent.options.config import EvalConfig
    from fastxent.state.metrics import Plan

    options = {"metrics": names(given["metrics"]), "top_k": tuple(given["top_k"]), "n_bytes": given["n_bytes"]}
    metrics = Plan(EvalConfig(n_classes=1, **options)).names
    for condition in conditions:
        condition.check_figure(metrics)
        if condition.column is not None and condition.column not in (given["by"] or ()):
            raise ConfigError(f"--fail-if {condition.text!r} names slices of {condition.column!r}; "
                              f"add --by {condition.column}")  # fmt: skip


def _save(result: EvalResult, path: str) -> None:
    assert result.state is not None  # only results read from JSON have none
    write_atomic(path, result.state.to_bytes())


def _finish(
    result: EvalResult, conditions: tuple[Condition, ...], sinks: _Sinks, quiet: bool = False, verbose: bool = False
) -> int:
    """Print, write, judge: the figures are on the screen before anything that may fail."""
    from fastxent.engine.timing import lines

    failures: list[str] = []

    def judge() -> None:
        for condition in conditions:
            for failure in condition.check(result):
                failures.append(failure)
                say(f"failed: {failure}")

    def tell() -> None:
        for line in lines(result.timing or {}):
            say(line)

    if not quiet and sinks.format_ != "markdown":  # which has them in it
        for warning in result.warnings:
            say(f"warning: {warning}")
    steps = [*([tell] if verbose else []), *sinks.steps(result), judge]
    deliver(result, sinks.format_, sinks.output, *steps, table=lambda: str(replace(result, warnings=())))
    return FAILED if failures else 0
