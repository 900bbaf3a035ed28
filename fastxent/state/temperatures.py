"""States of the same rows at several temperatures, of all rows and of all but one part of them (a fold).

A fold depends on the row alone: on its cluster or id if there is one, else on its losses. So no metric depends on
threads, batches or files, and rows that belong together are in one fold.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from fastxent.errors import StateError
from fastxent.options.config import EvalConfig
from fastxent.scoring.rows import ScoredRows
from fastxent.state.coverage import Coverage
from fastxent.state.keys import EncodedColumn
from fastxent.state.packed import DAMAGED, pack, unpack
from fastxent.state.side import SideState

NONE = -1  # in `Member`: rows of this fold are left out


class Member(NamedTuple):
    """One state: its configuration, and for each fold the number of the temperature whose rows it sums, or `NONE`."""

    config: EvalConfig
    of_fold: tuple[int, ...]


class Temperatures:
    """The states of some members."""

    def __init__(self, members: Sequence[Member], grouped_by: str | None) -> None:
        self._members, self._grouped_by = tuple(members), grouped_by
        self.states = [SideState.empty(member.config) for member in members]
        self.coverage = Coverage()

    def add(self, scored: list[ScoredRows]) -> Temperatures:
        """Add a batch, scored at each temperature, in place."""
        fold = self._folds(scored[0])
        for member, state in zip(self._members, self.states, strict=True):
            chosen = np.array(member.of_fold)[fold]
            for i in sorted({*member.of_fold} - {NONE}):
                state.add(scored[i] if len({*member.of_fold}) == 1 else _where(scored[i], chosen == i))
        return self

    def _folds(self, rows: ScoredRows) -> np.ndarray:
        """(n,) the fold of each row."""
        folds = len(self._members[0].of_fold)
        if self._grouped_by is not None and rows.cluster is not None:
            column = EncodedColumn.of(rows.cluster, self._grouped_by)
            of_key = np.array([zlib.crc32(key.encode()) % folds for key in column.keys], np.int64)
            return np.asarray(of_key[column.index])
        bits = rows.nll.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits ^= rows.confidence.view(np.uint64)
        bits *= np.uint64(0xC2B2AE3D27D4EB4F)
        return np.asarray((bits >> np.uint64(32)) % np.uint64(folds), np.int64)

    def absorb(self, other: Temperatures) -> Temperatures:
        """Add the rows of another one, in place."""
        for mine, theirs in zip(self.states, other.states, strict=True):
            mine.absorb(theirs)
        self.coverage.absorb(other.coverage)
        return self

    def to_bytes(self, compression: int = 6) -> bytes:
        """The states as bytes that check themselves."""
        arrays = {str(i): np.frombuffer(state.to_bytes(compression), np.uint8) for i, state in enumerate(self.states)}
        return pack({"temperatures": len(arrays), "coverage": self.coverage.to_dict()}, arrays, compression)

    def load(self, data: bytes) -> Temperatures:
        """Take over what `to_bytes` of the same members gave; `StateError` for other bytes."""
        header, arrays = unpack(data)
        try:
            states = [SideState.from_bytes(arrays[str(i)].tobytes()) for i in range(int(header["temperatures"]))]
            self.coverage = Coverage.from_dict(header["coverage"])
        except DAMAGED:
            raise StateError("a damaged saved state: it does not hold rows at several temperatures") from None
        if [state.config for state in states] != [member.config for member in self._members]:
            raise StateError("it has another configuration")
        self.states = states
        return self


def _where(rows: ScoredRows, chosen: np.ndarray) -> ScoredRows:
    """Some rows. What is told about a whole batch is told once, by the states of all rows."""
    import pyarrow as pa

    mask = pa.array(chosen)
    cluster = None if rows.cluster is None else rows.cluster.filter(mask)
    by = {name: column.filter(mask) for name, column in rows.by.items()}
    told = {field.name: 0 for field in fields(rows) if field.type == "int"}
    return replace(rows.select(chosen), cluster=cluster, by=by, **told)  # type: ignore[arg-type]
