"""Start and end of the program: standard streams, signals, messages on stderr, exit codes."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn, TextIO

from fastxent.names import printable, public_name

FAILED = 1  # a condition of --fail-if holds
BAD = 2  # invalid usage or input
INTERNAL = 70  # EX_SOFTWARE of sysexits.h
HUNG_UP = 128 + getattr(signal, "SIGHUP", 1)
INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM

_interrupts: list[int] = []


def arrive() -> None:
    """Prepare the process: closed streams (``>&-``) discard their output, and signals remove temporary files.

    Otherwise the next opened file would take the number of a closed stream and receive its output.
    """
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for terminals that cannot show ×
    for end in ("SIGTERM", "SIGHUP"):  # from batch schedulers, and from a closed terminal
        number: int | None = getattr(signal, end, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup sets this
            signal.signal(number, _exit)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt, and remember it: a library may turn the exception into one of its own.

    Python 3.11 does so as well, where an interrupt comes in a ``__set_name__``, that is while a class is made.
    """
    _interrupts.append(number)
    raise KeyboardInterrupt


def interrupted() -> bool:
    """Return True if the process has received SIGINT: any later error is a consequence of it."""
    return bool(_interrupts)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def ended_by(error: BaseException | None) -> int | None:
    """The signal, SIGTERM or SIGHUP, whose handler raised an error; None for any other error."""
    code = error.code if isinstance(error, SystemExit) else None
    return code - 128 if isinstance(code, int) and code in (TERMINATED, HUNG_UP) else None


def say(message: str) -> None:
    """Print one line with the program's name to stderr. The line is lost if stderr is closed."""
    try:
        print(f"fastxent: {printable(public_name(' '.join(message.split())))}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)


def failed(error: Exception) -> int:
    """Report an exception that is not a FastxentError, and return the exit code."""
    if os.environ.get("FASTXENT_TRACEBACK"):
        say_traceback(error)
    if interrupted():
        say("interrupted; nothing was left half-written")
        return INTERRUPTED
    if isinstance(error, Warning):
        say(f"error: {error}; Python treats warnings as errors (PYTHONWARNINGS)")
        return BAD
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    say(f"error: internal error of fastxent: {what}; set FASTXENT_TRACEBACK=1 for the traceback, and report it")
    return INTERNAL


def say_traceback(error: BaseException) -> None:
    """Print the traceback of an exception to stderr."""
    text = public_name("".join(traceback.format_exception(error)))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("\n".join(map(printable, text.splitlines())) + "\n")


def leave(code: int) -> NoReturn:
    """End the process with ``code``. Further interrupts are ignored.

    An interrupted process skips the interpreter's shutdown, because modules may be half imported and C++ libraries
    abort on unexpected threads or statics. Files and locks are already closed here. CPython also kills itself by SIGINT
    if an interrupt, even a caught one, came in code made from a string (any dataclass).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code not in (INTERRUPTED, TERMINATED, HUNG_UP):
        for stream in (sys.stdout, sys.stderr):
            if not flushed(stream) and code == 0:
                code = BAD  # the printed result was lost
        sys.exit(code)
    atexit._run_exitfuncs()  # ends what libraries started, such as a cluster
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def flushed(stream: TextIO) -> bool:
    """Flush a standard stream; return False if the output was lost although its reader still runs.

    A failing stream is redirected to the null device: otherwise the interpreter would fail when it closes the stream,
    with exit code 120.
    """
    try:
        stream.flush()
    except OSError as error:
        discard(stream)
        return isinstance(error, BrokenPipeError)
    return True


def discard(stream: TextIO) -> None:
    """Redirect a standard stream to the null device."""
    with contextlib.suppress(OSError, ValueError):  # the stream of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
