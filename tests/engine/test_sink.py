"""Results in the order of their units, whatever the order of the workers; and no worker that waits for ever."""

from __future__ import annotations

import random
import threading
import time

import pyarrow as pa
import pytest

from fastxent.engine.sink import OrderedSink


def batch(value: int) -> pa.RecordBatch:
    return pa.record_batch({"n": [value]})


def run(threads: int, units: list[list[int]], sink: OrderedSink, work=lambda unit: None) -> None:
    """Workers that take units in order, as the loop does; every one of them must end."""
    lock, items = threading.Lock(), iter(enumerate(units))

    def worker() -> None:
        while True:
            with lock:
                item = next(items, None)
            if item is None:
                return
            index, values = item
            try:
                for value in values:
                    work(index)
                    sink.put(index, batch(value))
                sink.done(index)
            except ZeroDivisionError:
                sink.done(-1)
                return

    pool = [threading.Thread(target=worker, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join(20)
        assert not thread.is_alive(), "a worker waits for ever"


UNITS = [[10 * u + k for k in range(u % 4)] for u in range(40)]  # every fourth has none
ORDER = [value for unit in UNITS for value in unit]


@pytest.mark.parametrize("limit", [1, 20, 10**9])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_order(threads, limit):
    written: list[int] = []
    rng = random.Random(limit * threads)
    sink = OrderedSink(lambda b: written.append(b["n"][0].as_py()), limit)
    run(threads, UNITS, sink, lambda unit: time.sleep(rng.random() / 1000))
    assert written == ORDER


def test_what_waits_is_bounded():
    held, sink = [], OrderedSink(lambda b: None, 100)
    start = threading.Event()

    def work(unit: int) -> None:
        if unit == 0:
            start.wait(0.2)  # the others run ahead
        held.append(sink._held)

    run(4, [[1]] + [list(range(50))] * 6, sink, work)
    assert max(held) <= 100
    assert sink._held == 0


@pytest.mark.parametrize("failing", [0, 5, 39])
@pytest.mark.parametrize("limit", [1, 10**9])
def test_a_failure_frees_everyone_and_ends_the_writing(failing, limit):
    written: list[int] = []
    sink = OrderedSink(lambda b: written.append(b["n"][0].as_py()), limit)
    units = [[*unit, -1] for unit in UNITS]

    def work(unit: int) -> None:
        if unit == failing:
            time.sleep(0.02)
            raise ZeroDivisionError

    run(5, units, sink, work)
    assert written == [v for u in units for v in u][: len(written)]
    assert len(written) <= sum(map(len, units[:failing]))


def test_a_write_that_fails_frees_everyone():
    def write(b: pa.RecordBatch) -> None:
        if b["n"][0].as_py() == 30:
            raise ZeroDivisionError

    run(5, [[u * 10] for u in range(20)], OrderedSink(write, 1), lambda unit: time.sleep(0.001 * (unit % 3)))
