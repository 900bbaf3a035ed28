"""Rows of two dumps matched by their ids: the second dump in the order of the first, for `compare`.

The ids of both dumps are read first, and say where each row goes. Then the scores of a dump that is in another order
are read once, in the order of its file, and each row is put in its place in memory, if all of them fit in half of the
limit. Else they go to a temporary file in buckets: neighbours of the new order lie near each other there, so that both
writes and reads are of many rows. Ids and the other columns stay in memory.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fastxent.engine.loop import Loop
from fastxent.errors import BadRowError, ColumnError, SourceError
from fastxent.io.arrays import ArraysPart, Gathered, Held
from fastxent.io.batch import Batch
from fastxent.io.buckets import Buckets
from fastxent.io.hidden import HiddenSource
from fastxent.io.source import OpenSource, open_source
from fastxent.io.values import FloatBits, numbers
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.state.coverage import Coverage
from fastxent.state.keys import EncodedColumn

_ROWS, _BYTES = 1 << 16, 1 << 20  # of a batch of columns without scores
_MATCHING_BYTES = 48  # of a row, beside its ids, while rows are matched
SCORES = "scores"  # the column of scores of a dump in its new order, unless another has this name


@dataclass(frozen=True)
class Matching:
    """The place of each row of two dumps among the rows that both have, in the order of the first dump; -1 for none."""

    places: tuple[np.ndarray, np.ndarray]
    rows: int

    @property
    def only(self) -> tuple[int, int]:
        """Rows that only one dump has."""
        return len(self.places[0]) - self.rows, len(self.places[1]) - self.rows


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
                raise ColumnError(
                    f"ids must not be null, got {table[name].null_count} nulls in column {name!r} of {file}, the first "
                    f"in row {row}"
                )
    _check_kinds(ids, files)
    codes = _codes(*ids)
    order = tuple(np.argsort(each, kind="stable") for each in codes)
    ranked = tuple(each[at] for each, at in zip(codes, order, strict=True))
    for table, file, each, at in zip(ids, files, ranked, order, strict=True):
        twice = np.flatnonzero(each[1:] == each[:-1])
        if twice.size:
            first = at[twice + 1].min()
            raise SourceError(
                f"ids must be unique, got {twice.size} rows in {file} whose id an earlier row has, the first with id "
                f"{shown_id(table, first)} in row {first}"
            )
    _, left, right = np.intersect1d(ranked[0], ranked[1], assume_unique=True, return_indices=True)
    rows = order[0][left], order[1][right]
    by_first = np.argsort(rows[0])
    places = tuple(np.full(len(each), -1, np.int64) for each in codes)
    for place, found in zip(places, rows, strict=True):
        place[found[by_first]] = np.arange(len(by_first))
    matching = Matching((places[0], places[1]), len(by_first))
    if not inner:
        for i, only in enumerate(matching.only):
            if only:
                first = int(np.argmax(places[i] < 0))
                raise SourceError(
                    f"both dumps must have the same ids, got {only} in {files[i]} that are not in {files[1 - i]}, the "
                    f"first {shown_id(ids[i], first)} in row {first}; how='inner' (--how inner) uses the rows of both"
                )
    return matching


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


def _check_kinds(ids: tuple[pa.Table, pa.Table], files: tuple[str, str]) -> None:
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


# ---- columns and scores in their new order ---------------------------------------------------------------------------


def ids_of(sides: Sequence[OpenSource], names: Sequence[str], memory: int) -> list[pa.Table]:
    """The id columns of all dumps. `SourceError` if these and their order do not fit in ``memory`` bytes."""
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
    for unit in source.columns_only().units():
        for batch in unit.read(_ROWS, _BYTES, whole=True):
            tables.append(pa.table({name: _plain(batch.columns[name], name) for name in names}))
            taken += _taken(tables[-1])
            if memory is not None and taken > memory:
                raise SourceError(
                    f"cannot match the rows of {source.files[0]} by id: the ids of all dumps must fit in memory; "
                    "raise memory (--memory), or put the dumps in one order and omit on"
                )
    if not tables:
        return pa.table({name: pa.nulls(0) for name in names})
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ColumnError(
            f"columns {', '.join(map(repr, names))} must have one type in all files, because rows are put in "
            f"another order ({str(error).splitlines()[0]}); convert one"
        ) from None


def _plain(column: pa.Array, name: str) -> pa.Array:
    """A column without dictionaries, which differ between batches, and with the floats of bits."""
    if isinstance(column.type, FloatBits) and not pt.is_integer(column.type.storage_type):
        raise ColumnError(
            f"column {name!r} must hold float32 lists where rows are matched, got {column.type.tag}; convert it"
        )
    column = numbers(column, name)
    return column.dictionary_decode() if pt.is_dictionary(column.type) else column


@contextmanager
def reordered(
    source: OpenSource, places: np.ndarray, rows: int, columns: Sequence[str], run: Mapping[str, Any], *, skips: bool
) -> Iterator[OpenSource]:
    """The rows of a dump that have a place, in the order of their places, with some of its columns.

    run: the options threads, memory and progress. skips: bool. Rows without scores are kept, as bad rows.
    """
    if isinstance(source, HiddenSource):  # its states are put in order, not its logits
        with reordered(source.states, places, rows, columns, run, skips=skips) as states:
            yield HiddenSource.of(states, source.head)
        return
    kind, room = FLOAT_TYPES[source.dtype], int(run["memory"])
    beside = _in_order(source, places, columns)
    held = _held(source)
    if held is not None:
        yield _opened(source, Gathered(held, None, _order(places)), beside, columns)
        return
    shape = (rows,) if source.task == "binary" else (rows, source.n_classes)
    with _destination(shape, kind.stored, room // 2) as (scores, put):
        recipe = _Moving(skips)
        units = list(source.units())
        starts = _starts(units)
        threads = run["threads"] if starts is not None else 1
        done = [0] * len(units)
        total = 0

        def visit(index: int, block: np.ndarray) -> None:
            nonlocal total
            begin = total if starts is None else starts[index] + done[index]
            done[index] += len(block)  # a unit has one thread, and without starts there is only one
            total += len(block) if starts is None else 0
            to = places[begin : begin + len(block)]
            if len(to) < len(block):
                raise SourceError(f"cannot read {source.files[0]} twice: it had {len(places)} ids, then more rows")
            if to.min(initial=0) < 0:
                to, block = to[to >= 0], block[to >= 0]
            put(to, block.reshape(-1, *shape[1:]))

        loop = Loop(
            recipe, iter(units), row_bytes=source.row_bytes, threads=threads, memory=room // 2, rows=source.rows,
            progress=run["progress"], visit=visit,
        )  # fmt: skip
        loop.run()
        if loop.rows != len(places):
            raise _changed(source, places, loop.rows)
        yield _opened(source, scores, beside, columns)


def _held(source: OpenSource) -> np.ndarray | None:
    """The scores of a dump that is one array in memory: (rows, C), of which rows are read in any order."""
    (part, reader), *others = source.parts
    if others or not isinstance(part, ArraysPart) or len(reader.layout.names) != 1:
        return None
    array, width = part.arrays[reader.layout.names[0]]
    if type(array) is Held and width is not None and array.values.ndim == 2:
        return array.values
    return None


def _order(places: np.ndarray) -> np.ndarray:
    """The row of each place."""
    found = np.flatnonzero(places >= 0)
    return found[np.argsort(places[found])]


def _opened(source: OpenSource, scores: Any, beside: pa.Table, columns: Sequence[str]) -> OpenSource:
    """The dump in its new order. scores: an array, `Gathered` or `Buckets`. beside: its other columns."""
    column = SCORES
    while column in columns:  # the dump may have a column of this name beside its scores
        column += "_"
    dump = {column: scores, **{name: beside[name] for name in columns}}
    as_bits = FLOAT_TYPES[source.dtype].as_bits
    opened = open_source(dump, logits=column, columns=tuple(columns), dtype=source.dtype if as_bits else None)
    return _named(opened, source)


def reordered_columns(source: OpenSource, places: np.ndarray, columns: Sequence[str]) -> OpenSource:
    """The rows of a dump without scores that have a place, in the order of their places, in memory."""
    beside = _in_order(source, places, columns)
    dump = {name: beside[name] for name in columns}
    return _named(open_source(dump, logits=None, columns=tuple(columns)), source)


def _in_order(source: OpenSource, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Columns of the rows that have a place, in the order of their places."""
    table = columns_of(source, columns)
    if columns and len(table) != len(places):
        raise _changed(source, places, len(table))
    return table.take(pa.array(_order(places))) if columns else table


def _changed(source: OpenSource, places: np.ndarray, rows: int) -> SourceError:
    return SourceError(f"cannot read {source.files[0]} twice: it had {len(places)} ids, then {rows} rows")


def _named(opened: OpenSource, source: OpenSource) -> OpenSource:
    """The dump in its new order, with the name that errors give it."""
    for part, _ in opened.parts:
        assert isinstance(part, ArraysPart)
        part.name = f"{source.files[0]} in the order of the ids"
        if all(each.inputs for each, _ in source.filled):
            part.origin = tuple(file for each, _ in source.parts for file in each.inputs)
    return opened


def _starts(units: Sequence[Any]) -> list[int] | None:
    """The first row of each unit among all; None if not every unit knows its rows."""
    counts = [unit.rows for unit in units]
    return None if None in counts else [0, *np.cumsum(counts).tolist()][:-1]


_Put = Callable[[np.ndarray, np.ndarray], None]  # takes the places of rows, and the rows


@contextmanager
def _destination(shape: tuple[int, ...], dtype: np.dtype[Any], room: int) -> Iterator[tuple[Any, _Put]]:
    """(an array of this shape or `Buckets`, the function that puts rows there)."""
    if math.prod(shape) * dtype.itemsize <= room:
        array = np.empty(shape, dtype)

        def keep(places: np.ndarray, rows: np.ndarray) -> None:
            array[places] = rows

        yield array, keep
        return
    with (
        tempfile.TemporaryDirectory(prefix="fastxent-") as folder,
        closing(Buckets(folder, shape, dtype, room // 2)) as buckets,
    ):
        yield buckets, buckets.put


@dataclass
class _Nothing:
    """The state of rows that are only moved."""

    coverage: Coverage = field(default_factory=Coverage)

    def add(self, rows: Any) -> Self:
        return self

    def absorb(self, other: Self) -> Self:
        return self

    def to_bytes(self, compression: int = 6) -> bytes:
        return b""


@dataclass(frozen=True)
class _Moving:
    """The recipe of moving rows: the scores of each batch, as they are stored."""

    skips: bool
    whole = True

    def scorer(self) -> Callable[[Batch], np.ndarray]:
        """The scores of a batch. `BadRowError` for a row without scores, unless such rows are skipped."""

        def score(batch: Batch) -> np.ndarray:
            block = batch.whole()
            if block.bad and not self.skips:
                row = min(block.bad)
                raise BadRowError(batch.where, row, block.bad[row])
            return block.values

        return score

    def empty(self) -> _Nothing:
        return _Nothing()

    def load(self, data: bytes) -> _Nothing:
        return _Nothing()

    def describe(self) -> dict[str, Any]:
        return {}
