"""The partial state of several comparisons with one dump: that of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastxent.errors import StateError
from fastxent.results.compare_many import CompareSet
from fastxent.scoring.pairs import PairRows
from fastxent.state.comparison import CompareState
from fastxent.state.coverage import Coverage
from fastxent.state.packed import DAMAGED, pack, unpack

MARK = "comparisons"  # in the header of a saved state
MOST = 1000  # comparisons in a saved state


class ComparisonsState:
    """Counts and exact sums of several comparisons with one dump, in one order."""

    def __init__(self, states: Sequence[CompareState]) -> None:
        self.states = list(states)

    @property
    def total(self) -> int:
        """Rows of any status."""
        return self.states[0].total

    @property
    def coverage(self) -> Coverage:
        """The parts of a sharded run that it holds; empty for any other rows."""
        return self.states[0].coverage

    @coverage.setter
    def coverage(self, coverage: Coverage) -> None:
        for state in self.states:
            state.coverage = coverage

    def add(self, rows: Sequence[PairRows]) -> ComparisonsState:
        """Add the scored rows of each comparison, in place."""
        for state, each in zip(self.states, rows, strict=True):
            state.add(each)
        return self

    def merge(self, other: ComparisonsState) -> ComparisonsState:
        """The state of the rows of both, as a new object. Associative and commutative."""
        return self.emptied().absorb(self).absorb(other)

    def emptied(self) -> ComparisonsState:
        """The state of no rows under the same options."""
        return ComparisonsState([state.emptied() for state in self.states])

    def absorb(self, other: ComparisonsState) -> ComparisonsState:
        """Add the rows of another state, in place; an error leaves this one as it was."""
        mine, theirs = ([state.names for state in side.states] for side in (self, other))
        if mine != theirs:
            raise StateError(f"states of different comparisons do not merge: {_listed(mine)} here, {_listed(theirs)} "
                             "there")  # fmt: skip
        for state, more in zip(self.states, other.states, strict=True):
            state.absorb(more)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ComparisonsState) and self.to_bytes(0) == other.to_bytes(0)

    __hash__ = None  # type: ignore[assignment]  # a state grows

    def __reduce__(self) -> tuple[Any, ...]:
        return ComparisonsState.from_bytes, (self.to_bytes(1),)

    def to_bytes(self, compression: int = 6) -> bytes:
        """The state as bytes that check themselves: equal states give equal bytes, at one ``compression`` (0 to 9)."""
        each = {str(k): np.frombuffer(state.to_bytes(compression), np.uint8) for k, state in enumerate(self.states)}
        return pack({MARK: len(self.states)}, each, 0)

    @classmethod
    def from_bytes(cls, data: bytes) -> ComparisonsState:
        """The inverse of `to_bytes`; StateError if the bytes are damaged or of another version."""
        header, arrays = unpack(data)
        try:
            count = header.get(MARK)
            if not (type(count) is int and 0 < count <= MOST):
                raise StateError("it is not the state of several comparisons")
            states = [CompareState.from_bytes(arrays[str(k)].tobytes()) for k in range(count)]
            if len({(state.names[0], state.total) for state in states}) > 1:
                raise ValueError("comparisons with different dumps")
        except DAMAGED as error:
            raise StateError(f"a damaged saved state: {error}") from None
        return cls(states)

    def result(self, timing: dict[str, Any] | None = None) -> CompareSet:
        """Every figure of the rows so far; the state stays as it is."""
        return CompareSet.of([state.result() for state in self.states], timing=timing)


def _listed(names: list[tuple[str, str]]) -> str:
    return ", ".join(f"{a} → {b}" for a, b in names)
