"""States from files, merged one at a time. Errors name the files that cannot be merged."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from fastxent.errors import StateError
from fastxent.state.coverage import MIXED

if TYPE_CHECKING:
    from fastxent.state.coverage import Coverage
    from fastxent.state.saved import AnyState


def merged(names: tuple[str, ...], partial: bool = False) -> AnyState:
    """Return the merged state of all files.

    names: paths. Files written by ``eval --state`` or ``compare --state``.
    partial: bool. Whether shards may be missing.
    """
    from fastxent.state.saved import absorbed

    total: AnyState | None = None
    places: dict[str, str] = {}
    holders: list[tuple[str, Coverage]] = []
    kinds: dict[bool, str] = {}  # whether whole -> the first such file
    contents: dict[bytes, str] = {}
    for name in names:
        place = os.path.realpath(name)
        if place in places:
            raise StateError(f"{name} is given twice{_as(places[place], name)}; merge each state once")
        places[place] = name
        data = _read(name)
        state = _load(name, data)
        total = state.emptied() if total is None else total
        for other, held in holders:
            if (twice := held.overlap(state.coverage)) is not None:
                raise StateError(f"{twice}, in {other} and in {name}; merge each shard once")
        holders.append((name, state.coverage))
        if state.total:
            kinds.setdefault(state.coverage.whole, name)
            if len(kinds) > 1:
                raise StateError(f"{kinds[True]} is whole, {kinds[False]} is not: {MIXED}")
            if (other := contents.setdefault(hashlib.sha256(data).digest(), name)) != name:
                raise StateError(f"{name} holds the same rows as {other}; merge each state once")
        try:
            absorbed(total, state)
        except StateError as error:
            raise StateError(f"cannot merge {name} with {names[0]}: {error}") from error
    assert total is not None  # click requires at least one name
    if not partial and (missing := total.coverage.missing()) is not None:
        raise StateError(f"{missing}; give the states of all shards, or merge the others with --partial")
    return total


def _as(first: str, second: str) -> str:
    return "" if first == second else f", also as {first}"


def _read(name: str) -> bytes:
    from fastxent.state.packed import read_state

    try:
        with open(name, "rb") as file:
            return read_state(file)
    except OSError as error:
        raise StateError(f"cannot read the state {name!r}: {error.strerror}") from error


def _load(name: str, data: bytes) -> AnyState:
    from fastxent.state.saved import load_state

    try:
        return load_state(data)
    except StateError as error:
        raise StateError(f"{name}: {error}") from error
