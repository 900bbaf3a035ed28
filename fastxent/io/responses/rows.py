"""The columns of tokens, and lists that are unrolled to rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBERS = ("request", "choice", "position")  # of each row, in every file
TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()


def token_fields(numbered: bool) -> list[pa.Field]:
    """The columns of a file. numbered: bool. Its tokens have ids; without, their texts are the ids."""
    ids = WHOLE if numbered else TEXT
    found = [
        *((name, WHOLE) for name in NUMBERS),
        ("token", TEXT), ("n_bytes", WHOLE), ("target", ids), ("target_logprob", REAL),
        ("topk_ids", pa.list_(ids)), ("topk_logprobs", pa.list_(REAL)),
        *([("topk_tokens", pa.list_(TEXT))] if numbered else []),
    ]  # fmt: skip
    return [pa.field(name, kind) for name, kind in found]


class Unrolled(NamedTuple):
    """Lists as rows: a list that is null or empty is one row of nulls if it is ``kept``.

    parent: int64 (rows,). The list of each row. place: int64 (rows,). The place in it. values: the elements.
    """

    parent: np.ndarray
    place: np.ndarray
    values: pa.Array


def unroll(lists: pa.Array, *, empty: bool) -> Unrolled:
    """The elements of lists, one after another. empty: bool. A list without elements is one row too, as a null one."""
    valid = np.asarray(lists.is_valid())
    sizes = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
    alone = ~valid | ((sizes == 0) if empty else False)
    counts = np.where(alone, 1, sizes)
    parent = np.repeat(np.arange(len(lists)), counts)
    place = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = lists.flatten()
    if alone.any():
        missing = alone[parent]
        at = np.repeat(np.cumsum(sizes) - sizes, counts) + place
        values = values.take(pa.array(np.where(missing, 0, at), mask=missing))
    return Unrolled(parent, place, values)


def relisted(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Other ``values`` in the place of the elements of lists, which `pa.Array.flatten` gives."""
    sizes = pc.list_value_length(lists).fill_null(0)
    ends = np.concatenate([[0], np.cumsum(np.asarray(sizes))]).astype(np.int32)
    mask = pa.array(np.asarray(lists.is_null())) if lists.null_count else None
    return pa.ListArray.from_arrays(pa.array(ends), values, mask=mask)


def child(struct: pa.Array, name: str) -> pa.Array:
    """A field of structs, null where the struct is."""
    return struct.flatten()[struct.type.get_field_index(name)]


class Token(NamedTuple):
    """One row. ids, logprobs, texts: of its likeliest tokens. Those of a row without log-probabilities are None."""

    request: int
    choice: int
    position: int
    token: str | None
    id: int | None
    logprob: float | None
    ids: list[int] | None
    logprobs: list[float] | None
    texts: list[str | None] | None


def table_of(tokens: Iterable[Token], numbered: bool) -> dict[str, pa.Array]:
    """The columns of tokens."""
    columns: dict[str, list[Any]] = {name: [] for name in Token._fields}
    for token in tokens:
        for values, value in zip(columns.values(), token, strict=True):
            values.append(value)
    text = pa.array(columns["token"], TEXT)
    found = {name: pa.array(columns[name], WHOLE) for name in NUMBERS}
    ids, lists = ("id", "ids") if numbered else ("token", "texts")
    kind = WHOLE if numbered else TEXT
    found |= {
        "token": text,
        "n_bytes": pc.binary_length(text).cast(WHOLE),
        "target": pa.array(columns[ids], kind),
        "target_logprob": pa.array(columns["logprob"], REAL),
        "topk_ids": pa.array(columns[lists], pa.list_(kind)),
        "topk_logprobs": pa.array(columns["logprobs"], pa.list_(REAL)),
    }
    if numbered:
        found["topk_tokens"] = pa.array(columns["texts"], pa.list_(TEXT))
    return found
