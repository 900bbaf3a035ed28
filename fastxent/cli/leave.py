"""How the program begins and ends: its standard streams, the signals that end it, what it says, its exit code."""

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

BAD = 2  # usage or input
INTERNAL = 70  # a fault of the program itself: EX_SOFTWARE of sysexits.h
HUNG_UP = 128 + getattr(signal, "SIGHUP", 1)
INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM


def arrive() -> None:
    """Prepare the process: streams that were closed (``>&-``) discard, and signals that end it remove temporary files.

    Without this the next file to be opened would take the number of a closed stream, and so receive its output.
    """
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without × is no reason to crash
    for end in ("SIGTERM", "SIGHUP"):  # from batch schedulers, and from a terminal that goes
        number: int | None = getattr(signal, end, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def say(message: str) -> None:
    """One line on stderr, under the program's name. Where nobody reads it any more, it is lost."""
    try:
        print(f"fastxent: {printable(public_name(' '.join(message.split())))}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)


def failed(error: Exception) -> int:
    """Say what an exception means that is not an error of the user's data, and return the exit code."""
    if os.environ.get("FASTXENT_TRACEBACK"):
        say_traceback(error)
    if isinstance(error, Warning):
        say(f"error: {error}; Python was told to treat warnings as errors (PYTHONWARNINGS)")
        return BAD
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    say(f"error: this is a fault of fastxent: {what}; set FASTXENT_TRACEBACK=1 to see where, and report it")
    return INTERNAL


def say_traceback(error: BaseException) -> None:
    """Print where an exception came from."""
    text = public_name("".join(traceback.format_exception(error)))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("\n".join(map(printable, text.splitlines())) + "\n")


def leave(code: int) -> NoReturn:
    """End the process with ``code``; from here on, impatience does not break it off.

    One that was interrupted is not torn down by the interpreter: modules may be there in half, and C++ libraries abort
    where they find threads or statics as they did not expect them. Files and locks have been seen to on the way here.
    CPython, too, kills itself by SIGINT if the interrupt met code made from a string (any dataclass), though it was
    caught.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code not in (INTERRUPTED, TERMINATED, HUNG_UP):
        for stream in (sys.stdout, sys.stderr):
            if not flushed(stream) and code == 0:
                code = BAD  # what was printed is not there
        sys.exit(code)
    atexit._run_exitfuncs()  # what others started, such as a cluster, ends with us
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def flushed(stream: TextIO) -> bool:
    """Flush a standard stream; False if what was written did not arrive, though its reader is still there.

    A stream that fails is pointed to nowhere: the interpreter would fail again when it closes it, with exit code 120.
    """
    try:
        stream.flush()
    except OSError as error:
        discard(stream)
        return isinstance(error, BrokenPipeError)
    return True


def discard(stream: TextIO) -> None:
    """Point a standard stream to nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
