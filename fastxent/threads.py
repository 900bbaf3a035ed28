"""One pool of threads over serial kernels: the only parallelism there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from fastxent.errors import ConfigError

Result = TypeVar("Result")

_threads: int | None = None
_pool: ThreadPoolExecutor | None = None


def available_cpus() -> int:
    """Processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads used by array functions, and by `evaluate` unless told: `set_num_threads`, else
    ``FASTXENT_NUM_THREADS``, else all processors of this process."""
    if _threads is not None:
        return _threads
    given = os.environ.get("FASTXENT_NUM_THREADS") or available_cpus()
    try:
        return max(1, int(given))
    except ValueError:
        raise ConfigError(f"FASTXENT_NUM_THREADS must be a whole number, got {given!r}") from None


def set_num_threads(threads: int) -> None:
    """Set the number of threads of the array functions. Figures never depend on it."""
    global _threads, _pool
    if threads < 1:
        raise ValueError(f"threads={threads}; at least one is needed")
    _threads = threads
    _pool = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_forget_pool)


def parallel_rows(work: Callable[[int, int], Result], rows: int, row_bytes: int) -> list[Result]:
    """``work(begin, end)`` over ranges that cover ``rows``, shared with the pool; results in order.

    The calling thread takes part, so that nothing waits for a thread to wake. Small inputs (under 1 MiB a thread) are
    its alone: waking another costs more. Of several errors, which are raised by different threads, one comes out.
    """
    global _pool
    count = get_num_threads()
    threads = min(count, max(1, rows * max(row_bytes, 1) >> 20), max(rows, 1))
    if threads == 1:
        return [work(0, rows)]
    pool = _pool  # another thread may set the number of threads meanwhile
    if pool is None:
        pool = _pool = ThreadPoolExecutor(count - 1, thread_name_prefix="fastxent")
    parts = threads * 4 if rows >= threads * 64 else threads  # finer than the threads: a slow core holds up less
    edges = [rows * k // parts for k in range(parts + 1)]
    results: dict[int, Result] = {}
    left = iter(range(parts))

    def take_parts() -> None:
        try:
            for k in left:  # one iterator for all threads
                results[k] = work(edges[k], edges[k + 1])
        finally:
            for _ in left:  # nothing is begun after an error
                pass

    helpers: list[Future[None]] = []
    try:
        for _ in range(threads - 1):
            helpers.append(pool.submit(take_parts))
        take_parts()
    finally:
        for _ in left:
            pass
        wait([helper for helper in helpers if not helper.cancel()])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    return [results[k] for k in range(parts)]
