"""Remarks of a part of a source beside its rows, with defaults for formats that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fastxent.errors import FastxentError

if TYPE_CHECKING:
    from fastxent.io.bounds import Keep
    from fastxent.io.layout import Layout, RowReader


class Storage(NamedTuple):
    """How logits are stored in a file, as its metadata has it.

    groups: int. Row groups of the file.
    compressed_bytes, uncompressed_bytes: int. Size of the logits.
    codecs, encodings: of the logits, each once.
    fallback: str or None. Why a slower reader reads some of the logits.
    """

    groups: int
    compressed_bytes: int
    uncompressed_bytes: int
    codecs: list[str]
    encodings: list[str]
    fallback: str | None


class Remarks:
    """The defaults of a part without remarks.

    documents: int or None. The number of documents whose positions are the rows.
    missing: str or None. The message that the file is cut short.
    fallback: str or None. Why the logits of some units, of those taken so far, go through a slower reader.
    notes: warnings about its rows.
    refused: name -> the error to raise if that name is used as a column.
    n_classes: int or None. Number of classes, of rows that list some of them.
    lines, first: int. Number of responses or sequences in the file, and in the files of the source before it.
    """

    documents: int | None = None
    missing: str | None = None
    fallback: str | None = None
    notes: tuple[str, ...] = ()
    refused: Mapping[str, FastxentError] = {}
    n_classes: int | None = None
    lines: int = 0
    first: int = 0

    @property
    def consumed(self) -> object | None:
        """The object whose rows can be read once, by one reader; None for other parts."""
        return None

    def prune(self, reader: RowReader, names: Sequence[str], keep: Keep) -> int:
        """Leave out row groups that ``keep`` refuses; for formats whose metadata tell. Returns how many are left out.

        names: the columns that ``keep`` looks up.
        """
        return 0

    def storage(self, names: Sequence[str], layout: Layout | None, n_classes: int | None) -> Storage | None:
        """How the logits are stored, for formats whose metadata tells; None for the others.

        names: the columns of the logits. layout, n_classes: their layout, None if it is unknown.
        """
        return None

    def row_bytes(self, names: Sequence[str]) -> int | None:
        """About how many bytes columns of a row take in memory; None if that is not known before they are read."""
        return None
