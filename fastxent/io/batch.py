"""What io hands to the rest: a batch of logits rows and the columns beside them."""

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
class LogitsStream:
    """The same rows, a part at a time as they are read: each part is (k, C), and gone when the next is asked for.

    What every batch costs beside its logits is shared by more rows than should be in memory at once.
    """

    shape: tuple[int, int]
    dtype: str
    parts: Iterator[np.ndarray]


@dataclass(frozen=True)
class Batch:
    """n rows of a dump, in the order of the file.

    Its logits are to be read before the next batch is asked for, which may come in the same memory.
    """

    logits: Logits | LogitsStream
    columns: dict[str, pa.Array]  # every other column asked for, each n long
    where: Where
    bad: dict[int, str] = field(default_factory=dict)
    # ^ rows whose logits do not form a row (null, of another length, holding a null): index in the batch -> what is
    #   wrong with it. Their place in ``logits`` is filled with NaN, so that nothing can be dropped silently.

    @property
    def held(self) -> Logits:
        """The logits, where they are all in memory; a stream is not asked for them."""
        if not isinstance(self.logits, Logits):
            raise TypeError("the logits of this batch come part by part")
        return self.logits


class Unit(Protocol):
    """What one worker reads by itself, such as a row group. Picklable where its source is on disk."""

    @property
    def where(self) -> Where: ...
    @property
    def rows(self) -> int | None: ...  # where known before reading
    @property
    def nbytes(self) -> int | None: ...  # of logits in memory, where known
    @property
    def in_place(self) -> bool: ...  # batches are views of memory that is there already

    def batches(self, max_bytes: int) -> Iterator[Batch]:
        """The unit's rows in order; the logits of one batch take at most ``max_bytes``, one row at the least."""
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


def batch_bytes(memory: int, threads: int, row_bytes: int) -> int:
    """Logits a batch may hold, so that all workers stay within ``memory``.

    A batch of a list column takes about ten times its size while pyarrow assembles it.
    """
    share = memory // (threads * 10)
    return max(1, min(_BATCH_BYTES, share) * row_bytes // (row_bytes + _ROW_BYTES // 4))
