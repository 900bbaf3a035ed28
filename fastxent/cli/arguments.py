"""Paths on the command line: sources to read, and destinations, which are checked before the run."""

from __future__ import annotations

from typing import Any

import click

from fastxent.cli.options import Setting, option
from fastxent.cli.output import to_stdout
from fastxent.errors import OutputError
from fastxent.io.storage.atomic import check_destination


def destination(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check a file to be written."""
    if value == "-":
        raise OutputError("cannot write '-': only --output writes to standard output; name a file")
    if value is not None:
        check_destination(value)
    return value


def result_destination(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check a file to be written, or standard output."""
    return value if to_stdout(value) else destination(ctx, param, value)


def _report_destination(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        from fastxent.results.report import require

        require()
    return destination(ctx, param, value)


def _trackers(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        from fastxent.results.trackers import check

        for tracker in value:
            check(tracker)
    return value


def _with_dest(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that there are sources beside DEST, which takes the last path, or the only one."""
    if not value:
        raise click.UsageError("two paths are needed: SOURCE, the dump to read, and DEST, the file to write")
    return value


def source_of(given: tuple[str, ...]) -> str | list[str]:
    """Return the sources in the form that the Python API takes."""
    return given[0] if len(given) == 1 else list(given)


def local_files(source: tuple[str, ...], targets: str | None = None) -> list[str]:
    """Return the files on this machine that the sources and the option --targets name."""
    from fastxent.io.storage.files import find_files

    paths = [*source, *([] if targets is None else [targets])]
    return [file.path for path in paths for file in find_files(path) if file.local]


def output(*names: str) -> Setting:
    """Return the option that writes a command's result as JSON."""
    return option("--output", "-o", *names, metavar="FILE", callback=result_destination,
                  help="Write the result as JSON; - is standard output.")  # fmt: skip


def file_option(*names: str, help: str, **settings: Any) -> Setting:
    """Return an option that names a file to write."""
    return option(*names, metavar="FILE", callback=destination, help=help, **settings)


SOURCES = click.argument("source", nargs=-1, required=True, metavar="SOURCE...")
SOURCES_BEFORE_DEST = click.argument("source", nargs=-1, callback=_with_dest, metavar="SOURCE...")
DEST = click.argument("dest", callback=destination)
REPORT = option("--report", metavar="FILE", callback=_report_destination, help="Also write an HTML report.")
STATE = file_option("--state", help="Save the state, for fastxent merge.")
LOG = option("--log", multiple=True, metavar="TRACKER", callback=_trackers, show_default=False,
             help="Also log to jsonl:FILE or mlflow:URI. Repeatable.")  # fmt: skip
