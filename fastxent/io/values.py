"""The columns beside the logits as plain values, for every Arrow type.

`plain` is applied once to every column of every batch, where the batch is made: views and run-end encoding, for which
Arrow has few functions, become the types it has functions for; text and dictionary indices are proven; integers that
are the bits of floats are marked as such. `numbers` gives the values of a marked column.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError, Where


def _float8_e4m3fn(bits: np.ndarray) -> np.ndarray:
    exponent, fraction = (bits >> 3 & 15).astype(np.int32), (bits & 7).astype(np.float32)
    size = np.where(exponent == 0, np.ldexp(fraction, -9), np.ldexp(1 + fraction / 8, exponent - 7))
    size[bits & 127 == 127] = np.nan
    return np.where(bits >> 7 == 1, -size, size).astype(np.float32)


_DECODE: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "bfloat16": (2, lambda bits: (bits.astype(np.uint32) << 16).view(np.float32)),
    "float16": (2, lambda bits: bits.view(np.float16).astype(np.float32)),
    "float8_e4m3fn": (1, _float8_e4m3fn),
    "float8_e5m2": (1, lambda bits: (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)),
}


class FloatBits(pa.ExtensionType):  # type: ignore[misc]
    """Integers, or lists of them, that are the bits of floats of the type ``tag``. Lives in memory only."""

    def __init__(self, storage: pa.DataType, tag: str) -> None:
        self.tag = tag
        super().__init__(storage, "fastxent.float_bits")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.tag.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> FloatBits:
        return cls(storage, serialized.decode())


def tag_of(field: pa.Field) -> str | None:
    """The float type that the metadata of a field of 8- or 16-bit integers, or of lists of them, name."""
    kind = field.type
    metadata = [field.metadata]
    while isinstance(kind, pa.BaseExtensionType) or pt.is_dictionary(kind) or hasattr(kind, "value_field"):
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pt.is_dictionary(kind):
            kind = kind.value_type
        else:
            metadata.append(kind.value_field.metadata)
            kind = kind.value_type
    if not pt.is_integer(kind) or kind.bit_width > 16:
        return None
    tags = (m[b"dtype"].decode("utf-8", "replace") for m in metadata if m and b"dtype" in m)
    return next((tag for tag in tags if "float" in tag), None)


def plain(array: pa.Array, name: str, tag: str | None = None, where: Where | None = None) -> pa.Array:
    """A column of a batch, or `ColumnError`: views as large text or binary, run-end encoding resolved, dictionary
    indices and UTF-8 proven, bits of floats (``tag``) as `FloatBits`."""
    array = resolved(array, name)
    _prove_text(array, name, where)
    if tag is None:
        return array
    array = storage(array.dictionary_decode() if pt.is_dictionary(array.type) else array)
    return pa.ExtensionArray.from_storage(FloatBits(array.type, tag), array)


def resolved(array: pa.Array, name: str) -> pa.Array:
    """`plain`, but for its proof of text and its mark: what costs next to nothing where nothing is to be done."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pt.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pt.is_dictionary(array.type):
        _prove_indices(array, name)
    kind = plain_type(array.type)
    _refuse_decimals(kind, name)
    try:
        array = array if kind == array.type else storage(array).cast(kind)
        return array.dictionary_decode() if pt.is_dictionary(kind) and array.dictionary.null_count else array
    except pa.ArrowException as error:
        raise ColumnError(f"cannot read column {name!r} of {array.type}: {str(error).splitlines()[0]}") from None


def _refuse_decimals(kind: pa.DataType, name: str) -> None:
    """`ColumnError` for decimals of a scale that Python's numbers do not follow."""
    number = kind.value_type if pt.is_dictionary(kind) else kind
    if pt.is_decimal(number) and not -number.precision <= number.scale <= number.precision:
        raise ColumnError(f"cannot read column {name!r} of {kind}: its scale is outside its digits; cast it to float64")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without views, inside lists, structs and dictionaries as well."""
    if pt.is_string_view(kind):
        return pa.large_string()
    if pt.is_binary_view(kind):
        return pa.large_binary()
    if pt.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pt.is_dictionary(kind):
        value = plain_type(kind.value_type)
        return kind if value == kind.value_type else pa.dictionary(kind.index_type, value, kind.ordered)
    if isinstance(kind, pa.BaseExtensionType):
        value = plain_type(kind.storage_type)
        return kind if value == kind.storage_type else value
    if pt.is_struct(kind):
        fields = [field.with_type(plain_type(field.type)) for field in kind]
        return kind if all(a.type == b.type for a, b in zip(fields, kind, strict=True)) else pa.struct(fields)
    if pt.is_map(kind):
        key, value = plain_type(kind.key_type), plain_type(kind.item_type)
        return kind if (key, value) == (kind.key_type, kind.item_type) else pa.map_(key, value)
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        value = kind.value_field.with_type(plain_type(kind.value_type))
        if value.type == kind.value_type:
            return kind
        if pt.is_fixed_size_list(kind):
            return pa.list_(value, kind.list_size)
        return pa.large_list(value) if pt.is_large_list(kind) else pa.list_(value)
    return kind


def storage(array: pa.Array) -> pa.Array:
    """An extension array's storage; any other array as it is."""
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array


def numbers(array: pa.Array, name: str) -> pa.Array:
    """The values of a column without its extension types: bits of floats are decoded to float32."""
    kind = array.type
    if isinstance(kind, FloatBits):
        return _decoded(array.storage, kind.tag, name)
    known = kind.extension_name if isinstance(kind, pa.BaseExtensionType) else None
    if known == "arrow.bool8":
        return pc.not_equal(array.storage, 0)
    if known == "pandas.period":
        raise ColumnError(f"cannot read column {name!r}: it holds pandas periods; write them as text with .astype(str)")
    return storage(array)


def _decoded(array: pa.Array, tag: str, name: str) -> pa.Array:
    if not pt.is_integer(array.type):
        return array  # lists, which stand for no number
    width, decode = _DECODE.get(tag, (0, None))
    if decode is None or array.type.bit_width != 8 * width:
        raise ColumnError(
            f"cannot read column {name!r}: {array.type} tagged {tag!r} is not supported; supported tags are "
            f"{', '.join(_DECODE)}, each for integers of its width"
        )
    bits = np.asarray(array.fill_null(0)).view(f"u{width}")
    return pa.array(decode(bits), mask=np.asarray(array.is_null()) if array.null_count else None)


def decimal_floats(array: pa.Array) -> pa.Array:
    """Each decimal as the nearest float64. (Arrow's cast misses that by the last digit, for a fifth of the values.)"""
    kind, null = array.type, np.asarray(array.is_null()) if array.null_count else None
    if kind.bit_width < 128:
        array = array.cast(pa.decimal128(18, kind.scale))
    if kind.bit_width <= 128 and 0 <= kind.scale <= 22 and len(array):
        words = np.frombuffer(array.buffers()[1], np.int64)[2 * array.offset :][: 2 * len(array)].reshape(-1, 2)
        low, high = words[:, 0], words[:, 1]
        exact = (high == low >> 63) & (low > -(1 << 53)) & (low < 1 << 53)
        if (exact if null is None else exact | null).all():  # a quotient of two floats, which rounds once
            return pa.array(low / 10.0**kind.scale, mask=null)
    encoded = array.dictionary_encode()
    distinct = np.array([float(value) for value in encoded.dictionary.to_pylist()] or [0.0])
    return pa.array(distinct[np.asarray(encoded.indices.fill_null(0))], mask=null)


def _prove_indices(array: pa.Array, name: str) -> None:
    """Whether every index of a dictionary array is one of its dictionary."""
    bounds = pc.min_max(array.indices).as_py()
    low, high = bounds["min"], bounds["max"]
    if low is not None and (low < 0 or high >= len(array.dictionary)):
        raise ColumnError(
            f"cannot read column {name!r}: index {low if low < 0 else high} is outside its dictionary of "
            f"{len(array.dictionary)} values; write the file again"
        )


def _prove_text(column: pa.Array, name: str, where: Where | None) -> None:
    """Whether the text of a column, or of the dictionary entries it uses, is UTF-8."""
    text, used = column, None
    if pt.is_dictionary(column.type):
        text = column.dictionary
        if len(text) > len(column):
            used = column.indices.unique().drop_null()
            text = text.take(used)
    text = storage(text)
    if not (pt.is_string(text.type) or pt.is_large_string(text.type)):
        return
    try:
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        found = re.search(r"UTF-?8 sequence at string index (\d+)", str(error))
        if found is None:
            raise ColumnError(
                f"cannot read column {name!r}: {str(error).splitlines()[0]}; write the file again"
            ) from None
        index, place = int(found[1]), ""
        raw = text.slice(index, 1).cast(pa.large_binary())[0].as_py()
        if pt.is_dictionary(column.type):
            index = pc.index(column.indices, index if used is None else used[index].as_py()).as_py()
        if where is not None and index >= 0:
            group = "" if where.row_group is None else f", row group {where.row_group}"
            place = f" in {where.file}{group}, row {where.first_row + index}"
        raise ColumnError(
            f"cannot read column {name!r}: text{place} is not UTF-8: {raw[:40]!r}; write UTF-8 text or binary"
        ) from None
