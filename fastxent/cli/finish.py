"""The steps around a call of the Python API: check conditions and destinations, show progress, print and write."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastxent.cli.conditions import Condition, number_names
from fastxent.cli.leave import FAILED, say
from fastxent.cli.output import chosen_format, deliver, to_stdout
from fastxent.cli.progress import Report, progress_bar
from fastxent.errors import ConfigError, OutputError
from fastxent.io.storage.atomic import write_atomic
from fastxent.io.writers import check_not_source

if TYPE_CHECKING:
    from fastxent.results.compare import CompareResult
    from fastxent.results.compare_many import CompareSet
    from fastxent.results.result import EvalResult


@contextmanager
def progress(given: dict[str, Any], label: str) -> Iterator[Report | None]:
    """Take the options about messages out of ``given`` and act on them.

    The KeyboardInterrupt of a run with checkpoints says how to continue it.
    """
    wanted, quiet, resume = given.pop("progress"), given.pop("quiet"), given.get("resume")
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        try:
            with progress_bar(False if quiet else wanted, label) as report:
                yield report
        except KeyboardInterrupt:
            if resume is None:
                raise
            raise KeyboardInterrupt(
                f"interrupted; progress is saved in {resume}; run the same command again to continue"
            ) from None


@dataclass(frozen=True)
class Sinks:
    """The destinations of a result.

    format_: str. The form that is printed.
    output, report, state: path or None. Files for the JSON, the HTML report and the state.
    log: names of trackers.
    """

    format_: str
    output: str | None
    report: str | None = None
    state: str | None = None
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: dict[str, Any]) -> Sinks:
        """Take the destinations out of the options."""
        output = given.pop("output")
        return cls(chosen_format(given.pop("format_"), output), output, given.pop("report"), given.pop("state"),
                   given.pop("log"))  # fmt: skip

    def check(self, others: Iterable[str | None], sources: Callable[[], Iterable[str]]) -> None:
        """Raise OutputError if two results would go to one file, or one over a source.

        others: paths or None. Further files that are written.
        sources: function. It lists the sources, and is called only if a destination exists.
        """
        logs = [tracker.removeprefix("jsonl:") for tracker in self.log if tracker.startswith("jsonl:")]
        output = None if to_stdout(self.output) else self.output
        paths = [path for path in (output, self.report, self.state, *logs, *others) if path is not None]
        files = [os.path.realpath(path) for path in paths]
        for path, file in zip(paths, files, strict=True):
            if files.count(file) > 1 and (os.path.isfile(file) or not os.path.exists(path)):
                raise OutputError(f"cannot write {path!r} twice: each output needs its own file; choose another name")
        existing = [path for path in paths if os.path.isfile(path)]
        found = list(sources()) if existing else []
        for path in existing:
            check_not_source(path, found)

    def steps(self, result: Any) -> Iterator[Callable[[], object]]:
        """Yield the steps that write the result to every destination but ``output``."""
        if (state := self.state) is not None:
            yield lambda: _save(result, state)
        if (report := self.report) is not None:
            yield lambda: result.to_html(report)
        yield from (functools.partial(result.log, tracker) for tracker in self.log)


def check_conditions(
    conditions: tuple[Condition, ...],
    given: dict[str, Any],
    names: Callable[[Iterable[str]], list[str]] = number_names,
    columns: Iterable[str] = (),
) -> None:
    """Raise ConfigError before the run if a condition names a metric or slice that the result will not have.

    columns: iterable of str. Names that stand in the place of a column beside those of ``by``.
    """
    if not conditions:
        return
    from fastxent.state.tasks import possible_metrics

    metrics = possible_metrics(
        {name: given[name] for name in ("metrics", "top_k", "n_bytes", "scores", "target_logprob", "ids")},
        given["task"],
    )
    known = names(metrics)
    for condition in conditions:
        condition.check_name(known)
        if condition.column is not None and condition.column not in (*(given["by"] or ()), *columns):
            raise ConfigError(f"cannot check --fail-if {condition.text!r}: there are no slices of "
                              f"{condition.column!r}; add --by {condition.column}")  # fmt: skip


def _save(result: EvalResult | CompareResult | CompareSet, path: str) -> None:
    assert result.state is not None  # only results read from JSON have none
    write_atomic(path, result.state.to_bytes())


def finish(
    result: EvalResult | CompareResult | CompareSet,
    conditions: tuple[Condition, ...],
    sinks: Sinks,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Print the result, then write it, then check the conditions; return the exit code.

    The result is printed before any step that may fail.
    """
    failures: list[str] = []

    def judge() -> None:
        for condition in conditions:
            for failure in condition.check(result):
                failures.append(failure)
                say(f"failed: {failure}")

    if not quiet and sinks.format_ != "markdown":  # markdown contains them
        for warning in result.warnings:
            say(f"warning: {warning}")
    times = [lambda: say_times(result.timing)] if verbose else []
    steps = [*times, *sinks.steps(result), judge]
    deliver(result, sinks.format_, sinks.output, *steps, table=lambda: str(_unwarned(result)))
    return FAILED if failures else 0


def _unwarned(result: EvalResult | CompareResult | CompareSet) -> EvalResult | CompareResult | CompareSet:
    """Return a result without warnings, which have been printed."""
    from fastxent.results.compare_many import CompareSet

    if isinstance(result, CompareSet):
        each = {name: replace(found, warnings=()) for name, found in result.comparisons.items()}
        return replace(result, comparisons=each)
    return replace(result, warnings=())


def say_times(timing: dict[str, Any] | None) -> None:
    """Print the time of each step of a run to stderr."""
    from fastxent.engine.timing import lines

    for line in lines(timing or {}):
        say(line)
