"""Progress of a run on stderr: a bar on a terminal, one line per minute elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastxent.cli.compiling import compilations
from fastxent.cli.leave import say

if TYPE_CHECKING:
    from fastxent.cli.compiling import Compilations
    from fastxent.results.values import Metric

Report = Callable[[int, int | None, int, int | None], None]  # rows done, rows in all, bytes done, bytes in all

_MINUTE = 60.0


@contextmanager
def progress_bar(wanted: bool | None, label: str) -> Iterator[Report | None]:
    """Show percent, rows/s, GB/s and time left, and whether kernels are being compiled.

    wanted: bool or None. None: a bar on a terminal, elsewhere one line per minute. True: a bar. False: nothing.
    label: str. The name of the step.
    """
    if wanted is False:
        yield None
        return
    with compilations() as compiled:
        state = _State(label, compiled)
        with _bar(state) if wanted or sys.stderr.isatty() else _each_minute(state):
            yield state


class _State:
    """The progress of a run. Compilation does not count in the rates."""

    def __init__(self, label: str, compiled: Compilations) -> None:
        self.label = label
        self.compiled = compiled
        self.start = time.perf_counter()
        self.rows = self.nbytes = 0
        self.done: int = 0
        self.total: int | None = None
        self.mean: Metric | None = None  # cross-entropy so far
        self.changed: Callable[[], None] = lambda: None

    def running(self, mean: Metric) -> None:
        """Take the cross-entropy of the rows so far."""
        self.mean = mean

    def __call__(self, rows: int, rows_total: int | None, nbytes: int, bytes_total: int | None) -> None:
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

    @property
    def figure(self) -> str:
        """The cross-entropy of the rows so far, with its interval."""
        if self.mean is None:
            return ""
        (low, high), value = self.mean.ci95, self.mean.value
        return f"cross-entropy {value:.4g}" + (f" ({low:.4g} … {high:.4g})" if low == low else "")

    def line(self) -> str:
        """Return the progress as one line, for a log."""
        part = f" {self.done / self.total:.0%}".replace("%", " %") if self.total else ""
        return f"{self.doing}{part}: " + ", ".join(filter(None, (f"{self.rows:,} rows", self.rate, self.figure)))


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
        TextColumn("{task.fields[figure]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=console.is_terminal) as bar:  # in a log, the last line stays
        task = bar.add_task(state.label, total=None, rate="", figure="")
        said = False

        def show() -> None:
            nonlocal said
            if state.compiled.running and not said:
                said = True
                console.print("fastxent: compiling kernels for their first use; later runs load them from the cache")
            bar.update(
                task, completed=state.done, total=state.total, description=state.doing, rate=state.rate,
                figure=state.figure,
            )  # fmt: skip

        state.changed = state.compiled.changed = show
        yield


@contextmanager
def _each_minute(state: _State) -> Iterator[None]:
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(_MINUTE):
            say(state.line())

    reporter = threading.Thread(target=report, name="fastxent-progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
