"""Every error that a user can cause; its message is one line with the cause, the place and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fastxent.names import public_name, some


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
    tokens: (requests, positions) or None. Of each row, if the rows are tokens of responses.
    """

    file: str
    row_group: int | None
    first_row: int
    tokens: tuple[Sequence[int], Sequence[int]] | None = field(default=None, compare=False, repr=False)

    def place(self, index: int) -> Where:
        """Return the place of one row of the batch."""
        if self.tokens is None:
            return Where(self.file, self.row_group, self.first_row + index)
        request, position = (int(numbers[index]) for numbers in self.tokens)
        return Where(self.file, self.row_group, request, ([request], [position]))

    def __str__(self) -> str:
        group = "" if self.row_group is None else f", row group {self.row_group}"
        if self.tokens is None:
            return f"{self.file}{group}, row {self.first_row}"
        return f"{self.file}, line {self.tokens[0][0] + 1}, token {self.tokens[1][0]}"


class BadRowError(FastxentError, ValueError):
    """A row that cannot be scored: NaN or +inf logits, an invalid target, ragged or null logits.

    file: str. The name of the input file.
    row_group: int or None. None if the format has no row groups.
    row: int. The row within the file; in a file of responses, the line.
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
