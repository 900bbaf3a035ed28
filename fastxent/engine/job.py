"""A job: an opened source and the recipe that its rows are computed by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastxent.engine.limit import first_rows
from fastxent.engine.recipe import Recipe
from fastxent.errors import ConfigError
from fastxent.io.source import OpenSource
from fastxent.io.storage.identity import Identity

if TYPE_CHECKING:
    from fastxent.io.batch import Unit
    from fastxent.io.storage.files import File

R = TypeVar("R", bound=Recipe[Any], covariant=True)
Pieces = list[tuple["Unit", tuple["File", ...]]]  # units, each with the files that it reads


@dataclass(frozen=True)
class Job(Generic[R]):
    """A source and a recipe."""

    source: OpenSource
    recipe: R
    limit: int | None = None  # rows that are read, the first of the source; None for all

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of logits in memory."""
        return self.source.row_bytes

    def pieces(self, what: str = "a plan") -> Pieces:
        """All units of a source of files, in order; ``what`` needs them."""
        if (name := self.source.in_memory) is not None:
            raise ConfigError(f"{what} needs files, but {name} is in memory; write it to a file first")
        return list(first_rows(self.source.pieces(), self.limit))

    def units(self) -> Iterator[Unit]:
        """All units, in order."""
        return (unit for unit, _ in first_rows(self.source.pieces(), self.limit))

    @property
    def rows(self) -> int | None:
        """Number of rows, if it is known."""
        rows = self.source.rows
        return rows if rows is None or self.limit is None else min(rows, self.limit)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the files, and that some rows are not read."""
        if self.limit is None:
            return self.source.warnings
        of = "" if self.source.rows is None else f" of {self.source.rows}"
        return (*self.source.warnings, f"only the first {self.rows}{of} rows were read, because limit={self.limit}")

    def told(self) -> dict[str, Any]:
        """What `EvalResult.timing` says of the source after it has been read."""
        skipped = self.source.skipped
        return {
            "fallbacks": self.source.fallbacks,
            **({} if skipped is None else {"row_groups_skipped": skipped}),
        }

    @cached_property
    def identities(self) -> dict[str, Identity]:
        """The version of each file, by name."""
        files = {file.name: file for file in self.source.inputs}
        return {name: Identity.of(file) for name, file in files.items()}

    def describe(self) -> dict[str, Any]:
        """The options of the recipe, and which rows are read."""
        return {**self.recipe.describe(), **({} if self.limit is None else {"limit": self.limit})}

    def digest(self, how: str) -> str:
        """A digest of the recipe, of the files, and of ``how`` the work is split.

        Files count by name without folder and by contents: on another machine the same dump may lie in another folder
        and may have been written at another time.
        """
        files = [(file.name.rpartition("/")[2], file.size, file.digest) for file in self.identities.values()]
        text = json.dumps([self.describe(), self.source.dtype, files, how], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]
