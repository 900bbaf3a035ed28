"""Signals wait while a kernel is linked: none is lost, and every handler is there again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target

from fastxent.kernels.jit import jit
from fastxent.kernels.signals import held


class _Stop(Exception):
    """Raised by a handler, as by that of a limit of time."""


@pytest.fixture
def handlers() -> Iterator[dict[int, Any]]:
    def stop(number: int, _: Any) -> None:
        raise _Stop(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)}
    yield {number: signal.getsignal(number) for number in signal.valid_signals()}
    for number, handler in before.items():
        signal.signal(number, handler)


def _now() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def test_a_signal_comes_at_the_end_of_the_block(handlers: dict[int, Any]) -> None:
    steps = []
    with pytest.raises(_Stop), held():
        os.kill(os.getpid(), signal.SIGUSR1)
        steps.append("after the signal")
    assert steps == ["after the signal"]
    assert _now() == handlers


def test_each_of_several_signals_comes(handlers: dict[int, Any]) -> None:
    """Once, as the system would have it, though another's handler raises."""
    got: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    with pytest.raises(_Stop, match=f"{int(signal.SIGUSR2)}"), held():
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), number)
    assert got == [signal.SIGUSR1]


def test_an_error_in_the_block_and_no_signal(handlers: dict[int, Any]) -> None:
    with pytest.raises(KeyError), held():
        raise KeyError
    assert _now() == handlers


def test_a_signal_while_handlers_are_set_again(handlers: dict[int, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At any of the calls that set them."""
    set_handler, calls = signal.signal, 0
    for moment in range(1, 2 * len([h for h in handlers.values() if callable(h)]) + 1):
        calls = 0

        def counted(number: int, handler: Any, moment: int = moment) -> Any:
            nonlocal calls
            calls += 1
            before = set_handler(number, handler)
            if calls == moment:
                os.kill(os.getpid(), signal.SIGALRM)
            return before

        monkeypatch.setattr(signal, "signal", counted)
        with pytest.raises(_Stop), held():
            pass
        monkeypatch.undo()
        assert _now() == handlers, moment


def test_other_threads_hold_nothing() -> None:
    seen: list[bool] = []

    def work() -> None:
        with held():
            seen.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT) is signal.default_int_handler]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("compiler", [jit, numba.njit])
def test_a_kernel_works_after_a_signal_that_came_while_it_was_linked(
    compiler: Any, kept: bool, handlers: dict[int, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASTXENT_CACHE_DIR", str(tmp_path))
    engine = cpu_target.target_context.codegen()._engine._ee
    ask, left = engine._object_cache_getbuffer, [signal.SIGALRM]

    def asking(module: Any) -> Any:
        if left:
            os.kill(os.getpid(), left.pop())
        return ask(module)

    monkeypatch.setattr(engine, "_object_cache_getbuffer", asking)

    def plus_three(x):  # type: ignore[no-untyped-def]
        return x + 3.25

    if kept:
        ready, left = left, []
        assert compiler(plus_three)(np.float32(1)) == 4.25
        left = ready
    kernel = compiler(plus_three)
    with pytest.raises(_Stop):
        kernel(np.float32(1))
    assert kernel(np.float32(1)) == 4.25
    assert _now() == handlers
