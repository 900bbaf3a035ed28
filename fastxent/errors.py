"""Every error that a user can cause; its message is one line with the cause, the place and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastxent.names import public_name, some

if TYPE_CHECKING:
    import numpy as np

    Numbers = Sequence[int] | np.ndarray


class FastxentError(Exception):
    """Base of every error that fastxent raises about its input; the command line prints it and exits with 2.

    Passwords of URLs are removed from the message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(public_name(message))


class SourceError(FastxentError):
    """A file or folder that is missing, unreadable, empty, damaged or of an unknown format."""


class ColumnError(FastxentError):
    """A column that is missing, or whose type is invalid for its role."""

    @classmethod
    def missing(cls, name: str, available: Iterable[str], where: str = "") -> ColumnError:
        """Return the error for a missing column, with the most similar name or the available columns."""
        available = list(available)
        near = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"columns: {some(available) or 'none'}"
        return cls(f"no column {name!r}{f' in {where}' if where else ''}; {hint}")


class ConfigError(FastxentError, ValueError):
    """An option that is invalid, alone or together with others."""


class StateError(FastxentError):
    """A saved state or result that is damaged, of an unknown version, or of another configuration."""


class EngineError(FastxentError):
    """A cluster that cannot be reached or used, or that lost a worker too often."""


class OutputError(FastxentError):
    """A result that could not be written; no file has its final name."""


@dataclass(frozen=True)
class Where:
    """The place where a batch begins.

    file: str. The name of the input file.
    row_group: int or None. None if the format has no row groups.
    first_row: int. The row within the file.
    tokens: (requests, positions) or None. Of each row, if the rows are tokens of responses or positions of documents.
    documents: bool. The rows are positions of documents.
    """

    file: str
    row_group: int | None
    first_row: int
    tokens: tuple[Numbers, Numbers] | None = field(default=None, compare=False, repr=False)
    documents: bool = field(default=False, compare=False, repr=False)

    def place(self, index: int) -> Where:
        """Return the place of one row of the batch."""
        if self.tokens is None:
            return Where(self.file, self.row_group, self.first_row + index)
        request, position = (int(numbers[index]) for numbers in self.tokens)
        return Where(self.file, self.row_group, request, ([request], [position]), self.documents)

    def after(self, rows: int) -> Where:
        """Return the place where the batch begins without its first rows."""
        tokens = None if self.tokens is None else (self.tokens[0][rows:], self.tokens[1][rows:])
        return replace(self, first_row=self.first_row + rows, tokens=tokens)

    @property
    def spot(self) -> str:
        """The row within the file, in words."""
        if self.tokens is None:
            return f"row {self.first_row}"
        request, position = self.tokens[0][0], self.tokens[1][0]
        return f"document {request}, position {position}" if self.documents else f"line {request + 1}, token {position}"

    def __str__(self) -> str:
        group = "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.file}{group}, {self.spot}"


class BadRowError(FastxentError, ValueError):
    """A row that cannot be scored: NaN or +inf logits, an invalid target, ragged or null logits.

    file: str. The name of the input file.
    row_group: int or None. None if the format has no row groups.
    row: int. The row within the file; in a file of responses the line, in a dump of documents the document.
    reason: str. The cause.
    """

    ADVICE = 'fix the dump, or count such rows instead with on_bad_row="skip" (--on-bad-row skip)'

    def __init__(self, where: Where, index: int, reason: str, advice: str = ADVICE) -> None:
        self._where = where.place(index)
        self.file = where.file
        self.row_group = where.row_group
        self.row = self._where.first_row
        self.reason, self.advice = reason, advice
        super().__init__(f"{self._where}: {reason}; {advice}")

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return type(self), (self._where, 0, self.reason, self.advice)
