"""Arrays in files: ``.npy`` and ``.safetensors``, their headers checked against the file, their bytes mapped or fetched
range by range."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, SourceError
from fastxent.io.files import File, reading

NPY_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 100_000_000  # as the format sets it
_TENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1", "F8_E4M3": "<u1", "F8_E5M2": "<u1",
}  # fmt: skip
_TAGS = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}  # kept as the integers of their bits


@dataclass(frozen=True)
class Stored:
    """An array in a file: its bytes are mapped, or fetched range by range. Picklable."""

    file: File
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    tag: str | None = None  # the float type whose bits the integers are
    fortran: bool = False

    @property
    def type(self) -> pa.DataType:
        return element_type(self.dtype)

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        row = self.dtype.itemsize * (width or 1)
        total = math.prod(self.shape) * self.dtype.itemsize
        if self.fortran and not self.file.local:
            raise SourceError(
                f"{self.file.name} is in Fortran order; save np.ascontiguousarray(x) to read it from afar"
            )
        with self.file.open() as handle, reading(self.file.name):
            skip, size = (0, total) if self.fortran else (begin * row, (end - begin) * row)
            handle.seek(self.offset + skip)
            buffer = handle.read_buffer(size)
            if buffer.size != size:
                raise SourceError(f"{self.file.name} ends early: it changed while it was read")
            values = np.frombuffer(buffer, self.dtype)
        if self.fortran:  # the mapping is virtual: only the rows below are read
            return to_arrow(values.reshape(self.shape, order="F")[begin:end], width)
        return to_arrow(values.reshape((end - begin,) if width is None else (end - begin, width)), width)


def unnamed_tag(dtype: np.dtype) -> str | None:
    """The tag of what NumPy makes of a saved bfloat16: two bytes that may be any float."""
    return "float of 2 bytes" if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None else None


def element_type(dtype: np.dtype) -> pa.DataType:
    if unnamed_tag(dtype):
        return pa.uint16()
    try:
        return pa.from_numpy_dtype(dtype) if not dtype.hasobject else pa.null()
    except pa.ArrowNotImplementedError as error:
        raise ColumnError(f"an array of {dtype} cannot be a column; convert it to float, integer or string") from error


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
    with file.open() as handle, reading(file.name, "its header"):
        if handle.read(len(NPY_MAGIC)) != NPY_MAGIC:
            raise SourceError(f"{file.name} is no .npy file; write it with numpy.save")
        handle.seek(0)
        version = np.lib.format.read_magic(handle)
        if version not in ((1, 0), (2, 0)):
            raise SourceError(
                f"{file.name} is .npy version {version[0]}.{version[1]}; save it again without field names"
            )
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(handle)
        offset, size = handle.tell(), handle.size()
    if dtype.hasobject:
        raise SourceError(f"{file.name} holds Python objects; save numbers or strings")
    if not shape:
        raise SourceError(f"{file.name} holds a single number, not an array")
    needed = math.prod(shape) * dtype.itemsize
    if offset + needed > size:
        raise SourceError(f"{file.name} is cut short: {needed} bytes of values are due, {size - offset} are there")
    return Stored(file, offset, shape, dtype, unnamed_tag(dtype), fortran=fortran and len(shape) > 1)


# ---- .safetensors ----------------------------------------------------------------------------------------------------


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """8 bytes of header length, then JSON."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(file: File) -> dict[str, Stored]:
    """The tensors of a ``.safetensors`` file: 8 bytes of length, a JSON header, bytes; every extent is checked."""
    with file.open() as handle, reading(file.name, "its header"):
        size = handle.size()
        length = int.from_bytes(handle.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise SourceError(f"{file.name}: its safetensors header is said to be {length} bytes; is it complete?")
        try:
            header = json.loads(handle.read(length).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{file.name}: the safetensors header is no valid JSON; write the file again") from error
    if not isinstance(header, dict):
        raise SourceError(f"{file.name}: the safetensors header is no object; write the file again")
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = {name: _tensor(file, name, entry, start, size) for name, entry in header.items()}
    return {name: tensor for name, tensor in tensors.items() if tensor.shape}


def _tensor(file: File, name: str, entry: Any, start: int, size: int) -> Stored:
    entry = entry if isinstance(entry, dict) else {}
    kind, shape, extent = entry.get("dtype"), _naturals(entry.get("shape")), _naturals(entry.get("data_offsets"))
    if kind not in _TENSORS or shape is None or extent is None or len(extent) != 2:
        raise SourceError(f"{file.name}: tensor {name!r} is described wrongly ({entry}); write the file again")
    dtype = np.dtype(_TENSORS[kind])
    if extent[1] - extent[0] != math.prod(shape) * dtype.itemsize or start + extent[1] > size:
        raise SourceError(f"{file.name}: tensor {name!r} reaches past the end or has the wrong size; is it complete?")
    return Stored(file, start + extent[0], shape, dtype, _TAGS.get(kind))


def _naturals(value: Any) -> tuple[int, ...] | None:
    good = isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)
    return tuple(value) if good else None
