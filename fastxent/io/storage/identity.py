"""The version of a file: its size, the time of the last write, and a checksum of its footer."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from fastxent.errors import FastxentError, SourceError
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.remote import fsspec_of

_HEAD = 64 << 10  # holds the header of .npy and .safetensors, and the schema of an Arrow stream
_FOOTERS = {b"PAR1": 4, b"PARE": 4, b"ARROW1": 6}  # magic at the end of a file, behind the size of its footer
_TAGS = ("ETag", "Last-Modified")  # of an answer over HTTP
_MOST = 256 << 20  # of a footer: what claims to be longer is none


@dataclass(frozen=True)
class Identity:
    """One version of a file. ``modified`` is the time of the last write in nanoseconds, or an object store's etag."""

    name: str
    size: int
    modified: str
    digest: str  # of the footer, or where the format has none of the first bytes

    @classmethod
    def of(cls, file: File) -> Identity:
        """Look at the file as it is now; `SourceError` if it is not there."""
        file = replace(file, size=None)  # what a listing once said of it may no longer hold
        with file.open() as handle, reading(file.name):
            size = handle.size()
            digest = hashlib.sha256(_described(handle, size)).hexdigest()
        return cls(file.name, size, _modified(file), digest)

    def difference(self, now: Identity) -> str | None:
        """The difference to another version; None if there is none."""
        if self.size != now.size:
            return f"its size changed from {self.size} to {now.size} bytes"
        if self.digest != now.digest:
            return "its footer is different"
        if self.modified != now.modified:
            return f"it was written again ({_when(now.modified)}, before {_when(self.modified)})"
        return None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Version(NamedTuple):
    """A version of a file that is determined without reading. It is checked at the end of each unit."""

    size: int
    modified: str
    inode: int  # 0 for a file elsewhere

    @classmethod
    def of(cls, file: File) -> Version | None:
        """The version of the file as it is now; None if it cannot be told. `SourceError` if a local file is gone."""
        if file.local:
            with reading(file.name):
                now = os.stat(file.path)
            return cls(now.st_size, str(now.st_mtime_ns), now.st_ino)
        try:
            return cls(0, _modified(file), 0)
        except SourceError:  # a server that is gone ends the next read, or has served the last one
            return None


@dataclass(frozen=True)
class VersionedFile:
    """A file at one version. Picklable: the receiver determines the version again."""

    file: File

    @property
    def name(self) -> str:
        return self.file.name

    @cached_property
    def version(self) -> Version | None:
        return Version.of(self.file)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}


@contextmanager
def unchanged(file: File, version: Version | None) -> Iterator[None]:
    """Raise `SourceError` if the file is no longer at ``version`` when the block ends, with or without an error.

    A changed file explains the error: the rows may mix two versions, or the file may be half written. A generator
    that yields inside the block is closed when its consumer fails, for example on a bad row; the error of the consumer
    is then the context of the `GeneratorExit`, and is treated like an error of the block.
    """
    try:
        yield
    except FastxentError as error:
        _compare(file, version, error)
        raise
    except GeneratorExit as closed:
        cause = closed.__context__
        while isinstance(cause, GeneratorExit):  # of a generator around this one
            cause = cause.__context__
        if isinstance(cause, FastxentError):
            _compare(file, version, cause)
        raise
    _compare(file, version, None)


def _compare(file: File, version: Version | None, cause: FastxentError | None) -> None:
    try:
        now = Version.of(file)
    except SourceError as gone:
        raise SourceError(
            f"cannot read {file.name}: it was removed while it was read; run again on a finished file"
        ) from cause or gone
    if version is not None and now is not None and now != version:
        raise SourceError(
            f"cannot read {file.name}: it changed while it was read; run again on a finished file"
        ) from cause


def _described(handle: Any, size: int) -> bytes:
    """The footer of a file that ends in one, with its length and magic; else its first bytes."""
    tail = bytes(handle.read_at(min(size, 10), max(0, size - 10)))
    for magic, width in _FOOTERS.items():
        if tail.endswith(magic):
            length = int.from_bytes(tail[-width - 4 : -width], "little")
            if length <= min(size, _MOST):
                begin = max(0, size - width - 4 - length)
                return bytes(handle.read_at(size - begin, begin))
    return bytes(handle.read_at(min(size, _HEAD), 0))


def _modified(file: File) -> str:
    with reading(file.name):
        if file.filesystem is None:
            return str(os.stat(file.path).st_mtime_ns)
        remote = fsspec_of(file.filesystem)
        if remote is not None:  # an etag where the store has them; the keys of HTTP never change
            told = remote.info(file.path) if "http" in remote.protocol else {}
            return "".join(str(told[key]) for key in _TAGS if key in told) or str(remote.ukey(file.path))
        return str(file.filesystem.get_file_info(file.path).mtime_ns)


def _when(modified: str) -> str:
    if not modified.isdigit() or len(modified) > 20:
        return modified
    moment = datetime.datetime.fromtimestamp(int(modified) / 1e9, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f UTC")
