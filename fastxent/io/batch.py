"""The result of reading: batches of logits rows and the columns beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fastxent.errors import Where

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_BYTES = 600  # a row's record, columns and temporaries, whatever its classes
_BATCH_BYTES = 8 << 20  # larger batches gain nothing


@dataclass(frozen=True)
class Logits:
    """(n, C) rows somewhere in memory, as kernels read them.

    ``values``: an array of float32, float64, float16, or uint16 holding bfloat16 bits. The class axis is
    contiguous; rows may lie any number of bytes apart; any alignment; possibly read-only.
    ``dtype``: "float32" | "float64" | "float16" | "bfloat16".
    """

    values: np.ndarray
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a batch.

    values: (k, C), as in `Logits`. Valid until the next block is read.
    dtype: "float32" | "float64" | "float16" | "bfloat16".
    bad: row of the block -> what is wrong with it: null, of another length, or holding a null. Its values are NaN.
    excess: how much the rounding of the format may add to the sum of the probabilities of a row.
    """

    values: np.ndarray
    dtype: str
    bad: dict[int, str]
    excess: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a dump, in the order of the file.

    blocks: the logits, read block by block. To be read before the next batch, which may come in the same memory.
    columns: name -> array of ``rows`` values: every column that is read beside the logits.
    where: the first row.
    rows: number of rows.
    bad: row of the batch -> why its columns do not belong together.
    """

    blocks: Iterator[Block]
    columns: dict[str, pa.Array]
    where: Where
    rows: int
    bad: dict[int, str] = field(default_factory=dict)

    def whole(self) -> Block:
        """The one block of a batch that was read as a whole."""
        (block,) = self.blocks
        return block


class Unit(Protocol):
    """Rows that one worker reads, such as a row group. Picklable if its source is on disk: the receiver determines the
    version of the file again."""

    @property
    def where(self) -> Where: ...
    @property
    def rows(self) -> int | None: ...  # if known before reading
    @property
    def nbytes(self) -> int | None: ...  # of logits in memory, if known

    def read(self, rows: int, block_bytes: int, whole: bool) -> Iterator[Batch]:
        """The unit's rows in order, as batches of at most ``rows`` rows.

        Rows that have to be copied or decoded come in blocks of at most ``block_bytes`` of logits (one row at the
        least). ``whole``: every batch is one block of at most that size.
        """
        ...


class Source(Protocol):
    """A dump that has been opened: its shape is known and every named column exists with a usable type."""

    @property
    def n_classes(self) -> int: ...
    @property
    def dtype(self) -> str: ...  # of the logits
    @property
    def rows(self) -> int | None: ...  # in all, where known before reading
    @property
    def nbytes(self) -> int | None: ...  # of logits in memory
    @property
    def schema(self) -> pa.Schema: ...  # hive partition columns included
    @property
    def files(self) -> list[str]: ...
    @property
    def fallbacks(self) -> list[dict[str, str]]: ...  # "file", "reason": what went through a slower reader

    def columns_only(self) -> Source: ...  # the same rows without their logits: a cheap look ahead
    def units(self) -> Iterator[Unit]: ...


def rows_at(where: Where, places: np.ndarray) -> np.ndarray:
    """(n,) int64. The rows within the file (the lines, the documents) at places of the batch that begins ``where``."""
    rows: np.ndarray = where.first_row + places if where.tokens is None else np.asarray(where.tokens[0])[places]
    return rows


def positions_at(where: Where, places: np.ndarray) -> np.ndarray | None:
    """(n,) int64. The positions in their documents of the rows at places of a batch; None for rows of no document."""
    return np.asarray(where.tokens[1])[places] if where.tokens is not None and where.documents else None


def batch_bytes(memory: int, threads: int, row_bytes: int) -> int:
    """Logits a batch may hold, so that all workers stay within ``memory``.

    A batch of a list column takes about ten times its size while pyarrow assembles it.
    """
    share = memory // (threads * 10)
    return max(1, min(_BATCH_BYTES, share) * row_bytes // (row_bytes + _ROW_BYTES // 4))


def even(total: int, most: int) -> int:
    """Rows of a batch, about ``most``, so that the batches of ``total`` rows are of about one size.

    A small last batch would cost as much as a large one beside its rows.
    """
    return max(1, -(-total // max(1, int(total / most + 0.75))))
