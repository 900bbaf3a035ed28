"""Saved states of any kind."""

from __future__ import annotations

from fastxent.errors import StateError
from fastxent.state.comparison import MARK, CompareState
from fastxent.state.evaluation import EvalState
from fastxent.state.packed import header_of

AnyState = EvalState | CompareState


def load_state(data: bytes) -> AnyState:
    """The state of an evaluation or of a comparison; StateError if the bytes are damaged."""
    return CompareState.from_bytes(data) if MARK in header_of(data) else EvalState.from_bytes(data)


def absorbed(total: AnyState, state: AnyState) -> AnyState:
    """Add a state to another of its kind, in place."""
    if isinstance(total, CompareState) and isinstance(state, CompareState):
        return total.absorb(state)
    if isinstance(total, EvalState) and isinstance(state, EvalState):
        return total.absorb(state)
    raise StateError("the state of an evaluation cannot be merged with that of a comparison")
