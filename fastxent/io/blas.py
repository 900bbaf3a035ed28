"""NumPy's BLAS on one thread, while each of the threads of fastxent multiplies matrices of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from fastxent.errors import ConfigError


@cache
def libraries() -> list[Any]:
    """The BLAS libraries of this process. `ConfigError` if threadpoolctl, which finds them, is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError as error:
        raise ConfigError("head requires threadpoolctl; install it with: pip install 'fastxent[head]'") from error
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _limit(library: Any, threads: int) -> None:
    # threadpoolctl 3.7 and later lets one thread of the process set a limit, and does nothing in all others
    getattr(library, "_real_set_num_threads", library.set_num_threads)(threads)


class _Inside:
    """The threads that are inside `one_thread`, and the number of threads of each library from before the first."""

    lock = threading.Lock()
    count = 0
    before: list[int] = []  # noqa: RUF012 - one for the process


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread for each thread that is inside, until the last of them has left."""
    with _Inside.lock:
        if not _Inside.count:
            _Inside.before = [library.get_num_threads() for library in libraries()]
        _Inside.count += 1
        for library in libraries():  # also in the second thread: some libraries have a limit for each
            _limit(library, 1)
    try:
        yield
    finally:
        with _Inside.lock:
            _Inside.count -= 1
            if not _Inside.count:
                for library, threads in zip(libraries(), _Inside.before, strict=True):
                    _limit(library, threads)
