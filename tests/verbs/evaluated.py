"""The dump that is evaluated by the tests of verbs and of the loop, and what no split of the work may change."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

import fastxent as fx
import reference as ref
from dumps import lists

N, C = 331, 23
RNG = np.random.default_rng(7)
LOGITS = RNG.normal(size=(N, C)) * 3
TARGET = np.where(RNG.random(N) < 0.6, LOGITS.argmax(axis=1), RNG.integers(0, C, N))
KIND = np.array([None if k == 2 else "ab"[k] for k in RNG.integers(0, 3, N)], object)
DOC = RNG.integers(0, 40, N)
WEIGHT = RNG.choice([0.5, 1.0, 2.25, -0.25], N)
BYTES = RNG.integers(1, 9, N)


def dump(dtype: str = "float32", **columns) -> pa.Table:
    """The rows above as a table, their logits rounded to the dtype; ``columns`` replace or join."""
    values = LOGITS.astype(ref.DTYPES[dtype])
    tagged = dtype == "bfloat16"
    table = {
        "id": pa.array([f"row {i}" for i in range(N)]),
        "logits": lists(values.view(np.uint16) if tagged else values),
        "target": pa.array(TARGET),
        "kind": pa.array(KIND),
        "doc": pa.array(DOC),
        "weight": pa.array(WEIGHT),
        "n_bytes": pa.array(BYTES),
    } | columns
    schema = pa.schema(
        [pa.field(k, v.type, metadata={"dtype": "bfloat16"} if k == "logits" and tagged else None)
         for k, v in table.items()]
    )  # fmt: skip
    return pa.table(list(table.values()), schema=schema)


def rounded(dtype: str) -> np.ndarray:
    return ref.wide(LOGITS.astype(ref.DTYPES[dtype]))


def figures(result: fx.EvalResult) -> bytes:
    """What no split of the work may change."""
    found = result.to_dict()
    names = ("rows", "metrics", "calibration", "slices", "per_class", "nll_quantiles")
    return json.dumps([found[name] for name in names]).encode()


def bits_of(state: fx.EvalState) -> bytes:
    return state.to_bytes()


def with_bad(values: dict[int, float], **columns) -> pa.Table:
    x = LOGITS.astype(np.float32)
    for row, value in values.items():
        x[row, 7] = value
    return dump(logits=lists(x), **columns)
