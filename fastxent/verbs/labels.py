"""Targets from another source: the rows of a table, matched with those of a dump by ids or by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from fastxent.errors import ColumnError, ConfigError, SourceError
from fastxent.io.arrays import ArraysPart
from fastxent.io.documents import position_field
from fastxent.io.joined import Join, JoinedPart, MadeSource
from fastxent.io.lists import lists_of
from fastxent.io.parts import Part, find_parts
from fastxent.io.source import OpenSource, full_schema, open_source
from fastxent.io.values import tag_of
from fastxent.verbs.matching import columns_of, ids_of, match, order_of, shown_id


def labelled(source: Any, options: Mapping[str, Any], *, matches_dumps: bool = False) -> Any:
    """The source, with the columns of the option ``targets`` beside its own.

    matches_dumps: bool. The option ``on`` is also of use without ``targets``.
    """
    targets, on = options.get("targets"), tuple(options.get("on") or ())
    if targets is None:
        if on and not matches_dumps:
            raise ConfigError("on requires targets, because it names the columns by which their rows are matched")
        return source
    return MadeSource(lambda named: _joined(find_parts(source, named), find_parts(targets), on, options))


def _joined(parts: list[Part], others: list[Part], on: tuple[str, ...], options: Mapping[str, Any]) -> list[Any]:
    """The parts of a dump, joined with those of a table."""
    for part in (*parts, *others):
        if part.lines:
            raise SourceError(f"targets cannot be combined with {part.name}, of which a line or a row holds many rows")
        if part.consumed is not None:
            raise SourceError(f"cannot read {part.name} twice: it is a stream; pass a Table or a file instead")
    table = _opened(others, on)
    if on:
        dump = _opened(parts, on)
        order, notes = _by_ids(dump, table, on, int(options["memory"]))
        known = len(order) if len(parts) == 1 else None
    else:
        order, notes, known = None, (), None
    counts = [_rows(part) if known is None else known for part in parts]
    rows = _rows(*others) if order is None else len(order)
    arrays = [part for part in parts if isinstance(part, ArraysPart) and part.steps is not None]
    steps = None
    if order is None and rows != sum(counts) and len(arrays) == len(parts) and rows == _documents(arrays):
        if len({part.steps for part in arrays}) > 1 or options.get("shift"):
            raise SourceError(
                f"targets must have one row for each position of {parts[0].name}, got {rows} in {table.files[0]}, one "
                "per document; put targets of shape (N, T) into the dump, beside its logits"
            )
        steps = arrays[0].steps
        rows *= steps or 1
    if sum(counts) != rows:
        raise SourceError(
            f"targets must have one row for each row of the dump, got {rows} in {table.files[0]} and {sum(counts)} in "
            f"{parts[0].name}; name the columns that identify a row with on (--on)"
        )
    join = _join(others, table.files[0], on, order, notes, steps)
    starts = [0, *np.cumsum(counts).tolist()]
    joins = [join, *[replace(join, files=(), notes=())] * (len(parts) - 1)]
    return [
        JoinedPart(part, each, first, n) for part, each, first, n in zip(parts, joins, starts[:-1], counts, strict=True)
    ]


def _documents(parts: list[ArraysPart]) -> int:
    return sum(part.documents or 0 for part in parts)


def _opened(parts: list[Part], columns: Sequence[str]) -> OpenSource:
    return open_source(MadeSource(lambda named: parts), logits=None, columns=columns)


def _by_ids(
    dump: OpenSource, table: OpenSource, on: tuple[str, ...], memory: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(the row of the table for each row of the dump, warnings)."""
    ids = ids_of([dump, table], on, memory)
    files = dump.files[0], table.files[0]
    matching = match((ids[0], ids[1]), files, inner=True)
    missing, unused = matching.only
    if missing:
        first = int(np.argmax(matching.places[0] < 0))
        raise SourceError(
            f"targets must have the id of each row of the dump, got {missing} in {files[0]} that are not in "
            f"{files[1]}, the first {shown_id(ids[0], first)} in row {first}"
        )
    places = matching.places[1]
    notes = (f"{unused} of {len(places)} rows of {files[1]} have an id that no row of the dump has",) if unused else ()
    return order_of(places), notes


def _rows(*parts: Part) -> int:
    """The number of rows of parts, which are read if they do not tell it."""
    total = 0
    for part in parts:
        if part.rows is not None:
            total += part.rows
            continue
        units = _opened([part], ()).columns_only().units()
        total += sum(batch.rows for unit in units for batch in unit.read(1 << 16, 1 << 20, True))
    return total


def _join(
    parts: list[Part],
    name: str,
    on: tuple[str, ...],
    order: np.ndarray | None,
    notes: tuple[str, ...],
    steps: int | None,
) -> Join:
    """The table of ``parts``. ``order``: its row for each row of the dump; None for all rows as they are.
    ``steps``: the number of positions, if it has a row for each document.
    """
    kept: dict[tuple[str, ...], pa.Table] = {}
    rows = _rows(*parts)

    def read(names: tuple[str, ...]) -> pa.Table:
        if names not in kept:
            opened = _opened(parts, names)
            table = columns_of(opened, names) if names else pa.table({"": pa.nulls(rows)})
            if len(table) != rows:
                raise SourceError(f"cannot read {name} twice: it had {rows} rows, then {len(table)}")
            table = table if order is None else table.take(pa.array(order))
            table = table if steps is None else _by_position(table, steps, name)
            kept[names] = table.combine_chunks() if names else table.select([])
        return kept[names]

    schema = [_plain_field(field) for field in full_schema(parts) if field.name not in on]
    if steps is not None:
        schema = [position_field(field) or field for field in schema]
    files = tuple({file.name: file for part in parts for file in part.inputs}.values())
    return Join(name, pa.schema(schema), read, files, notes)


def _by_position(table: pa.Table, steps: int, file: str) -> pa.Table:
    """A table with a row for each document as one with a row for each position: lists have a value for each."""
    document, found = np.repeat(np.arange(len(table)), steps), {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if position_field(field) is None:
            found[field.name] = column.take(pa.array(document))
            continue
        wrong = ColumnError(f"column {field.name!r} of {file} must hold lists, got {field.type}")
        values, starts, sizes = lists_of(column, wrong, field.name)
        missing = np.asarray(column.is_null())
        other = np.flatnonzero(~missing & (sizes != steps))
        if len(other):
            raise ColumnError(
                f"lists of column {field.name!r} of {file} must have {steps} values, one per position of a document, "
                f"got {sizes[other[0]]} in row {other[0]}"
            )
        places = (np.where(missing, 0, starts)[:, None] + np.arange(steps)).ravel()
        found[field.name] = values.take(pa.array(places, mask=np.repeat(missing, steps)))
    return pa.table(found)


def _plain_field(field: pa.Field) -> pa.Field:
    """The field of a column as `columns_of` reads it."""
    return pa.field(field.name, pa.float32()) if tag_of(field) and pt.is_integer(field.type) else field
