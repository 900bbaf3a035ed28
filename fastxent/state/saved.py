"""Saved states of any kind."""

from __future__ import annotations

from fastxent.errors import StateError
from fastxent.state import comparisons
from fastxent.state.comparison import MARK, CompareState
from fastxent.state.comparisons import ComparisonsState
from fastxent.state.evaluation import EvalState
from fastxent.state.packed import header_of

AnyState = EvalState | CompareState | ComparisonsState


def load_state(data: bytes) -> AnyState:
    """The state of an evaluation or of comparisons; StateError if the bytes are damaged."""
    header = header_of(data)
    if comparisons.MARK in header:
        return ComparisonsState.from_bytes(data)
    return CompareState.from_bytes(data) if MARK in header else EvalState.from_bytes(data)


def absorbed(total: AnyState, state: AnyState) -> AnyState:
    """Add a state to another of its kind, in place."""
    if isinstance(total, CompareState) and isinstance(state, CompareState):
        return total.absorb(state)
    if isinstance(total, EvalState) and isinstance(state, EvalState):
        return total.absorb(state)
    if isinstance(total, ComparisonsState) and isinstance(state, ComparisonsState):
        return total.absorb(state)
    raise StateError("states of an evaluation, of a comparison and of several comparisons cannot be merged")
