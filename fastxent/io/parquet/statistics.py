"""The statistics of row groups: least and largest values and counts of nulls, where they can be trusted.

pyarrow aborts the process on statistics that are cut off, so they are read here. Only the fields are used whose order
is that of the column's type, and only types whose order is that of Arrow's comparisons: integers, floats, bools, UTF-8
text and dates. Least and largest texts may be cut; they are bounds all the same. A bound that is NaN proves nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from fastxent.io.bounds import Bounds
from fastxent.io.parquet.footer import Footer

_METADATA, _STATISTICS = 3, 12  # fields of a column chunk, and of its metadata
_NULLS, _HIGH, _LOW = 3, 5, 6  # fields of statistics; 1 and 2 are of an order that writers did not agree on
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12  # types of Thrift's protocol
_DEEPEST = 8
_DAMAGED = (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error, pa.ArrowException)


def bounds_of(footer: Footer, schema: pa.Schema, names: Sequence[str]) -> Iterator[dict[str, Bounds]]:
    """For each row group the bounds of some of the columns ``names``."""
    columns = [column for name in names if (column := footer.called(name)) is not None and len(column.elements) == 1]
    columns.sort(key=lambda column: column.leaves[0])
    ordered = footer.ordered
    kinds = [_plain(schema.field(column.name).type) for column in columns]
    for rows, chunks in zip(footer.group_rows, footer.encoded(footer.proven(columns)), strict=True):
        found = (_bounds(chunk if ordered else b"", kind, rows) for chunk, kind in zip(chunks, kinds, strict=True))
        yield {column.name: bounds for column, bounds in zip(columns, found, strict=True)}


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pt.is_dictionary(kind) else kind


def _bounds(chunk: bytes, kind: pa.DataType, rows: int) -> Bounds:
    """The bounds of a column chunk of so many rows."""
    try:
        found = _fields(chunk, 0, 0)[0][_METADATA].get(_STATISTICS, {})
        count = found.get(_NULLS)
        if count is not None and not 0 <= count <= rows:
            return Bounds(kind)
        if count == rows:
            null = pa.array([None], kind)
            return Bounds(kind, null, null, values=False)
        nulls = count != 0
        if _LOW not in found or _HIGH not in found:
            return Bounds(kind, nulls=nulls)
        low, high = (_decoded(found[field], kind) for field in (_LOW, _HIGH))
        if low is None or not low <= high:  # NaN too
            return Bounds(kind, nulls=nulls)
        return Bounds(kind, pa.array([low], kind), pa.array([high], kind), nulls)
    except _DAMAGED:
        return Bounds(kind)


def _decoded(value: bytes, kind: pa.DataType) -> Any:
    """A value as it is stored; None for types that are not trusted. ValueError for another number of bytes."""
    if pt.is_string(kind) or pt.is_large_string(kind):
        return value.decode()
    if pt.is_boolean(kind):
        return bool(struct.unpack("<?", value)[0])
    if pt.is_float32(kind) or pt.is_float64(kind):
        return struct.unpack("<f" if pt.is_float32(kind) else "<d", value)[0]
    if (pt.is_integer(kind) or pt.is_date32(kind)) and len(value) in (4, 8):
        return int.from_bytes(value, "little", signed=not pt.is_unsigned_integer(kind))
    return None


# ---- Thrift's compact protocol, read -----------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """(the fields of a struct by number, where it ends)."""
    found: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            value, at = _varint(data, at)
            number = value >> 1 ^ -(value & 1)
        kind = head & 15
        found[number], at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _value(data, at, kind, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """(a value of a type, where it ends)."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if kind in (_TRUE, _FALSE, _BYTE):
        return data[at], at + 1
    if _BYTE < kind < _DOUBLE:
        value, at = _varint(data, at)
        return value >> 1 ^ -(value & 1), at
    if kind == _DOUBLE:
        return data[at : at + 8], at + 8
    if kind == _BINARY:
        size, at = _varint(data, at)
        if at + size > len(data):
            raise ValueError("bytes that are cut off")
        return data[at : at + size], at + size
    if kind in (_LIST, _SET):
        size, of, at = data[at] >> 4, data[at] & 15, at + 1
        if size == 15:
            size, at = _varint(data, at)
        for _ in range(size):
            _, at = _value(data, at, of, depth + 1)
        return None, at
    if kind == _STRUCT:
        return _fields(data, at, depth + 1)
    raise ValueError("an unknown type")
