"""Rows over threads: each once, in order, and nothing goes on after an error."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fastxent as fx
from fastxent.engine.pool import _Pool, parallel_rows

MANY = 1 << 20  # bytes a row, so that any number of rows is worth a thread


@pytest.fixture(autouse=True, params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = fx.get_num_threads()
    fx.set_num_threads(request.param)
    yield request.param
    fx.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 2, 7, 500, 12_345])
def test_every_row_is_given_once_and_results_are_in_order(rows: int) -> None:
    ranges = parallel_rows(lambda begin, end: (begin, end), rows, MANY)
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == rows


def test_no_more_threads_than_asked_for_and_the_caller_is_one(threads: int) -> None:
    seen, caller, came = set(), threading.current_thread(), threading.Event()

    def work(begin: int, end: int) -> None:
        seen.add(threading.current_thread())
        if threading.current_thread() is caller:
            came.set()
        came.wait(300)  # the others leave something to the caller, however busy the machine is
        time.sleep(0.002)

    parallel_rows(work, 1000, MANY)
    assert caller in seen
    assert len(seen) <= threads


@pytest.mark.parametrize("wrong", [0, 37, 499])
def test_an_error_is_raised_when_no_part_is_still_at_work(wrong: int) -> None:
    at_work = []

    def work(begin: int, end: int) -> None:
        at_work.append(begin)
        time.sleep(0.002)
        at_work.remove(begin)
        if begin <= wrong < end:
            raise ZeroDivisionError(f"row {wrong}")

    with pytest.raises(ZeroDivisionError, match=str(wrong)):
        parallel_rows(work, 500, MANY)
    assert not at_work


def test_an_interruption_of_the_caller_waits_for_the_others() -> None:
    at_work, caller, came = [], threading.current_thread(), threading.Event()

    def work(begin: int, end: int) -> None:
        if threading.current_thread() is caller:
            came.set()
            raise KeyboardInterrupt
        came.wait(300)
        at_work.append(begin)
        time.sleep(0.01)
        at_work.remove(begin)

    with pytest.raises(KeyboardInterrupt):
        parallel_rows(work, 500, MANY)
    assert not at_work


def test_callers_at_once_and_within_one_another_do_not_wait_for_ever() -> None:
    def outer(begin: int, end: int) -> int:
        return sum(parallel_rows(lambda b, e: e - b, 300, MANY)) + end - begin

    with ThreadPoolExecutor(8) as pool:
        for total in pool.map(lambda _: sum(parallel_rows(outer, 200, MANY)), range(16)):
            assert (total - 200) % 300 == 0


def test_the_number_of_threads_may_change_at_any_time() -> None:
    begun, stop, wrong = threading.Barrier(3), threading.Event(), []

    def calls() -> None:
        begun.wait()
        while not stop.is_set():
            try:
                assert sum(parallel_rows(lambda b, e: e - b, 300, MANY)) == 300
                time.sleep(0)  # a turn for the others
            except Exception as error:  # noqa: BLE001 - told below
                wrong.append(error)
                return

    callers = [threading.Thread(target=calls) for _ in range(2)]
    for caller in callers:
        caller.start()
    begun.wait()
    for k in range(400):
        fx.set_num_threads(1 + k % 4)
        time.sleep(0.0005)
    stop.set()
    for caller in callers:
        caller.join()
    assert not wrong


def test_an_error_while_others_are_asked_ends_what_they_do(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    if threads < 3:
        fx.set_num_threads(3)
    parallel_rows(lambda b, e: None, 500, MANY)  # the pool is there
    submit, asked, at_work = _Pool.submit, [], []

    def fails_at_second(self: _Pool, task: Any) -> None:
        asked.append(task)
        if len(asked) == 2:
            raise KeyboardInterrupt
        submit(self, task)

    def work(begin: int, end: int) -> None:
        at_work.append(begin)
        time.sleep(0.002)
        at_work.remove(begin)

    monkeypatch.setattr(_Pool, "submit", fails_at_second)
    with pytest.raises(KeyboardInterrupt):
        parallel_rows(work, 500, MANY)
    assert not at_work
    time.sleep(0.01)
    assert not at_work


def test_an_interrupt_at_any_bytecode_leaves_the_pool_at_work(threads: int, request: pytest.FixtureRequest) -> None:
    """`KeyboardInterrupt` may be raised between any two bytecodes of the main thread."""

    def interrupted(at: int) -> bool:
        count = 0

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal count
            frame.f_trace_opcodes = True
            count += event == "opcode"
            if count == at:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            parallel_rows(lambda b, e: e - b, 8, MANY)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    at = 1
    gc.collect()
    gc.disable()  # a collection calls back into other libraries, which do not expect an interrupt
    request.addfinalizer(gc.enable)
    with ThreadPoolExecutor(1) as other:
        while interrupted(at):
            # in another thread, so that a lock nobody gives back fails the test and does not hang it
            assert sum(other.submit(parallel_rows, lambda b, e: e - b, 8, MANY).result(60)) == 8
            at += 1
    assert at > 20


def test_threads_end_with_their_pool() -> None:
    pool = _Pool()
    assert pool.grow(3) == 3
    ended = [weakref.ref(pool)]
    tasks = pool._tasks
    del pool
    assert ended[0]() is None
    deadline = time.monotonic() + 60
    while sys.getrefcount(tasks) > 2 and time.monotonic() < deadline:  # each thread holds its queue
        time.sleep(0.01)
    assert sys.getrefcount(tasks) <= 2


def test_without_threads_left_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    def none_left(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", none_left)
    fx.set_num_threads(threads)  # a new pool
    seen = parallel_rows(lambda b, e: threading.current_thread(), 500, MANY)
    assert set(seen) == {threading.current_thread()}


def test_a_forked_child_has_a_pool_of_its_own() -> None:
    code = """
import os, sys, warnings
import fastxent as fx
from fastxent.engine.pool import _Pool, parallel_rows
warnings.simplefilter("ignore")  # of a fork beside threads
fx.set_num_threads(3)
total = lambda: sum(parallel_rows(lambda b, e: e - b, 300, 1 << 20))
assert total() == 300
child = os.fork()
if child == 0:
    os._exit(0 if total() == 300 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert total() == 300
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("setting", ["abc", "2.5", "1e3"])
def test_an_environment_variable_that_is_no_integer_is_named(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr("fastxent.engine.pool._threads", None)
    monkeypatch.setenv("FASTXENT_NUM_THREADS", setting)
    with pytest.raises(
        fx.ConfigError, match=f"^FASTXENT_NUM_THREADS must be an integer of at least 1, got '{setting}'"
    ):
        fx.softmax([1.0, 2.0])


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", None, True])
def test_a_number_of_threads_is_an_integer_of_at_least_1(count: Any) -> None:
    with pytest.raises(fx.ConfigError, match=r"^threads must be an integer of at least 1, got "):
        fx.set_num_threads(count)
