"""Work units: a job divided into small values that can be sent to any machine, run there, and merged.

A work unit names files and rows in them, and the version of each file: a file that has changed since is refused. It
holds no open handle and no data. Its state knows which unit of which plan it is, so that a merge counts none twice and
misses none.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from fastxent.engine.job import Job, Pieces
from fastxent.engine.loop import Loop
from fastxent.engine.recipe import Recipe, S
from fastxent.errors import SourceError
from fastxent.io.storage.identity import Identity, Version, unchanged
from fastxent.state.coverage import Coverage

if TYPE_CHECKING:
    from fastxent.io.batch import Unit
    from fastxent.io.storage.files import File


@dataclass(frozen=True)
class WorkUnit(Generic[S]):
    """Unit ``index`` of ``of``: rows of some files, and the recipe they are computed by. Picklable, and small."""

    index: int
    of: int
    recipe: Recipe[S]
    row_bytes: int  # of logits in memory
    pieces: tuple[Unit, ...]
    files: tuple[tuple[File, Identity], ...]
    digest: str  # of the plan
    memory: int

    @property
    def rows(self) -> int | None:
        """Number of rows, if it is known before they are read."""
        counts = [piece.rows for piece in self.pieces]
        return None if None in counts else sum(count for count in counts if count)

    @property
    def nbytes(self) -> int | None:
        """Bytes of the unit's logits in memory."""
        return None if self.rows is None else self.rows * self.row_bytes

    def run(self, threads: int = 1) -> S:
        """Read, score and sum the unit's rows. `SourceError` if a file is not the one that was planned."""
        with ExitStack() as stack:
            for file, planned in self.files:
                stack.enter_context(unchanged(file, Version.of(file)))
                now = Identity.of(file)
                if (now.size, now.digest) != (planned.size, planned.digest):
                    raise SourceError(
                        f"{file.name} has changed since the plan was made: {planned.difference(now)}; plan again"
                    )
            pieces = copy.deepcopy(self.pieces)  # as they arrive elsewhere: they find the versions of files anew
            state, _ = Loop(
                self.recipe, iter(pieces), row_bytes=self.row_bytes, threads=threads, memory=self.memory
            ).run()
        state.coverage = Coverage.part(self.digest, self.index, self.of)
        return state

    def __repr__(self) -> str:
        rows = "rows" if self.rows is None else f"{self.rows} rows"
        names = dict.fromkeys(file.name for file, _ in self.files)
        return f"<work unit {self.index + 1} of {self.of}: {rows} of {', '.join(itertools.islice(names, 3))}>"


def work_units(job: Job[Any], pieces: Pieces, unit_size: int, memory: int) -> list[WorkUnit[Any]]:
    """Pieces joined to units of about ``unit_size`` bytes of logits."""
    known = job.identities
    digest = job.digest(f"units of {unit_size}")
    groups = list(_joined(pieces, unit_size)) or [[]]  # a filter may have left no row group
    return [
        WorkUnit(
            index, len(groups), job.recipe, job.row_bytes, tuple(unit for unit, _ in group),
            tuple((file, known[name]) for name, file in {f.name: f for _, files in group for f in files}.items()),
            f"{digest}/{len(groups)}", memory,
        )
        for index, group in enumerate(groups)
    ]  # fmt: skip


def _joined(pieces: Pieces, unit_size: int) -> Iterator[Pieces]:
    group: Pieces = []
    size = 0
    for piece in pieces:
        nbytes = piece[0].nbytes or unit_size
        if group and size + nbytes > unit_size:
            yield group
            group, size = [], 0
        group.append(piece)
        size += nbytes
    if group:
        yield group
