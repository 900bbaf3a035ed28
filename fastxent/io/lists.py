"""Columns of lists: the elements of all rows, and where each row lies in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.columns import elements_of, float_column, item_of, target_ids
from fastxent.io.values import FloatBits, numbers, storage
from fastxent.kernels.rows.listed import BELOW_CUT

_PRECISION = {"halffloat": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def lists_of(array: pa.Array, wrong: ColumnError, name: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """(the elements of all rows, the first of each row, how many each row has). ``wrong`` is raised for what holds no
    lists."""
    kind, array = array.type, storage(array)
    if isinstance(kind, FloatBits) or not hasattr(array.type, "value_type") or item_of(array.type)[0] is None:
        raise wrong
    if pt.is_fixed_size_list(array.type):
        size = array.type.list_size
        child = array.values.slice(array.offset * size, len(array) * size)
        return elements_of(child), np.arange(len(array)) * size, np.full(len(array), size)
    if pt.is_list(array.type) or pt.is_large_list(array.type):
        offsets = array.offsets.to_numpy().astype(np.int64)
        starts, sizes = offsets[:-1], np.diff(offsets)
    else:  # list views
        starts, sizes = (np.asarray(part).astype(np.int64) for part in (array.offsets, array.sizes))
    valid = np.asarray(array.is_valid())
    starts, sizes = np.where(valid, starts, 0), np.where(valid, sizes, 0)
    first = int(starts[sizes > 0].min(initial=len(array.values)))
    last = int((starts + sizes).max(initial=0))
    if first < 0 or (sizes < 0).any() or last > len(array.values):
        raise ColumnError(f"cannot read the {name} column: its rows point outside its values; write the file again")
    child = array.values.slice(first, max(0, last - first))
    return elements_of(child), np.maximum(starts - first, 0), sizes


class Listed(NamedTuple):
    """Rows of ids and log-probabilities.

    starts, sizes: int64 (n,). The first entry and the number of entries of each row.
    ids: int64 entries. Strings without class names are numbered by their first use.
    logprobs: float64 entries. A null is below the cut.
    texts: the entries of such ids as they are, encoded; or None.
    wrong: row -> what is wrong with it. Such a row has no entries.
    precision: of the log-probabilities, relative.
    """

    starts: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray
    logprobs: np.ndarray
    texts: pa.DictionaryArray | None
    wrong: dict[int, str]
    precision: float


def listed_rows(ids: pa.Array, logprobs: pa.Array, names: tuple[str, str], classes: Sequence[str] | None) -> Listed:
    """The rows of two columns of lists. ``names``: of the columns. ``classes``: the names of the classes, if ids are
    strings of these."""
    wrong_ids = ColumnError(f"ids column {names[0]!r} must hold lists of integers or strings, got {ids.type}")
    wrong_numbers = ColumnError(f"logits column {names[1]!r} must hold lists of floats beside ids, got {logprobs.type}")
    for column, name in ((ids, names[0]), (logprobs, names[1])):
        _prove(column, name)
    of_ids, starts, sizes = lists_of(ids, wrong_ids, names[0])
    if isinstance(logprobs.type, FloatBits):
        tag, stored = logprobs.type.tag, storage(logprobs)
        found, begins, counts = lists_of(stored, wrong_numbers, names[1])
        of_numbers, precision = pa.ExtensionArray.from_storage(FloatBits(found.type, tag), found), _PRECISION.get(tag)
    else:
        of_numbers, begins, counts = lists_of(logprobs, wrong_numbers, names[1])
        precision = _PRECISION.get(str(of_numbers.type))
    of_numbers = numbers(of_numbers, names[1])
    if not (pt.is_floating(of_numbers.type) or pt.is_null(of_numbers.type)):
        raise wrong_numbers
    wrong = {}
    missing = ~(np.asarray(ids.is_valid()) & np.asarray(logprobs.is_valid()))
    for i in np.flatnonzero(missing | (sizes != counts)):
        why = "its list is null" if missing[i] else f"it lists {sizes[i]} ids and {counts[i]} log-probabilities"
        wrong[int(i)] = why
    if wrong or not np.array_equal(starts, begins):
        sizes = np.where(missing | (sizes != counts), 0, sizes)
        ends = np.cumsum(sizes)
        shift = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        of_ids = of_ids.take(pa.array(shift + np.repeat(starts, sizes)))
        of_numbers = of_numbers.take(pa.array(shift + np.repeat(begins, sizes)))
        starts = ends - sizes
    texts = None
    kind = of_ids.type.value_type if pt.is_dictionary(of_ids.type) else of_ids.type
    if classes is None and _is_text(kind):
        texts = of_ids.cast(pa.large_string()).dictionary_encode()
        numbered = np.asarray(texts.indices.fill_null(-1)).astype(np.int64)
    elif _is_text(kind) or pt.is_integer(kind) or pt.is_null(kind):
        numbered = target_ids(of_ids, -1, classes)
    else:
        raise wrong_ids
    absent = np.asarray(of_numbers.is_null()) if of_numbers.null_count else None
    found = np.full(len(of_numbers), BELOW_CUT)
    if not pt.is_null(of_numbers.type):
        found[... if absent is None else ~absent] = float_column(of_numbers.drop_null(), names[1])
    return Listed(starts, sizes, numbered, found, texts, wrong, precision or 2.0**-24)


def _prove(column: pa.Array, name: str) -> None:
    """`ColumnError` for lists whose offsets, texts or indices are damaged."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        detail = " ".join(str(error).split())
        raise ColumnError(f"cannot read column {name!r}: {detail}; write the file again") from None


def places_of(texts: pa.DictionaryArray, targets: pa.Array, name: str) -> np.ndarray:
    """The number of each target among the distinct texts, (n,): -1 for a null, -2 for one that is not among them."""
    kind = targets.type.value_type if pt.is_dictionary(targets.type) else targets.type
    if pt.is_null(kind):
        return np.full(len(targets), -1)
    if not _is_text(kind):
        raise ColumnError(
            f"target column {name!r} must hold strings like the ids, got {targets.type}; name the classes in order "
            "(--classes) if it holds their numbers"
        )
    found = pc.index_in(targets.cast(pa.large_string()), value_set=texts.dictionary)
    numbered = np.asarray(found.fill_null(-2)).astype(np.int64)
    return np.where(np.asarray(targets.is_null()), -1, numbered)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))
