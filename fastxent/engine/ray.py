"""``engine="ray"``: work units as tasks of a Ray cluster. Logits never travel: workers read files themselves.

A task gets the description of a unit, some hundred bytes a piece, and gives back its state as bytes. States are merged
here as they arrive, whichever comes first; no more tasks are under way than keep the cluster busy, so memory does not
grow with the dump. A task whose worker dies is run again, on another.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastxent.engine.job import Job, Pieces
from fastxent.engine.recipe import Key, Ledger, Recipe, S, Watch
from fastxent.engine.units import WorkUnit, work_units
from fastxent.errors import EngineError
from fastxent.state.coverage import Coverage

if TYPE_CHECKING:
    from fastxent.options.runs import Progress

UNIT_BYTES = 256 << 20  # of logits: a tenth of a second and more of work, against some milliseconds of a task
_AHEAD = 2  # tasks under way for each processor: one running, one that waits with it
_RETRIES = 5  # of a task whose worker was lost


def run(
    job: Job[Recipe[S]],
    pieces: Pieces,
    *,
    threads: int | None,
    memory: int,
    rows: int | None,
    progress: Progress | None,
    ledger: Ledger[S] | None,
    watch: Watch[S] | None = None,
) -> tuple[S, dict[str, Any]]:
    """(the merged state, timing). ``threads``: processors of the cluster that is started here, if one is."""
    start = time.perf_counter()
    keys: list[Key | None] = []
    total = job.recipe.empty()
    done = skipped = 0
    if ledger is not None:
        keys = [ledger.claim(unit) for unit, _ in pieces]
        skipped = sum(unit.rows or 0 for (unit, _), key in zip(pieces, keys, strict=True) if key is None)
        pieces = [piece for piece, key in zip(pieces, keys, strict=True) if key is not None]
    left: Iterator[Key] = (key for key in keys if key is not None)
    units = work_units(job, pieces, UNIT_BYTES, memory)
    of_unit = {unit.index: [next(left) for _ in unit.pieces] for unit in units} if ledger is not None else {}
    with _cluster(threads) as ray:
        processors = int(ray.cluster_resources().get("CPU", 1))
        for unit, data in _results(ray, units, processors * _AHEAD):
            state = job.recipe.load(data)
            done += unit.rows or 0
            if watch is not None:
                watch.look(unit.index, state, left=True)
            if ledger is None:
                total.absorb(state)
            else:
                state.coverage = Coverage()  # what is on disk is known by its pieces: other runs divide them otherwise
                ledger.keep(of_unit[unit.index], state)
            if progress is not None:
                nbytes = None if rows is None else rows * job.row_bytes
                progress(done + skipped, rows, (done + skipped) * job.row_bytes, nbytes)
    elapsed = time.perf_counter() - start
    timing = {
        "seconds": elapsed,
        "rows_per_second": done / elapsed,
        "gb_per_second": done * job.row_bytes / elapsed / 1e9,
        "processors": processors,
        "tasks": len(units),
    }
    if ledger is None:
        return total, timing
    return ledger.result(), {**timing, "resumed_rows": skipped}


@contextmanager
def _cluster(threads: int | None) -> Iterator[Any]:
    """Ray, connected: to what ``ray.init`` or ``RAY_ADDRESS`` names, else to a cluster of its own, ended at the end."""
    try:
        import ray
    except ImportError as error:
        raise EngineError("engine='ray' needs Ray; install it with: pip install 'fastxent[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    given = os.environ.get("RAY_ADDRESS", "")
    _check_address(given)
    processors = None if given else threads  # a cluster that is there has what it has
    try:
        address = None if processors is None else "local"
        ray.init(address, num_cpus=processors, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise EngineError(f"cannot reach a Ray cluster: {error}; start one, or check RAY_ADDRESS") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Check that the address accepts connections, because Ray would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"cannot reach a Ray cluster at {address}: {error}; start one, or check RAY_ADDRESS"
        ) from error


def _run(unit: WorkUnit[Any]) -> bytes:
    """Run a unit in a task."""
    data: bytes = unit.run().to_bytes(compression=1)
    return data


def _results(ray: Any, units: list[WorkUnit[Any]], limit: int) -> Iterator[tuple[WorkUnit[Any], bytes]]:
    """Each unit with its state, as they come. Of several that fail the first in the order of the source is raised."""
    remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
    waiting: dict[Any, WorkUnit[Any]] = {}
    failed: tuple[int, Exception] | None = None
    queue = iter(units)
    try:
        while True:
            while failed is None and len(waiting) < limit and (unit := next(queue, None)) is not None:
                waiting[remote.remote(unit)] = unit
            if not waiting:
                break
            [ready], _ = ray.wait(list(waiting), num_returns=1)
            unit = waiting.pop(ready)
            try:
                data = ray.get(ready)
            except ray.exceptions.RayTaskError as error:  # raised by the unit itself, and its first line says it all
                found = error.cause
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                found = EngineError(
                    f"cannot run {unit!r}: its worker was lost {_RETRIES + 1} times ({_line(error)}); see Ray's logs"
                )
            except ray.exceptions.RayError as error:
                found = EngineError(f"cannot run {unit!r}: {_line(error)}; see Ray's logs")
            else:
                if failed is None:
                    yield unit, data
                continue
            if failed is None or unit.index < failed[0]:
                failed = unit.index, found
        if failed is not None:
            raise failed[1]
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
