"""``.npz`` files: zip archives whose members are ``.npy`` files, each a column under its name.

A stored member is read range by range, as a ``.npy`` file is. A compressed member is decompressed from front to back,
by one worker and never as a whole, and its checksum is compared at its end.
"""

from __future__ import annotations

import itertools
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np

from fastxent.errors import FastxentError, SourceError
from fastxent.io.arranged import Array
from fastxent.io.arrays import ArraysPart, or_error
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.tensors import Stored, npy_array

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # the second: an archive without members
_HEADER = 30  # bytes of a member's header before its name
_SKIPPED = 1 << 20  # bytes decompressed at a time to get past them


@contextmanager
def archive(file: File) -> Iterator[zipfile.ZipFile]:
    """An open zip archive. `SourceError` if it is damaged."""
    with file.open() as handle, unzipping(file.name), zipfile.ZipFile(handle) as opened:
        yield opened


@contextmanager
def unzipping(name: str) -> Iterator[None]:
    """Convert errors of a damaged archive to a `SourceError` that names the file."""
    try:
        with reading(name):
            yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError) as error:
        detail = " ".join(str(error).split()) or "it ends early"
        raise SourceError(f"cannot read {name}: {detail}; write the file again") from error


def npz_part(file: File, named: Sequence[str]) -> ArraysPart:
    """A ``.npz`` file, each member a column."""
    version = Version.of(file)
    with archive(file) as opened:
        members = [member for member in opened.infolist() if not member.filename.endswith("/")]
        found: dict[str, Array | FastxentError] = {}
        extents = []
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise SourceError(
                    f"cannot read {file.name}: member {member.filename!r} is not a .npy file; write the file with "
                    "numpy.savez"
                )
            if name in found:
                raise SourceError(f"cannot read {file.name}: it holds {name!r} twice; write the file again")
            begin = begin_of(file, opened, member)
            extents.append((begin, begin + member.compress_size, name))
            found[name] = or_error(_array, file, opened, member, begin, version)
    if not found:
        raise SourceError(f"cannot read {file.name}: it holds no arrays; write them with numpy.savez")
    for (_, end, before), (begin, _, name) in itertools.pairwise(sorted(extents)):
        if begin < end:
            raise SourceError(f"cannot read {file.name}: {before!r} and {name!r} overlap; write the file again")
    return ArraysPart(file.name, "npz", found, named, file)


def begin_of(file: File, opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The first byte of a member's data; `SourceError` if that is not inside the file."""
    handle: Any = opened.fp
    handle.seek(0, 2)
    size = handle.tell()
    handle.seek(max(0, member.header_offset))
    header = handle.read(_HEADER)
    if len(header) == _HEADER and header.startswith(ZIP_MAGIC[0]):
        begin = member.header_offset + _HEADER + int.from_bytes(header[26:28], "little")
        begin += int.from_bytes(header[28:30], "little")
        if begin + member.compress_size <= size:
            return begin
    raise SourceError(
        f"cannot read {file.name}: member {member.filename!r} does not lie in the file; check that the file is complete"
    )


def _array(file: File, opened: zipfile.ZipFile, member: zipfile.ZipInfo, begin: int, version: Version | None) -> Stored:
    """A member as an array."""
    place = f"{file.name}, member {member.filename!r}"
    if member.flag_bits & 1:
        raise SourceError(f"cannot read {place}: it is encrypted; write it with numpy.savez")
    stored = member.compress_type == zipfile.ZIP_STORED
    if not stored and member.compress_type != zipfile.ZIP_DEFLATED:
        raise SourceError(f"cannot read {place}: its compression is not supported; write it with numpy.savez")
    if stored and member.compress_size != member.file_size:
        raise SourceError(f"cannot read {place}: it is stored in another number of bytes; write the file again")
    with unzipping(place), opened.open(member) as data:
        array = npy_array(file, place, data, member.file_size, version)
    if stored:
        return replace(array, offset=begin + array.offset)
    if array.fortran:
        raise SourceError(
            f"cannot read {place}: compressed arrays in Fortran order are not supported; save "
            "np.ascontiguousarray(x), or use numpy.savez"
        )
    return Compressed(**{**array.__dict__, "member": member.filename})


@dataclass(frozen=True)
class Compressed(Stored):
    """An array in a compressed member of an archive, read from front to back. Its offset is that in the member."""

    member: str = ""

    forward = True

    @property
    def place(self) -> str:
        return f"{self.file.name}, member {self.member!r}"

    @contextmanager
    def opened(self) -> Iterator[_Decompressed]:  # type: ignore[override]
        with (
            unchanged(self.file, self.version),
            archive(self.file) as opened,
            closing(_Decompressed(opened, self.member, self.place)) as source,
        ):
            yield source


class _Decompressed:
    """The bytes of a member, as `StoredBytes` has those of a file: cheap only from front to back."""

    def __init__(self, opened: zipfile.ZipFile, member: str, place: str) -> None:
        self._archive, self._member, self._place = opened, member, place
        self.size = opened.getinfo(member).file_size
        self._open()

    def _open(self) -> None:
        with unzipping(self._place):
            self._data: IO[bytes] = self._archive.open(self._member)
        self._at = 0

    def read(self, offset: int, length: int) -> np.ndarray:
        """Return bytes of the member."""
        if offset < self._at:
            self._data.close()
            self._open()
        while self._at < offset:
            self._take(min(_SKIPPED, offset - self._at))
        return np.frombuffer(self._take(length), np.uint8)

    def _take(self, length: int) -> bytes:
        with unzipping(self._place):
            data = self._data.read(length)
        if len(data) < length:
            raise SourceError(f"cannot read {self._place}: it ends early; write the file again")
        self._at += length
        return data

    def close(self) -> None:
        self._data.close()
