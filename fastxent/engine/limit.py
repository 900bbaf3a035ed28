"""The first rows of a source: units are cut where so many rows have been read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastxent.errors import ConfigError, Where
from fastxent.io.batch import Batch, Block, Unit

if TYPE_CHECKING:
    from fastxent.io.storage.files import File

Piece = tuple[Unit, "tuple[File, ...]"]


def first_rows(pieces: Iterator[Piece], limit: int | None) -> Iterator[Piece]:
    """The units of the first ``limit`` rows, the last of them cut; all units without a limit.

    ConfigError if a unit does not tell how many rows it has.
    """
    left = limit
    for unit, files in pieces:
        if left is None:
            yield unit, files
            continue
        if left == 0:
            return
        if unit.rows is None:
            raise ConfigError(
                f"limit cannot be combined with {unit.where.file}, because its number of rows is not known before it "
                "is read; convert it to Parquet first"
            )
        yield (unit if unit.rows <= left else FirstRows(unit, left)), files
        left -= min(unit.rows, left)


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a unit."""

    unit: Unit
    rows: int

    @property
    def where(self) -> Where:
        return self.unit.where

    @property
    def nbytes(self) -> int | None:
        whole, rows = self.unit.nbytes, self.unit.rows
        return None if whole is None or not rows else whole * self.rows // rows

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        left = self.rows
        with closing(self.unit.read(rows, block_bytes, whole)) as batches:  # type: ignore[type-var]
            while left:
                batch = next(batches)
                if batch.rows > left:
                    columns = {name: column.slice(0, left) for name, column in batch.columns.items()}
                    bad = {row: why for row, why in batch.bad.items() if row < left}
                    batch = replace(batch, blocks=_cut(batch.blocks, left), columns=columns, rows=left, bad=bad)
                left -= batch.rows
                yield batch


def _cut(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """The first rows of blocks."""
    while rows:
        block = next(blocks)
        if len(block.values) > rows:
            bad = {row: why for row, why in block.bad.items() if row < rows}
            block = replace(block, values=block.values[:rows], bad=bad)
        rows -= len(block.values)
        yield block
