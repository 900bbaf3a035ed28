"""The command line: arguments, then the Python API, then a printer. Nothing is computed here.

Exit codes: 0 fine, 1 a ``--fail-if`` held, 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import _thread
import signal
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
from fastxent.cli.output import say
from fastxent.cli.report import report
from fastxent.errors import FastxentError
from fastxent.leave import INTERRUPTED, TERMINATED, leave


class _Interrupted(click.ClickException):
    exit_code = INTERRUPTED


@contextmanager
def _answered() -> Iterator[None]:
    """Say that we were interrupted: click itself would print a blank line first."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _Interrupted(str(interrupt) or "interrupted; nothing was left half-written") from None


class _Group(click.Group):
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
        warnings.showwarning = _show_warning
        try:
            return int(cli.main(list(arguments), prog_name="fastxent", standalone_mode=False) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return error.exit_code
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "fastxent"
            return _fail(f"{error.format_message().rstrip('.')}; see {command} --help", error.exit_code)
        except click.ClickException as error:
            return _fail(error.format_message(), error.exit_code)
        except FastxentError as error:
            return _fail(str(error), 2)
        except MemoryError as error:
            return _fail(f"out of memory ({error}); lower --memory or --threads", 2)
        except OSError as error:
            return _fail(f"{error}", 2)


def main() -> NoReturn:
    """The ``fastxent`` program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without × is no reason to crash
    # Batch schedulers stop jobs this way: leave as from Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.unraisablehook = _unraisable
    try:
        code = run(sys.argv[1:])
    except SystemExit:
        code = TERMINATED
    leave(code)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """An interrupt that came while C called Python, as LLVM does, cannot be raised there: it comes once more, soon."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(what)


def _fail(message: str, code: int) -> int:
    say(f"error: {message}" if code != INTERRUPTED else message)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")
