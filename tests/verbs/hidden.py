"""Dumps of hidden states with an output head, and the full logits that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import reference as ref
from dumps import lists
from tests.io.safetensor_files import safetensors as safetensors

N, D, C = 500, 40, 70


class Model:
    """Random states, a head and a bias, rounded to float types, and their logits in float64."""

    def __init__(
        self, seed: int = 0, n: int = N, d: int = D, c: int = C, state: str = "float32", weight: str = "float32"
    ) -> None:
        rng = np.random.default_rng(seed)
        self.states = rng.normal(size=(n, d)).astype(ref.DTYPES[state])
        self.weight = (rng.normal(size=(c, d)) * 2 / np.sqrt(d)).astype(ref.DTYPES[weight])
        self.bias = rng.normal(size=c).astype(np.float32)
        self.logits = self.states.astype(np.float64) @ self.weight.astype(np.float64).T
        self.dtype = np.float64 if "float64" in (state, weight) else np.float32
        guess = rng.integers(0, c, n)
        self.columns: dict[str, Any] = {
            "target": np.where(rng.random(n) < 0.5, self.logits.argmax(axis=1), guess),
            "kind": rng.choice(["a", "b"], n),
            "doc": rng.integers(0, 30, n),
            "id": rng.permutation(n),
        }

    def hidden(self, name: str = "hidden") -> pa.Table:
        values = self.states
        if values.dtype.name != "bfloat16":
            return pa.table({name: lists(values), **self.columns})
        table = pa.table({name: lists(values.view(np.uint16)), **self.columns})
        return table.cast(table.schema.set(0, table.schema.field(0).with_metadata({"dtype": "bfloat16"})))

    def full(self, bias: bool = False) -> pa.Table:
        return pa.table({"logits": lists((self.logits + self.bias * bias).astype(self.dtype)), **self.columns})


def parquet(path: Path, table: pa.Table, **how: Any) -> Path:
    pq.write_table(table, path, **how)
    return path


def values(metrics: Any) -> dict[str, float]:
    return {name: metric.value for name, metric in metrics.items()}
