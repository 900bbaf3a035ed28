"""Bytes of remote files: ranged reads ahead of the reader, retried if the connection drops.

Works with anything that pyarrow or fsspec can open. A read is one request for one range, a few MB long: pages that lie
together come together. Requests go out on background threads, no further ahead of the reader than it has memory for.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs as pafs

from fastxent.errors import SourceError
from fastxent.io.storage.spent import SPENT

Fetch = Callable[[int, int], bytes]  # offset, length

_BLOCK = 4 << 20  # of one request: an object store takes tens of ms to begin to answer, some MB more to answer
_LEAST = 64 << 10  # headers and footers are often shorter: one request for what is read together
_FILE_AHEAD = 8 << 20  # of a file read from beginning to end by pyarrow
_PATIENCE = 30.0  # seconds without an answer
_DELAYS = (0.2, 1.0, 3.0)  # seconds before a read is tried again; the clients below have tries of their own
_CLIENT_ERRORS = (
    ("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
)  # fmt: skip
_DENIED = (
    "ACCESS_DENIED", "AccessDenied", "Forbidden", "HTTP 401", "HTTP 403", "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
)  # fmt: skip
_NOTHING = np.frombuffer(b"", np.uint8)


class RemoteBytes:
    """The bytes of one file of a filesystem, by range, from any thread. Picklable."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, size: int | None = None) -> None:
        self._filesystem, self._path = filesystem, path
        if size is not None:
            self.size = size

    @cached_property
    def size(self) -> int:
        info = look(self._filesystem, self._path)
        if info.type == pafs.FileType.NotFound:
            raise FileNotFoundError(self._path)
        if info.size is None:
            raise OSError("the server does not report the size of the file")
        return int(info.size)

    @cached_property
    def _read_at(self) -> Callable[..., bytes]:
        handle = self._filesystem.open_input_file(self._path)
        return handle.read_at  # type: ignore[no-any-return]

    def fetch(self, offset: int, length: int) -> bytes:
        """Some bytes, in one request at most: footers, which every reader of a file asks for, are kept. Errors are
        those of the client."""
        behind = self.size - offset
        if length <= behind <= _LEAST:
            return _tail(self)[-behind:][:length]
        return self.request(offset, length)

    def request(self, offset: int, length: int) -> bytes:
        remote = fsspec_of(self._filesystem)
        if remote is None:
            return self._read_at(length, offset)
        return answer(remote, "cat_file", self._path, start=offset, end=offset + length)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_read_at"}


@lru_cache(maxsize=64)
def _tail(source: RemoteBytes) -> bytes:
    size = min(source.size, _LEAST)
    got = source.request(source.size - size, size)
    if len(got) != size:  # an answer that was cut is not one to keep
        raise EOFError(f"the server sent {len(got)} bytes; check that the file is complete")
    return got


def fsspec_of(filesystem: pafs.FileSystem) -> Any:
    """The fsspec filesystem behind one of pyarrow's, or None. Its own handles would read ahead in their own way, and
    take one request at a time."""
    handler = getattr(filesystem, "handler", None)
    return handler.fs if isinstance(handler, pafs.FSSpecHandler) else None


def answer(remote: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """Return the result of a method of an fsspec filesystem; TimeoutError if the server does not answer."""
    if not getattr(remote, "async_impl", False):
        return getattr(remote, method)(*args, **kwargs)
    from fsspec.asyn import sync

    return sync(remote.loop, getattr(remote, f"_{method}"), *args, timeout=_PATIENCE, **kwargs)


def look(filesystem: pafs.FileSystem, path: str) -> pafs.FileInfo:
    """Return what is at a path. Failed requests are retried; fsspec would report every failure as "not found"."""
    remote = fsspec_of(filesystem)
    if remote is None:
        return filesystem.get_file_info(path)
    delays = iter(_DELAYS)
    while True:
        try:
            found = answer(remote, "info", path)
        except FileNotFoundError as error:
            status = status_of(error)
            if status is None or status in (404, 410):
                return pafs.FileInfo(path, pafs.FileType.NotFound)
            delay = next(delays, None)
            if delay is None or not (status >= 500 or status == 429):
                raise OSError(f"the server answered with HTTP {status}") from error
            time.sleep(delay)
        else:
            kind = pafs.FileType.Directory if found["type"] == "directory" else pafs.FileType.File
            return pafs.FileInfo(path, kind, size=found.get("size"))


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error, or what caused it, carries."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(seen, "status", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__
    return None


def transport_errors() -> tuple[type[BaseException], ...]:
    """The errors of failed requests. A client that has not been imported cannot raise any."""
    loaded = [getattr(sys.modules[module], name) for module, name in _CLIENT_ERRORS if module in sys.modules]
    return (OSError, EOFError, pa.ArrowException, *loaded)


def refusal(name: str, error: BaseException) -> SourceError | None:
    """The error to raise without a retry: the file does not exist, or access is denied."""
    text = " ".join(str(error).split())
    if (isinstance(error, FileNotFoundError) and status_of(error) in (None, 404, 410)) or any(
        f"NO_SUCH_{what}" in text for what in ("KEY", "BUCKET")
    ):
        return SourceError(f"cannot read {name}: no such file or folder; check the path")
    if isinstance(error, PermissionError) or any(mark in text for mark in _DENIED):
        return SourceError(f"cannot read {name}: permission denied; check your access and the credentials")
    if isinstance(error, IsADirectoryError):
        return SourceError(f"cannot read {name}: it is a folder; name a file")
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return SourceError(
            f"cannot read {name}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    return None


class _Block:
    """Bytes that have been received or requested."""

    def __init__(self, offset: int, size: int, bytes_: Future[np.ndarray]) -> None:
        self.offset, self.end, self.bytes = offset, offset + size, bytes_


class ReadRanges:
    """The bytes [begin, end) of a file, with up to ``ahead`` bytes prefetched.

    A reader that is known to go from ``begin`` to ``end`` (``whole``) has its bytes underway from the first look;
    otherwise what is ahead grows as long as reads follow one another. At most eight requests are out at a time.
    Belongs to one thread; `close` ends all that is underway.
    """

    def __init__(self, fetch: Fetch, name: str, begin: int, end: int, ahead: int = 0, *, whole: bool = True) -> None:
        self.name, self.begin, self.end = name, begin, end
        self._fetch, self._ahead, self._whole = fetch, ahead, whole
        self._window = ahead if whole else 0  # bytes ahead now
        self._blocks: deque[_Block] = deque()  # one behind the other, up to `_next`
        self._next = begin
        self._start = begin  # of the reads that have followed one another
        self._limit = end  # of what is asked for ahead
        self._pool: ThreadPoolExecutor | None = None
        self._closed = threading.Event()
        if whole and ahead:
            self._extend(begin, begin)

    def view(self, offset: int, length: int) -> np.ndarray:
        """Bytes that stay in memory until they are `passed`."""
        self._go_to(offset, length)
        for block in self._blocks:
            if block.offset <= offset and offset + length <= block.end:
                return self._come(block)[offset - block.offset : offset - block.offset + length]
        return self._gather(offset, length, passing=False)

    def take(self, offset: int, length: int) -> np.ndarray:
        """Return bytes that are not needed again, nor those before them."""
        self._go_to(offset, length)
        return self._gather(offset, length, passing=True)

    def passed(self, offset: int) -> None:
        """Allow the memory before ``offset`` to be released."""
        while self._blocks and self._blocks[0].end <= offset:
            self._blocks.popleft().bytes.cancel()

    def close(self) -> None:
        """Cancel what has not begun, wait for what has."""
        self._closed.set()
        self.passed(self.end)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _go_to(self, offset: int, length: int) -> None:
        """Request the bytes that are read next."""
        if not self.begin <= offset <= offset + length <= self.end:
            raise SourceError(
                f"cannot read {self.name}: bytes {offset} to {offset + length} lie outside the column chunk"
            )
        if not length:
            return
        first = self._blocks[0].offset if self._blocks else self._next
        if not first <= offset <= self._next:  # somewhere else
            self.passed(self.end)
            self._start = offset
            self._next = offset if self._whole else max(self.begin, min(offset, self.end - _LEAST))
        if not self._whole:
            self._window = min(self._ahead, 2 * max(0, offset - self._start))
        self._limit = self.end
        if length > _BLOCK and self._window == 0:  # a look at much: in parts at once, and nothing behind it
            self._window, self._limit = min(self._ahead, length), offset + length
        self._extend(offset, offset + (1 if self._window else length))

    def _extend(self, at: int, needed: int) -> None:
        """Request the bytes before ``needed``, and the bytes less than the window ahead of ``at``."""
        step = max(_LEAST, min(_BLOCK, self._window // 4))
        while self._next < needed or (self._next < self._limit and self._next + step <= at + self._window):
            most = min(step, self._limit - self._next) if self._window else max(_LEAST, needed - self._next)
            size = min(most, self.end - self._next)
            self._blocks.append(_Block(self._next, size, self._ask(self._next, size)))
            self._next += size

    def _ask(self, offset: int, size: int) -> Future[np.ndarray]:
        if self._window:
            if self._pool is None:
                workers = max(1, self._ahead // max(_LEAST, min(_BLOCK, self._ahead // 4)))
                self._pool = ThreadPoolExecutor(min(8, workers), thread_name_prefix="fastxent-fetch")
            return self._pool.submit(self._fetched, offset, size)
        done: Future[np.ndarray] = Future()
        with SPENT.reading():
            done.set_result(self._fetched(offset, size))
        return done

    def _gather(self, offset: int, length: int, passing: bool) -> np.ndarray:
        """A copy of bytes that lie in several blocks."""
        out, at = np.empty(length, np.uint8), offset
        while at < offset + length:
            self._extend(at, at + 1)
            block = next(block for block in self._blocks if block.offset <= at < block.end)
            stop = min(offset + length, block.end)
            out[at - offset : stop - offset] = self._come(block)[at - block.offset : stop - block.offset]
            at = stop
            if passing:
                self.passed(at)
        out.flags.writeable = False
        return out

    def _come(self, block: _Block) -> np.ndarray:
        try:
            with SPENT.reading():
                return block.bytes.result()
        except BaseException:
            # An error that stays in a block keeps, by its traceback, all that was reading, and so this reader: in a
            # circle that goes through pyarrow's C++, where no garbage collector sees it.
            self.passed(self.end)
            self._next = self._start = self.begin
            raise

    def _fetched(self, offset: int, length: int) -> np.ndarray:
        """Return the answer to one request, which is retried while the connection drops."""
        why = ""
        for delay in (0.0, *_DELAYS):
            if self._closed.wait(delay) if delay else self._closed.is_set():
                raise SourceError(f"cannot read {self.name}: the reader was closed")
            try:
                got = self._fetch(offset, length)
            except transport_errors() as error:
                if (told := refusal(self.name, error)) is not None:
                    raise told from error
                if isinstance(error, TimeoutError) and not str(error):
                    raise SourceError(
                        f"cannot read bytes {offset} to {offset + length} of {self.name}: no answer within "
                        f"{_PATIENCE:g} s; check the network and the server"
                    ) from error
                why = " ".join(str(error).split()) or type(error).__name__
            else:
                if len(got) == length:
                    return np.frombuffer(got, np.uint8)
                why = f"the server sent {len(got)} bytes; check that the file is complete"
        tried = f"tried {len(_DELAYS) + 1} times"
        raise SourceError(f"cannot read bytes {offset} to {offset + length} of {self.name}, {tried}: {why}")


class RemoteFile(io.RawIOBase):
    """A remote file as a file object for Python's and pyarrow's readers."""

    def __init__(self, source: RemoteBytes, name: str) -> None:
        self._ranges = ReadRanges(source.fetch, name, 0, source.size, _FILE_AHEAD, whole=False)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ranges.end}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._ranges.end - self._at)
        size = left if size is None or size < 0 else min(size, left)
        got = self._ranges.take(self._at, size).tobytes() if size else b""
        self._at += len(got)
        return got

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        got = self.read(len(buffer))
        buffer[: len(got)] = got
        return len(got)

    def close(self) -> None:
        if not self.closed:
            self._ranges.close()
        super().close()
