"""Arrays as a source: a dict in memory, ``.npy`` files and ``.safetensors`` files, a range of rows at a time.

Each array is a column: in a dict by its key, in ``.npy`` files by the file's name without its suffix, in
``.safetensors`` by the tensor's name. (N, C) is a column of rows, (N,) a column of values; leading dimensions
such as (N, T, C) beside (N, T) are flattened. So ``dump/logits.npy`` with ``dump/target.npy`` can be given as the
folder, as both files, as the logits file alone (the other is found beside it), or as
``{"logits": "a.npy", "target": "b.npy"}``.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from fastxent.errors import ColumnError, SourceError, Where
from fastxent.io.arrow import UNIT_BYTES
from fastxent.io.batch import Batch
from fastxent.io.files import File
from fastxent.io.layout import Layout, RowReader
from fastxent.io.tensors import Stored, element_type, read_npy, read_safetensors, to_arrow, unnamed_tag


class Array(Protocol):
    """A column before its rows are read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def tag(self) -> str | None: ...  # the float type whose bits the integers are
    @property
    def type(self) -> pa.DataType: ...  # of one element
    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        """Rows as an Arrow array: of lists of ``width``, or of values."""
        ...


@dataclass(frozen=True)
class Held:
    """An array in memory."""

    values: np.ndarray
    tag: str | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def type(self) -> pa.DataType:
        return element_type(self.values.dtype)

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        flat = self.values if self.values.ndim == 1 + (width is not None) else self.values.reshape(_flat(width))
        return to_arrow(flat[begin:end], width)


@dataclass(frozen=True)
class HeldArrow:
    """An Arrow column in memory."""

    values: pa.ChunkedArray
    tag = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.values),)

    @property
    def type(self) -> pa.DataType:
        return self.values.type

    def read(self, begin: int, end: int, width: int | None) -> pa.Array:
        part = self.values.slice(begin, end - begin)
        return part.chunk(0) if part.num_chunks == 1 else part.combine_chunks()


def _flat(width: int | None) -> tuple[int, ...]:
    return (-1,) if width is None else (-1, width)


# ---- the part --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayUnit:
    """A range of rows of arrays beside one another."""

    in_place: ClassVar[bool] = True
    arrays: Mapping[str, tuple[Array, int | None]]
    reader: RowReader
    where: Where
    rows: int

    @property
    def nbytes(self) -> int:
        return self.rows * self.reader.row_bytes

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        step = self.reader.rows_in(max_bytes)
        first, last = self.where.first_row, self.where.first_row + self.rows
        for begin in range(first, last, step):
            end = min(begin + step, last)
            columns = {name: array.read(begin, end, width) for name, (array, width) in self.arrays.items()}
            batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
            yield self.reader.batch(batch, Where(self.where.file, None, begin))


class ArraysPart:
    """Arrays of the same rows."""

    def __init__(
        self, name: str, form: str, arrays: Mapping[str, Array], named: Sequence[str], file: File | None = None
    ) -> None:
        self.name = name
        self.format = form
        self.hive = () if file is None else file.hive
        deepest = max((len(array.shape) for array in arrays.values()), default=0)
        depth = max(deepest - 1, 1)  # dimensions that count rows
        self.arrays: dict[str, tuple[Array, int | None]] = {}
        fields, counts = [], {}
        for key, array in arrays.items():
            by_row = len(array.shape) > depth
            width = array.shape[-1] if by_row else None
            self.arrays[key] = (array, width)
            counts[key] = math.prod(array.shape[:depth])
            kind = array.type if width is None else pa.list_(array.type, width)
            fields.append(pa.field(key, kind, metadata={"dtype": array.tag} if array.tag else None))
        self.schema = pa.schema(fields)
        used = {key: count for key, count in counts.items() if key in named} or counts
        self.rows = next(iter(used.values()), 0)
        for key, count in used.items():
            if count != self.rows:
                raise SourceError(f"{name}: {next(iter(used))!r} has {self.rows} rows and {key!r} has {count}")

    @property
    def inputs(self) -> tuple[File, ...]:
        stored = [array.file for array, _ in self.arrays.values() if isinstance(array, Stored)]
        return tuple(dict.fromkeys(stored)) if len(stored) == len(self.arrays) else ()

    def width(self, layout: Layout, expected: int | None) -> int | None:
        """Asked only for Arrow columns: arrays tell by their shape."""
        array, width = self.arrays[layout.names[0]]
        for begin in range(0, self.rows, 1024):
            part = array.read(begin, min(begin + 1024, self.rows), width)
            found = layout.width(pa.RecordBatch.from_arrays([part], names=[layout.names[0]]), self.name)
            if found is not None:
                return found
        return None

    def units(self, reader: RowReader) -> Iterator[ArrayUnit]:
        needed = {name: self.arrays[name] for name in reader.stored}
        most = reader.rows_in(UNIT_BYTES)
        for begin in range(0, self.rows, most):
            yield ArrayUnit(needed, reader, Where(self.name, None, begin), min(most, self.rows - begin))


# ---- a dict ----------------------------------------------------------------------------------------------------------


def dict_part(source: Mapping[str, Any], named: Sequence[str]) -> ArraysPart:
    """A dict of arrays, or of paths of ``.npy`` files."""
    if not source:
        raise SourceError("the dict of arrays is empty")
    return ArraysPart(
        "<arrays>", "arrays", {str(name): _held(value, str(name)) for name, value in source.items()}, named
    )


def _held(value: Any, name: str) -> Array:
    if isinstance(value, str | os.PathLike):
        file = File(os.fspath(value), os.path.expanduser(os.fspath(value)))
        return read_npy(file)
    if isinstance(value, pa.ChunkedArray):
        return HeldArrow(value)
    if isinstance(value, pa.Array):
        return HeldArrow(pa.chunked_array([value]))
    if isinstance(value, list | tuple):
        value = pa.array(value)
        return HeldArrow(pa.chunked_array([value]))
    if not isinstance(value, np.ndarray) and hasattr(value, "__arrow_c_stream__"):
        return HeldArrow(pa.chunked_array(value))
    if not isinstance(value, np.ndarray) and hasattr(value, "__arrow_c_array__"):
        return HeldArrow(pa.chunked_array([pa.array(value)]))
    torch = sys.modules.get("torch")
    tag = None
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype == torch.bfloat16:  # types NumPy does not have
            tag, value = "bfloat16", value.view(torch.int16)
        elif value.dtype.is_floating_point and value.dtype.itemsize == 1:
            value = value.float()
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ColumnError(f"{name!r} is a {type(value).__name__} that NumPy cannot read: {error}") from error
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        tag, array = "bfloat16", array.view(np.uint16)
    elif tag is not None:
        array = array.view(np.uint16)
    elif array.dtype.type.__module__ == "ml_dtypes":  # its narrower types, each a part of one of NumPy's
        array = array.astype(np.float32 if "float" in array.dtype.name else np.int8)
    if array.ndim == 0:
        raise ColumnError(f"{name!r} is a {type(value).__name__}, not an array")
    if array.dtype.hasobject:
        return HeldArrow(pa.chunked_array([pa.array(array)]))
    return Held(array, tag or unnamed_tag(array.dtype))


# ---- .npy ------------------------------------------------------------------------------------------------------------


def npy_part(files: Sequence[File], named: Sequence[str]) -> ArraysPart:
    """``.npy`` files of one folder, each a column under its file's name."""
    columns = {_stem(file): file for file in files}
    folder = os.path.dirname(files[0].path)
    for name in named:
        beside = os.path.join(folder, f"{name}.npy")
        if files[0].local and name not in columns and os.path.isfile(beside):
            columns[name] = File(beside, beside, None, files[0].hive)
    main = next((columns[name] for name in named if name in columns), files[0])
    return ArraysPart(main.name, "npy", {name: read_npy(file) for name, file in columns.items()}, named, files[0])


def _stem(file: File) -> str:
    return os.path.basename(file.path).removesuffix(".npy")


def safetensors_part(file: File, named: Sequence[str]) -> ArraysPart:
    """A ``.safetensors`` file, each tensor a column."""
    return ArraysPart(file.name, "safetensors", read_safetensors(file), named, file)
