"""Values of group columns as keys: one value is one key, whatever Arrow type holds it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastxent.errors import ColumnError
from fastxent.kernels.hashed import encoded
from fastxent.kernels.texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_TAGS = {bool: "bool", int: "int", type(None): "null"}
_MOST_WHOLE = 1 << 64  # whole numbers below are one value, be they integers, floats or decimals
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_FAR = re.compile(r"<value out of range: (-?\d+)>")


def key_of(value: Any) -> str:
    """A value as tagged text, in which 1, "1" and True differ: what groups are looked up by.

    A number is one value whatever type holds it: 1, 1.0 and a decimal 1.00 are the integer, -0.0 is 0, and a decimal is
    the float that prints the same, if there is one.
    """
    if isinstance(value, str):
        return f"str:{value}"
    if type(value) in _TAGS:
        return f"{_TAGS[type(value)]}:{value!r}"
    if isinstance(value, float):
        whole = abs(value) < _MOST_WHOLE and value.is_integer()
        return f"int:{int(value)}" if whole else f"float:{value!r}"
    if isinstance(value, bytes):
        return f"bytes:{value.hex()}"
    assert isinstance(value, Decimal)
    text = _trimmed(format(value, "f"))
    if "." not in text and abs(int(text)) < _MOST_WHOLE:
        return f"int:{int(text)}"
    near = float(value)
    return f"float:{near!r}" if Decimal(repr(near)) == value else f"decimal:{text}"


def value_of(key: str) -> Any:
    """The value behind a key: str, bool, int, float or None. Dates, times, and decimals that no float prints like are
    text; binary is hexadecimal."""
    tag, _, text = key.partition(":")
    if tag == "null":
        return None
    if tag == "bool":
        return text == "True"
    return int(text) if tag == "int" else float(text) if tag == "float" else text


def place_of(key: str) -> tuple[str, str, str]:
    """What keys are sorted by: numbers are beside one another."""
    tag, _, text = key.partition(":")
    return "float" if tag in ("int", "decimal") else tag, text, tag


def _trimmed(text: str) -> str:
    """A number or a time without zeros at the end of its fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _times(column: pa.Array) -> list[str | None]:
    """Dates, times and durations as texts that do not depend on their unit. Timestamps with a time zone are in UTC."""
    import pyarrow as pa
    import pyarrow.types as pt

    kind, zone = column.type, ""
    if pt.is_date64(kind):
        column = column.cast(pa.date32(), safe=False)
    elif pt.is_timestamp(kind) and kind.tz is not None:
        column, zone = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit)), "Z"
    digits = 0 if pt.is_date(kind) else _DIGITS[kind.unit]

    def text(printed: str | None) -> str | None:
        if printed is None:
            return None
        far = _FAR.fullmatch(printed)  # outside the years that Arrow prints
        if far is None and not pt.is_duration(kind):
            return _trimmed(printed) + zone
        count = _trimmed(format(Decimal(far[1] if far else printed).scaleb(-digits), "f"))
        return f"{count}s" if far is None else f"{count} {'days' if pt.is_date(kind) else 's'} since 1970{zone}"

    return [text(printed) for printed in column.cast(pa.string()).to_pylist()]


@dataclass(frozen=True)
class EncodedColumn:
    """A column as its distinct keys and, for each row, the index of its key."""

    keys: list[str]
    index: np.ndarray

    @classmethod
    def of(cls, column: pa.Array, name: str, what: str = "group rows") -> EncodedColumn:
        """Python sees each distinct value once, never a row. what: what an error says that it is for."""
        from fastxent.io.values import numbers, resolved

        column = numbers(resolved(column, name), name)
        texts, whole = texts_of(column), integers_of(column)
        if texts is not None:
            table = Texts()
            index = table.codes(*texts)
            return cls([f"str:{text}" for text in decoded(table.listed(), name)], index)
        if whole is not None:
            distinct, index = encoded(whole)
            return cls([f"int:{number}" for number in distinct.tolist()], index)
        used, index = used_values(column, name, what)
        return cls([key_of(value) for value in _values(used, name)], index)


def used_values(column: pa.Array, name: str, what: str = "group rows") -> tuple[pa.Array, np.ndarray]:
    """(the distinct values of a column in the order of their first appearance, (n,) the place of each row's value)."""
    import pyarrow as pa

    from fastxent.io.values import numbers

    found = _encoded(column)
    distinct = None if found is None else numbers(found.dictionary, name)
    if found is None or distinct is None or not _groups(distinct.type):
        raise ColumnError(
            f"cannot {what} by column {name!r}: its values are of type {column.type}; choose a column of strings, "
            "numbers or dates"
        )
    indices = found.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    used, index = encoded(np.ascontiguousarray(indices))
    return distinct.take(pa.array(used, mask=used < 0)), index


def _values(column: pa.Array, name: str) -> list[Any]:
    import pyarrow.types as pt

    try:
        return _times(column) if pt.is_temporal(column.type) else column.to_pylist()
    except UnicodeDecodeError as error:
        raise _no_text(error, name) from None


def decoded(texts: list[bytes], name: str) -> list[str]:
    """Texts of a column, or `ColumnError`."""
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError as error:
        raise _no_text(error, name) from None


def _no_text(error: UnicodeDecodeError, name: str) -> ColumnError:
    return ColumnError(f"column {name!r} is not UTF-8: {error.object[:40]!r}; write it as UTF-8")


def integers_of(column: pa.Array) -> np.ndarray | None:
    """A column of integers of 64 bits without nulls; None if it holds anything else."""
    import pyarrow as pa
    import pyarrow.types as pt

    if not pt.is_integer(column.type) or column.null_count:
        return None
    try:
        return np.from_dlpack(column.cast(pa.int64()))  # to_numpy would import pandas
    except pa.ArrowInvalid:  # above 2**63
        return None


def texts_of(column: pa.Array) -> tuple[np.ndarray, np.ndarray] | None:
    """Offsets and bytes of a column of text without nulls; None if it holds anything else."""
    import pyarrow.types as pt

    if not (pt.is_string(column.type) or pt.is_large_string(column.type)) or column.null_count:
        return None
    _, offsets, data = column.buffers()
    if not len(column) or offsets is None:
        return np.zeros(len(column) + 1, np.int64), np.zeros(0, np.uint8)
    stored = np.frombuffer(offsets, np.int32 if pt.is_string(column.type) else np.int64)
    places: np.ndarray = stored[column.offset : column.offset + len(column) + 1].astype(np.int64)
    held = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    if not 0 <= places[0] <= places[-1] <= len(held) or np.any(places[1:] < places[:-1]):
        raise ValueError("a column of text whose offsets are out of range")
    return places, held


def _encoded(column: pa.Array) -> pa.DictionaryArray | None:
    """A column as a dictionary; None of a type that Arrow cannot encode."""
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_decimal(column.type) and column.type.bit_width < 128:
        column = column.cast(pa.decimal128(18, column.type.scale))
    try:
        return column.dictionary_encode()
    except pa.ArrowNotImplementedError:
        return None


def _groups(kind: pa.DataType) -> bool:
    """Whether rows can be grouped by values of that type."""
    import pyarrow.types as pt

    number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind) or pt.is_decimal(kind)
    text = pt.is_string(kind) or pt.is_large_string(kind)
    binary = pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind)
    time = pt.is_temporal(kind) and not pt.is_interval(kind)
    return bool(number or text or binary or time or pt.is_null(kind))


class Keys:
    """Keys in the order of their first appearance, numbered from 0."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.names = list(keys)
        self._codes = {key: code for code, key in enumerate(self.names)}
        if len(self._codes) < len(self.names):
            raise ValueError("a key appears twice")

    @classmethod
    def restored(cls, keys: Iterable[str]) -> Keys:
        """Stored keys; floats as they are keyed now, should they come from a version that kept 1.0 apart from 1."""
        return cls(key_of(float(key[6:])) if key.startswith("float:") else key for key in keys)

    def __len__(self) -> int:
        return len(self.names)

    def code(self, key: str) -> int:
        """The number of a key, which is new if the key is."""
        code = self._codes.setdefault(key, len(self.names))
        if code == len(self.names):
            self.names.append(key)
        return code

    def codes(self, column: EncodedColumn) -> np.ndarray:
        """(n,) group numbers of the rows of a column."""
        found: np.ndarray = np.array([self.code(key) for key in column.keys], np.int64)[column.index]
        return found

    def union_size(self, other: Iterable[str]) -> int:
        """How many keys there would be with these."""
        return len(self.names) + sum(key not in self._codes for key in set(other))

    def absorb(self, other: Keys) -> np.ndarray:
        """(len(other),) the numbers here of the keys there."""
        return np.array([self.code(key) for key in other.names], np.int64)

    def order(self) -> np.ndarray:
        """The numbers in the order of the sorted keys."""
        places = [place_of(name) for name in self.names]
        return np.array(sorted(range(len(places)), key=places.__getitem__), np.int64)

    def names_in_order(self) -> list[str]:
        """The keys in that order."""
        return sorted(self.names, key=place_of)


def in_order(slices: dict[Any, T]) -> dict[Any, T]:
    """Slices by their values, numbers in numerical order."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    numbers = iter(sorted(filter(is_number, slices)))
    return {value: slices[value] for value in [next(numbers) if is_number(key) else key for key in slices]}


def distinct_values(keys: list[str]) -> list[Any]:
    """The values behind keys, fit to key a mapping: where two are equal (1 and True), the later stays tagged text,
    and a float that is not finite becomes text, for JSON."""
    found: dict[Any, None] = {}
    for key in keys:
        value = value_of(key)
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        found[value if value not in found else key] = None
    return list(found)
