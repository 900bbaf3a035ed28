"""Shards: about equal parts of a dump, one for each job of a job array."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from fastxent.engine.job import Job, Pieces
from fastxent.errors import ConfigError
from fastxent.options.checks import shown
from fastxent.state.coverage import MOST_PARTS, Coverage


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
            raise ConfigError(f"invalid shard {shown(text)}; expected 3/16 for the third of 16")
        if len(of.strip()) > 12 or int(of) > MOST_PARTS:
            raise ConfigError(f"shard must be one of at most {MOST_PARTS} shards, got {shown(text)}")
        found = cls(int(number), int(of))
        if not 1 <= found.number <= found.of:
            raise ConfigError(f"shard must be from 1/{found.of} to {found.of}/{found.of}, got {shown(text)}")
        return found

    def of_pieces(self, pieces: Pieces) -> Pieces:
        """The pieces of this shard: consecutive ones, split by bytes, so that few files are in two shards."""
        sizes = [piece.nbytes or 1 for piece, _ in pieces]
        ends = list(itertools.accumulate(sizes))
        total = ends[-1] if ends else 1
        middles = [(2 * end - size) * self.of // (2 * total) for end, size in zip(ends, sizes, strict=True)]
        return [piece for piece, place in zip(pieces, middles, strict=True) if place == self.number - 1]

    def coverage(self, job: Job[Any]) -> Coverage:
        """The parts that the state of this shard holds."""
        return Coverage.part(job.digest(f"{self.of} shards"), self.number - 1, self.of)
