"""A flatbuffers reader that never reads outside the buffer, for the metadata of Arrow IPC messages and footers.

Only what `fastxent.io.arrow.ipc` needs is read. A number that points outside the metadata is a `ValueError`.
"""

from __future__ import annotations

import struct

import numpy as np

_I8, _U16, _I32, _U32, _I64 = (struct.Struct(f"<{code}") for code in "bHiIq")


def _read(kind: struct.Struct, data: bytes, at: int) -> int:
    if not 0 <= at <= len(data) - kind.size:
        raise ValueError("its metadata points outside itself")
    return int(kind.unpack_from(data, at)[0])


class FlatTable:
    """A flatbuffers table: fields by their number in the schema of the format."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - _read(_I32, data, at)
        self._size = _read(_U16, data, self._fields)

    @classmethod
    def root(cls, data: bytes) -> FlatTable:
        return cls(data, _read(_U32, data, 0))

    def _place(self, field: int) -> int | None:
        if 4 + 2 * field >= self._size:
            return None
        offset = _read(_U16, self._data, self._fields + 4 + 2 * field)
        return self._at + offset if offset else None

    def _follow(self, at: int) -> int:
        return at + _read(_U32, self._data, at)

    def int8(self, field: int) -> int:
        place = self._place(field)
        return 0 if place is None else _read(_I8, self._data, place)

    def int64(self, field: int) -> int:
        place = self._place(field)
        return 0 if place is None else _read(_I64, self._data, place)

    def has(self, field: int) -> bool:
        return self._place(field) is not None

    def table(self, field: int) -> FlatTable:
        place = self._place(field)
        if place is None:
            raise ValueError("its metadata is incomplete")
        return FlatTable(self._data, self._follow(place))

    def _vector(self, field: int, itemsize: int) -> tuple[int, int]:
        """First byte and length of a vector; (0, 0) if it is absent."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = self._follow(place)
        count = _read(_U32, self._data, start)
        if start + 4 + count * itemsize > len(self._data):
            raise ValueError("its metadata points outside itself")
        return start + 4, count

    def tables(self, field: int) -> list[FlatTable]:
        start, count = self._vector(field, 4)
        return [FlatTable(self._data, self._follow(start + 4 * k)) for k in range(count)]

    def int64s(self, field: int, width: int = 1) -> np.ndarray:
        """A vector of int64, or of structs of ``width`` int64: (count,) or (count, width)."""
        start, count = self._vector(field, 8 * width)
        found = np.frombuffer(self._data, "<i8", count * width, start)
        return found if width == 1 else found.reshape(count, width)
