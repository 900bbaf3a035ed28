"""Lists that a dump holds in another way: as a field of lists of structs (``top.id`` of lists of ``{id, logprob}``), or
side by side in numbered columns (``logprob_*`` of ``logprob_1``, ``logprob_2``, ...)."""

from __future__ import annotations

import fnmatch

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError
from fastxent.io.families import expand
from fastxent.io.values import storage
from fastxent.names import is_unicode


def stored_field(schema: pa.Schema, name: str) -> pa.Field | None:
    """The field of that name; ``a.b`` reaches into struct columns where no column is itself called so."""
    if not is_unicode(name):
        return None
    found = schema.get_all_field_indices(name)
    if len(found) > 1:
        raise ColumnError(f"columns must have different names, got {name!r} {len(found)} times; rename all but one")
    if found:
        return schema.field(found[0])
    head, dot, tail = name.rpartition(".")
    parent = stored_field(schema, head) if dot else None
    if parent is None or not pt.is_struct(parent.type) or parent.type.get_field_index(tail) < 0:
        return None
    return parent.type.field(parent.type.get_field_index(tail))


def made_names(schema: pa.Schema, name: str) -> tuple[str, ...]:
    """The columns that hold the lists ``name``; none if there are no such lists, or if they are a column."""
    if not is_unicode(name) or stored_field(schema, name) is not None:
        return ()
    if _is_glob(name):
        return expand(schema, name, "this dump") if fnmatch.filter(schema.names, name) else ()
    head, dot, tail = name.rpartition(".")
    parent = stored_field(schema, head) if dot else None
    held = None if parent is None else struct_of(parent.type)
    return () if held is None or held.get_field_index(tail) < 0 else (head,)


def made_field(schema: pa.Schema, name: str) -> pa.Field | None:
    """The field of the lists ``name``, or None if there are no such lists."""
    names = made_names(schema, name)
    if not names:
        return None
    if not _is_glob(name):
        parent = stored_field(schema, names[0])
        held = None if parent is None else struct_of(parent.type)
        assert held is not None
        return pa.field(name, pa.list_(held.field(held.get_field_index(name.rpartition(".")[2])).type))
    first, *others = (schema.field(column) for column in names)
    for other in others:
        if other.type != first.type:
            raise ColumnError(
                f"the columns {name!r} must have one type, got {first.type} for {first.name!r} and {other.type} for "
                f"{other.name!r}"
            )
    return pa.field(name, pa.list_(first.type))


def side_by_side(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The lists of the columns that match a glob. A null is no element: rows may have fewer."""
    arrays = [storage(batch.column(column)) for column in expand(batch.schema, name, "this dump")]
    n, k = len(batch), len(arrays)
    values = pa.concat_arrays(arrays).take(pa.array((np.arange(n)[:, None] + np.arange(k) * n).ravel()))
    held = np.asarray(values.is_valid()).reshape(n, k)
    ends = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values.drop_null())


def of_structs(lists: pa.Array, name: str) -> pa.Array:
    """The lists of a field of lists of structs."""
    lists = storage(lists)
    if pt.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        inner = lists.values.slice(lists.offset * size, len(lists) * size)
        edges = np.arange(len(lists) + 1) * size
    else:
        inner, edges = lists.values, np.array(lists.offsets)
    found = inner.flatten()[inner.type.get_field_index(name)]
    mask = pa.array(np.array(lists.is_null())) if lists.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(edges.astype(np.int64)), found, mask=mask)


def _is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def struct_of(kind: pa.DataType) -> pa.StructType | None:
    """The type of the structs of a column of lists."""
    of_lists = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return kind.value_type if of_lists and pt.is_struct(kind.value_type) else None
