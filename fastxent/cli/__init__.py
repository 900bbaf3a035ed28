"""The command line: arguments, then the Python API, then a printer. Nothing is computed here.

Exit codes: 0 ok, 1 a ``--fail-if`` held, 2 bad usage or bad input, 70 a fault of the program, 129, 130 and 143 ended
by SIGHUP, SIGINT and SIGTERM.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from fastxent._version import __version__
from fastxent.cli import commands
from fastxent.cli.convert import convert
from fastxent.cli.leave import BAD, INTERRUPTED, TERMINATED, arrive, failed, leave, say, say_traceback
from fastxent.cli.options import Quiet
from fastxent.cli.report import report
from fastxent.errors import ConfigError, FastxentError


class _Interrupted(click.ClickException):
    exit_code = INTERRUPTED


@contextmanager
def _answered() -> Iterator[None]:
    """Say that we were interrupted: click itself would print a blank line first."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _Interrupted(str(interrupt) or "interrupted; nothing was left half-written") from None


class _Group(Quiet, click.Group):
    def make_context(self, *given: Any, **options: Any) -> click.Context:
        with _answered():
            return super().make_context(*given, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _answered():
            return super().invoke(ctx)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Start here:
  fastxent inspect dump.parquet             what is in it, and the eval line to run
  fastxent eval dump.parquet                every figure, in one pass
  fastxent eval dump.parquet --by language --cluster document
  fastxent eval dump.parquet --fail-if 'cross_entropy>2.1'     a gate for CI: exit 1

\b
A dump has one row a prediction: a column of logits (one number a class) and a column
of targets (class ids). Parquet, Arrow IPC, .npy and .safetensors are read, from disk
or from a URL, in memory that does not grow with the file.""",
)
@click.version_option(__version__, message="fastxent %(version)s")
def cli() -> None:
    """Cross-entropy, and every figure that can be read off the same logits, in one pass."""


for _command in (
    commands.eval_, commands.transform, convert, commands.inspect, commands.merge, report, commands.warmup,
):  # fmt: skip
    cli.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is one line on stderr."""
    with warnings.catch_warnings():
        warnings.showwarning = _Warnings()
        try:
            if not arguments:
                click.echo(cli.get_help(click.Context(cli, info_name="fastxent")), err=True)
                return BAD
            if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
                raise ConfigError("NUMBA_DISABLE_JIT must be 0: the kernels do not run uncompiled; unset it")
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
            return _fail(error, "cannot start a thread: the system allows no more; lower --threads")
        except Exception as error:  # noqa: BLE001 - exit code 1 means that a --fail-if held, and nothing else
            return failed(error)


def main() -> NoReturn:
    """The ``fastxent`` program."""
    arrive()
    sys.unraisablehook = _unraisable
    try:
        code = run(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else TERMINATED
    leave(code)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """An interrupt that came while C called Python, as LLVM does, cannot be raised there: it comes once more, soon."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(what)


def _fail(error: Exception, message: str, code: int = BAD) -> int:
    if os.environ.get("FASTXENT_TRACEBACK"):
        say_traceback(error)
    say(f"error: {message}" if code != INTERRUPTED else message)
    return code


class _Warnings:
    """Says each warning once, in one line."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in self._said:
            self._said.add(str(message))
            say(f"warning: {message}")
