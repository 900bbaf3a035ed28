"""Columns of labels, of which any number hold in a row: lists of flags, or lists of the ids that hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.columns import float_column, target_ids
from fastxent.io.lists import lists_of

WrongLabel = dict[int, str]  # row -> what is wrong with it


def flags_of(array: pa.Array, n_labels: int, ignore_index: int) -> tuple[np.ndarray, WrongLabel]:
    """((n, C) of 0, 1 or a probability, what is wrong with rows that hold anything else).

    A label that is null, NaN or ``ignore_index`` is NaN: ignored. So are all labels of a null row.
    """
    child, starts, sizes = lists_of(array, _wrong_type(array.type), "target")
    kind = child.type
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind) or pt.is_null(kind)):
        raise _wrong_type(array.type)
    valid = np.asarray(array.is_valid())
    fitting = valid & (sizes == n_labels)
    numbers = np.full(len(child), np.nan)
    present = np.asarray(child.is_valid())
    if not pt.is_null(kind):
        numbers[present] = float_column(child.drop_null(), "target")
    if len(array) and fitting.all() and (np.diff(starts) == n_labels).all():
        found = numbers[starts[0] : starts[0] + len(array) * n_labels].reshape(len(array), n_labels)
    else:
        found = np.full((len(array), n_labels), np.nan)
        found[fitting] = numbers[starts[fitting, None] + np.arange(n_labels)]
    found[found == ignore_index] = np.nan
    wrong = {
        int(i): f"the target has {sizes[i]} entries, but there are {n_labels} labels; for lists of the ids that hold, "
        "use target_ids=True (--target-ids)"
        for i in np.flatnonzero(valid & ~fitting)
    }
    outside = (found < 0.0) | (found > 1.0)
    for i in np.flatnonzero(outside.any(axis=1)):
        label = int(outside[i].argmax())
        wrong[int(i)] = f"the target of label {label} is {found[i, label]:g}, not 0, 1 or a probability"
    return found, wrong


def ids_of(
    array: pa.Array, n_labels: int, ignore_index: int, names: Sequence[str] | None
) -> tuple[np.ndarray, WrongLabel]:
    """((n, C) of 1 for the labels of each list and 0 for the others, what is wrong with rows that hold anything else).

    Ids that are null or ``ignore_index`` are padding. All labels of a null row are NaN: ignored.
    """
    child, starts, sizes = lists_of(array, _wrong_type(array.type), "target")
    ids = target_ids(child, ignore_index, names)
    valid = np.asarray(array.is_valid())
    sizes = np.where(valid, sizes, 0)
    row = np.repeat(np.arange(len(array)), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(starts, sizes)
    ids = ids[place]
    row, place, ids = (values[ids != ignore_index] for values in (row, place, ids))
    inside = (ids >= 0) & (ids < n_labels)
    times = np.zeros((len(array), n_labels))
    np.add.at(times, (row[inside], ids[inside]), 1.0)
    wrong: WrongLabel = {}
    outside, first = np.unique(row[~inside], return_index=True)
    for i, k in zip(outside, place[~inside][first], strict=True):
        value = child[int(k)].as_py()
        among = "the classes" if isinstance(value, str) else f"the {n_labels} labels 0..{n_labels - 1}"
        wrong[int(i)] = f"target {value!r} is not among {among}"
    for i in np.flatnonzero((times > 1.0).any(axis=1)):
        wrong.setdefault(
            int(i),
            f"label {int((times[i] > 1.0).argmax())} is there twice; for lists of 0 and 1, omit target_ids "
            "(--target-ids)",
        )
    times[~valid] = np.nan
    return times, wrong


def _wrong_type(kind: pa.DataType) -> ColumnError:
    return ColumnError(
        "target must hold lists of 0 and 1, bools or probabilities, one per label, or with target_ids=True "
        f"(--target-ids) lists of the ids that hold, for task='multilabel', got {kind}"
    )
