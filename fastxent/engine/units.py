"""An evaluation divided into work units: small values that any engine can send to any machine, run, and merge.

    units = fx.plan("dump/*.parquet", by="language")      # here: footers are read, no logits
    states = [unit.run() for unit in units]                # anywhere, in any order
    result = fx.merge_states(states).result()              # bit for bit what fx.evaluate gives

A unit names files and ranges of rows in them, and the version of each file: one that has changed since is refused. It
holds no open handle and no data. Its state knows which unit of which plan it is, so that merging counts none twice and
forgets none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

from fastxent.engine.job import Job, Task
from fastxent.engine.loop import Loop
from fastxent.errors import ConfigError, SourceError, StateError
from fastxent.io.storage.identity import Identity, Version
from fastxent.options.checks import shown
from fastxent.options.declared import Options, with_options
from fastxent.options.sizes import parse_size
from fastxent.state.coverage import MIXED, MOST_PARTS, Coverage
from fastxent.state.evaluation import EvalState

if TYPE_CHECKING:
    from fastxent.io.batch import Unit
    from fastxent.io.source import OpenSource
    from fastxent.io.storage.files import File

Pieces = list[tuple["Unit", tuple["File", ...]]]  # what one worker reads by itself, and the files it reads


@dataclass(frozen=True)
class WorkUnit:
    """Unit ``index`` of ``of``: rows of some files, and how they are evaluated. Picklable, and small."""

    index: int
    of: int
    task: Task
    pieces: tuple[Unit, ...]
    files: tuple[tuple[File, Identity], ...]
    digest: str  # of the plan
    memory: int

    @property
    def rows(self) -> int | None:
        """How many rows, where that is known before they are read."""
        counts = [piece.rows for piece in self.pieces]
        return None if None in counts else sum(count for count in counts if count)

    @property
    def nbytes(self) -> int | None:
        """Bytes of its logits in memory."""
        return None if self.rows is None else self.rows * self.task.row_bytes

    def run(self, threads: int = 1) -> EvalState:
        """Read, score and sum the unit's rows. `SourceError` if a file is not the one that was planned."""
        versions = {file.name: Version.of(file) for file, _ in self.files}
        for file, planned in self.files:
            now = Identity.of(file)
            if (now.size, now.digest) != (planned.size, planned.digest):
                raise SourceError(
                    f"{file.name} has changed since it was planned: {planned.difference(now)}; plan again"
                )
        # a copy on another machine was written at another time: what counts is that it stays as it is from here on
        pieces: list[Any] = list(self.pieces)
        pieces = [replace(p, version=versions[p.file.name]) if hasattr(p, "version") else p for p in pieces]
        state, _ = Loop(self.task, iter(pieces), threads=threads, memory=self.memory).run()
        state.coverage = Coverage.part(self.digest, self.index, self.of)
        return state

    def __repr__(self) -> str:
        rows = "rows" if self.rows is None else f"{self.rows} rows"
        names = dict.fromkeys(file.name for file, _ in self.files)
        return f"<work unit {self.index + 1} of {self.of}: {rows} of {', '.join(itertools.islice(names, 3))}>"


@with_options
def plan(
    source: Any, *, unit_size: int | str = "256MB", memory: int | str = "512MB", **options: Unpack[Options]
) -> list[WorkUnit]:
    """Divide the evaluation of files into work units, for an engine of your own.

    Args:
        source: files, as in `evaluate`. What is in memory is no source of a plan: it would have to travel.
        unit_size: logits of a unit, about: small pieces of consecutive files are joined up to it. A row group that
            cannot be read in parts stays whole.
        memory: for the rows in flight while a unit runs.
        options: those of `evaluate`.

    Returns:
        Units that cover every row once. ``unit.run()`` gives an `EvalState`; `merge_states` of all of them is the
        state of the whole, the same bits as `evaluate` computes.

    >>> import os, tempfile, numpy as np, fastxent as fx
    >>> folder = tempfile.mkdtemp()
    >>> for name, values in {"logits": np.eye(4, dtype=np.float32), "target": np.array([0, 1, 2, 0])}.items():
    ...     np.save(f"{folder}/{name}.npy", values)
    >>> units = fx.plan(folder)
    >>> fx.merge_states(unit.run() for unit in units).result().metrics["accuracy"].value
    0.75
    """
    job = Job.open(source, options)
    for warning in job.source.warnings:
        warnings.warn(warning, stacklevel=3)
    return work_units(job, pieces_of(job.source), parse_size(unit_size, "unit_size"), parse_size(memory))


def merge_states(states: Iterable[EvalState | bytes]) -> EvalState:
    """The state of the rows of all, taken one at a time: an iterator of any length runs in the memory of two states.

    States as objects, or as the bytes of `EvalState.to_bytes`. `StateError` if the configurations differ, if a unit
    of a plan or a shard is there twice or missing, or if there are states of undivided runs as well, which do not say
    what they hold.
    """
    merged: EvalState | None = None
    kinds: set[bool] = set()
    for given in states:
        state = EvalState.from_bytes(given) if isinstance(given, bytes) else given
        if not isinstance(state, EvalState):
            raise ConfigError(f"states must be EvalState objects or their bytes, got {shown(given)}")
        if state.total:
            kinds.add(state.coverage.whole)
        if len(kinds) > 1:
            raise StateError(MIXED)
        merged = (EvalState.empty(state.config) if merged is None else merged).absorb(state)
    if merged is None:
        raise StateError("no states to merge; give at least one")
    if (missing := merged.coverage.missing()) is not None:
        raise StateError(f"{missing}; merge all parts together")
    return merged


def pieces_of(source: OpenSource, what: str = "a plan") -> Pieces:
    """Every piece of a source of files, in order."""
    found: Pieces = []
    for part, reader in source.filled:
        if not part.inputs:
            raise ConfigError(f"{what} needs files; {part.name} is in memory: write it to a file, or leave that out")
        found += [(unit, part.inputs) for unit in part.units(reader)]
    return found


def work_units(job: Job, pieces: Pieces, unit_size: int, memory: int) -> list[WorkUnit]:
    """Pieces joined to units of about ``unit_size`` bytes of logits."""
    known = identities(job.source)
    digest = division(job, known.values(), f"units of {unit_size}")
    groups = list(_joined(pieces, unit_size))
    return [
        WorkUnit(
            index, len(groups), job.task, tuple(unit for unit, _ in group),
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


def identities(source: OpenSource) -> dict[str, Identity]:
    """The version of every file, by name."""
    files = {file.name: file for part, _ in source.parts for file in part.inputs}
    return {name: Identity.of(file) for name, file in files.items()}


def division(job: Job, files: Iterable[Identity], how: str) -> str:
    """A digest of what is divided, and how: files by their names without folders, and by their contents, since the
    same dump may lie elsewhere on another machine, and have been written there at another time."""
    listed = [(file.name.rpartition("/")[2], file.size, file.digest) for file in files]
    text = json.dumps([job.config.to_dict(), job.source.dtype, listed, how], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---- shards ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``of`` about equal parts of a dump."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/16".

        >>> Shard.parse("3/16")
        Shard(number=3, of=16)
        """
        number, slash, of = str(text).partition("/")
        if not (slash and number.strip().isdecimal() and of.strip().isdecimal()):
            raise ConfigError(f"shard={text!r}; write 3/16 for the third of 16")
        if len(of.strip()) > 12 or int(of) > MOST_PARTS:
            raise ConfigError(f"shard={text!r}; at most {MOST_PARTS} shards")
        found = cls(int(number), int(of))
        if not 1 <= found.number <= found.of:
            raise ConfigError(f"shard={text!r}; shards of {found.of} are 1/{found.of} to {found.of}/{found.of}")
        return found

    def of_pieces(self, pieces: Pieces) -> Pieces:
        """The pieces of this shard: a run of them, cut by bytes, so that few files are in two shards."""
        sizes = [piece.nbytes or 1 for piece, _ in pieces]
        ends = list(itertools.accumulate(sizes))
        total = ends[-1] if ends else 1
        middles = [(2 * end - size) * self.of // (2 * total) for end, size in zip(ends, sizes, strict=True)]
        return [piece for piece, place in zip(pieces, middles, strict=True) if place == self.number - 1]

    def coverage(self, job: Job) -> Coverage:
        """What the state of this shard holds."""
        digest = division(job, identities(job.source).values(), f"{self.of} shards")
        return Coverage.part(digest, self.number - 1, self.of)
