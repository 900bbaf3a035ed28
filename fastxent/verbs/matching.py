"""Rows of dumps matched by their ids, which are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.errors import ColumnError, SourceError
from fastxent.io.source import OpenSource
from fastxent.io.values import FloatBits, numbers
from fastxent.state.keys import EncodedColumn

_ROWS, _BYTES = 1 << 16, 1 << 20  # of a batch of columns without scores
_MATCHING_BYTES = 48  # of a row, beside its ids, while rows are matched


@dataclass(frozen=True)
class Matching:
    """The place of each row of two dumps among the rows that both have, in the order of the first dump; -1 for none."""

    places: tuple[np.ndarray, np.ndarray]
    rows: int

    @property
    def only(self) -> tuple[int, int]:
        """Rows that only one dump has."""
        return len(self.places[0]) - self.rows, len(self.places[1]) - self.rows


def order_of(places: np.ndarray) -> np.ndarray:
    """The row at each place, of the place of each row or -1; of the same integer type."""
    order = np.empty(np.count_nonzero(places >= 0), places.dtype)
    for begin in range(0, len(places), _ROWS):
        part = places[begin : begin + _ROWS]
        found = np.flatnonzero(part >= 0)
        order[part[found]] = begin + found
    return order


def match(ids: tuple[pa.Table, pa.Table], files: tuple[str, str], *, inner: bool) -> Matching:
    """Match rows by their ids.

    ids: the id columns of either dump, in the order of its rows.
    files: names of the dumps, for errors.
    inner: bool. Rows that only one dump has are allowed.

    Raises:
        ColumnError: ids are null, or not of one kind.
        SourceError: an id occurs twice, or not in both dumps unless ``inner``.
    """
    for table, file in zip(ids, files, strict=True):
        for name in table.column_names:
            if table[name].null_count:
                row = pc.index(table[name].is_null(), True).as_py()
                raise null_ids(file, name, table[name].null_count, row)
    check_kinds(ids, files)
    pairs = pairs_of(ids)
    for table, file, (count, row) in zip(ids, files, pairs.twice, strict=True):
        if count:
            raise twice_error(file, count, row, shown_id(table, row))
    partner = no_rows(len(ids[0]), most=len(ids[1]))
    partner[pairs.rows[0]] = pairs.rows[1]
    shown = (partial(shown_id, ids[0]), partial(shown_id, ids[1]))
    return matching_of(partner, len(ids[1]), files, shown, inner=inner)


class Pairs(NamedTuple):
    """rows: the rows with the same id, of either dump. twice: for each dump, in how many rows an id comes again, and
    the first of these."""

    rows: tuple[np.ndarray, np.ndarray]
    twice: tuple[tuple[int, int], tuple[int, int]]


def pairs_of(ids: tuple[pa.Table, pa.Table]) -> Pairs:
    """Find the rows with the same ids. ``rows`` mean nothing where an id comes twice."""
    codes = _codes(*ids)
    order = tuple(np.argsort(each, kind="stable") for each in codes)
    ranked = tuple(each[at] for each, at in zip(codes, order, strict=True))
    twice = []
    for each, at in zip(ranked, order, strict=True):
        again = at[np.flatnonzero(each[1:] == each[:-1]) + 1]
        twice.append((len(again), int(again.min(initial=len(at)))))
    if any(count for count, _ in twice):
        return Pairs((order[0][:0], order[1][:0]), (twice[0], twice[1]))
    _, left, right = np.intersect1d(ranked[0], ranked[1], assume_unique=True, return_indices=True)
    return Pairs((order[0][left], order[1][right]), (twice[0], twice[1]))


def no_rows(count: int, most: int) -> np.ndarray:
    """(count,) of -1, of an integer type that holds numbers of as many and of ``most`` rows: there may be many."""
    return np.full(count, -1, np.int32 if max(count, most) <= np.iinfo(np.int32).max else np.int64)


def matching_of(
    partner: np.ndarray,
    total: int,
    files: tuple[str, str],
    shown: tuple[Callable[[int], str], Callable[[int], str]],
    *,
    inner: bool,
) -> Matching:
    """The matching of rows that are the same ones; `SourceError` for others unless ``inner``.

    partner: of `no_rows`. For each row of the first dump that of the second with the same id, or -1.
    total: the number of rows of the second dump.
    shown: functions of a row: its id, for errors.
    """
    matched = partner >= 0
    place = np.cumsum(matched, dtype=partner.dtype)
    place -= 1
    rows = int(np.count_nonzero(matched))
    other = no_rows(total, most=len(partner))
    if rows == len(partner):
        other[partner] = place
    else:
        other[partner[matched]] = place[matched]
        place[~matched] = -1
    matching = Matching((place, other), rows)
    if not inner:
        for i, only in enumerate(matching.only):
            if only:
                first = int(np.argmax(matching.places[i] < 0))
                raise SourceError(
                    f"both dumps must have the same ids, got {only} in {files[i]} that are not in {files[1 - i]}, the "
                    f"first {shown[i](first)} in row {first}; how='inner' (--how inner) uses the rows of both"
                )
    return matching


def null_ids(file: str, name: str, count: int, row: int) -> ColumnError:
    """The error of ids that are null."""
    return ColumnError(f"ids must not be null, got {count} nulls in column {name!r} of {file}, the first in row {row}")


def twice_error(file: str, count: int, row: int, shown: str) -> SourceError:
    """The error of ids that come again."""
    return SourceError(
        f"ids must be unique, got {count} rows in {file} whose id an earlier row has, the first with id {shown} in "
        f"row {row}"
    )


class TooManyIds(SourceError):
    """Ids that do not fit in memory."""


def too_many_ids(file: str) -> TooManyIds:
    """The error of ids that do not fit in memory."""
    return TooManyIds(
        f"cannot match the rows of {file} by id: the ids of all dumps must fit in memory; "
        "raise memory (--memory), or put the dumps in one order and omit on"
    )


def common(matchings: Sequence[Matching]) -> tuple[list[np.ndarray], int]:
    """(the places of the rows that all dumps have, of the first dump and of each other; how many rows these are).

    matchings: of the first dump with each other.
    """
    if len(matchings) == 1:
        return [*matchings[0].places], matchings[0].rows
    everywhere = np.all([matching.places[0] >= 0 for matching in matchings], axis=0)
    rows = int(everywhere.sum())
    first = np.where(everywhere, np.cumsum(everywhere) - 1, -1)
    found = [first]
    for matching in matchings:
        row = np.empty(matching.rows, np.int64)  # of the first dump, by the place in this matching
        matched = np.flatnonzero(matching.places[0] >= 0)
        row[matching.places[0][matched]] = matched
        place = matching.places[1]
        found.append(np.where(place >= 0, first[row[place]] if matching.rows else -1, -1))
    return found, rows


def shown_id(table: pa.Table, row: int) -> str:
    values = [repr(column[int(row)].as_py()) for column in table.columns]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def check_kinds(ids: tuple[pa.Table, pa.Table], files: tuple[str, str]) -> None:
    """`ColumnError` if a column holds numbers or booleans in one table, and other values in the other: no id of one
    could be in the other."""
    if not all(map(len, ids)):
        return
    for name in ids[0].column_names:
        kinds = [table[name].type for table in ids]
        kinds = [kind.value_type if pt.is_dictionary(kind) else kind for kind in kinds]
        if len({(_is_number(kind), pt.is_boolean(kind)) for kind in kinds}) > 1:
            raise ColumnError(
                f"ids must have one type in both sources, got column {name!r} of type {kinds[0]} in {files[0]} and "
                f"{kinds[1]} in {files[1]}; convert one"
            )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _codes(a: pa.Table, b: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """One integer per row of either table; rows have the same one if all their values are the same."""
    codes: tuple[np.ndarray, np.ndarray] | None = None
    for name in a.column_names:
        sides = _numbered(a[name], b[name], name)
        if codes is not None:  # the pairs of the codes so far and of this column, numbered anew
            both = np.stack([np.concatenate(codes), np.concatenate(sides)])
            joined = np.unique(both, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
            sides = joined[: len(a)], joined[len(a) :]
        codes = sides
    assert codes is not None
    return codes


def _numbered(a: pa.ChunkedArray, b: pa.ChunkedArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column of either dump as integers: whole numbers as they are, others by what is equal."""
    columns = [_decoded(column) for column in (a, b)]
    kinds = [column.type for column in columns]
    if all(pt.is_integer(kind) and kind != pa.uint64() for kind in kinds):
        found = [column.cast(pa.int64()).to_numpy(zero_copy_only=False) for column in columns]
        return found[0], found[1]
    if not all(map(_is_text, kinds)):  # one value is one key, whatever Arrow type holds it
        encoded = [EncodedColumn.of(column, name, "match rows") for column in columns]
        columns = [pa.array(each.keys, pa.large_string()).take(pa.array(each.index)) for each in encoded]
    texts = [column.cast(pa.large_string()) for column in columns]
    codes = pa.concat_arrays(texts).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes[: len(a)], codes[len(a) :]


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    return whole.dictionary_decode() if pt.is_dictionary(whole.type) else whole


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or kind == pa.string_view())


def ids_of(sides: Sequence[OpenSource], names: Sequence[str], memory: int) -> list[pa.Table]:
    """The id columns of all dumps. `TooManyIds` if these and their order do not fit in ``memory`` bytes."""
    found: list[pa.Table] = []
    for side in sides:
        found.append(columns_of(side, names, memory))
        memory -= _taken(found[-1])
    return found


def _taken(table: pa.Table) -> int:
    return int(table.nbytes) + _MATCHING_BYTES * len(table)


def columns_of(source: OpenSource, names: Sequence[str], memory: int | None = None) -> pa.Table:
    """Some columns of all rows, in the order of the dump; with ``memory``, only if they can be matched within it."""
    tables, taken = [], 0
    for table in batches_of(source, names):
        tables.append(table)
        taken += _taken(table)
        if memory is not None and taken > memory:
            raise too_many_ids(source.files[0])
    if not tables:
        return pa.table({name: pa.nulls(0) for name in names})
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ColumnError(
            f"columns {', '.join(map(repr, names))} must have one type in all files, because rows are put in "
            f"another order ({str(error).splitlines()[0]}); convert one"
        ) from None


def batches_of(source: OpenSource, names: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of all rows, batch by batch."""
    for unit in source.columns_only().units():
        for batch in unit.read(_ROWS, _BYTES, whole=True):
            yield pa.table({name: _plain(batch.columns[name], name) for name in names})


def _plain(column: pa.Array, name: str) -> pa.Array:
    """A column without dictionaries, which differ between batches, and with the floats of bits."""
    if isinstance(column.type, FloatBits) and not pt.is_integer(column.type.storage_type):
        raise ColumnError(
            f"column {name!r} must hold float32 lists where rows are matched, got {column.type.tag}; convert it"
        )
    column = numbers(column, name)
    return column.dictionary_decode() if pt.is_dictionary(column.type) else column
