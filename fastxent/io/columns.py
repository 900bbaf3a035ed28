"""Convert an Arrow column to the (n, C) rows that kernels read: a view if the layout allows it, else one copy.

Rows that do not form a row (null, of another length, holding a null) are reported beside the array and
filled with NaN in it: nothing is dropped, and no kernel ever reads past a buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import BadRowError, ColumnError, Where
from fastxent.io.batch import Logits
from fastxent.io.values import FloatBits, decimal_floats, numbers, storage
from fastxent.kernels.floats import FLOAT_TYPES, FloatType

FLOATS = {pa.type_for_alias(kind.arrow): name for name, kind in FLOAT_TYPES.items() if not kind.as_bits}
SIXTEEN_BITS = (pa.uint16(), pa.int16())  # may hold bfloat16 or float16
_BLOCK = 1 << 18  # bytes gathered at a time: stays in the second-level cache


def item_of(kind: pa.DataType) -> tuple[pa.DataType | None, int | None]:
    """Element type of a row-like column (uint8 for blobs) with its fixed length, or None if it is not row-like."""
    if isinstance(kind, pa.FixedShapeTensorType) and sum(extent != 1 for extent in kind.shape) > 1:
        return None, None
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pt.is_fixed_size_list(kind):
        return _unwrapped(kind.value_type), kind.list_size
    if pt.is_list(kind) or pt.is_large_list(kind) or _is_list_view(kind):
        return _unwrapped(kind.value_type), None
    if pt.is_fixed_size_binary(kind):
        return pa.uint8(), kind.byte_width
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return pa.uint8(), None
    return None, None


def _unwrapped(kind: pa.DataType) -> pa.DataType:
    """The type of elements; that inside of structs of one field, as DuckDB before 1.3 writes arrays to Parquet."""
    return kind.field(0).type if pt.is_struct(kind) and kind.num_fields == 1 else kind


def elements_of(child: pa.Array) -> pa.Array:
    """The elements of a column of lists, those inside of structs of one field."""
    child = storage(child)
    return storage(child.flatten()[0]) if pt.is_struct(child.type) and child.type.num_fields == 1 else child


def is_void(kind: pa.DataType) -> bool:
    """Whether a column of logits can hold none: it is null, or of lists of nulls, as writers make of empty shards."""
    return bool(pt.is_null(kind) or item_of(kind)[0] == pa.null())


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pt.is_list_view(kind) or pt.is_large_list_view(kind))


# ---- rows ------------------------------------------------------------------------------------------------------------


def as_rows(array: pa.Array, dtype: str, n_classes: int, what: str) -> tuple[Logits, dict[int, str]]:
    """(n, C) of a list or binary column, and what is wrong with the rows that are not C long and free of nulls.

    ``what`` names the numbers in those messages. All arithmetic is in bytes: blobs and lists are one case.
    """
    array = storage(array)
    if pt.is_binary_view(array.type):
        array = array.cast(pa.large_binary())
    stored = FLOAT_TYPES[dtype].stored
    if is_void(array.type):
        array = array.cast(pa.large_list(pa.from_numpy_dtype(stored)))
    n, width = len(array), n_classes * stored.itemsize
    data, first, starts, sizes, elements = _extents(array, stored.itemsize)
    if n == 0:
        return Logits(np.empty((0, n_classes), stored), dtype), {}
    if starts is None or sizes is None:  # rows of one size, each behind the other
        size = _row_bytes(array.type, stored.itemsize)
        uniform, last = size == width, first + n * size
    else:
        uniform = bool((sizes == width).all() and (np.diff(starts) == width).all())
        first, last = int(starts.min()), int((starts + sizes).max())
        if int(sizes.min()) < 0:
            first = -1
    if first < 0 or last > len(data):
        raise ColumnError(f"cannot read the {what} column: its rows point outside its values; write the file again")
    holes = 0 if elements is None else _nulls_within(elements, first // stored.itemsize, last // stored.itemsize)
    if uniform and not array.null_count and not holes:
        return Logits(data[first:last].view(stored).reshape(n, n_classes), dtype), {}
    if starts is None or sizes is None:
        starts = first + np.arange(n, dtype=np.int64) * size
        sizes = np.full(n, size, np.int64)
    bad = _bad_rows(array, starts, sizes, elements if holes else None, stored.itemsize, n_classes, what)
    return Logits(_copy_rows(data, starts, bad, n_classes, FLOAT_TYPES[dtype]), dtype), bad


def _row_bytes(kind: pa.DataType, itemsize: int) -> int:
    return int(kind.byte_width if pt.is_fixed_size_binary(kind) else kind.list_size * itemsize)


_Extents = tuple[np.ndarray, int, "np.ndarray | None", "np.ndarray | None", "pa.Array | None"]


def _extents(array: pa.Array, itemsize: int) -> _Extents:
    """Bytes of the values, first byte of the first row, start and size of each row (None where fixed), child array."""
    kind = array.type
    if pt.is_fixed_size_binary(kind):
        return _bytes(array.buffers()[1]), array.offset * kind.byte_width, None, None, None
    if pt.is_binary(kind) or pt.is_large_binary(kind):
        _, offset_buffer, value_buffer = array.buffers()
        width = np.dtype(np.int64 if pt.is_large_binary(kind) else np.int32)
        edges = _bytes(offset_buffer)[array.offset * width.itemsize :][: (len(array) + 1) * width.itemsize]
        offsets = edges.view(width).astype(np.int64)
        return _bytes(value_buffer), 0, offsets[:-1], np.diff(offsets), None
    child = elements_of(array.values)
    if child.type not in FLOATS and child.type not in SIXTEEN_BITS:
        raise ColumnError(f"lists of logits must hold float16, float32 or float64, got {child.type}")
    data = _bytes(child.buffers()[1])[child.offset * itemsize :][: len(child) * itemsize]
    if pt.is_fixed_size_list(kind):
        return data, array.offset * kind.list_size * itemsize, None, None, child
    offsets = array.offsets.to_numpy().astype(np.int64) * itemsize
    if _is_list_view(kind):
        return data, 0, offsets, array.sizes.to_numpy().astype(np.int64) * itemsize, child
    return data, 0, offsets[:-1], np.diff(offsets), child


def _bytes(buffer: pa.Buffer | None) -> np.ndarray:
    return np.frombuffer(buffer, np.uint8) if buffer is not None and buffer.size else np.empty(0, np.uint8)


def _nulls_within(elements: pa.Array, begin: int, end: int) -> int:
    return int(elements.slice(begin, end - begin).null_count)


def _bad_rows(
    array: pa.Array,
    starts: np.ndarray,
    sizes: np.ndarray,
    elements: pa.Array | None,
    itemsize: int,
    n_classes: int,
    what: str,
) -> dict[int, str]:
    """Index of each bad row -> what is wrong with it, in order."""
    null = ~np.asarray(array.is_valid()) if array.null_count else np.zeros(len(array), bool)
    odd = ~null & (sizes != n_classes * itemsize)
    bad = {int(i): f"{what} are null" for i in np.flatnonzero(null)}
    for i in np.flatnonzero(odd):
        size = int(sizes[i])
        length = f"{size // itemsize}" if size % itemsize == 0 else f"{size} bytes of"
        bad[int(i)] = f"{length} {what} where {n_classes} are expected"
    if elements is not None:
        lowest = int(starts.min()) // itemsize
        within = elements.slice(lowest, int((starts + sizes).max()) // itemsize - lowest)
        gaps = np.flatnonzero(np.asarray(within.is_null())) + lowest
        begin = np.searchsorted(gaps, starts // itemsize)
        held = np.searchsorted(gaps, (starts + sizes) // itemsize) > begin
        for i in np.flatnonzero(held & ~null & ~odd):
            bad[int(i)] = f"{what} hold a null, at class {gaps[begin[i]] - int(starts[i]) // itemsize}"
    return dict(sorted(bad.items()))


def _copy_rows(
    data: np.ndarray, starts: np.ndarray, bad: dict[int, str], n_classes: int, kind: FloatType
) -> np.ndarray:
    """Good rows in their places, NaN in the others."""
    out = np.empty((len(starts), n_classes), kind.stored)
    good = np.ones(len(starts), bool)
    good[list(bad)] = False
    out[~good] = kind.missing
    places = np.flatnonzero(good)
    if len(places):
        width = n_classes * kind.width
        windows = np.lib.stride_tricks.sliding_window_view(data, width)
        target = out.view(np.uint8).reshape(len(starts), width)
        step = max(1, _BLOCK // width)
        for begin in range(0, len(places), step):
            some = places[begin : begin + step]
            target[some] = windows[starts[some]]
    return out


def gather(arrays: list[pa.Array], names: Sequence[str], dtype: str) -> tuple[Logits, dict[int, str]]:
    """Return (n, C) from one column per class; a single column without nulls is a view."""
    stored = FLOAT_TYPES[dtype].stored
    n = len(arrays[0])
    bad: dict[int, str] = {}
    views = []
    for array, name in zip(map(storage, arrays), names, strict=True):
        if pt.is_null(array.type):
            array = pa.nulls(n, pa.from_numpy_dtype(stored))
        view = _bytes(array.buffers()[1])[array.offset * stored.itemsize :][: n * stored.itemsize].view(stored)
        if len(view) != n:
            raise ColumnError(f"cannot read the logits column {name!r}: its data is incomplete; write the file again")
        views.append(view)
        if array.null_count:
            for i in np.flatnonzero(np.asarray(array.is_null())):
                bad.setdefault(int(i), f"logits hold a null, in column {name!r}")
    if len(views) == 1 and not bad:
        return Logits(views[0][:, None], dtype), {}
    out = np.empty((n, len(arrays)), stored)
    step = max(64, _BLOCK // (len(arrays) * stored.itemsize))
    for begin in range(0, n, step):  # block by block: a column at once would touch every cache line C times
        for j, view in enumerate(views):
            out[begin : begin + step, j] = view[begin : begin + step]
    if bad:
        out[list(bad)] = FLOAT_TYPES[dtype].missing
    return Logits(out, dtype), dict(sorted(bad.items()))


# ---- the columns beside them -----------------------------------------------------------------------------------------

OUT_OF_RANGE = np.iinfo(np.int64).max - 1  # stands for a class that is none: no class id, no ignore_index in use


def is_soft(kind: pa.DataType) -> bool:
    """Whether a target column of that type holds a probability for each class."""
    item, _ = item_of(kind)
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return item is not None and hasattr(kind, "value_type")  # not binary


def soft_rows(array: pa.Array, n_classes: int) -> tuple[Logits, dict[int, str]]:
    """Soft targets, (n, C), and the rows that are no such row (null ones too: they are `array.is_null()`).

    Lists of floats, or of integers or bools, such as one-hot rows."""
    tag = array.type.tag if isinstance(array.type, FloatBits) else None
    item, size = item_of(array.type)
    array = storage(array)
    if tag is None and item is not None and (pt.is_integer(item) or pt.is_boolean(item)):
        of_float = pa.list_(pa.float64()) if size is None else pa.list_(pa.float64(), size)
        try:
            array = array.cast(of_float, safe=False)
        except pa.ArrowNotImplementedError:  # of list views
            item = None
        else:
            item = pa.float64()
    dtype = FLOATS.get(item) if tag is None else tag
    if dtype not in FLOAT_TYPES:
        raise ColumnError(
            "target must hold class ids, strings, or lists of floats (float16, bfloat16, float32, float64), integers "
            f"or bools, got {array.type if tag is None else f'lists of {tag}'}"
        )
    return as_rows(array, dtype, n_classes, "target probabilities")


def target_ids(array: pa.Array, ignore_index: int, classes: Sequence[str] | None) -> np.ndarray:
    """Class ids, (n,) int64. Null is ``ignore_index``, and so is NaN, which libraries without nulls write in its
    place; a value that can be no class id (a string that is not in ``classes``, a number that is not whole, or past
    int64) is `OUT_OF_RANGE`, and ``array[i].as_py()`` names it."""
    if isinstance(array.type, FloatBits):
        raise ColumnError(f"target must hold class ids, got {array.type.tag}; write integers")
    array = numbers(array, "target")
    if pt.is_dictionary(array.type):
        codes = target_ids(array.dictionary, ignore_index, classes)
        valid = np.asarray(array.is_valid())
        indices = np.asarray(array.indices.fill_null(0)).astype(np.int64)
        if not len(codes):
            return np.full(len(array), ignore_index, np.int64)
        return np.where(valid, codes[indices], ignore_index)
    kind = array.type
    if pt.is_null(kind):
        return np.full(len(array), ignore_index, np.int64)
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        if classes is None:
            raise ColumnError(
                "classes must be given, because target holds strings; name them in the order of the logits (--classes)"
            )
        found = pc.index_in(array.cast(pa.large_string()), value_set=pa.array(classes, pa.large_string()))
        ids = np.asarray(found.fill_null(-1)).astype(np.int64)
        ids[ids < 0] = OUT_OF_RANGE
    elif pt.is_boolean(kind):
        ids = np.asarray(array.fill_null(False)).astype(np.int64)
    elif pt.is_integer(kind):
        # to_numpy would import pandas, where it is installed: a third of a second
        stored = np.from_dlpack(array.fill_null(0) if array.null_count else array)
        stored = np.minimum(stored, OUT_OF_RANGE) if stored.dtype == np.uint64 else stored
        ids = stored.astype(np.int64, copy=False)
    elif pt.is_float32(kind) or pt.is_float64(kind):
        ids = _whole(np.asarray(array.fill_null(0.0)), ignore_index)
    elif pt.is_decimal(kind):
        encoded = (array.cast(pa.decimal128(18, kind.scale)) if kind.bit_width < 128 else array).dictionary_encode()
        distinct = [_whole_decimal(value) for value in encoded.dictionary.to_pylist()]
        ids = np.array([*distinct, 0], np.int64)[np.asarray(encoded.indices.fill_null(len(distinct)))]
    else:
        raise ColumnError(
            "target must hold integers, whole numbers of float32, float64 or decimal, strings, or lists of "
            f"probabilities, got {kind}"
        )
    return np.where(np.asarray(array.is_null()), ignore_index, ids) if array.null_count else ids


def _whole(values: np.ndarray, ignore_index: int) -> np.ndarray:
    """Class ids that are stored as floats."""
    with np.errstate(invalid="ignore"):
        whole = (np.abs(values) < 2.0**63) & (values == np.rint(values))
    ids = np.where(whole, values, 0).astype(np.int64)
    ids[~whole] = OUT_OF_RANGE
    ids[np.isnan(values)] = ignore_index
    return ids


def _whole_decimal(value: Decimal) -> int:
    return int(value) if abs(value) < OUT_OF_RANGE and value == int(value) else OUT_OF_RANGE


def float_column(array: pa.Array, name: str, where: Where | None = None) -> np.ndarray:
    """A column of numbers as float64, (n,). A null is an error that names its row (in the file, given ``where``)."""
    array = numbers(array, name)
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind) or pt.is_decimal(kind)):
        raise ColumnError(f"column {name!r} must hold numbers, got {kind}")
    if array.null_count:
        index = int(np.flatnonzero(np.asarray(array.is_null()))[0])
        if where is not None:
            raise BadRowError(where, index, f"column {name!r} is null")
        raise ColumnError(f"column {name!r} must not be null, got null in row {index} of the batch")
    return np.asarray(decimal_floats(array) if pt.is_decimal(kind) else array.cast(pa.float64(), safe=False))
