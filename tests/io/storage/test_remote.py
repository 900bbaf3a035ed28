"""Files elsewhere: which requests are made and when, what happens when they fail, and that nothing is left running."""

from __future__ import annotations

import gc
import io
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fastxent.errors import SourceError
from fastxent.io.storage import remote
from fastxent.io.storage.files import find_files
from fastxent.io.storage.remote import ReadRanges, RemoteBytes, RemoteFile
from tests.io.storage.fetching import MB, WAIT, threads

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

DATA = random.Random(0).randbytes(64 * MB)


class Server:
    """Answers requests when it is told to, and remembers them."""

    def __init__(self, data: bytes = DATA, gated: bool = True) -> None:
        self.data, self.gated = data, gated
        self.asked: list[tuple[int, int]] = []
        self.open = 0  # requests not answered yet
        self.most = 0
        self._answered = 0
        self._change = threading.Condition()

    def __call__(self, offset: int, length: int) -> bytes:
        with self._change:
            self.asked.append((offset, length))
            self.open += 1
            self.most = max(self.most, self.open)
            self._change.notify_all()
            assert self._change.wait_for(
                lambda: not self.gated or (offset, length) in self.asked[: self._answered], WAIT
            )
            self.open -= 1
        return self.data[offset : offset + length]

    def wait_for(self, requests: int) -> list[tuple[int, int]]:
        """The requests so far, once there are that many."""
        with self._change:
            assert self._change.wait_for(lambda: len(self.asked) >= requests, WAIT), self.asked
            return sorted(self.asked)

    def answer(self, requests: int) -> None:
        """Answer the first so many, in the order in which they came."""
        with self._change:
            self._answered = requests
            self._change.notify_all()

    def answer_all(self) -> None:
        with self._change:
            self.gated = False
            self._change.notify_all()


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except (SourceError, AssertionError) as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def joined(thread: threading.Thread) -> None:
    thread.join(WAIT)
    assert not thread.is_alive(), "it waits for ever"


# ---- which requests --------------------------------------------------------------------------------------------------


def test_a_reader_of_the_whole_has_its_bytes_underway_before_it_needs_them() -> None:
    server = Server()
    with closing(ReadRanges(server, "a", 1000, 50 * MB, 16 * MB)) as source:
        thread, results = in_background(lambda: source.view(1000, 100))
        asked = server.wait_for(4)  # together: the first has not been answered
        assert asked == [(1000 + k * 4 * MB, 4 * MB) for k in range(4)]
        assert server.open == 4
        server.answer_all()
        joined(thread)
        assert results[0].tobytes() == DATA[1000:1100]
        source.view(1000 + 15 * MB, 100)  # of a block that has come: asks for what lies 16 MB ahead of it
        assert server.wait_for(7)[4:] == [(1000 + k * 4 * MB, 4 * MB) for k in (4, 5, 6)]


def test_what_is_ahead_and_what_is_held_are_bounded() -> None:
    server = Server(gated=False)
    with closing(ReadRanges(server, "a", 0, 50 * MB, 12 * MB)) as source:
        for at in range(0, 50 * MB, MB // 2):
            assert source.view(at, MB // 2).tobytes() == DATA[at : at + MB // 2]
            source.passed(at + MB // 2)
            assert sum(block.end - block.offset for block in source._blocks) <= 12 * MB + 3 * MB
            assert all(end <= at + MB // 2 + 12 * MB for end in (a + n for a, n in server.asked))
        assert server.most <= 4
        assert sorted(server.asked) == [
            (at, min(3 * MB, 50 * MB - at)) for at in range(0, 50 * MB, 3 * MB)
        ]  # once each


def test_requests_never_go_past_the_end_and_small_memory_makes_small_ones() -> None:
    server = Server(gated=False)
    with closing(ReadRanges(server, "a", 5, 3 * MB + 7, MB)) as source:
        assert source.view(5, 3 * MB + 2).tobytes() == DATA[5 : 3 * MB + 7]
    assert max(length for _, length in server.asked) == MB // 4
    assert sum(length for _, length in server.asked) == 3 * MB + 2


def test_views_that_lie_in_two_blocks_or_go_back_are_right_and_cost_no_request() -> None:
    server = Server(gated=False)
    with closing(ReadRanges(server, "a", 0, 40 * MB, 16 * MB)) as source:
        for offset, length in ((0, 9 * MB), (100, 5), (3 * MB, 2 * MB), (0, 20 * MB), (4 * MB - 1, 2), (7, 0)):
            view = source.view(offset, length)
            assert view.tobytes() == DATA[offset : offset + length]
            assert not view.flags.writeable
        assert len(server.asked) == len(set(server.asked))


def test_single_looks_make_single_requests_and_read_nothing_ahead() -> None:
    server = Server(gated=False)
    size = 50 * MB
    with closing(ReadRanges(server, "a", 0, size, 8 * MB, whole=False)) as source:
        source.view(size - 8, 8)  # a footer's length; the footer comes with it
        source.view(size - 5000, 4992)
        assert server.asked == [(size - 65536, 65536)]
        source.view(20 * MB, 100_000)
        source.view(5 * MB, 10)
        assert server.asked[1:] == [(20 * MB, 100_000), (5 * MB, 65536)]
        assert threads() == []


def test_reads_that_follow_one_another_run_further_and_further_ahead() -> None:
    server = Server(gated=False)
    with closing(ReadRanges(server, "a", 0, 50 * MB, 8 * MB, whole=False)) as source:
        for at in range(0, 40 * MB, 50_000):
            assert source.take(at, 50_000).tobytes() == DATA[at : at + 50_000]
            assert all(a + n <= at + 50_000 + 8 * MB + 65536 for a, n in server.asked)
    sizes = [length for _, length in sorted(server.asked)]
    assert sizes[0] == 65536
    assert sizes == sorted(sizes)
    assert max(sizes) == 2 * MB
    assert len(sizes) < 50


def test_a_long_read_goes_out_in_parts_at_once() -> None:
    server = Server()
    with closing(ReadRanges(server, "a", 0, 50 * MB, 8 * MB, whole=False)) as source:
        thread, results = in_background(lambda: source.take(10 * MB, 30 * MB))
        assert server.wait_for(4) == [(10 * MB + k * 2 * MB, 2 * MB) for k in range(4)]
        server.answer_all()
        joined(thread)
        assert results[0].tobytes() == DATA[10 * MB : 40 * MB]
        assert server.most == 4
        assert sum(length for _, length in server.asked) == 30 * MB  # nothing behind it


# ---- what goes wrong -------------------------------------------------------------------------------------------------


class Failing:
    """Raises each of ``errors`` once, for requests that reach beyond ``after``."""

    def __init__(self, *errors: BaseException | int, after: int = 0) -> None:
        self.errors, self.after, self.calls = list(errors), after, 0
        self._lock = threading.Lock()

    def __call__(self, offset: int, length: int) -> bytes:
        with self._lock:
            self.calls += 1
            error = self.errors.pop(0) if self.errors and offset + length > self.after else None
        if isinstance(error, BaseException):
            raise error
        return DATA[offset : offset + length - (error or 0)]


@pytest.mark.parametrize(
    "errors",
    [
        (ConnectionResetError("reset by peer"), TimeoutError("too slow"), OSError("AWS Error NETWORK_CONNECTION")),
        (100, pa.ArrowIOError("broken pipe"), EOFError()),  # an answer that is 100 bytes short
    ],
)
@pytest.mark.parametrize("ahead", [0, 16 * MB])
def test_a_dropped_connection_is_tried_again(errors: tuple[Any, ...], ahead: int) -> None:
    fetch = Failing(*errors)
    with closing(ReadRanges(fetch, "a", 0, 3 * MB, ahead)) as source:
        assert source.view(0, 2 * MB).tobytes() == DATA[: 2 * MB]
    assert fetch.errors == []


def test_errors_of_clients_that_are_no_system_errors_are_tried_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class ClientError(Exception):
        pass

    module = type(remote)("aiohttp")
    module.ClientError = ClientError  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", module)
    with closing(ReadRanges(Failing(ClientError("payload cut")), "a", 0, MB)) as source:
        assert source.view(0, MB).tobytes() == DATA[:MB]


def test_tries_end_and_the_error_names_the_file_and_the_bytes() -> None:
    fetch = Failing(*[ConnectionResetError("reset\n by peer")] * 99)
    with closing(ReadRanges(fetch, "s3://b/k", 1000, MB)) as source, pytest.raises(SourceError) as got:
        source.view(2000, 100_000)
    assert str(got.value) == "cannot read bytes 2000 to 102000 of s3://b/k, tried 4 times: reset by peer"
    assert fetch.calls == 4


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("k"), "s3://b/k: no such file or folder"),
        (PermissionError("no"), "s3://b/k: permission denied; check your access and the credentials"),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation"), "s3://b/k: permission denied"),
        (OSError("AWS Error NO_SUCH_BUCKET during GetObject operation"), "s3://b/k: no such file or folder"),
    ],
)
def test_what_another_try_would_not_change_is_told_at_once(error: OSError, message: str) -> None:
    fetch = Failing(error)
    with closing(ReadRanges(fetch, "s3://b/k", 0, MB)) as source, pytest.raises(SourceError, match=message) as got:
        source.view(0, 10)
    assert fetch.calls == 1
    assert "\n" not in str(got.value)


def test_an_error_ahead_is_told_when_its_bytes_are_due() -> None:
    fetch = Failing(*[OSError("broken")] * 99, after=5 * MB)
    with closing(ReadRanges(fetch, "a", 0, 40 * MB, 16 * MB)) as source:
        assert source.view(0, 4 * MB).tobytes() == DATA[: 4 * MB]
        with pytest.raises(SourceError, match="bytes 4194304 to 8388608 of a, tried 4 times: broken"):
            source.view(4 * MB, 10)


def test_closing_cancels_what_has_not_begun_and_waits_for_the_rest() -> None:
    server = Server()
    source = ReadRanges(server, "a", 0, 64 * MB, 64 * MB)  # 16 blocks, 8 requests at a time
    thread, _ = in_background(lambda: source.view(0, 10))
    assert len(server.wait_for(8)) == 8
    server.answer(1)
    joined(thread)
    closer, _ = in_background(source.close)
    time.sleep(0.05)
    assert closer.is_alive()  # there are requests under way
    server.answer_all()
    joined(closer)
    assert len(server.asked) < 16
    assert threads() == []


def test_closing_ends_the_wait_for_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_DELAYS", (3600.0,))
    failed = threading.Event()

    def fetch(offset: int, length: int) -> bytes:
        if offset:
            failed.set()
            raise ConnectionResetError
        return DATA[:length]

    source = ReadRanges(fetch, "a", 0, 8 * MB, 8 * MB)
    source.view(0, 10)
    assert failed.wait(WAIT)
    closer, _ = in_background(source.close)
    joined(closer)


# ---- as a file -------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def remote_file(memory: MemoryFileSystem, data: bytes) -> RemoteBytes:
    memory.pipe_file("/a.bin", data)
    (file,) = find_files("memory://a.bin")
    return pickle.loads(pickle.dumps(file)).remote  # noqa: S301 - our own


@pytest.mark.parametrize("wrapped", [False, True])
def test_it_reads_as_any_file_does(memory: MemoryFileSystem, wrapped: bool) -> None:
    data = DATA[: 3 * MB + 11]
    ours: Any = RemoteFile(remote_file(memory, data), "a")
    if wrapped:
        ours = pa.PythonFile(ours, mode="r")
    theirs = io.BytesIO(data)
    rng = random.Random(3)
    with ours:
        assert (ours.readable(), ours.seekable(), ours.writable(), ours.tell()) == (True, True, False, 0)
        for _ in range(200):
            at = rng.randrange(len(data) + 100)
            if rng.random() < 0.3:
                where = rng.choice([(at, 0), (-min(at, len(data)), 2)])
                assert ours.seek(*where) == theirs.seek(*where)
            length = rng.choice([0, 1, 100, 70_000, 2 * MB])
            assert ours.read(length) == theirs.read(length)
            assert ours.tell() == theirs.tell()
        ours.seek(5)
        assert ours.read() == data[5:]
        assert ours.read(1) == b""


def test_a_file_that_is_dropped_ends_its_threads(memory: MemoryFileSystem) -> None:
    handle = pa.PythonFile(RemoteFile(remote_file(memory, DATA), "a"), mode="r")
    handle.read(MB)
    handle.read(10 * MB)
    assert threads() != []
    del handle
    gc.collect()
    assert threads() == []
