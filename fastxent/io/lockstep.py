"""Dumps of the same rows, read side by side: units, batches and blocks that begin and end at the same rows in each.

The units of two dumps rarely hold the same rows: files, row groups and pages differ. A `LockstepUnit` takes units of
each dump until they end at the same row, or until they are large enough. Then the longer sides are divided. A unit that
cannot be divided is read twice. Within a lockstep unit each batch ends where a batch of any side ends, and each block
where a block does, so that nothing is copied.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from fastxent.errors import SourceError, Where
from fastxent.io.batch import Batch, Block, Unit
from fastxent.io.source import OpenSource
from fastxent.io.storage.files import File

_ENOUGH = 256 << 20  # bytes of logits of a pair from which units are divided that have to be read twice then
Piece = tuple[Unit, tuple[File, ...]]


@runtime_checkable
class Divisible(Protocol):
    """A unit of which some rows can be read without the others."""

    def slice(self, begin: int, end: int) -> Unit:
        """The unit of these rows of the unit."""
        ...


@dataclass(frozen=True)
class PairBlock(Block):
    """Consecutive rows of the first dump, and in ``other`` the same rows of the second."""

    other: Block = field(kw_only=True)


@dataclass(frozen=True)
class PairBatch(Batch):
    """Consecutive rows of the first dump, as blocks of type `PairBlock`; ``other``: the second, without blocks."""

    other: Batch = field(kw_only=True)


@dataclass(frozen=True)
class ManyBlock(Block):
    """Consecutive rows of the first dump, and in ``others`` the same rows of several others."""

    others: tuple[Block, ...] = field(kw_only=True)

    def pairs(self) -> list[PairBlock]:
        """The first dump with each of the others."""
        own = self.values, self.dtype, self.bad, self.excess
        return [PairBlock(*own, other=other) for other in self.others]


@dataclass(frozen=True)
class ManyBatch(Batch):
    """Consecutive rows of the first dump, as blocks of type `ManyBlock`; ``others``: the others, without blocks."""

    others: tuple[Batch, ...] = field(kw_only=True)

    def pairs(self) -> list[PairBatch]:
        """The first dump with each of the others, without blocks."""
        own = self.columns, self.where, self.rows, self.bad
        return [PairBatch(iter(()), *own, other=other) for other in self.others]


@dataclass(frozen=True)
class Span:
    """Rows of a unit: ``rows`` (None: all) behind the first ``skip``."""

    unit: Unit
    skip: int = 0
    rows: int | None = None

    def cut(self, place: int) -> tuple[Span, Span]:
        """Its first ``place`` rows, and the others."""
        assert self.unit.rows is not None  # units of unknown length are not divided
        whole = self.unit.rows if self.rows is None else self.skip + self.rows
        if isinstance(self.unit, Divisible):
            middle = self.skip + place
            halves = self.unit.slice(self.skip, middle), self.unit.slice(middle, whole)
            return Span(halves[0]), Span(halves[1])
        return replace(self, rows=place), Span(self.unit, self.skip + place, whole - self.skip - place)


@dataclass(frozen=True)
class LockstepUnit:
    """The same rows of two dumps or more. Picklable if all are on disk."""

    sides: tuple[tuple[Span, ...], ...]
    row_bytes: tuple[int, ...]  # of a row of logits in memory
    where: Where
    rows: int | None
    classes: int | None = None  # that all have, if one has more

    @property
    def nbytes(self) -> int | None:
        return None if self.rows is None else self.rows * sum(self.row_bytes)

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        """Batches of all dumps, which share ``block_bytes``: `PairBatch` of two, `ManyBatch` of more."""
        shares = [max(1, block_bytes * own // sum(self.row_bytes)) for own in self.row_bytes]
        most = max(1, block_bytes // sum(self.row_bytes))
        with ExitStack() as stack:
            feeds = [
                stack.enter_context(closing(Feed(spans, rows, share, whole)))
                for spans, share in zip(self.sides, shares, strict=True)
            ]
            while (n := min(feed.fill() for feed in feeds)) > 0:
                blocks = _blocks(feeds, n, most, self.classes)
                own, *others = (feed.take(n) for feed in feeds)
                first = own.columns, own.where, n, own.bad
                if len(others) == 1:
                    yield PairBatch(blocks, *first, other=others[0])
                else:
                    yield ManyBatch(blocks, *first, others=tuple(others))
                for _ in blocks:  # what the caller has left
                    pass
            longer = next((feed for feed in feeds if feed.fill()), None)
            if longer is not None:
                shorter = next(feed for feed in feeds if not feed.fill())
                where = longer.take(1).where
                raise unequal(f"{where.file} has a {where.spot} where {shorter.file or 'the other'} ends")


def _cut(block: Block, classes: int | None) -> Block:
    """A block of the first classes; None for all."""
    return block if classes is None else replace(block, values=block.values[:, :classes])


def _blocks(feeds: list[Feed], n: int, most: int, classes: int | None) -> Iterator[PairBlock | ManyBlock]:
    while n:
        k = min(n, most, *(feed.ready() for feed in feeds))
        own, *others = (_cut(feed.block(k), classes) for feed in feeds)
        first = own.values, own.dtype, own.bad, own.excess
        yield PairBlock(*first, other=others[0]) if len(others) == 1 else ManyBlock(*first, others=tuple(others))
        n -= k


_Batches = Generator[tuple[Batch, int, int], None, None]


class Feed:
    """The rows of some spans, batch by batch, and each batch block by block, in any numbers of rows."""

    def __init__(self, spans: tuple[Span, ...], rows: int, block_bytes: int, whole: bool) -> None:
        self._batches = self._read(spans, rows, block_bytes, whole)
        self._batch: Batch | None = None
        self._at = 0  # rows of the batch whose columns have been handed out
        self._limit = 0  # rows of the batch that belong to the spans
        self._block: Block | None = None
        self._used = 0  # rows of the block that have been handed out
        self.file = ""  # of the last batch

    def close(self) -> None:
        self._batches.close()

    @staticmethod
    def _read(spans: tuple[Span, ...], rows: int, block_bytes: int, whole: bool) -> _Batches:
        """Batches, each with the first of its rows that belongs to a span, and the end of those."""
        for span in spans:
            skip, left = span.skip, span.rows
            if left == 0:
                continue
            with closing(span.unit.read(rows, block_bytes, whole)) as batches:  # type: ignore[type-var]
                for batch in batches:
                    begin = min(skip, batch.rows)
                    end = batch.rows if left is None else min(batch.rows, begin + left)
                    skip -= begin
                    if left is not None:
                        left -= end - begin
                    yield batch, begin, end
                    if left == 0:
                        break

    def fill(self) -> int:
        """Rows left of the current batch, which is the next one if none are; 0 at the end."""
        while self._batch is None or self._at == self._limit:
            self._drain()
            found = next(self._batches, None)
            if found is None:
                return 0
            self._batch, begin, self._limit = found
            self.file = self._batch.where.file
            self._at = begin
            self._skip(begin)
        return self._limit - self._at

    def _drain(self) -> None:
        """Read what is left of the blocks of a batch, which may be the reader's way to its next."""
        self._block = None
        if self._batch is not None:
            for _ in self._batch.blocks:
                pass
        self._batch = None

    def _skip(self, n: int) -> None:
        while n:
            k = min(n, self.ready())
            self._used += k
            n -= k

    def take(self, n: int) -> Batch:
        """The next ``n`` rows without blocks, no more than are left of the batch."""
        assert self._batch is not None
        begin, self._at = self._at, self._at + n
        where = self._batch.where.after(begin)
        if n == self._batch.rows:
            return Batch(iter(()), self._batch.columns, where, n, self._batch.bad)
        columns = {name: column.slice(begin, n) for name, column in self._batch.columns.items()}
        bad = {i - begin: why for i, why in self._batch.bad.items() if begin <= i < begin + n}
        return Batch(iter(()), columns, where, n, bad)

    def ready(self) -> int:
        """Rows left of the current block, which is the next one if none are."""
        assert self._batch is not None
        while self._block is None or self._used == len(self._block.values):
            self._block, self._used = None, 0
            self._block = next(self._batch.blocks)
        return len(self._block.values) - self._used

    def block(self, k: int) -> Block:
        """The next ``k`` rows, no more than are `ready`."""
        assert self._block is not None
        begin, self._used = self._used, self._used + k
        if k == len(self._block.values):
            return self._block
        bad = {i - begin: why for i, why in self._block.bad.items() if begin <= i < begin + k}
        return replace(self._block, values=self._block.values[begin : begin + k], bad=bad)


# ---- the two dumps ---------------------------------------------------------------------------------------------------


@dataclass
class LockstepSource(OpenSource):
    """Dumps of the same rows that have been opened; what is not of ``sides`` is of the first, ``parts`` of all."""

    sides: tuple[OpenSource, ...] = field(kw_only=True)

    @classmethod
    def of(cls, *sides: OpenSource, n_classes: int | None = None) -> LockstepSource:
        """The dumps, or with ``n_classes`` their first classes. `SourceError` if they cannot have the same rows."""
        first, *others = sides
        streams = [part.consumed for side in sides for part, _ in side.parts]
        taken = [id(stream) for stream in streams if stream is not None]
        if len(set(taken)) < len(taken):  # each would get some of the rows
            raise SourceError("a stream must be one dump, got it for two; pass a Table or a file instead")
        for other in others:
            if n_classes is None:
                check_classes(first, other)
            if first.rows != other.rows and first.rows is not None and other.rows is not None:
                raise unequal(f"got {first.rows} in {first.files[0]} and {other.rows} in {other.files[0]}")
        parts = [part for side in sides for part in side.parts]
        count = first.n_classes if n_classes is None else n_classes
        return cls(count, ", ".join(side.dtype for side in sides), first.schema, parts, sides=sides)

    @property
    def rows(self) -> int | None:
        return next((side.rows for side in self.sides if side.rows is not None), None)

    @property
    def row_bytes(self) -> int:
        return sum(side.row_bytes for side in self.sides)

    @property
    def inputs(self) -> list[File]:
        return [file for side in self.sides for file in side.inputs]

    @property
    def in_memory(self) -> str | None:
        return next((name for side in self.sides if (name := side.in_memory) is not None), None)

    @property
    def fallbacks(self) -> list[dict[str, str]]:
        return [told for side in self.sides for told in side.fallbacks]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of each dump: a file, or a split, of one is expected in the others."""
        return tuple(dict.fromkeys(warning for side in self.sides for warning in side.warnings))

    def require_whole(self) -> None:
        for side in self.sides:
            side.require_whole()

    def pieces(self) -> Iterator[Piece]:
        """Units that cover every row of all dumps once, each with the files that it reads."""
        if self.rows is None or any(part.rows is None for part, _ in self.parts):  # read by one worker
            every = [[(Span(unit), files) for unit, files in side.pieces()] for side in self.sides]
            if any(every):
                yield self._together(every, None)
            return
        waiting: list[list[_Held]] = [[] for _ in self.sides]
        held = [0] * len(self.sides)  # rows of the spans that wait
        units = [side.pieces() for side in self.sides]
        done = 0
        while True:
            shortest = held.index(min(held))
            piece = next(units[shortest], None)
            if piece is None:
                break
            waiting[shortest].append((Span(piece[0]), piece[1]))
            held[shortest] += piece[0].rows or 0
            n = min(held)
            longer = [side[-1][0] for side, rows in zip(waiting, held, strict=True) if rows > n]
            if not n or not all(self._divides(span, n) for span in longer):
                continue
            yield self._together([_first_rows(side, n) for side in waiting], n)
            held = [rows - n for rows in held]
            done += n
        if any(held):
            other = next(k for k, rows in enumerate(held) if rows != held[0])
            raise unequal("got " + " and ".join(f"{done + held[k]} in {self.sides[k].files[0]}" for k in (0, other)))

    def _together(self, sides: list[list[_Held]], rows: int | None) -> Piece:
        first = next(side for side in sides if side)[0][0]
        where = replace(first.unit.where, first_row=first.unit.where.first_row + first.skip)
        files = {file.name: file for side in sides for _, files in side for file in files}
        spans = tuple(tuple(span for span, _ in side) for side in sides)
        cut = None if all(side.n_classes == self.n_classes for side in self.sides) else self.n_classes
        widths = tuple(side.row_bytes for side in self.sides)
        return LockstepUnit(spans, widths, where, rows, cut), tuple(files.values())

    def _divides(self, span: Span, n: int) -> bool:
        """Whether the unit ends within this span, at ``n`` rows."""
        return isinstance(span.unit, Divisible) or n * self.row_bytes >= _ENOUGH


_Held = tuple[Span, tuple[File, ...]]


def _first_rows(side: list[_Held], n: int) -> list[_Held]:
    """Take the spans of the first ``n`` rows out of those that wait."""
    taken: list[_Held] = []
    while n:
        span, files = side.pop(0)
        assert span.unit.rows is not None
        rows = span.unit.rows - span.skip if span.rows is None else span.rows
        if rows > n:
            span, rest = span.cut(n)
            side.insert(0, (rest, files))
            rows = n
        taken.append((span, files))
        n -= rows
    return taken


_ADVICE = "; class_mask (--class-mask) with 0 for what only one has compares the others"


def check_classes(a: OpenSource, b: OpenSource) -> None:
    """Raise `SourceError` if the rows of two dumps do not have the same classes."""
    if a.task != b.task or a.n_classes != b.n_classes:
        raise SourceError(
            f"two dumps that are compared must have the same classes, got {_width(a)} in {a.files[0]} and "
            f"{_width(b)} in {b.files[0]}{_ADVICE if a.task == b.task == 'multiclass' else ''}"
        )


def unequal(what: str) -> SourceError:
    """The error of two dumps with different numbers of rows."""
    return SourceError(f"two dumps that are compared row by row must have the same number of rows: {what}")


def _width(source: OpenSource) -> str:
    return "one number per row" if source.task == "binary" else str(source.n_classes)
