"""What can go wrong with a user's data, each with one line that says what, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from fastxent.names import public_name, some


class FastxentError(Exception):
    """Base of every error that fastxent raises about its input; the command line prints it and exits 2.

    No message holds the passwords of a URL.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(public_name(message))


class SourceError(FastxentError):
    """A file or folder that is missing, unreadable, empty, of an unknown format or broken."""


class ColumnError(FastxentError):
    """A column that is missing or of a type that cannot serve its role."""

    @classmethod
    def missing(cls, name: str, available: Iterable[str], where: str = "") -> ColumnError:
        """The error for an absent column: it names the nearest column there is."""
        available = list(available)
        near = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"columns: {some(available) or 'none'}"
        return cls(f"no column {name!r}{f' in {where}' if where else ''}; {hint}")


class ConfigError(FastxentError, ValueError):
    """An option that makes no sense, alone or with the others."""


class StateError(FastxentError):
    """A saved state that is damaged, of an unknown version, or of another configuration."""


class EngineError(FastxentError):
    """A cluster that cannot be reached or used, or that lost a worker once too often."""


class OutputError(FastxentError):
    """A result that could not be written; nothing is left under its final name."""


@dataclass(frozen=True)
class Where:
    """Where a batch begins: file, row group (None where the format has none), row within the file."""

    file: str
    row_group: int | None
    first_row: int


class BadRowError(FastxentError, ValueError):
    """A row that cannot be scored: NaN or +inf logits, target out of range, ragged or null logits.

    Attributes: ``file``, ``row_group`` (None where the format has none), ``row`` (within the file), ``reason``.
    """

    ADVICE = 'fix the dump, or count such rows instead with on_bad_row="skip" (--on-bad-row skip)'

    def __init__(self, where: Where, index: int, reason: str, advice: str = ADVICE) -> None:
        self.file = where.file
        self.row_group = where.row_group
        self.row = where.first_row + index
        self.reason, self.advice = reason, advice
        group = "" if where.row_group is None else f", row group {where.row_group}"
        super().__init__(f"{self.file}{group}, row {self.row}: {reason}; {advice}")

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return type(self), (Where(self.file, self.row_group, self.row), 0, self.reason, self.advice)
