"""The program: its commands, the warnings and errors of a run as one line each, and its exit code.

Exit codes: 0 success, 1 a ``--fail-if`` condition holds, 2 invalid usage or input, 70 internal error, 129, 130 and 143
ended by SIGHUP, SIGINT and SIGTERM.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from fastxent._version import __version__
from fastxent.cli.commands.calibrate import calibrate
from fastxent.cli.commands.compare import compare
from fastxent.cli.commands.convert import convert
from fastxent.cli.commands.eval import eval_
from fastxent.cli.commands.inspect import inspect
from fastxent.cli.commands.merge import merge
from fastxent.cli.commands.report import report
from fastxent.cli.commands.transform import transform
from fastxent.cli.commands.warmup import warmup
from fastxent.cli.leave import (
    BAD,
    INTERRUPTED,
    TERMINATED,
    arrive,
    ended_by,
    failed,
    interrupted,
    leave,
    say,
    say_traceback,
)
from fastxent.cli.options import Quiet
from fastxent.errors import ConfigError, FastxentError


class _Interrupted(click.ClickException):
    exit_code = INTERRUPTED


@contextmanager
def _interrupts_as_errors() -> Iterator[None]:
    """Turn an interrupt into an error with a message: click itself would print a blank line first."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _Interrupted(str(interrupt) or "interrupted; nothing was left half-written") from None


class _Group(Quiet, click.Group):
    def make_context(self, *given: Any, **options: Any) -> click.Context:
        with _interrupts_as_errors():
            return super().make_context(*given, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _interrupts_as_errors():
            return super().invoke(ctx)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Start here:
  fastxent inspect dump.parquet             describe it, and print the eval command to run
  fastxent eval dump.parquet                compute every metric in one pass
  fastxent eval dump.parquet --by language --cluster document
  fastxent eval dump.parquet --fail-if 'cross_entropy>2.1'     exit 1 in CI if this holds

\b
A dump has one row per prediction: a column of logits (one number per class) and a column
of targets (class ids). Formats are Parquet, Arrow IPC, CSV, TSV, .npy, .npz, .pt, .safetensors,
llama.cpp's .kld and JSON lines, on disk or at a URL. Files may be larger than memory.""",
)
@click.version_option(__version__, message="fastxent %(version)s")
def cli() -> None:
    """Compute cross-entropy and every other metric of logits in one pass."""


for _command in (eval_, compare, calibrate, transform, convert, inspect, merge, report, warmup):
    cli.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; an error is one line on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _Warnings()
        try:
            if not arguments:
                click.echo(cli.get_help(click.Context(cli, info_name="fastxent")), err=True)
                return BAD
            if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
                raise ConfigError("NUMBA_DISABLE_JIT must be 0, because the kernels need compilation; unset it")
            return int(cli.main(list(arguments), prog_name="fastxent", standalone_mode=False) or 0)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "fastxent"
            return _fail(error, f"{error.format_message().rstrip('.')}; see {command} --help", error.exit_code)
        except click.ClickException as error:
            return _fail(error, error.format_message(), error.exit_code)
        except MemoryError as error:
            return _fail(error, f"out of memory ({error}); lower --memory or --threads")
        except (FastxentError, OSError) as error:
            return _fail(error, str(error))
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                return failed(error)
            return _fail(error, "cannot start a thread: the limit of the system is reached; lower --threads")
        except Exception as error:  # noqa: BLE001 - exit code 1 is reserved for --fail-if
            return failed(error)


def main() -> NoReturn:
    """Run the ``fastxent`` program and end the process."""
    arrive()
    sys.unraisablehook = _unraisable
    try:
        code = run(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else TERMINATED
    leave(code)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Repeat a signal that came while C called Python, or an object was deleted: nothing can be raised there.

    Objects that an interrupt left half-built fail again when they are deleted; that is not reported.
    """
    number = signal.SIGINT if issubclass(what.exc_type, KeyboardInterrupt) else ended_by(what.exc_value)
    if number is not None:
        threading.Timer(0.05, _repeat, [number]).start()
    elif not interrupted():
        sys.__unraisablehook__(what)


def _repeat(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # ends a wait for a lock or a pipe as well
    else:
        _thread.interrupt_main(signal.Signals(number))


def _fail(error: Exception, message: str, code: int = BAD) -> int:
    if interrupted() and code != INTERRUPTED:
        return failed(error)
    if os.environ.get("FASTXENT_TRACEBACK"):
        say_traceback(error)
    say(f"error: {message}" if code != INTERRUPTED else message)
    return code


class _Warnings:
    """Prints each warning once, as one line."""

    def __init__(self) -> None:
        self._printed: set[str] = set()

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in self._printed:
            self._printed.add(str(message))
            say(f"warning: {message}")
