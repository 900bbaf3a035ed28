"""What the command line says: results on stdout or into files, everything else on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from fastxent.errors import OutputError
from fastxent.io.atomic import write_atomic

Report = Callable[[int, int | None, int, int | None], None]  # rows done, of, bytes done, of


class Result(Protocol):
    """What commands print: its repr is a table."""

    def to_json(self) -> str: ...
    def to_markdown(self) -> str: ...


def say(message: str) -> None:
    """One line on stderr, under the program's name."""
    print(f"fastxent: {' '.join(message.split())}", file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Print a result. A reader that left (``| head``) is no error; a full disk behind ``>`` is one."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered would fail again, loudly, when the interpreter closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def deliver(result: Result, format_: str, output: str | None) -> None:
    """Write a result to the places asked for: the file first, so that a closed pipe loses nothing."""
    if output is not None:
        write_atomic(output, result.to_json() + "\n")
    printers: dict[str, Callable[[], str]] = {
        "table": lambda: str(result),
        "json": result.to_json,
        "markdown": result.to_markdown,
    }
    emit(printers[format_]())


@contextmanager
def progress_bar(wanted: bool | None, label: str) -> Iterator[Report | None]:
    """A progress display on stderr: percent, rows/s, GB/s and time left. By default on a terminal only."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield None
        return
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
        task = bar.add_task(label, total=None, rate="")
        start = time.perf_counter()

        def report(rows: int, rows_total: int | None, nbytes: int, bytes_total: int | None) -> None:
            seconds = max(time.perf_counter() - start, 1e-9)
            done, total = (nbytes, bytes_total) if bytes_total is not None else (rows, rows_total)
            rate = f"{rows / seconds:,.0f} rows/s  {nbytes / seconds / 1e9:.2f} GB/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield report
