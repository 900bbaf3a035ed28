"""What the command line says: results on stdout or into files, everything else on stderr."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from fastxent.cli.compiling import compilations
from fastxent.cli.leave import discard, say
from fastxent.errors import FastxentError, OutputError
from fastxent.io.storage.atomic import write_atomic

if TYPE_CHECKING:
    from fastxent.cli.compiling import Compilations

Report = Callable[[int, int | None, int, int | None], None]  # rows done, of, bytes done, of

_MINUTE = 60.0


class Result(Protocol):
    """What commands print: its repr is a table."""

    def to_json(self) -> str: ...
    def to_markdown(self) -> str: ...


def emit(text: str) -> None:
    """Print a result, with control characters as JSON escapes."""
    for character in {c for c in set(text) if not (c.isprintable() or c == "\n")}:
        text = text.replace(character, json.dumps(character)[1:-1])
    put(text)


def put(text: str) -> None:
    """Write to stdout. A reader that left (``| head``) is no error; a full disk behind ``>`` is one."""
    stream = sys.stdout
    text = text if text.endswith("\n") else text + "\n"
    try:
        stream.flush()
        view = memoryview(text.encode(stream.encoding, "backslashreplace"))
        while view:  # unbuffered (PYTHONUNBUFFERED=1), a write may take a part, and say so only in what it returns
            written = stream.buffer.write(view)
            if not written:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            view = view[written:]
        stream.flush()
    except OSError as error:
        discard(stream)  # what is still buffered would fail again, loudly, when the interpreter closes the stream
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def to_stdout(output: str | None) -> bool:
    """Whether ``--output`` names standard output: ``-``, ``/dev/stdout``, or whatever else is the same file."""
    if output is None or output == "-":
        return output == "-"
    try:
        return os.path.samestat(os.stat(output), os.fstat(sys.stdout.fileno())) and not os.path.samefile(
            output, os.devnull
        )
    except (OSError, ValueError):  # not there yet; a stream of a test has no number
        return False


def chosen_format(format_: str | None, output: str | None) -> str:
    """What is printed: what ``--format`` says, else the table. JSON is written once, where ``--output`` says."""
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
    """Print a result in the form that `chosen_format` gave, then write it to ``output``, then take ``more`` steps.

    ``table``: in place of its repr.
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
    """Take every step, though one fails; then say what failed."""
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


@contextmanager
def progress_bar(wanted: bool | None, label: str) -> Iterator[Report | None]:
    """Progress on stderr: percent, rows/s, GB/s and time left, and whether kernels are being compiled.

    None: a bar on a terminal, elsewhere one line a minute. True: a bar in any case. False: nothing.
    """
    if wanted is False:
        yield None
        return
    with compilations() as compiled:
        state = _State(label, compiled)
        with _bar(state) if wanted or sys.stderr.isatty() else _each_minute(state):
            yield state.report


class _State:
    """How far a run has come. Compilation is no part of its rates."""

    def __init__(self, label: str, compiled: Compilations) -> None:
        self.label = label
        self.compiled = compiled
        self.start = time.perf_counter()
        self.rows = self.nbytes = 0
        self.done: int = 0
        self.total: int | None = None
        self.changed: Callable[[], None] = lambda: None

    def report(self, rows: int, rows_total: int | None, nbytes: int, bytes_total: int | None) -> None:
        self.rows, self.nbytes = rows, nbytes
        self.done, self.total = (nbytes, bytes_total) if bytes_total is not None else (rows, rows_total)
        self.changed()

    @property
    def doing(self) -> str:
        return f"compiling kernel {self.compiled.count}" if self.compiled.running else self.label

    @property
    def rate(self) -> str:
        seconds = max(time.perf_counter() - self.start - self.compiled.seconds, 1e-9)
        return f"{self.rows / seconds:,.0f} rows/s  {self.nbytes / seconds / 1e9:.2f} GB/s" if self.rows else ""

    def line(self) -> str:
        """All of it, for a log."""
        part = f" {self.done / self.total:.0%}".replace("%", " %") if self.total else ""
        return f"{self.doing}{part}: {self.rows:,} rows{f', {self.rate}' if self.rate else ''}"


@contextmanager
def _bar(state: _State) -> Iterator[None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=console.is_terminal) as bar:  # in a log, the last state stays
        task = bar.add_task(state.label, total=None, rate="")
        said = False

        def show() -> None:
            nonlocal said
            if state.compiled.running and not said:
                said = True
                console.print("fastxent: compiling kernels for their first use; they are kept for later runs")
            bar.update(task, completed=state.done, total=state.total, rate=state.rate, description=state.doing)

        state.changed = state.compiled.changed = show
        yield


@contextmanager
def _each_minute(state: _State) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_MINUTE):
            say(state.line())

    teller = threading.Thread(target=tell, name="fastxent-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
