"""Mutated dumps of a document per row through `evaluate`: a seeded run of any length.

    python -m tests.verbs.fuzz_documents --count 20000 --seed 1

Each case takes a small Arrow or Parquet file of nested lists, of logits, of likeliest classes or of log-probabilities,
and breaks some of its bytes or its values. The file may be refused with an error of fastxent, or its rows are used,
ignored or bad. Anything else ends the run, and so does a metric that no row can have.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

import fastxent as fx
from tests import fuzzing
from tests.verbs.fuzz_topk import mutate

NUMBERS = (0.0, -1e4, -math.inf, math.inf, math.nan, None)
TARGETS = (0, 3, -100, -1, 4, 1 << 40, None)
OPTIONS: dict[str, dict[str, Any]] = {
    "logits": {"logits": "logits", "by": "kind", "cluster": "document"},
    "topk": {"logits": "lp", "ids": "ids", "n_classes": 4, "by": "position_bucket"},
    "logprob": {"target_logprob": "logprob", "cluster": "document"},
}


def table(rng: random.Random, kind: str) -> pa.Table:
    """A few documents. In half of the tables some entries are what a document must not hold."""
    wild, columns = rng.random() < 0.5, {"logits": ("logits", "target"), "topk": ("lp", "ids", "target")}
    names = columns.get(kind, ("logprob",))
    rows: dict[str, list[Any]] = {name: [] for name in (*names, "kind")}
    for _ in range(rng.randint(1, 4)):
        n = rng.randint(0, 4)
        entries = {
            "logits": [[rng.gauss(0, 1) for _ in range(4)] for _ in range(n)],
            "lp": [[-0.7, -1.5] for _ in range(n)],
            "ids": [rng.sample(range(4), 2) for _ in range(n)],
            "target": [rng.choice([-100, 0, 1, 2, 3, None]) for _ in range(n)],
            "logprob": [rng.choice([-rng.random(), None]) for _ in range(n)],
        }
        if wild:
            entries |= {name: _broken(rng, entries[name], name) for name in names if rng.random() < 0.3}
        for name in names:
            rows[name].append(entries[name])
        rows["kind"].append(rng.choice(["a", "b", None]))
    return pa.table({name: pa.array(values, _type(rng, name)) for name, values in rows.items()})


def _broken(rng: random.Random, values: list[Any], name: str) -> Any:
    if not values or rng.random() < 0.4:
        return rng.choice([None, [], values[:-1], values * 2])
    found, k = [list(value) if isinstance(value, list) else value for value in values], rng.randrange(len(values))
    if isinstance(found[k], list):
        found[k] = rng.choice(
            [None, [], found[k][:1], [rng.choice(TARGETS if name == "ids" else NUMBERS), *found[k][1:]]]
        )
    else:
        found[k] = rng.choice(TARGETS if name == "target" else NUMBERS)
    return found


def _type(rng: random.Random, name: str) -> pa.DataType:
    floats = rng.choice([pa.float32(), pa.float64(), pa.float16()])
    kinds = {
        "logits": pa.list_(floats), "lp": pa.list_(pa.float32()), "ids": pa.list_(pa.int64()), "target": pa.int64(),
        "logprob": floats,
    }  # fmt: skip
    return pa.list_(kinds[name]) if name in kinds else pa.string()


def read(path: Path, kind: str, rng: random.Random) -> str:
    """What became of a file."""
    shift = rng.choice([0, 0, 1, 2]) if kind != "logprob" else 0
    result = fx.evaluate(
        path, **OPTIONS[kind], shift=shift, on_bad_row=rng.choice(["skip", "skip", "error"]), threads=1
    )
    counts, metrics = result.rows, result.metrics
    if counts.total != counts.used + counts.ignored + counts.bad:
        raise AssertionError("rows that do not add up")
    for slices in result.slices.values():
        if sum(part.rows.total for part in slices.values()) != counts.total:
            raise AssertionError("slices that do not add up")
    if counts.used:
        low, high = metrics["cross_entropy"].bounds or (metrics["cross_entropy"].value,) * 2
        if not -2e-3 <= low <= high:
            raise AssertionError(f"cross_entropy from {low} to {high}")
    return "read in part" if counts.bad or counts.ignored else "read"


def run(count: int, seed: int) -> Counter[str]:
    """``count`` cases; what became of them."""
    return fuzzing.outcomes_in_folder(_outcome, count, seed, before=60)


def _outcome(rng: random.Random, folder: Path) -> str:
    kind = rng.choice(list(OPTIONS))
    data, form = mutate(table(rng, kind), rng)
    path = folder / f"documents.{form}"
    path.write_bytes(data)
    return fuzzing.outcome(lambda: read(path, kind, rng))


if __name__ == "__main__":
    fuzzing.main(run, __doc__)
