"""Signals wait while LLVM links a kernel.

LLVM then calls Python back, to ask for code that is kept. What a handler of a signal raises in such a call
(KeyboardInterrupt, SystemExit, the end of a test's time) ctypes prints and drops, and LLVM links a kernel without code,
whose first call ends the process.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from numba.core.registry import cpu_target

_ENDING = [
    getattr(signal, f"SIG{name}")  # whose handlers may raise; to look at every signal takes longer than to link
    for name in ("INT", "TERM", "HUP", "QUIT", "ALRM", "VTALRM", "PROF", "USR1", "USR2", "XCPU", "BREAK")
    if hasattr(signal, f"SIG{name}")
]
_LINKING = "finalize_object", "get_function_address", "get_global_value_address"  # methods of Numba's engine


def hold_while_linking() -> None:
    """Have Numba's engine, which a process has once, hold signals."""
    engine = cpu_target.target_context.codegen()._engine
    for name in _LINKING:
        setattr(engine, name, _holding(getattr(engine, name)))


def _holding(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def link(*given: Any) -> Any:
        with held():
            return method(*given)

    return link


@contextmanager
def held() -> Iterator[None]:
    """Call the handlers of signals that come in the block at its end. Python calls them in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {int(n): handler for n in _ENDING if callable(handler := signal.getsignal(n))}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        _restore(handlers)
        with ExitStack() as every:  # though one raises
            for number in dict.fromkeys(came):
                every.callback(signal.raise_signal, number)


def _restore(handlers: dict[int, Any]) -> None:
    """Set handlers, all of them: those that are set already may raise meanwhile."""
    try:
        while handlers:
            number = next(iter(handlers))
            signal.signal(number, handlers[number])
            del handlers[number]
    finally:
        if handlers:
            _restore(handlers)
