"""Hidden states as a dump: rows of d numbers that become rows of C logits, some at a time, and are never stored.

A unit of logits reads a unit of states. Rows are multiplied at a place that follows from their number in the part, so
that a row of logits has the same bits however the dump is divided.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fastxent.errors import ColumnError, ConfigError, Where
from fastxent.io.batch import Batch, Block, Unit, even
from fastxent.io.heads import ROWS, Head, whole_rows
from fastxent.io.lockstep import Divisible, Feed, Piece, Span
from fastxent.io.source import OpenSource
from fastxent.io.storage.buffers import buffers
from fastxent.io.storage.files import File
from fastxent.kernels.floats import widened

_UNIT_WORK = 2e10  # multiplications of a unit: about half a second
_FEW_ROWS, _LEAST_UNITS = 192, 4  # rows of a unit, and units of a dump
_MOST_PARTS = 16  # of a unit of states that has to be read from its first row for each part


class _Taken(NamedTuple):
    """Rows of a batch of states: rows ``begin`` to ``end`` of a product."""

    rows: Batch
    begin: int
    end: int
    bad: dict[int, str]


@dataclass(frozen=True)
class HiddenUnit:
    """Rows of a unit of states, from its row ``skip`` on; all if ``rows`` is None. Picklable as the unit is.

    state_bytes: int. Bytes of a state.
    """

    unit: Unit
    head: Head
    state_bytes: int
    where: Where
    rows: int | None
    skip: int = 0

    @property
    def nbytes(self) -> int | None:
        return None if self.rows is None else self.rows * self.head.row_bytes

    def slice(self, begin: int, end: int) -> HiddenUnit:
        """Some rows of the unit."""
        where = replace(self.where, first_row=self.where.first_row + begin)
        if isinstance(self.unit, Divisible):
            return replace(self, unit=self.unit.slice(begin, end), where=where, rows=end - begin)
        return replace(self, where=where, rows=end - begin, skip=self.skip + begin)

    def divided(self, total: int | None) -> Iterator[HiddenUnit]:
        """The rows as units that begin at a multiple of `ROWS`, but for the first.

        The last ones have half as many rows, so that threads end at about the same time. Of a dump with few rows all
        are small, so that every thread has some: the weights are read for each unit, so not smaller than that.

        total: int or None. Rows of the dump.
        """
        if not self.rows:
            yield self
            return
        most = max(self.head.best_rows, int(_UNIT_WORK / (self.head.n_classes * self.head.width)))
        if total is not None:
            most = min(most, max(_FEW_ROWS, whole_rows(-(-total // _LEAST_UNITS))))
        if not isinstance(self.unit, Divisible):
            most = max(most, self.rows // _MOST_PARTS)
        step = whole_rows(even(self.rows, most))
        edges = list(range(step - self.where.first_row % ROWS, self.rows, step))
        half = whole_rows(step // 2)
        if len(edges) > 1:
            edges = [*edges[:-1], *range(edges[-2] + half, self.rows, half)]
        edges = [0, *edges, self.rows]
        yield from (self.slice(begin, end) for begin, end in itertools.pairwise(edges))

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        """Batches as of any unit. Each has one block, which is a part of a product."""
        head, first = self.head, self.where.first_row
        step = min(rows, max(1, block_bytes // head.row_bytes)) if whole else rows
        span, size = Span(self.unit, self.skip, self.rows), min(head.rows * self.state_bytes, block_bytes)
        with closing(Feed((span,), head.rows, max(size, self.state_bytes), whole=True)) as feed:
            while feed.fill():
                begin = first % ROWS
                room = head.rows + (ROWS if begin else 0)
                memory = buffers().take(room * head.width * head.compute.itemsize)
                states = memory.view(head.compute).reshape(room, head.width)
                taken = _filled(feed, states, begin)
                end = taken[-1].end
                total = max(whole_rows(end), head.least_rows)
                states[:begin], states[end:total] = 0.0, 0.0
                yield from _batches(taken, head.logits(states[:total]), head.dtype, step)
                first += end - begin


def _filled(feed: Feed, states: np.ndarray, begin: int) -> list[_Taken]:
    """Fill an array with the next states, from row ``begin`` on, as long as there are any and there is room."""
    taken: list[_Taken] = []
    while begin < len(states) and (left := feed.fill()):
        n = min(left, feed.ready(), len(states) - begin)
        block = feed.block(n)
        into = states[begin : begin + n]
        into[...] = widened(block.values, block.dtype)
        bad = {i: why.replace("logits", "hidden states") for i, why in block.bad.items()}
        finite = np.isfinite(into)
        for i in np.flatnonzero(~finite.all(axis=1)).tolist():
            place = int(finite[i].argmin())
            bad.setdefault(i, f"number {place} of the hidden state is {into[i, place]}")
            into[i] = np.nan
        taken.append(_Taken(feed.take(n), begin, begin + n, bad))
        begin += n
    return taken


def _batches(taken: list[_Taken], logits: np.ndarray, dtype: str, step: int) -> Iterator[Batch]:
    """The rows of a product as batches of at most ``step`` rows."""
    for rows, begin, end, bad in taken:
        for at in range(0, end - begin, step):
            n = min(step, end - begin - at)
            values = logits[begin + at : begin + at + n]
            block = Block(values, dtype, {i - at: why for i, why in bad.items() if at <= i < at + n})
            beside = {name: column.slice(at, n) for name, column in rows.columns.items()}
            wrong = {i - at: why for i, why in rows.bad.items() if at <= i < at + n}
            yield Batch(iter((block,)), beside, rows.where.after(at), n, wrong)


@dataclass
class HiddenSource(OpenSource):
    """A dump of hidden states that has been opened, as one of logits. ``parts`` are those of the states."""

    states: OpenSource = field(kw_only=True)
    head: Head = field(kw_only=True)

    @classmethod
    def of(cls, states: OpenSource, head: Head) -> HiddenSource:
        """The logits of a dump of states. `ColumnError` if its rows are not states of this head."""
        name, (part, reader) = head.weight.name, states.parts[0]
        column = reader.layout.names[0] if reader.layout.names else ""
        if states.task != "multiclass":
            raise ColumnError(f"head requires lists of numbers, got one number per row in {column!r} of {part.name}")
        if states.n_classes != head.width:
            fix = f"; transpose {name}" if states.n_classes == head.n_classes else ""
            raise ConfigError(
                f"head must have {states.n_classes} numbers per class, like the rows of {column!r} in {part.name}, got "
                f"{head.width} in {name} of shape {head.weight.array.shape}{fix}"
            )
        head = head.of_states(states.dtype)
        return cls(head.n_classes, head.dtype, states.schema, states.parts, states=states, head=head)

    @property
    def nbytes(self) -> int | None:
        return None if self.rows is None else self.rows * self.row_bytes

    @property
    def inputs(self) -> list[File]:
        return [*self.states.inputs, *self.head.files]

    @property
    def in_memory(self) -> str | None:
        return self.states.in_memory or (None if self.head.files else "the head")

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.states.warnings, *self.head.warnings)

    def columns_only(self) -> OpenSource:
        return self.states.columns_only()

    def pieces(self) -> Iterator[Piece]:
        for unit, files in self.states.pieces():
            hidden = HiddenUnit(unit, self.head, self.states.row_bytes, unit.where, unit.rows)
            for part in hidden.divided(self.rows):
                yield part, (*files, *self.head.files)
