"""The printed result: on stdout or in files. Everything else goes to stderr."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

import click

from fastxent.cli.leave import discard, say
from fastxent.errors import FastxentError, OutputError
from fastxent.io.storage.atomic import write_atomic


class Result(Protocol):
    """The result of a command; its repr is a table."""

    def to_json(self) -> str: ...
    def to_markdown(self) -> str: ...


def emit(text: str) -> None:
    """Print a result, with control characters as JSON escapes."""
    for character in {c for c in set(text) if not (c.isprintable() or c == "\n")}:
        text = text.replace(character, json.dumps(character)[1:-1])
    put(text)


def put(text: str) -> None:
    """Write to stdout. A reader that ended early (``| head``) is not an error; a full disk behind ``>`` is one."""
    stream = sys.stdout
    text = text if text.endswith("\n") else text + "\n"
    try:
        stream.flush()
        view = memoryview(text.encode(stream.encoding, "backslashreplace"))
        while view:  # if unbuffered (PYTHONUNBUFFERED=1), a write may be partial
            written = stream.buffer.write(view)
            if not written:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            view = view[written:]
        stream.flush()
    except OSError as error:
        discard(stream)  # the rest of the buffer would fail again when the interpreter closes the stream
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def to_stdout(output: str | None) -> bool:
    """Return True if ``--output`` is standard output: ``-``, ``/dev/stdout``, or another name of the same file."""
    if output is None or output == "-":
        return output == "-"
    try:
        return os.path.samestat(os.stat(output), os.fstat(sys.stdout.fileno())) and not os.path.samefile(
            output, os.devnull
        )
    except (OSError, ValueError):  # the file does not exist yet, or the stream of a test has no number
        return False


def chosen_format(format_: str | None, output: str | None) -> str:
    """Return the form that is printed: ``--format``, or the table. JSON is written only once, to ``--output``."""
    if to_stdout(output):
        if format_ not in (None, "json"):
            raise click.UsageError(f"--output {output} cannot be combined with --format {format_}, because both write "
                                   "to standard output")  # fmt: skip
        return "json"
    if output is not None and format_ == "json":
        return "none"
    return format_ or "table"


def deliver(
    result: Result,
    format_: str,
    output: str | None,
    *more: Callable[[], object],
    table: Callable[[], str] | None = None,
) -> None:
    """Print a result, then write it to ``output``, then take ``more`` steps.

    format_: str. The form from `chosen_format`.
    table: function or None. It returns the table instead of the repr.
    """
    printers: dict[str, Callable[[], object]] = {
        "table": lambda: emit((table or result.__repr__)()),
        "json": lambda: emit(result.to_json()),
        "markdown": lambda: emit(result.to_markdown()),
        "none": lambda: None,
    }
    steps = [printers[format_]]
    if output is not None and not to_stdout(output):
        steps.append(lambda: write_atomic(output, result.to_json() + "\n"))
    all_of([*steps, *more])


def all_of(steps: Iterable[Callable[[], object]]) -> None:
    """Take every step, even if one fails; then report the failures."""
    failures: list[Exception] = []
    for step in steps:
        try:
            step()
        except (FastxentError, OSError) as error:
            failures.append(error)
    for failure in failures[:-1]:
        say(f"error: {failure}")
    if failures:
        raise failures[-1]
