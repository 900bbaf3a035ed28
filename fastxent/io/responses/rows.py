"""The columns of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

NUMBERS = ("request", "choice", "position")  # of each row, in every file
TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()


def token_fields(numbered: bool, listed: bool) -> list[pa.Field]:
    """The columns of a file. numbered: bool. Its tokens have ids; without, their texts are the ids. listed: bool. They
    have lists of the likeliest tokens."""
    ids = WHOLE if numbered else TEXT
    found = [
        *((name, WHOLE) for name in NUMBERS),
        ("token", TEXT), ("n_bytes", WHOLE), ("target", ids), ("target_logprob", REAL),
        *([("topk_ids", pa.list_(ids)), ("topk_logprobs", pa.list_(REAL))] if listed else []),
        *([("topk_tokens", pa.list_(TEXT))] if listed and numbered else []),
    ]  # fmt: skip
    return [pa.field(name, kind) for name, kind in found]


class Token(NamedTuple):
    """One row. ids, logprobs, texts: of its likeliest tokens. Those of a row without log-probabilities are None.

    n_bytes: int or None. The number of bytes of the token, where the response has them.
    """

    request: int
    choice: int
    position: int
    token: str | None
    id: int | None
    logprob: float | None
    ids: list[int] | None
    logprobs: list[float] | None
    texts: list[str | None] | None
    n_bytes: int | None = None


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
        "n_bytes": pc.coalesce(pa.array(columns["n_bytes"], WHOLE), pc.binary_length(text).cast(WHOLE)),
        "target": pa.array(columns[ids], kind),
        "target_logprob": pa.array(columns["logprob"], REAL),
        "topk_ids": pa.array(columns[lists], pa.list_(kind)),
        "topk_logprobs": pa.array(columns["logprobs"], pa.list_(REAL)),
    }
    if numbered:
        found["topk_tokens"] = pa.array(columns["texts"], pa.list_(TEXT))
    return found
