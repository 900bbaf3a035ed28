"""Rows of two dumps matched by their ids: the second dump in the order of the first, for `compare`.

The ids of both dumps are read first, and say where each row goes. Then the scores of a dump that is in another order
are read once, in the order of its file, and each row is put in its place in memory, if all of them fit in half of the
limit. Else each row is read where it lies, if the files are local, in memory and not compressed. Else the rows go to a
temporary file in buckets: neighbours of the new order lie near each other there, so that both writes and reads are of
many rows. Ids and the other columns stay in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from fastxent.engine.loop import Loop
from fastxent.errors import BadRowError, SourceError
from fastxent.io.arrays import ArraysPart, Gathered, Held
from fastxent.io.batch import Batch
from fastxent.io.buckets import Buckets
from fastxent.io.hidden import HiddenSource
from fastxent.io.scattered import in_place
from fastxent.io.source import OpenSource, open_source
from fastxent.io.storage.temporary import temporary_folder
from fastxent.kernels.floats import FLOAT_TYPES
from fastxent.state.coverage import Coverage
from fastxent.verbs.matching import columns_of, order_of

SCORES = "scores"  # the column of scores of a dump in its new order, unless another has this name


@contextmanager
def reordered(
    source: OpenSource, places: np.ndarray, rows: int, columns: Sequence[str], run: Mapping[str, Any], *, skips: bool
) -> Iterator[OpenSource]:
    """The rows of a dump that have a place, in the order of their places, with some of its columns.

    run: the options threads, memory, progress and engine. skips: bool. Rows without scores are kept, as bad rows.
    """
    if isinstance(source, HiddenSource):  # its states are put in order, not its logits
        with reordered(source.states, places, rows, columns, run, skips=skips) as states:
            yield HiddenSource.of(states, source.head)
        return
    kind, room = FLOAT_TYPES[source.dtype], int(run["memory"])
    beside = _in_order(source, places, columns)
    held = _held(source)
    if held is not None:
        yield _opened(source, Gathered(held, None, order_of(places)), beside, columns)
        return
    shape = (rows,) if source.task == "binary" else (rows, source.n_classes)
    spread = run["engine"] != "local"
    fits = not spread and math.prod(shape) * kind.stored.itemsize <= room // 2
    if not fits:
        with in_place(source, order_of(places), spread=spread) as stored:
            if stored is not None:
                yield _opened(source, stored, beside, columns)
                return
    with _destination(shape, kind.stored, room // 2, fits) as (scores, put):
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
        yield _opened(source, scores.in_place() if spread else scores, beside, columns)


def _held(source: OpenSource) -> np.ndarray | None:
    """The scores of a dump that is one array in memory: (rows, C), of which rows are read in any order."""
    (part, reader), *others = source.parts
    if others or not isinstance(part, ArraysPart) or len(reader.layout.names) != 1:
        return None
    array, width = part.arrays[reader.layout.names[0]]
    if type(array) is Held and width is not None and array.values.ndim == 2:
        return array.values
    return None


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
    if not columns:
        return table
    table = table.combine_chunks()  # `take` would do so beside its result
    pa.default_memory_pool().release_unused()
    table = table.take(pa.array(order_of(places)))
    pa.default_memory_pool().release_unused()  # of the columns in the order of the file
    return table


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
def _destination(shape: tuple[int, ...], dtype: np.dtype[Any], room: int, fits: bool) -> Iterator[tuple[Any, _Put]]:
    """(an array of this shape or, unless it ``fits``, `Buckets`; the function that puts rows there)."""
    if fits:
        array = np.empty(shape, dtype)

        def keep(places: np.ndarray, rows: np.ndarray) -> None:
            array[places] = rows

        yield array, keep
        return
    with (
        temporary_folder() as folder,
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
    light = False

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
