"""One pool of threads for serial kernels. Nothing else runs in parallel.

Made of what an interrupt cannot leave half done. `KeyboardInterrupt` is raised between any two bytecodes of the main
thread; `concurrent.futures` and `threading.Condition` then keep a lock now and then that nobody gives back, and every
later call waits for it. Here threads and queues are those of the interpreter itself, each call of which happens as a
whole or not at all, and nothing is waited for but parts that a thread has begun.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from fastxent.errors import ConfigError
from fastxent.options.checks import whole_number

Result = TypeVar("Result")

_threads: int | None = None
_pool: _Pool | None = None


def available_cpus() -> int:
    """Processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads used by array functions, and by `evaluate` without ``threads``: `set_num_threads`, else
    ``FASTXENT_NUM_THREADS``, else all processors of this process."""
    if _threads is not None:
        return _threads
    setting = os.environ.get("FASTXENT_NUM_THREADS")
    if not setting:
        return available_cpus()
    try:
        count = int(setting)
    except ValueError:
        raise ConfigError(f"FASTXENT_NUM_THREADS must be an integer of at least 1, got {setting!r}") from None
    return max(1, count)


def set_num_threads(threads: int) -> None:
    """Set the number of threads of the array functions. Results never depend on it."""
    global _threads, _pool
    _threads = whole_number("threads", threads, "be an integer of at least 1", low=1)
    _pool = None


class _Pool:
    """Threads that wait for tasks. They end with the pool, or with the process, which never waits for them."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._size = 0

    def grow(self, size: int) -> int:
        """Start threads until there are ``size``, as long as the system has any; how many there are, at most that."""
        while self._size < size:
            try:
                _thread.start_new_thread(_work, (self._tasks,))
            except RuntimeError:  # no threads left: the calling thread does more
                break
            self._size += 1
        return min(self._size, size)

    def submit(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def __del__(self) -> None:
        self._tasks.put(None)


def _work(tasks: SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # and with it a caller's arrays
    tasks.put(None)  # for the next thread


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_forget_pool)


def parallel_rows(work: Callable[[int, int], Result], rows: int, row_bytes: int) -> list[Result]:
    """Call ``work(begin, end)`` on ranges that cover ``rows``, on the threads of the pool; return the results in order.

    The calling thread takes part, so that nothing waits for a thread to wake. Small inputs (under 1 MiB a thread) are
    its alone: waking another costs more. Of several errors, which are raised by different threads, one comes out, when
    no part is still at work; an interrupt too, unless it is the second.
    """
    global _pool
    threads = min(get_num_threads(), max(1, rows * max(row_bytes, 1) >> 20), max(rows, 1))
    if threads == 1:
        return [work(0, rows)]
    pool = _pool  # another thread may set the number of threads meanwhile
    if pool is None:
        pool = _pool = _Pool()
    parts = threads * 4 if rows >= threads * 64 else threads  # finer than the threads: a slow core holds up less
    edges = [rows * k // parts for k in range(parts + 1)]
    results: dict[int, Result] = {}
    left = iter(range(parts))
    helpers = pool.grow(threads - 1)
    tickets = [None] * helpers  # one for each thread that may still begin
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def take_parts() -> None:
        try:
            for k in left:  # one iterator for all threads
                results[k] = work(edges[k], edges[k + 1])
        finally:
            for _ in left:  # nothing is begun after an error
                pass

    def help_out() -> None:
        try:
            tickets.pop()
        except IndexError:  # the caller is through
            return
        error = None
        try:
            take_parts()
        except BaseException as raised:  # noqa: BLE001 -- the caller raises it
            error = raised
        ended.put(error)

    errors: list[BaseException | None] = []
    try:
        for _ in range(helpers):
            pool.submit(help_out)
        take_parts()
    finally:
        for _ in left:
            pass
        while tickets:
            try:
                tickets.pop()
            except IndexError:
                break
            helpers -= 1
        errors = [ended.get() for _ in range(helpers)]
    for error in errors:
        if error is not None:
            raise error
    return [results[k] for k in range(parts)]
