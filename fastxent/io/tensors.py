"""Arrays in files: ``.npy`` and ``.safetensors``, their headers checked against the file, their bytes read range by
range."""

from __future__ import annotations

import io
import itertools
import json
import math
import tokenize
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, SourceError
from fastxent.io.storage.files import File, reading
from fastxent.io.storage.identity import Version, unchanged
from fastxent.io.storage.stored import StoredBytes

NPY_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 100_000_000  # as the format sets it
_LONGEST_NPY_HEADER = 1 << 16
_TENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1", "F8_E4M3": "<u1", "F8_E5M2": "<u1",
}  # fmt: skip
_TAGS = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}  # kept as the integers of their bits


@dataclass(frozen=True)
class Stored:
    """An array in a file, read range by range. Picklable."""

    file: File
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    tag: str | None = None  # the float type whose bits the integers are
    fortran: bool = False
    version: Version | None = field(default=None, compare=False)

    forward = False  # whether reading from front to back is much cheaper than in any other order

    @property
    def place(self) -> str:
        """The name of the bytes that `opened` gives: arrays of one place share them."""
        return self.file.name

    def __getstate__(self) -> dict[str, Any]:  # elsewhere the same file was written at another time
        return {**self.__dict__, "version": None}

    @property
    def type(self) -> pa.DataType:
        return element_type(self.dtype)

    @contextmanager
    def opened(self) -> Iterator[StoredBytes]:
        """The bytes of the file. `SourceError` if it changes before the block ends."""
        with unchanged(self.file, self.version), closing(StoredBytes(self.file, forward=True)) as source:
            yield source

    def read(self, begin: int, end: int, width: int | None, source: StoredBytes | None = None) -> pa.Array:
        """Rows as an Arrow array: of lists of ``width``, or of values."""
        if source is None:
            with self.opened() as source:
                return self.read(begin, end, width, source)
        if self.fortran and not self.file.local:
            raise SourceError(
                f"cannot read {self.file.name}: remote arrays in Fortran order are not supported; "
                "save np.ascontiguousarray(x) instead"
            )
        shape = (end - begin,) if width is None else (end - begin, width)
        if self.fortran:
            return to_arrow(self._by_columns(source, begin, end, width).reshape(shape), width)
        row = self.dtype.itemsize * (width or 1)
        values = self._values(source, begin * row, (end - begin) * row)
        return to_arrow(values.reshape(shape), width)

    def _values(self, source: StoredBytes, offset: int, length: int) -> np.ndarray:
        if self.offset + offset + length > source.size:
            raise SourceError(f"cannot read {self.file.name}: the file became shorter after it was opened")
        return source.read(self.offset + offset, length).view(self.dtype)

    def _by_columns(self, source: StoredBytes, begin: int, end: int, width: int | None) -> np.ndarray:
        """Rows of an array in Fortran order: a piece of each of its columns."""
        first, *rest = self.shape
        together = math.prod(rest if width is None else rest[:-1])  # rows to each index of the first dimension
        low, high = begin // together, -(-end // together)
        size, columns = self.dtype.itemsize, math.prod(rest)
        out = np.empty((columns, high - low), self.dtype)
        for k in range(columns):
            out[k] = self._values(source, (k * first + low) * size, (high - low) * size)
        rows = out.reshape(*rest[::-1], high - low).transpose().reshape((high - low) * together, -1)
        return rows[begin - low * together : end - low * together]


def unnamed_tag(dtype: np.dtype) -> str | None:
    """The tag of a saved bfloat16 array, which NumPy reads as two bytes of an unknown type."""
    return "float of 2 bytes" if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None else None


def element_type(dtype: np.dtype) -> pa.DataType:
    if unnamed_tag(dtype):
        return pa.uint16()
    try:
        return pa.from_numpy_dtype(dtype) if not dtype.hasobject else pa.null()
    except pa.ArrowNotImplementedError as error:
        raise ColumnError(
            f"cannot use an array of {dtype} as a column; convert it to float, integer or string"
        ) from error


def to_arrow(values: np.ndarray, width: int | None) -> pa.Array:
    """Arrow's view of an array, without a copy where its memory is in row order and its bytes are native."""
    if values.dtype.kind == "V":
        values = values.view(np.uint16)
    if isinstance(values, np.ma.MaskedArray):
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    else:
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if width is None:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)


# ---- .npy -----------------------------------------------------------------------------------------------------------


def read_npy(file: File) -> Stored:
    """The header of a ``.npy`` file, checked against the file's size."""
    found = Version.of(file)
    with file.open() as handle:
        return npy_array(file, file.name, handle, handle.size(), found)


def npy_array(file: File, place: str, handle: Any, size: int, found: Version | None) -> Stored:
    """The array of ``size`` bytes of ``.npy``, its header checked against them.

    place: str. The name of the bytes in errors.
    handle: readable from the first byte on. The offset of the array is counted from there.
    """
    with reading(place, "its header"):
        head = io.BytesIO(handle.read(len(NPY_MAGIC) + 2))
        if not head.getvalue().startswith(NPY_MAGIC):
            raise SourceError(f"cannot read {place}: it is not a .npy file; write it with numpy.save")
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0)):
            raise SourceError(
                f"cannot read {place}: .npy version {version[0]}.{version[1]} is not supported; "
                "save it again without field names"
            )
        prefix = handle.read(2 * version[0])
        length = int.from_bytes(prefix, "little")
        if length > _LONGEST_NPY_HEADER:
            raise SourceError(f"cannot read {place}: its header claims {length} bytes; write it again with numpy.save")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, fortran, dtype = header(io.BytesIO(prefix + handle.read(length)))
        except (tokenize.TokenError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            raise SourceError(f"cannot read {place}: its header is invalid; write it again with numpy.save") from error
        offset = len(NPY_MAGIC) + 2 + len(prefix) + length
    if dtype.hasobject:
        raise SourceError(f"cannot read {place}: it holds Python objects; save numbers or strings")
    if not shape:
        raise SourceError(f"cannot read {place}: it holds a single number; save an array")
    if min(shape) < 0:
        raise SourceError(f"cannot read {place}: invalid shape {shape}; write it again with numpy.save")
    needed = math.prod(shape) * dtype.itemsize
    if offset + needed > size:
        raise SourceError(
            f"cannot read {place}: it should hold {needed} bytes of values, but holds {size - offset}; "
            "write the file again"
        )
    if offset + needed < size:
        raise SourceError(
            f"cannot read {place}: {size - offset - needed} bytes follow its array; save each array to its own file"
        )
    return Stored(file, offset, shape, dtype, unnamed_tag(dtype), fortran=fortran and len(shape) > 1, version=found)


# ---- .safetensors ----------------------------------------------------------------------------------------------------


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """8 bytes of header length, then JSON."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(file: File) -> dict[str, Stored | ColumnError]:
    """The tensors of a ``.safetensors`` file: 8 bytes of length, a JSON header, bytes; every extent is checked.

    A tensor of a type that no column has is the error to raise if it is asked for.
    """
    version = Version.of(file)
    with file.open() as handle, reading(file.name, "its header"):
        size = handle.size()
        length = int.from_bytes(handle.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise SourceError(
                f"cannot read {file.name}: its safetensors header of {length} bytes does not fit in the file; "
                "check that the file is complete"
            )
        try:
            header = json.loads(handle.read(length).decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            detail = str(error) if isinstance(error, _TwiceError) else "is not valid JSON"
            raise SourceError(
                f"cannot read {file.name}: the safetensors header {detail}; write the file again"
            ) from error
    if not isinstance(header, dict):
        raise SourceError(f"cannot read {file.name}: the safetensors header is not an object; write the file again")
    header.pop("__metadata__", None)
    start = 8 + length
    extents = {name: _extent(file, name, entry, size - start) for name, entry in header.items()}
    filled = sorted((extent, name) for name, extent in extents.items() if extent[0] < extent[1])
    for (one, before), (two, name) in itertools.pairwise(filled):
        if two[0] < one[1]:
            raise SourceError(f"cannot read {file.name}: tensors {before!r} and {name!r} overlap; write the file again")
    tensors = {name: _tensor(file, name, entry, start, version) for name, entry in header.items()}
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, ColumnError) or tensor.shape}


class _TwiceError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for k, (name, _) in enumerate(pairs) if name in dict(pairs[:k]))
        raise _TwiceError(f"names {twice!r} twice")
    return found


def _extent(file: File, name: str, entry: Any, size: int) -> tuple[int, int]:
    """First and last byte of a tensor, inside the file's ``size`` bytes of values."""
    extent = _naturals(entry.get("data_offsets")) if isinstance(entry, dict) else None
    shape = _naturals(entry.get("shape")) if isinstance(entry, dict) else None
    if extent is None or len(extent) != 2 or shape is None or not isinstance(entry.get("dtype"), str):
        raise SourceError(
            f"cannot read {file.name}: invalid description of tensor {name!r} ({entry}); write the file again"
        )
    kind = _TENSORS.get(entry["dtype"])
    due = extent[1] - extent[0] if kind is None else math.prod(shape) * np.dtype(kind).itemsize
    if not extent[0] <= extent[1] <= size or extent[1] - extent[0] != due:
        raise SourceError(
            f"cannot read {file.name}: tensor {name!r} ends outside the file or has the wrong size; "
            "check that the file is complete"
        )
    return extent[0], extent[1]


def _tensor(file: File, name: str, entry: Any, start: int, version: Version | None) -> Stored | ColumnError:
    kind = entry["dtype"]
    if kind not in _TENSORS:
        return ColumnError(
            f"cannot read tensor {name!r} of {file.name}: type {kind} is not supported; convert it to float32"
        )
    offset, shape = start + entry["data_offsets"][0], tuple(entry["shape"])
    return Stored(file, offset, shape, np.dtype(_TENSORS[kind]), _TAGS.get(kind), version=version)


def _naturals(value: Any) -> tuple[int, ...] | None:
    good = isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)
    return tuple(value) if good else None
